"""`lightglue localize`, `lightglue map add`, `lightglue map remove`: what they write, and how they refuse."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

pytest.importorskip("pycolmap")

from functools import partial

from lightglue.stores import MatchStore
from support.command import lightglue, plain
from test_sfm_change import NAMES, SCENE, made, place  # noqa: F401  # a map of three images

localize = partial(lightglue, "localize")
change = partial(lightglue, "map")


def test_photographs_are_localized_and_the_others_told(place, tmp_path):  # noqa: F811
    queries = tmp_path / "queries"
    queries.mkdir()
    (queries / "a 2.jpg").write_bytes((SCENE / "0006.jpg").read_bytes())
    (queries / "text.jpg").write_text("no photograph")
    camera = ("--camera", "SIMPLE_PINHOLE:920,512,341")
    result = localize(place.folder, queries, "-o", tmp_path / "out", *camera, "--refine")
    assert result.code == 0
    assert "1 of 2 localized" in result.out
    assert "text.jpg" in result.err
    assert (tmp_path / "out" / "poses.txt").read_text().startswith("a 2.jpg ")
    query = json.loads((tmp_path / "out" / "queries.jsonl").read_text().splitlines()[1])
    assert query["num_refined"] == query["num_inliers"] > 30
    again = localize(place.folder, queries / "text.jpg", "-o", tmp_path / "none", "--json")
    assert again.code == 1
    assert json.loads(again.out)["failures"][0]["name"] == "text.jpg"
    assert "None of the 1 was localized" in plain(again.err)


def test_images_are_added_and_removed_by_command(place, tmp_path):  # noqa: F811
    added = change("add", place.folder, SCENE / "0006.jpg", tmp_path / "none.jpg", "--effort", "fast")
    assert added.code == 0
    assert "added 1; 4 images have a pose" in added.out
    assert "none.jpg: There is no image there; check the path." in plain(added.err)
    notes = {pair.note for pair in MatchStore.open(place.matches, read_only=True).pairs() if pair.name1 == "0006.jpg"}
    assert notes == {"effort fast"}
    removed = change("remove", place.folder, "0006.jpg", "--json")
    assert json.loads(removed.out)["registered"] == len(NAMES)


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["MAP", ".", "-o", "OUT", "--candidates", "0"], "not a number of images"),
        (["MAP", ".", "-o", "OUT", "--camera", "WIDE"], "is no camera"),
        (["MAP", ".", "-o", "OUT"], "There is no map"),
    ],
)
def test_refusals(arguments, reason, tmp_path):
    paths = {"MAP": tmp_path / "map", "OUT": tmp_path / "out"}
    result = localize(*(paths.get(each, each) for each in arguments))
    assert result.code != 0
    assert reason in plain(result.err)
    assert not (tmp_path / "out").exists()


def test_a_camera_with_the_wrong_parameters_is_refused(tmp_path):
    from lightglue.sfm.folder import MapFolder, MapRecord

    (tmp_path / "map").mkdir()
    MapFolder(tmp_path / "map").write(
        MapRecord(Path(tmp_path), {"models": {"features": "aliked", "max_keypoints": 9, "device": "cpu", "mp": False}})
    )
    result = localize(tmp_path / "map", tmp_path, "-o", tmp_path / "out", "--camera", "PINHOLE:920,512")
    assert "PINHOLE takes 4 finite numbers" in plain(result.err)
