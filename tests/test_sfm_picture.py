"""The picture of a model: cameras and points are in it, in light and dark, whatever the model lacks."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import cv2
import numpy as np
import pytest

from lightglue.errors import InputError
from lightglue.sfm.colmap.model import Model, read_model
from lightglue.sfm.report.picture import save_picture
from support.colmap_model import write_model

pytest.importorskip("pycolmap", reason="pycolmap is not installed")


@pytest.fixture
def model(tmp_path: Path) -> Model:
    return read_model(write_model(tmp_path / "model"))


def pixels(path: Path) -> np.ndarray:
    image = cv2.imread(str(path))
    assert image is not None
    return image[..., ::-1].astype(int)


def count_near(image: np.ndarray, colour: tuple[int, int, int]) -> int:
    return int((np.abs(image - colour).max(axis=2) < 24).sum())


def test_cameras_and_points_are_drawn_in_their_colours(model: Model, tmp_path: Path) -> None:
    save_picture(model, tmp_path / "p.png", title="a <b> $x$ 北京")
    image = pixels(tmp_path / "p.png")
    assert image.shape == (936, 1560, 3)
    assert count_near(image, (213, 94, 0)) > 500
    assert count_near(image, (200, 100, 50)) > 500
    assert image[-1, 0].tolist() == [255, 255, 255]


def test_dark_is_light_on_dark(model: Model, tmp_path: Path) -> None:
    save_picture(model, tmp_path / "p.png", dark=True)
    assert pixels(tmp_path / "p.png").mean() < 60


def test_a_model_without_points_or_without_images_is_drawn_and_an_empty_one_told(model: Model, tmp_path: Path) -> None:
    no_images = dataclasses.replace(model, images=())
    save_picture(no_images, tmp_path / "points.png")
    assert count_near(pixels(tmp_path / "points.png"), (200, 100, 50)) > 500
    nothing = {"points": np.zeros((0, 3)), "colours": np.zeros((0, 3), np.uint8), "errors": np.zeros(0)}
    nothing["track_lengths"] = np.zeros(0, np.int64)
    images = tuple(dataclasses.replace(each, points=each.points[:0], errors=each.errors[:0]) for each in model.images)
    no_points = dataclasses.replace(model, images=images, **nothing)
    save_picture(no_points, tmp_path / "cameras.png")
    assert count_near(pixels(tmp_path / "cameras.png"), (213, 94, 0)) > 500
    with pytest.raises(InputError, match="nothing to show"):
        save_picture(dataclasses.replace(no_points, images=()), tmp_path / "none.png")


def test_an_unknown_ending_is_told(model: Model, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"\.png"):
        save_picture(model, tmp_path / "p.bmp")
