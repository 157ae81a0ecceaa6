"""Cameras of images that EXIF turns: of the picture as it is shown, from that of the picture as it is stored."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

pytest.importorskip("pycolmap")
from lightglue.errors import InputError
from lightglue.geometry.colmap_cameras import camera_to_colmap
from lightglue.geometry.intrinsics import MODELS, Intrinsics, from_colmap
from lightglue.geometry.orientation import fitted, turned

SIZE = (640, 480)  # of the stored picture
# EXIF's orientation: where a stored pixel is shown, and how a ray in front of the camera turns with it.
SHOWN = {
    1: (lambda x, y: (x, y), [[1, 0], [0, 1]]),
    2: (lambda x, y: (639 - x, y), [[-1, 0], [0, 1]]),
    3: (lambda x, y: (639 - x, 479 - y), [[-1, 0], [0, -1]]),
    4: (lambda x, y: (x, 479 - y), [[1, 0], [0, -1]]),
    5: (lambda x, y: (y, x), [[0, 1], [1, 0]]),
    6: (lambda x, y: (479 - y, x), [[0, -1], [1, 0]]),
    7: (lambda x, y: (479 - y, 639 - x), [[0, -1], [-1, 0]]),
    8: (lambda x, y: (y, 639 - x), [[0, 1], [-1, 0]]),
}


def camera_of(model: str) -> Intrinsics:
    """A camera of this model whose parameters are all different."""
    values = {"f": 500.0, "fx": 500.0, "fy": 520.0, "cx": 310.0, "cy": 250.0, "omega": 0.4, "alpha": 0.6, "beta": 1.1}
    small = 0.02 + 0.003 * np.arange(len(MODELS[model]))
    params = [values.get(name, float(small[at])) for at, name in enumerate(MODELS[model])]
    return Intrinsics(model, SIZE, tuple(params))


@pytest.mark.parametrize("model", [model for model in MODELS if model != "EQUIRECTANGULAR"])
@pytest.mark.parametrize("orientation", SHOWN)
def test_a_turned_camera_sees_each_ray_where_the_turned_picture_shows_it(model: str, orientation: int) -> None:
    camera = camera_of(model)
    try:
        before = camera_to_colmap(camera)
    except InputError:
        pytest.skip("this pycolmap does not have the model")
    rays = np.random.default_rng(0).uniform(-0.3, 0.3, (20, 2))
    shown, matrix = SHOWN[orientation]
    found = turned(camera, orientation)
    assert found.size == (SIZE if orientation < 5 else SIZE[::-1])
    stored = from_colmap(np.array(before.img_from_cam(np.c_[rays, np.ones(20)])))
    upright = from_colmap(np.array(camera_to_colmap(found).img_from_cam(np.c_[rays @ np.array(matrix).T, np.ones(20)])))
    np.testing.assert_allclose(upright, np.stack(shown(*stored.T), axis=1), atol=1e-9)


def test_a_camera_of_the_stored_picture_is_turned_where_its_size_tells() -> None:
    camera = camera_of("OPENCV")
    assert fitted("It", camera, (480, 640), 6) == turned(camera, 6)
    upright = turned(camera, 6)
    assert fitted("It", upright, (480, 640), 6) == upright
    assert fitted("It", camera, SIZE, 1) == camera


def test_a_camera_that_looks_the_same_both_ways_stays() -> None:
    middle = Intrinsics("SIMPLE_RADIAL", SIZE, (500.0, 319.5, 239.5, 0.1))
    for orientation in (2, 3, 4):
        assert fitted("It", middle, SIZE, orientation) == middle
    square = Intrinsics("PINHOLE", (480, 480), (500.0, 500.0, 239.5, 239.5))
    for orientation in range(2, 9):
        assert fitted("It", square, (480, 480), orientation) == square


@pytest.mark.parametrize(("size", "orientation"), [(SIZE, 3), ((480, 480), 6)])
def test_a_camera_that_could_be_of_either_picture_is_refused(size: tuple[int, int], orientation: int) -> None:
    with pytest.raises(InputError, match=r"these differ\. Give the images .*exiftool -Orientation="):
        fitted("It", replace(camera_of("OPENCV"), size=size), size, orientation)


def test_a_camera_of_another_size_is_refused_with_both_sizes() -> None:
    with pytest.raises(
        InputError, match=r"of 640 x 480 px, and the image has 320 x 500 px \(500 x 320 as it is stored"
    ):
        fitted("It", camera_of("OPENCV"), (320, 500), 8)


def test_a_panorama_is_not_turned_by_90_degrees() -> None:
    panorama = Intrinsics("EQUIRECTANGULAR", (640, 320), (640.0, 320.0))
    assert turned(panorama, 3) == panorama
    with pytest.raises(InputError, match="panorama"):
        turned(panorama, 6)
