"""The guide to training data: what it says of options is true, and its code runs."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

import pytest
from tests.test_docs import DOCS, ROOT, blocks, run_python

from lightglue.training.data_options import DataOptions, FeatureOptions
from lightglue.training.options import TrainingOptions, from_tables
from lightglue.training.sources.options import SourceOptions
from lightglue.training.toml import parse
from lightglue.training.truth.options import TruthOptions
from lightglue.training.views.options import HomographyOptions, PhotometricOptions

SECTIONS = {
    "[[data.sources]]": SourceOptions,
    "[data]": DataOptions,
    "[data.homography]": HomographyOptions,
    "[data.photometric]": PhotometricOptions,
    "[data.truth]": TruthOptions,
    "[features]": FeatureOptions,
}


def literal(value: object) -> str:
    """As TOML has it."""
    if value is None:
        return '"none"'
    if isinstance(value, (tuple, list)):
        return f"[{', '.join(map(literal, value))}]"
    return f'"{value}"' if isinstance(value, str) else str(value)


@pytest.mark.parametrize("section", SECTIONS)
def test_the_options_of_training_data_are_all_there_with_their_defaults_and_what_they_are(section: str) -> None:
    told = (DOCS / "training-data.md").read_text().split(f"`{section}`\n")[1].split("\n`[")[0]
    rows = re.findall(r"^\| `(\w+)` \| `(.*?)` \| (.*) \|$", told, re.MULTILINE)
    expected = []
    for field in dataclasses.fields(SECTIONS[section]):
        default = field.default if field.default is not dataclasses.MISSING else field.default_factory()  # type: ignore[misc]
        if not dataclasses.is_dataclass(default) and field.name != "sources":
            expected.append((field.name, literal(default), field.metadata["option"].help))
    assert rows == expected


@pytest.mark.parametrize("name", ["training.md", "training-data.md", "training-judging.md"])
def test_the_configurations_of_the_guides_can_be_read(name: str) -> None:
    found = [from_tables(parse(text)) for text in blocks(DOCS / name, "toml")]
    assert found
    assert all(options != TrainingOptions() for options in found)


def test_the_guides_stages_of_a_gpu_machine_are_the_published_ones() -> None:
    *_, first, second = [from_tables(parse(text)) for text in blocks(DOCS / "training.md", "toml")]
    assert (first.run.batch, first.features.keypoints, first.data.sources[0].kind) == (128, 512, "images")
    assert (second.run.batch, second.features.keypoints, second.data.sources[0].kind) == (32, 2048, "depth")


def test_the_guide_to_training_data_runs_as_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import torch

    (tmp_path / "assets").symlink_to(ROOT / "assets")
    monkeypatch.chdir(tmp_path)
    names = run_python(DOCS / "training-data.md")
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "[ 0 -1] [ 0 -1]"
    assert int(lines[1].split()[0]) > 3
    features = names["Grid"]().extract(torch.rand(3, 64, 80))
    assert features["keypoints"].shape == (20, 2)
    assert features["descriptors"].shape == (20, 3)
