"""Which camera an image gets: from EXIF, from the user, guessed; shared or its own."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("pycolmap")
from lightglue.errors import InputError
from lightglue.geometry import colmap_cameras
from lightglue.geometry.intrinsics import Intrinsics
from lightglue.sfm.colmap.cameras import CameraOptions, assign_cameras

SIZES = {"a/0.jpg": (640, 480), "a/1.jpg": (640, 480), "b/0.jpg": (640, 480), "b/1.jpg": (480, 640)}


def with_exif(path: Path, focal35: int, orientation: int = 1) -> None:
    from PIL import Image

    path.parent.mkdir(parents=True, exist_ok=True)
    exif = Image.Exif()
    exif[0x0112] = orientation
    exif.get_ifd(0x8769)[0xA405] = focal35  # FocalLengthIn35mmFilm
    Image.fromarray(np.zeros((48, 64, 3), np.uint8)).save(path, exif=exif)


def test_without_exif_the_focal_length_is_guessed_and_the_principal_point_is_the_centre() -> None:
    (camera,) = assign_cameras({"x.jpg": (640, 480)}, None).cameras
    assert camera == Intrinsics("SIMPLE_RADIAL", (640, 480), (768.0, 319.5, 239.5, 0.0), False, False)


@pytest.mark.parametrize(("mode", "count"), [("auto", 3), ("per_image", 4)])
def test_images_share_cameras_as_the_mode_says(mode: Any, count: int) -> None:
    assigned = assign_cameras(SIZES, None, CameraOptions(mode=mode))
    assert len(assigned.cameras) == count
    assert all(assigned.cameras[at].size == SIZES[name] for name, at in assigned.of_image.items())


@pytest.mark.parametrize("mode", ["single", "per_folder"])
def test_images_of_different_sizes_cannot_share_one(mode: Any) -> None:
    with pytest.raises(InputError, match="640 x 480 px and 'b/1.jpg' 480 x 640 px"):
        assign_cameras(SIZES, None, CameraOptions(mode=mode))


def test_exif_gives_the_focal_length_of_the_image_as_it_is_turned(tmp_path: Path) -> None:
    with_exif(tmp_path / "wide.jpg", 24)
    with_exif(tmp_path / "turned.jpg", 24, orientation=6)
    assigned = assign_cameras({"wide.jpg": (64, 48), "turned.jpg": (48, 64)}, tmp_path)
    wide, turned = (assigned.cameras[assigned.of_image[name]] for name in ("wide.jpg", "turned.jpg"))
    assert wide.has_prior_focal
    assert not wide.is_fixed
    assert wide.params[0] == turned.params[0] != 1.2 * 64
    assert turned.size == (48, 64)
    assert turned.params[1:3] == (23.5, 31.5)


def test_another_focal_length_is_another_camera(tmp_path: Path) -> None:
    for name, focal in (("0.jpg", 24), ("1.jpg", 24), ("2.jpg", 50)):
        with_exif(tmp_path / name, focal)
    assigned = assign_cameras(dict.fromkeys(("0.jpg", "1.jpg", "2.jpg"), (64, 48)), tmp_path)
    assert assigned.of_image["0.jpg"] == assigned.of_image["1.jpg"] != assigned.of_image["2.jpg"]


def test_known_intrinsics_are_fixed_and_half_a_pixel_is_added_for_colmap_once() -> None:
    options = CameraOptions("PINHOLE", (600, 610, 319.5, 239.5))
    (camera,) = assign_cameras({"0.jpg": (640, 480)}, None, options).cameras
    assert camera.is_fixed
    assert camera.has_prior_focal
    made = colmap_cameras.camera_to_colmap(camera)
    assert list(made.params) == [600, 610, 320, 240]
    assert colmap_cameras.camera_from_colmap(made, is_fixed=True) == camera


def test_a_table_gives_single_images_their_matrix_and_the_others_are_guessed(tmp_path: Path) -> None:
    table = tmp_path / "cameras.json"
    table.write_text(json.dumps({"a/0.jpg": [[500, 0, 300], [0, 501, 200], [0, 0, 1]]}))
    assigned = assign_cameras(SIZES, None, CameraOptions(table=str(table)))
    known = assigned.cameras[assigned.of_image["a/0.jpg"]]
    assert known == Intrinsics("PINHOLE", (640, 480), (500, 501, 300, 200), True, True)
    assert not assigned.cameras[assigned.of_image["a/1.jpg"]].is_fixed


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("[]", "give an object"),
        ("{", "cannot be read"),
        ('{"other.jpg": 1}', "none of the images"),
        ('{"a/0.jpg": [[500, 0], [0, 500]]}', "a/0.jpg"),
        ('{"a/0.jpg": [[500, 9, 300], [0, 500, 200], [0, 0, 1]]}', "skew"),
    ],
)
def test_a_table_that_is_none_is_refused(tmp_path: Path, content: str, told: str) -> None:
    table = tmp_path / "cameras.json"
    table.write_text(content)
    with pytest.raises(InputError, match=told):
        assign_cameras(SIZES, None, CameraOptions(table=str(table)))


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"mode": "shared"}, "choose one of auto"),
        ({"params": (1.0,)}, "which camera model"),
        ({"model": "PINHOLE", "params": (float("nan"),)}, "finite"),
        ({"model": "PINHOLE", "params": (1.0,), "table": "x"}, "one of the two"),
    ],
)
def test_options_without_meaning_are_refused(options: dict[str, Any], told: str) -> None:
    with pytest.raises(InputError, match=told):
        CameraOptions(**options)


@pytest.mark.parametrize(("model", "params"), [("PINHOLE", (600.0,)), ("BROWNIE", (1.0,)), ("BROWNIE", None)])
def test_a_model_colmap_does_not_have_or_parameters_it_does_not_take_are_refused(model: str, params: Any) -> None:
    with pytest.raises(InputError, match="PINHOLE takes 4|no camera model 'BROWNIE'"):
        assign_cameras({"0.jpg": (640, 480)}, None, CameraOptions(model, params))
