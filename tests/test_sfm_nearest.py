"""Maps without LightGlue: SIFT and nearest neighbours from end to end, where no weights can be had."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

pytest.importorskip("pycolmap")

import cv2

from lightglue.sfm.folder import MapFolder
from support.command import Run, lightglue
from support.corner import photograph, take_photographs

SMALL = ("--features", "sift", "--resize", "none")  # the photographs have 320 x 240 px
WITHOUT_WEIGHTS = (*SMALL, "--max-keypoints", "400", "--matcher", "nearest")
pytestmark = pytest.mark.usefixtures("each_image_is_looked_at_once", "charts_undrawn")


@pytest.fixture(scope="module")
def photographs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("photographs")
    take_photographs(folder, 5)
    return folder


@pytest.fixture
def no_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """LightGlue is never made, and the cache of weights is empty."""
    monkeypatch.setattr("lightglue.models.choice.Models.matcher_class", _only_nearest)
    monkeypatch.setenv("LIGHTGLUE_CACHE", str(tmp_path / "empty"))


def _only_nearest(models: object) -> object:
    from lightglue.matching.nearest import NearestNeighbor

    assert models.matcher == "nearest"  # type: ignore[attr-defined]
    return NearestNeighbor


def test_a_sift_map_is_made_added_to_and_localized_in_without_weights(
    photographs: Path, tmp_path: Path, no_weights: None
) -> None:
    images, folder = tmp_path / "images", tmp_path / "map"
    shutil.copytree(photographs, images)
    for number, name in ((5, "new.png"), (2, "query.png")):
        cv2.imwrite(str(tmp_path / name), photograph(number))
    made = succeeded(lightglue("sfm", images, "-o", folder, *WITHOUT_WEIGHTS, "--json"))
    assert json.loads(made.out.splitlines()[-1])["model"]["registered"] == 5
    refused = lightglue("map", "add", folder, tmp_path / "new.png", "--effort", "fast")
    assert "is for LightGlue; with the matcher nearest leave it out" in " ".join(refused.err.split())
    assert not (images / "new.png").exists()
    added = succeeded(lightglue("map", "add", folder, tmp_path / "new.png", "--json"))
    assert json.loads(added.out.splitlines()[-1])["registered"] == 6
    found = succeeded(lightglue("localize", folder, tmp_path / "query.png", "-o", tmp_path / "poses", "--json"))
    assert json.loads(found.out.splitlines()[-1])["localized"] == 1


def test_the_stages_take_the_matcher_where_they_match_and_keep_it(
    photographs: Path, tmp_path: Path, no_weights: None
) -> None:
    folder = tmp_path / "map"
    succeeded(lightglue("map", "extract", photographs, "-o", folder, *SMALL, "--max-keypoints", "300"))
    succeeded(lightglue("map", "pairs", folder))
    matched = succeeded(lightglue("map", "match", folder, "--matcher", "nearest", "--json"))
    assert json.loads(matched.out.splitlines()[-1])["matched"] == 10
    assert MapFolder(folder).read().models.matcher == "nearest"  # for `map add` and `localize`
    again = succeeded(lightglue("map", "match", folder, "--json"))
    assert json.loads(again.out.splitlines()[-1])["kept"] == 10
    succeeded(lightglue("map", "extract", photographs, "-o", folder, *SMALL, "--max-keypoints", "300"))
    assert MapFolder(folder).read().models.matcher == "nearest"


def test_another_matcher_than_that_of_the_matches_is_refused_and_not_remembered(
    photographs: Path, tmp_path: Path, no_weights: None
) -> None:
    folder = tmp_path / "map"
    options = ("-o", folder, *SMALL, "--max-keypoints", "100")
    for stage in (("extract", photographs, *options), ("pairs", folder), ("match", folder, "--matcher", "nearest")):
        succeeded(lightglue("map", *stage))
    for refused in (
        lightglue("map", "match", folder, "--matcher", "lightglue"),
        lightglue("sfm", photographs, *options),
    ):
        assert refused.code == 1
        assert "matcher is 'nearest' there and 'lightglue' here" in refused.err
        assert MapFolder(folder).read().models.matcher == "nearest"


def succeeded(run: Run) -> Run:
    assert run.code == 0, run.err
    return run
