"""`lightglue sfm` and `lightglue map`: what is said on the command line, and what they say."""

from __future__ import annotations

import json

import pytest

pytest.importorskip("pycolmap")

from typer.testing import CliRunner

from lightglue.cli.app import app
from lightglue.geometry.intrinsics import Intrinsics
from lightglue.sfm.change import ChangeResult
from lightglue.sfm.options import CameraOptions

pytestmark = pytest.mark.usefixtures("each_image_is_looked_at_once", "charts_undrawn")


def run(*arguments):
    return CliRunner().invoke(app, [str(each) for each in arguments])


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("PINHOLE:920,920,511.5,383.5", CameraOptions("PINHOLE", (920, 920, 511.5, 383.5))),
        ("920,920,511.5,383.5", CameraOptions("PINHOLE", (920, 920, 511.5, 383.5))),
        ("PINHOLE,1024,768,920,920,512,384", CameraOptions("PINHOLE", (920, 920, 511.5, 383.5), (1024, 768))),
    ],
)
def test_a_camera_has_one_grammar(tmp_path, text, expected, monkeypatch):
    seen = []
    monkeypatch.setattr("lightglue.sfm.pipeline.build_map", lambda *args, **_: seen.append(args[2]) or exit(0))
    assert run("sfm", tmp_path, "-o", tmp_path / "map", "--camera", text).exit_code == 0
    assert seen[0].cameras == expected
    assert seen[0].cameras.known == Intrinsics("PINHOLE", expected.size, (920, 920, 511.5, 383.5))


def test_a_file_of_pairs_is_a_source(tmp_path, monkeypatch):
    seen = []
    monkeypatch.setattr("lightglue.sfm.pipeline.build_map", lambda *args, **_: seen.append(args[2]) or exit(0))
    run("sfm", tmp_path, "-o", tmp_path / "map", "--pairs-file", "pairs.txt")
    run("sfm", tmp_path, "-o", tmp_path / "map", "--pairs-file", "pairs.txt", "--pairs", "gps,sequential")
    assert [options.pairs.sources for options in seen] == [("file",), ("gps", "sequential", "file")]
    assert {options.pairs.file for options in seen} == {"pairs.txt"}


@pytest.mark.parametrize("camera", ["PINHOLE", "PINHOLE:", "PINHOLE:1,x", ""])
def test_what_is_no_camera_is_refused_with_an_example(tmp_path, camera):
    told = run("sfm", tmp_path, "-o", tmp_path / "map", "--camera", camera)
    assert told.exit_code == 2
    assert "MODEL:PARAMS" in told.output


def test_an_address_without_ray_is_refused_not_ignored(tmp_path):
    result = run("sfm", tmp_path, "-o", tmp_path / "map", "--address", "127.0.0.1:6379")
    assert result.exit_code == 2
    assert "--engine ray only" in " ".join(result.output.replace("│", " ").split())


def test_a_changed_map_that_may_be_wrong_says_so(tmp_path, monkeypatch):
    done = ChangeResult(("b.jpg",), ("a.jpg", "b.jpg"), 1.0, doubt="2 strong pairs contradict it")
    monkeypatch.setattr("lightglue.sfm.change.add_images", lambda *_, **__: done)
    told = run("map", "add", tmp_path, tmp_path / "b.jpg")
    assert told.exit_code == 0
    assert "warning: The map may be wrong: 2 strong pairs contradict it." in told.stderr
    asked = run("map", "add", tmp_path, tmp_path / "b.jpg", "--json")
    assert json.loads(asked.stdout)["doubt"] == done.doubt
