"""The options of the stages: loaded without torch, stated once, checked; and cameras in words."""

from __future__ import annotations

import importlib
import subprocess
import sys
from dataclasses import fields, is_dataclass

import numpy as np
import pytest

from lightglue.errors import InputError
from lightglue.geometry.camera_text import parse_camera, parse_known_camera
from lightglue.geometry.intrinsics import MODELS, Intrinsics, params_from_colmap, params_to_colmap
from lightglue.images import DEFAULT_MAX_PIXELS
from lightglue.models.choice import Models
from lightglue.sfm import options as module
from lightglue.sfm.options import (
    EngineOptions,
    ExtractOptions,
    LocalizeOptions,
    MatchOptions,
    PairOptions,
    ReconstructOptions,
    SfmOptions,
    TrackOptions,
    VerifyOptions,
)

SIFT = Models("sift", 100, "cpu", False)


def test_options_and_camera_texts_load_neither_torch_nor_numpy():
    code = "import lightglue.sfm.options, lightglue.geometry.camera_text, sys; print('\\n'.join(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert not set(done.stdout.split()) & {"torch", "numpy", "pycolmap", "cv2", "typer"}


def test_every_option_says_what_it_is():
    records = [record for name in module.__all__ if is_dataclass(record := getattr(module, name))]
    assert len(records) == 14
    for record in records:
        for each in fields(record):
            if each.metadata or (record not in (SfmOptions, LocalizeOptions) and each.name != "models"):
                info = each.metadata["option"]
                assert info.help.rstrip().endswith((".", "…")), each.name
                assert not info.flag or info.group, each.name


def test_models_are_stated_once():
    options = SfmOptions(SIFT, ExtractOptions(extract={"resize": 640}))
    assert options.extract.models is options.match.models is SIFT
    assert options == SfmOptions(SIFT, ExtractOptions(SIFT, {"resize": 640}), MatchOptions(SIFT))
    with pytest.raises(InputError, match="the map"):
        SfmOptions(SIFT, match=MatchOptions(Models("disk", 100)))
    with pytest.raises(InputError, match="has no models; give them"):
        ExtractOptions().settings()
    with pytest.raises(InputError, match="gives no probability"):
        SfmOptions(Models("doghardnet"), match=MatchOptions(min_overlap=0.5))


def test_settings_are_those_that_stores_were_made_with():
    """Stores of earlier versions hold these very values, and refuse others."""
    assert ExtractOptions(SIFT, {"resize": 640}).settings() == {
        "revision": 1,
        "features": "sift",
        "max_keypoints": 100,
        "extractor": {},
        "extract": {"resize": 640},
        "mp": False,
        "device": "cpu",
        "descriptor_dtype": "float16",
    }
    assert MatchOptions(Models("aliked", 9, "cuda:1", True, thresholds={"filter_threshold": 0.2})).settings() == {
        "revision": 1,
        "features": "aliked",
        "matcher": "lightglue",
        "thresholds": {"filter_threshold": 0.2},
        "mp": True,
        "device": "cuda",
        "min_overlap": None,
    }
    assert ExtractOptions().max_pixels == DEFAULT_MAX_PIXELS


def test_numbers_of_numpy_are_kept_as_pythons():
    assert type(VerifyOptions(seed=np.int64(3)).seed) is int
    assert type(PairOptions(overlap=np.int32(3)).overlap) is int


def test_none_is_for_options_that_are_none_by_default():
    assert ReconstructOptions(threads=None, max_error=None) == ReconstructOptions()
    with pytest.raises(InputError, match="seed is None; give an integer of at least 0"):
        VerifyOptions(seed=None)  # type: ignore[arg-type]
    with pytest.raises(InputError, match=r"max_shift is None; give a number above 0\.$"):
        TrackOptions(max_shift=None)  # type: ignore[arg-type]


def test_a_number_out_of_range_is_named_with_the_range():
    with pytest.raises(InputError, match=r"max_error is 1000000\.0; give a number of px above 0 and below 1e\+06\."):
        ReconstructOptions(max_error=1e6)
    with pytest.raises(InputError, match=r"pose_angle is 181; give a number above 0 up to 180\."):
        PairOptions(pose_angle=181)
    assert PairOptions(pose_angle=180).pose_angle == 180


@pytest.mark.parametrize(
    "make",
    [
        lambda: EngineOptions("spark"),
        lambda: EngineOptions(address="a:1"),
        lambda: VerifyOptions(max_error=float("nan")),
        lambda: VerifyOptions(confidence=1.0),
        lambda: VerifyOptions(seed=True),
        lambda: PairOptions(("nearby",)),
        lambda: LocalizeOptions(map_camera=1),
    ],
)
def test_nonsense_is_refused(make):
    with pytest.raises(InputError):
        make()


@pytest.mark.parametrize(
    ("text", "camera"),
    [
        ("900,901, 512,384", Intrinsics("PINHOLE", None, (900, 901, 512, 384))),
        ("PINHOLE:920,920,511.5,383.5", Intrinsics("PINHOLE", None, (920, 920, 511.5, 383.5))),
        ("SIMPLE_RADIAL,1024,768,900,512,384,0.1", Intrinsics("SIMPLE_RADIAL", (1024, 768), (900, 511.5, 383.5, 0.1))),
        ("pinhole,8,6,9,9,4,3", Intrinsics("PINHOLE", (8, 6), (9, 9, 3.5, 2.5))),
    ],
)
def test_cameras_in_words(text, camera):
    assert parse_known_camera(text) == parse_camera(text) == camera
    assert parse_camera(" AUTO ") == "auto"


@pytest.mark.parametrize(
    "text",
    ["", "auto", "900,900,512", "900,900,512,nan", "-1,900,512,384", "PINHOLE:1,2", "HOLE:1,2,3", "PINHOLE,8,6,9",
     "PINHOLE,8.5,6,9,9,4,3", "PINHOLE:", ":1,2,3,4", "PINHOLE:0,9,4,3", "PINHOLE:a,9,4,3"],
)  # fmt: skip
def test_what_is_no_camera_is_refused(text):
    with pytest.raises(InputError, match=r"is no camera|takes|has no camera model"):
        parse_known_camera(text)


def test_the_table_of_models_is_colmaps():
    pycolmap = pytest.importorskip("pycolmap")
    for name in pycolmap.CameraModelId.__members__:
        if name != "INVALID":
            camera = pycolmap.Camera(model=name, width=80, height=60, params=[1.0] * len(MODELS[name]))
            assert tuple(part.strip() for part in camera.params_info.split(",")) == MODELS[name]
            moved = [i for i, p in enumerate(params_to_colmap(name, camera.params)) if p != 1]
            assert moved == list(camera.principal_point_idxs())
            assert params_from_colmap(name, params_to_colmap(name, camera.params)) == list(camera.params)


@pytest.mark.parametrize(
    ("old", "new", "name"),
    [
        ("extract", "stages.extract", "ExtractOptions"),
        ("match", "stages.match", "MatchOptions"),
        ("tracks", "stages.refine", "TrackOptions"),
        ("verify", "stages.verify", "export_database"),
        ("localizer", "localization.localizer", "Localizer"),
    ],
)
def test_documented_modules_are_found_where_they_were(old, new, name, monkeypatch):
    pytest.importorskip("pycolmap")
    monkeypatch.delitem(sys.modules, f"lightglue.sfm.{old}", raising=False)
    with pytest.warns(DeprecationWarning, match=f"is now lightglue.sfm.{new}"):
        moved = importlib.import_module(f"lightglue.sfm.{old}")
    assert getattr(moved, name) is getattr(importlib.import_module(f"lightglue.sfm.{new}"), name)


def test_the_room_offers_its_names_and_no_others():
    pytest.importorskip("pycolmap")
    import lightglue.sfm as room

    assert {"Localizer", "SfmOptions", "build_map"} < set(room.__all__)
    assert all(getattr(room, name).__name__ == name for name in room.__all__)
    with pytest.raises(AttributeError, match="nothing"):
        room.nothing  # noqa: B018


def test_only_what_needs_pycolmap_loads_it():
    """Features, pairs and matches are made where it is not installed, and what needs it says so."""
    code = """
import sys
sys.modules["pycolmap"] = None
import lightglue.sfm.pipeline, lightglue.sfm.stages.refine, lightglue.sfm.retrieval.index
from lightglue.errors import LightGlueError
try:
    import lightglue.sfm.stages.verify
except LightGlueError as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120)
    assert "pip install" in done.stdout
