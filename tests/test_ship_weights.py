"""A finished run becomes a file of the package: float16, with licence, record and row."""

from __future__ import annotations

import csv
import importlib.util
import json
import sys
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from types import ModuleType

import pytest
import torch
from safetensors.torch import load_file

from lightglue.matching import checkpoint
from lightglue.matching.calibration import Calibration
from lightglue.matching.config import LightGlueConfig
from lightglue.matching.lightglue import LightGlue
from lightglue.matching.network import LightGlueNetwork
from lightglue.matching.overlap import Coefficients
from lightglue.stores import Source
from lightglue.training.data_options import DataOptions, FeatureOptions
from lightglue.training.journal import View, append
from lightglue.training.options import NetworkOptions, TrainingOptions, as_toml
from lightglue.training.sources.options import SourceOptions
from support.matching import SMALL, random_features, small_state

ABOUT = "trained on 2 images, 'quoted', and so long a text: " + "more than one line of the table, " * 3 + "it is"
FITTED = checkpoint.Fitted(Coefficients(0.1, 0.2, 0.3), Calibration(0.1, 0.9))
ROWS = [
    ("a.jpg", "somebody/photos", "x/a.png", "CC BY-SA 4.0", "Ann"),
    ("b.jpg", "other/images", "b.png", "CC0-1.0", ""),
]


def imported(path: Path, patch: pytest.MonkeyPatch) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"imported_{path.stem}", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    patch.setitem(sys.modules, spec.name, module)  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def ship() -> ModuleType:
    return imported(Path(__file__).parents[1] / "scripts" / "ship_weights.py", pytest.MonkeyPatch())


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """What `lightglue train --finish` leaves, of a small matcher."""
    folder = tmp_path / "run"
    (folder / "best").mkdir(parents=True)
    config = LightGlueConfig(**{**SMALL, "input_dim": 128, "add_scale_ori": False})
    network = LightGlueNetwork(config)
    network.load_state_dict(small_state(input_dim=128), strict=False)
    record = {"step": 7, "config": "of another machine: /home/me"}
    weights = folder / "best" / "weights.safetensors"
    checkpoint.save(weights, network, config, "sift", None, fitted=FITTED, record=record)
    sources = (SourceOptions(path=str(tmp_path / "train" / "images")),)
    options = TrainingOptions(
        DataOptions(sources=sources, pool=str(tmp_path / "pool")),
        FeatureOptions("sift"),
        NetworkOptions(init_from=str(tmp_path / "first" / "weights.safetensors")),
    )
    (folder / "config.toml").write_text(as_toml(options))
    (tmp_path / "pool").mkdir()
    append(
        tmp_path / "pool" / "views.jsonl",
        [view(tmp_path / "train/images" / name, k) for name in ("a.jpg", "b.jpg") for k in (0, 1)],
    )
    write_csv(tmp_path / "train" / "images.csv", ROWS)
    return folder


def view(path: Path, number: int) -> View:
    name = f"images/{path.name}#{number}"
    return View(name, "images", "", path.name, str(path), number, Source(1, 2, "3"), "l", (4, 3), (4, 3), "d", 50)


def write_csv(path: Path, rows: list[tuple[str, ...]]) -> None:
    path.parent.mkdir(exist_ok=True)
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([("file", "repository", "path", "licence", "author"), *rows])


def shipped(ship: ModuleType, run: Path, monkeypatch: pytest.MonkeyPatch, *more: str) -> Path:
    words = [str(run), "sift_lightglue", "--images", str(run.parent / "train/images.csv"), "--folder", str(run.parent)]
    monkeypatch.setattr("sys.argv", ["ship", *words, "--about", ABOUT, "--commit", "abc", *more])
    ship.main()
    return run.parent / "sift_lightglue_own.safetensors"


def test_it_is_float16_and_matches_as_before_but_for_rounding(ship, run, monkeypatch):
    path = shipped(ship, run, monkeypatch)
    assert {value.dtype for value in load_file(path).values()} == {torch.float16}
    before, after = LightGlue.load(run / "best" / "weights.safetensors"), LightGlue.load(path)
    assert (after.overlap, after.calibration) == (FITTED.overlap, FITTED.calibration)
    assert torch.equal(after.confidence_thresholds, before.confidence_thresholds)
    pair = {f"image{k}": random_features(40, seed=k, dim=128) for k in (0, 1)}
    off = {"depth_confidence": -1, "width_confidence": -1, "filter_threshold": 0.0}
    one, other = (LightGlue.load(p, **off)(pair) for p in (run / "best" / "weights.safetensors", path))
    torch.testing.assert_close(one["matching_scores0"], other["matching_scores0"], atol=2e-3, rtol=0)
    assert (one["matches0"] == other["matches0"]).float().mean() > 0.9


def test_its_record_names_every_image_with_author_and_licence_and_no_place_of_this_machine(ship, run, monkeypatch):
    figures = run.parent / "figures.json"
    figures.write_text(json.dumps({"tum18": 70.0}))
    found = checkpoint.read_description(shipped(ship, run, monkeypatch, "--figures", str(figures)))
    assert found is not None
    assert found.licence == "Apache-2.0"
    record = found.record
    assert record["images"] == {
        "count": 2,
        "licences": {"CC BY-SA 4.0": 1, "CC0-1.0": 1},
        "sources": [
            {"repository": "other/images", "licence": "CC0-1.0", "author": "", "paths": ["b.png"]},
            {"repository": "somebody/photos", "licence": "CC BY-SA 4.0", "author": "Ann", "paths": ["x/a.png"]},
        ],
    }
    assert (record["step"], record["figures"], record["commit"]) == (7, {"tum18": 70.0}, "abc")
    assert 'init_from = "first"' in record["config"]
    assert str(run.parent) not in json.dumps(record)
    assert "/home" not in json.dumps(record)


@pytest.mark.parametrize(
    ("rows", "why"),
    [(ROWS[:1], "b.jpg stands in none of the CSVs"), ([ROWS[0], (*ROWS[1][:3], "CC BY-NC 2.0", "")], "CC BY-NC 2.0")],
)
def test_images_without_a_licence_and_those_of_a_closed_one_are_refused(ship, run, monkeypatch, rows, why):
    write_csv(run.parent / "train" / "images.csv", rows)
    with pytest.raises(SystemExit, match=why):
        shipped(ship, run, monkeypatch)
    assert not (run.parent / "sift_lightglue_own.safetensors").exists()


def test_images_of_an_earlier_run_count_too(ship, run, monkeypatch):
    first = run.parent / "first"
    (first / "pool").mkdir(parents=True)
    (first / "config.toml").write_text(
        as_toml(replace(TrainingOptions(), data=replace(DataOptions(), sources=(SourceOptions(path="x"),))))
    )
    (first / "log.jsonl").write_text('{"kind": "step", "step": 5, "seconds": 60.0}\n')
    append(first / "pool" / "views.jsonl", [view(run.parent / "train/images/c.jpg", 0)])
    with pytest.raises(SystemExit, match=r"c.jpg stands in none"):
        shipped(ship, run, monkeypatch, "--earlier", str(first))
    write_csv(run.parent / "train" / "images.csv", [*ROWS, ("c.jpg", "r", "c.png", "MIT", "C")])
    found = checkpoint.read_description(shipped(ship, run, monkeypatch, "--earlier", str(first)))
    assert found is not None
    assert found.record["images"]["count"] == 3
    assert found.record["earlier"][0]["step"] == 5


def test_a_run_that_was_not_finished_is_refused(ship, run, monkeypatch):
    weights = run / "best" / "weights.safetensors"
    LightGlue.load(weights)
    found = checkpoint.read_description(weights)
    assert found is not None
    matcher = LightGlue.load(weights)
    checkpoint.save(weights, matcher, replace(matcher.checked_conf(), weights=None), "sift", None, record={})
    with pytest.raises(SystemExit, match="--finish"):
        shipped(ship, run, monkeypatch)


def test_its_row_goes_into_the_table_in_place_of_an_older_one(ship, run, monkeypatch, tmp_path):
    table = tmp_path / "table.py"
    table.write_text((ship.PACKAGE / "table.py").read_text())
    monkeypatch.setattr(ship, "PACKAGE", tmp_path)
    path = shipped(ship, run, monkeypatch, "--write")
    shipped(ship, run, monkeypatch, "--write", "--licence", "MIT")
    row = imported(table, monkeypatch).OWN["sift_lightglue_own"]
    assert (row.filename, row.size, row.licence) == (path.name, path.stat().st_size, "MIT")
    assert (row.sha256, row.replaces, row.about) == (
        sha256(path.read_bytes()).hexdigest(),
        "sift_lightglue",
        ABOUT,
    )
    assert row.commercial
