"""Options of matching two images: read without torch, checked where they are made."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lightglue.errors import InputError
from lightglue.geometry.options import GEOMETRIES, METHODS, ROBUST_METHODS
from lightglue.models.choice import Models
from lightglue.options import option_info
from lightglue.pairs import options
from lightglue.pairs.options import OutputOptions, PairOptions
from lightglue.sfm.options import LocalizeOptions, MatchOptions, SfmOptions
from support.command import lightglue, plain


def test_options_are_read_without_torch_and_numpy() -> None:
    script = "import sys, lightglue.pairs.options; print({'torch', 'numpy', 'cv2', 'matplotlib'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"


@pytest.mark.parametrize("owner", [PairOptions, OutputOptions])
def test_each_option_says_what_it_is_and_to_which_group_it_belongs(owner: Any) -> None:
    for field in dataclasses.fields(owner):
        info = option_info(owner, field.name)
        assert info.help.endswith(".")
        assert info.group in ("Features", "Matching", "Geometry", "Output", "Machine")


def test_names_of_geometries_and_estimators() -> None:
    assert GEOMETRIES == ("homography", "fundamental", "essential", "relative_pose")
    assert {*ROBUST_METHODS, "dlt"} == set(METHODS)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"auto_rotate": 1}, "auto_rotate is 1; give True or False"),
        ({"auto_rotate": True, "rotation_step": 7}, "'7' is not a number of degrees that 360 is a multiple of"),
        ({"auto_rotate": True, "rotation_step": 0}, "rotation_step is 0; give a number of degrees"),
        ({"rotation_step": 45}, "rotation_step is 45; it has an effect with auto_rotate only"),
        ({"min_overlap": float("nan")}, "min_overlap is nan; give a number from 0 to 1"),
        ({"min_overlap": 2}, "min_overlap is 2; give a number from 0 to 1"),
        ({"refine": "yes"}, "refine is 'yes'; give True or False"),
        ({"geometry": "homograpy"}, "geometry is 'homograpy'; choose one of homography, fundamental"),
        ({"geometry": "essential"}, "essential needs the cameras of both images: camera0 and camera1, as fx,fy,cx,cy"),
        ({"geometry": "relative_pose", "camera0": "auto"}, "relative_pose needs the cameras of both images"),
        ({"geometry": "homography", "camera0": "auto"}, "A camera is for the geometry relative_pose and essential"),
        ({"camera1": (1.0, 1.0, 0.0, 0.0)}, "A camera is for the geometry relative_pose and essential"),
        ({"seed": 1}, "estimator, threshold and seed have an effect with a geometry only"),
        ({"geometry": "homography", "estimator": "dlt"}, "estimator is 'dlt'; choose one of poselib, opencv, pycolmap"),
        ({"geometry": "homography", "threshold": 0}, "threshold is 0; give a number of px above 0"),
        ({"geometry": "homography", "threshold": float("inf")}, "threshold is inf"),
        ({"geometry": "homography", "seed": -1}, "seed is -1; give an integer from 0 to 2147483647"),
    ],
)
def test_what_makes_no_sense_or_does_not_go_together_is_refused(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message.replace("(", r"\(")):
        PairOptions(**wrong)


def test_an_estimator_that_is_not_installed_is_named_with_its_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(options, "find_spec", lambda name: None)
    assert PairOptions(geometry="homography", estimator="opencv").estimator == "opencv"
    with pytest.raises(InputError, match="pycolmap is not installed; run `pip install pycolmap`, or choose opencv"):
        PairOptions(geometry="homography", estimator="pycolmap")


@pytest.mark.parametrize(
    ("features", "matcher", "message"),
    [
        ("doghardnet", "lightglue", "no overlap for the features doghardnet, only for aliked"),
        ("disk", "nearest", "no thresholds and no overlap"),
    ],
)
def test_an_overlap_is_asked_only_of_models_that_know_one(features: str, matcher: str, message: str) -> None:
    models = Models(features, matcher=matcher)
    PairOptions().check_models(models)
    with pytest.raises(InputError, match=message):
        PairOptions(min_overlap=0.5).check_models(models)


def test_numbers_in_words() -> None:
    parse_threshold, parse_seed = (option_info(PairOptions, name).parse for name in ("threshold", "seed"))
    assert options.parse_rotation_step("45") == 45
    assert parse_threshold("2") == 2
    assert parse_seed("7") == 7
    for parse, wrong in (
        (options.parse_rotation_step, "7"),
        (options.parse_rotation_step, "-90"),
        (parse_threshold, "inf"),
        (parse_seed, "1.5"),
        (parse_seed, "2147483648"),
    ):
        with pytest.raises(InputError, match=f"'{wrong}' is not a"):
            parse(wrong)


def limited(models: Models, seconds: float | None) -> Iterator[Callable[[], Any]]:
    """Whatever takes a limit, called with one."""
    from lightglue import match_pair, match_pairs
    from lightglue.evaluation.run import Job
    from lightglue.sfm.localization.localize import localize
    from lightglue.sfm.localization.localizer import Localizer

    effort, query = models.effort, LocalizeOptions(max_seconds=seconds)
    nothing: Any = None
    yield lambda: PairOptions(max_seconds=seconds).check_models(models)
    yield lambda: match_pair(nothing, nothing, nothing, nothing, effort=effort, max_seconds=seconds)
    yield lambda: match_pairs(nothing, nothing, [], effort=effort, max_seconds=seconds)
    yield lambda: Job(models, max_seconds=seconds)
    yield lambda: MatchOptions(models, max_seconds=seconds)
    yield lambda: SfmOptions(models, match=MatchOptions(max_seconds=seconds))
    yield lambda: localize("map", "queries", "out", query, models=models)
    yield lambda: Localizer(nothing, nothing, nothing, (nothing, nothing), nothing, query, effort=effort)


@pytest.mark.parametrize("seconds", [3, None])
@pytest.mark.parametrize("effort", ["fast", "normal"])
def test_a_limit_of_time_is_refused_where_nothing_is_searched(effort: Any, seconds: float | None) -> None:
    for call in limited(Models("aliked", effort=effort), seconds):
        with pytest.raises(InputError, match=f"max_seconds is {seconds}, .* effort is {effort}; .* ask for hard"):
            call()
    models = Models("aliked", effort="hard")
    PairOptions(max_seconds=seconds).check_models(models)
    assert SfmOptions(models, match=MatchOptions(max_seconds=seconds)).match.settings()["max_seconds"] == seconds


@pytest.mark.parametrize("command", ["match", "eval", "sfm", "localize"])
def test_no_command_takes_a_limit_of_time_that_has_no_effect(command: str, tmp_path: Path) -> None:
    from lightglue.sfm.folder import MapFolder, MapRecord

    made = {"features": "aliked", "max_keypoints": 9, "device": "cpu", "mp": False}
    (tmp_path / "map").mkdir()
    MapFolder(tmp_path / "map").write(MapRecord(tmp_path, {"models": made}))
    pairs = [{"image0": "a.png", "image1": "b.png", "H": np.eye(3).tolist()}]
    (tmp_path / "pairs.json").write_text(json.dumps({"kind": "homography", "pairs": pairs}))
    words = {
        "match": ("match", tmp_path / "a.png", tmp_path / "b.png"),
        "eval": ("eval", "pairs", tmp_path / "pairs.json", "-o", tmp_path / "out"),
        "sfm": ("sfm", tmp_path, "-o", tmp_path / "out"),
        "localize": ("localize", tmp_path / "map", tmp_path, "-o", tmp_path / "out"),
    }
    done = lightglue(*words[command], "--max-seconds", "3")
    assert done.code != 0
    assert "--max-seconds is 3.0, which is for the effort hard" in plain(done.err)
    assert not (tmp_path / "out").exists()
