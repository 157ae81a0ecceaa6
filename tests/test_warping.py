"""One image laid over another: which pixel comes from where, and the picture of both."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from lightglue.drawing.warping import align_image, plot_overlay
from lightglue.errors import InputError

IDENTITY = np.eye(3)


def noise(height: int = 40, width: int = 60, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


def moved(x: float, y: float) -> np.ndarray:
    return np.array([[1, 0, x], [0, 1, y], [0, 0, 1.0]])


# -- the aligned image -------------------------------------------------------------------------------------------------


def test_the_identity_changes_nothing() -> None:
    aligned = align_image(noise(), IDENTITY, (60, 40))
    assert aligned.dtype == np.uint8
    np.testing.assert_array_equal(aligned[..., :3], noise())
    assert (aligned[..., 3] == 255).all()


def test_convention_H_leads_from_pixels_of_image_0_to_pixels_of_image_1() -> None:
    """A translation by whole px is exact, and there is nothing where image 1 ends."""
    aligned = align_image(noise(), moved(5, -3), (60, 40))
    np.testing.assert_array_equal(aligned[3:, :55, :3], noise()[:37, 5:])
    assert (aligned[3:, :55, 3] == 255).all()
    assert not aligned[:3].any()
    assert not aligned[:, 55:].any()


def test_half_a_pixel_is_interpolated() -> None:
    aligned = align_image(noise(), moved(0.5, 0), (59, 40))
    expected = (noise()[:, :-1].astype(float) + noise()[:, 1:]) / 2
    assert np.abs(aligned[..., :3] - expected).max() <= 1


def test_the_result_has_the_size_of_image_0() -> None:
    enlarged = align_image(noise(), np.diag([0.5, 0.5, 1]), (119, 79))
    assert enlarged.shape == (79, 119, 4)
    np.testing.assert_array_equal(enlarged[::2, ::2, :3], noise())


@pytest.mark.parametrize("factor", [1e-200, -3.0, 1e200])
def test_the_scale_and_the_sign_of_H_do_not_matter(factor: float) -> None:
    H = np.array([[1.1, 0.1, 3], [-0.05, 0.9, 2], [1e-3, 2e-3, 1]])
    np.testing.assert_array_equal(align_image(noise(), factor * H, (60, 40)), align_image(noise(), H, (60, 40)))


def same_tensor() -> Any:
    return torch.from_numpy(noise()).permute(2, 0, 1) / 255


def same_gradient_tensor() -> Any:
    return same_tensor().double().requires_grad_()


def same_deep() -> Any:
    return noise().astype(np.uint16) * 257


def same_opaque() -> Any:
    return np.dstack([noise(), np.full((40, 60), 7, np.uint8)])


@pytest.mark.parametrize("image", [same_tensor, same_gradient_tensor, same_deep, same_opaque])
def test_any_kind_of_image_is_taken(image: Any) -> None:
    np.testing.assert_array_equal(align_image(image(), IDENTITY, (60, 40))[..., :3], noise())


@pytest.mark.parametrize("image", [noise()[..., 0], torch.from_numpy(noise()[None, ..., 0]) / 255])
def test_a_gray_image_gets_three_equal_channels(image: Any) -> None:
    aligned = align_image(image, torch.eye(3), (60, 40))
    np.testing.assert_array_equal(aligned[..., :3], np.repeat(noise()[..., :1], 3, axis=2))


def test_deep_gray_and_masks_are_taken() -> None:
    gray = noise()[..., 0]
    np.testing.assert_array_equal(align_image(gray.astype(np.uint16) * 257, IDENTITY, (60, 40))[..., 0], gray)
    np.testing.assert_array_equal(align_image(gray > 99, IDENTITY, (60, 40))[..., 0], np.where(gray > 99, 255, 0))


def test_values_that_are_no_colours_do_no_harm() -> None:
    image = torch.tensor([[[0.5, torch.nan, torch.inf, -torch.inf, 2.0, -1.0]]])
    assert align_image(image, IDENTITY, (6, 1))[0, :, 0].tolist() == [128, 0, 255, 0, 255, 0]


def test_what_lies_behind_the_camera_is_not_shown_mirrored() -> None:
    """The horizon, where the last coordinate is 0, is column 20: beyond it rays meet the plane behind the camera."""
    H = np.array([[1, 0, 0], [0, 1, 0], [-0.05, 0, 1.0]])
    image = np.full((400, 600), 200, np.uint8)
    shifted = moved(300, 200) @ H  # so that image 1 has something to show on both sides
    for sign in (1, -1):
        aligned = align_image(image, sign * shifted, (30, 40))
        assert (aligned[:, :10, 3] == 255).all()
        assert not aligned[:, 21:].any()


def test_a_mostly_mirrored_side_is_taken_for_the_front() -> None:
    H = moved(300, 200) @ np.array([[1, 0, 0], [0, 1, 0], [-0.05, 0, 1.0]])
    aligned = align_image(np.full((400, 600), 200, np.uint8), H, (300, 40))
    assert not aligned[:, :20].any()
    assert (aligned[:, 60:, 3] == 255).all()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"H": np.zeros((3, 3))}, "maps the image to a line; give a matrix of rank 3"),
        ({"H": np.ones((3, 3))}, "rank 3"),
        ({"H": np.full((3, 3), np.nan)}, "finite numbers"),
        ({"H": np.eye(4)}, r"give \(3, 3\) finite numbers"),
        ({"size": (0, 4)}, "give the width and height of image 0"),
        ({"size": (4, -4)}, "width and height"),
        ({"size": (4, 4, 3)}, "width and height"),
        ({"size": ("a", "b")}, "width and height"),
        ({"size": None}, "size is None"),
        ({"size": (32_768, 1)}, "more than 32,767 px"),
        ({"image1": np.zeros((1, 32_768), np.uint8)}, "more than 32,767 px"),
        ({"image1": np.zeros((5, 5), np.int64)}, "dtype int64; give uint8"),
        ({"image1": np.zeros((0, 5), np.uint8)}, "shape"),
        ({"image1": np.zeros((2, 3, 4, 5), np.uint8)}, "shape"),
        ({"image1": None}, "shape"),
    ],
)
def test_what_cannot_be_aligned_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        align_image(**{"image1": noise(), "H": IDENTITY, "size": (60, 40), **changes})


# -- the picture of both -----------------------------------------------------------------------------------------------


def panes(figure: Figure) -> list[np.ndarray]:
    return [np.asarray(axes.images[0].get_array()) for axes in figure.axes]


def titles(figure: Figure) -> list[str]:
    return [text.get_text() for text in figure.texts]


def test_the_picture_shows_both_and_then_both_in_turn() -> None:
    first, second = np.full((80, 80, 3), 50, np.uint8), np.full((80, 80, 3), 200, np.uint8)
    figure = plot_overlay(first, align_image(second, moved(40, 0), (80, 80)), ("a.png", "b.png"))
    assert titles(figure) == ["a.png", "b.png, aligned", "both in turn"]
    left, middle, right = panes(figure)
    assert (left == 50).all()
    assert (middle[:, :40] == 200).all()
    assert (middle[:, 40:] == 235).all()  # neither black nor an image
    assert right[5, 5:80:10, 0].tolist() == [50, 200, 50, 200, 50, 50, 50, 50]
    assert right[15, 5:80:10, 0].tolist() == [200, 50, 200, 50, 50, 50, 50, 50]


def test_large_photographs_are_shrunk_before_they_are_drawn() -> None:
    image = noise(20, 4000)
    assert panes(plot_overlay(image, align_image(image, IDENTITY, (4000, 20))))[2].shape == (8, 1600, 3)


@pytest.mark.parametrize("ending", ["png", "jpg", "pdf", "svg"])
def test_the_picture_is_written(ending: str, tmp_path: Path) -> None:
    plot_overlay(same_tensor(), align_image(noise(), IDENTITY, (60, 40))).savefig(tmp_path / f"x.{ending}")
    assert (tmp_path / f"x.{ending}").stat().st_size > 1000


@pytest.mark.parametrize("size", [(1, 1), (1, 5000), (5000, 1), (3, 3), (900, 100), (100, 900)])
def test_images_of_any_shape_are_drawn(size: tuple[int, int]) -> None:
    image, buffer = np.full(size, 90, np.uint8), io.BytesIO()
    figure = plot_overlay(image, align_image(image, IDENTITY, size[::-1]), ("a", "b"), dpi=50)
    figure.savefig(buffer, format="png")
    picture = cv2.imdecode(np.frombuffer(buffer.getvalue(), np.uint8), cv2.IMREAD_GRAYSCALE)
    assert (picture == 90).sum() > 30
    assert max(picture.shape) < 800


@pytest.mark.parametrize("name", ["图像.jpg", "$x^2$ $", "a\nb\t c", "x" * 500, "W" * 40, "\\alpha_{", ""])
@pytest.mark.parametrize("width", [60, 4])
def test_titles_of_any_name_stay_above_their_picture(name: str, width: int) -> None:
    image = noise(40, width)
    figure = plot_overlay(image, align_image(image, IDENTITY, (width, 40)), (name, name))
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    extents = [text.get_window_extent() for text in figure.texts]
    ends = [*(extent.x0 for extent in extents[1:]), figure.bbox.x1]
    for text, extent, end in zip(titles(figure), extents, ends, strict=True):
        assert "\n" not in text
        assert extent.x1 < end
        assert extent.y1 < figure.bbox.y1
    assert titles(figure)[1].endswith(", aligned")


def test_an_image_that_was_not_aligned_to_the_first_is_refused() -> None:
    with pytest.raises(InputError, match="align it to image 0"):
        plot_overlay(noise(), align_image(noise(), IDENTITY, (50, 40)))
