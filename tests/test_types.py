"""Types that users see: keywords equal to the options they stand for, results, and what a type checker finds."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from lightglue.extractors import keywords
from lightglue.extractors.aliked import AlikedConfig
from lightglue.extractors.disk import DiskConfig
from lightglue.extractors.dog import DogConfig
from lightglue.extractors.raco import RacoConfig
from lightglue.extractors.superpoint import SuperPointConfig
from lightglue.extractors.xfeat import XFeatConfig
from lightglue.images import ImagePreprocessor
from lightglue.matching.config import PRESETS, LightGlueConfig
from lightglue.matching.keywords import FeatureName, LightGlueKeywords, NearestNeighborKeywords
from lightglue.matching.nearest import NearestNeighborConfig
from lightglue.types import ExtractKeywords

SNIPPET = """
from pathlib import Path

from typing_extensions import assert_type

from lightglue import ALIKED, DISK, SIFT, LightGlue, SuperPoint, load_image, match_files, match_pair, match_pairs
from lightglue.pairs import MatchedPair, PairFeatures, PairMatches, PairOptions

extractor = ALIKED(max_num_keypoints=2048, detection_threshold=-1).eval()
matcher = LightGlue(features="aliked", mp=True, pruning="tuned").eval()
image0, image1 = load_image("a.jpg"), load_image(Path("b.jpg"))
features = extractor.extract(image0, resize=1024, tile=None)
feats0, feats1, matches01 = match_pair(extractor, matcher, image0, b"bytes", resize=1024)
assert_type(feats0, PairFeatures)
assert_type(matches01, PairMatches)
pair = match_pair(extractor, matcher, "a.jpg", Path("b.jpg"), geometry="relative_pose", camera0="auto", camera1="auto")
assert_type(pair, MatchedPair)
assert_type(match_pairs(extractor, matcher, [(image0, image1)], refine=True), list[MatchedPair])
assert_type(pair.overlap, float | None)
match_files("a.jpg", b"", PairOptions(refine=True), output=[".json", Path("m.png")]).encoded[".json"].hex()
SIFT(nms_radius=None), DISK(weights="epipolar"), SuperPoint(max_num_keypoints=None)
# wrong
ALIKED(max_keypoints=2048)
ALIKED(detection_threshold="low")
LightGlue(features="alike")
LightGlue(filter_treshold=0.1)
extractor.extract(image0, resise=1024)
match_pair(extractor, matcher, image0, image1, resise=1024)
match_pair(extractor, matcher, image0, image1, geometry="homograpy")
match_pairs(extractor, matcher, [image0])
match_files("a.jpg", "b.jpg", PairOptions(estimator="poselb"))
"""
WRONG = SNIPPET[: SNIPPET.index("# wrong")].count("\n") + 1


@pytest.mark.parametrize(
    ("typed", "config", "more"),
    [
        (keywords.AlikedKeywords, AlikedConfig, set()),
        (keywords.DiskKeywords, DiskConfig, set()),
        (keywords.DogKeywords, DogConfig, set()),
        (keywords.RacoKeywords, RacoConfig, set()),
        (keywords.SuperPointKeywords, SuperPointConfig, set()),
        (keywords.XFeatKeywords, XFeatConfig, set()),
        (LightGlueKeywords, LightGlueConfig, {"name"}),
        (NearestNeighborKeywords, NearestNeighborConfig, set()),
    ],
)
def test_keywords_are_the_fields_of_their_configuration(typed: Any, config: Any, more: set[str]) -> None:
    assert set(typed.__annotations__) == {field.name for field in dataclasses.fields(config)} | more
    assert not typed.__required_keys__


def test_keywords_of_extract_are_those_of_resizing_and_of_views() -> None:
    assert set(ExtractKeywords.__annotations__) == {*ImagePreprocessor.default_conf, "tile", "pyramid", "scales"}


def test_feature_names_are_those_of_the_presets() -> None:
    assert set(FeatureName.__args__) == set(PRESETS)


def test_a_type_checker_knows_the_types_and_finds_wrong_options(tmp_path: Path) -> None:
    pytest.importorskip("mypy")
    (tmp_path / "snippet.py").write_text(SNIPPET)
    # The package's own files, and few lines instead of torch: the same in seconds, whatever is installed or cached.
    here = Path(__file__).parent
    (tmp_path / "mypy.ini").write_text(f"[mypy]\nmypy_path = {here / 'support/stubs'}:{here.parent / 'src'}\n")
    settings = ("--strict", "--python-version=3.11", "--follow-imports=silent", "--ignore-missing-imports")
    alone = ("--no-site-packages", "--no-incremental", "--cache-dir=/dev/null", "--config-file=mypy.ini")
    command = [sys.executable, "-m", "mypy", *settings, *alone, "snippet.py"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path)
    errors = [line for line in done.stdout.splitlines() if ": error: " in line and "snippet.py:" in line]
    lines = {int(line.split("snippet.py:")[1].split(":")[0]) for line in errors}
    assert lines == set(range(WRONG + 1, SNIPPET.count("\n") + 1)), done.stdout + done.stderr
