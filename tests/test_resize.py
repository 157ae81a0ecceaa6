"""Resizing image tensors: equal to what published features were extracted from.

`data/resize_oracle.npz` was made once with kornia 0.9.0 and torch 2.13.0, on one CPU thread, for each `ORACLE` case:

    kornia.geometry.transform.resize(noise(case), size, side=side, align_corners=align_corners, antialias=True)
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from lightglue.errors import InputError
from lightglue.images.resampling import ImagePreprocessor, _resample_banded, _resample_reference, resize_tensor
from lightglue_runtime.resize import MAX_EDGE, target_size

ROUNDING = 1e-6  # a few float32 steps of values in [0, 1]


class Case(NamedTuple):
    channels: int
    height: int
    width: int
    size: int | tuple[int, int]
    side: str = "long"
    align_corners: bool | None = None


ORACLE = {
    "landscape": Case(3, 30, 40, 16),
    "portrait": Case(3, 40, 30, 16),
    "short_side": Case(1, 37, 53, 20, "short"),
    "vertical": Case(1, 37, 53, 11, "vert"),
    "horizontal": Case(1, 37, 53, 11, "horz"),
    "barely_smaller": Case(1, 33, 31, 32),
    "much_smaller": Case(1, 97, 130, 7),
    "thin": Case(1, 2, 90, 45),
    "one_row": Case(1, 1, 50, (1, 12)),
    "one_pixel_left": Case(1, 23, 31, (1, 1)),
    "one_axis_grows": Case(1, 40, 9, (13, 20)),
    "larger": Case(1, 7, 9, 16),
    "pair": Case(2, 24, 24, (10, 17)),
    "corners": Case(1, 37, 53, 20, "long", True),
    "no_corners": Case(1, 37, 53, 20, "long", False),
}


def noise(case: Case) -> Tensor:
    values = np.random.default_rng(case.height * 1000 + case.width).random((1, case[0], case[1], case[2]))
    return torch.from_numpy(values.astype(np.float32))


@pytest.fixture(scope="module")
def oracle() -> dict[str, np.ndarray]:
    with np.load(Path(__file__).parent / "data" / "resize_oracle.npz") as arrays:
        return dict(arrays)


@pytest.mark.parametrize("name", ORACLE)
def test_the_result_is_the_published_one(name: str, oracle: dict[str, np.ndarray]) -> None:
    case = ORACLE[name]
    resized, _ = resize_tensor(noise(case), case.size, side=case.side, align_corners=case.align_corners)
    assert resized.shape == oracle[name].shape
    assert np.abs(resized.numpy() - oracle[name]).max() <= ROUNDING


edges = st.integers(1, 90)


@given(edges, edges, edges, edges, st.sampled_from([None, False, True]), st.integers(1, 3))
def test_the_banded_form_equals_blur_then_interpolation(
    height: int, width: int, new_height: int, new_width: int, align_corners: bool | None, planes: int
) -> None:
    image = noise(Case(planes, height, width, 1)).transpose(0, 1)
    size = (new_height, new_width)
    fast = _resample_banded(image, size, "bilinear", align_corners, True)
    plain = _resample_reference(image, size, "bilinear", align_corners, True)
    assert fast.shape == plain.shape == (planes, 1, *size)
    assert (fast - plain).abs().max() <= ROUNDING


def test_the_banded_form_equals_the_plain_one_in_double_precision() -> None:
    image = noise(Case(1, 61, 83, 1)).double()
    fast, _ = resize_tensor(image, 20)
    plain = _resample_reference(image, tuple(fast.shape[-2:]), "bilinear", None, True)
    assert fast.dtype == torch.float64
    assert (fast - plain).abs().max() < 1e-14


@pytest.mark.parametrize(
    ("height", "width", "size", "side", "expected"),
    [
        (480, 640, 320, "long", (240, 320)),
        (640, 480, 320, "long", (320, 240)),
        (480, 640, 320, "short", (320, 426)),  # 426.67 is rounded down
        (480, 640, 320, "vert", (320, 426)),
        (480, 640, 320, "horz", (240, 320)),
        (500, 500, 320, "short", (320, 320)),
        (480, 640, (100, 50), "long", (100, 50)),
        (876, 1280, 800, "long", (547, 800)),
        (1, 5000, 100, "long", (1, 100)),  # never down to zero
    ],
)
def test_the_target_size(height: int, width: int, size: int, side: str, expected: tuple[int, int]) -> None:
    assert target_size(height, width, size, side) == expected


@given(st.integers(1, 2000), st.integers(1, 2000), st.integers(1, 1200), st.sampled_from(["long", "short"]))
def test_an_edge_gets_the_length_asked_for(height: int, width: int, size: int, side: str) -> None:
    longest = size if side == "long" else size * max(height, width) / min(height, width)
    if longest >= MAX_EDGE + 1:
        with pytest.raises(InputError, match="longer than 65,536 px"):
            target_size(height, width, size, side)
        return
    edges = target_size(height, width, size, side)
    assert (max if side == "long" else min)(edges) == size
    assert min(edges) >= 1


def test_convention_resizing_maps_pixel_centres() -> None:
    """A pixel x lies at (x + 0.5) * scale - 0.5 of the resized image: shown on a ramp, whose value is x."""
    ramp = torch.arange(400, dtype=torch.float64).expand(1, 300, 400)
    resized, scales = resize_tensor(ramp, 100)
    assert scales.tolist() == [0.25, 0.25]
    x = torch.arange(100, dtype=torch.float64)
    there = (resized[0, 40] + 0.5) * 0.25 - 0.5
    assert (there - x)[5:-5].abs().max() < 1e-9  # the blur reflects at the border


def test_convention_scales_are_new_over_old_width_then_height() -> None:
    _, scales = resize_tensor(torch.rand(1, 3, 30, 50), 20)
    assert torch.equal(scales, torch.tensor([20 / 50, 12 / 30]))
    assert scales.dtype == torch.float32


def test_no_size_and_the_same_size_leave_the_image_alone() -> None:
    image = torch.rand(3, 30, 50)
    for size in (None, 50, (30, 50)):
        resized, scales = resize_tensor(image, size)
        assert torch.equal(resized, image)
        assert scales.tolist() == [1, 1]


def test_a_batch_is_resized_image_by_image() -> None:
    batch = torch.rand(3, 3, 40, 60)
    together, _ = resize_tensor(batch, 25)
    for image, resized in zip(batch, together, strict=True):
        assert (resize_tensor(image, 25)[0] - resized).abs().max() <= ROUNDING


def test_memory_layout_does_not_matter() -> None:
    channels_last = torch.rand(40, 60, 3).permute(2, 0, 1)
    resized, _ = resize_tensor(channels_last, 25)
    assert (resized - resize_tensor(channels_last.contiguous(), 25)[0]).abs().max() <= ROUNDING


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_reduced_precision_is_rounded_once(dtype: torch.dtype) -> None:
    image = torch.rand(1, 40, 60).to(dtype)
    resized, scales = resize_tensor(image, 25)
    assert resized.dtype == dtype
    assert scales.dtype == torch.float32
    assert torch.equal(resized, resize_tensor(image.float(), 25)[0].to(dtype))


def test_autocast_does_not_lower_the_precision() -> None:
    image = torch.rand(1, 40, 60)
    with torch.autocast("cpu", torch.bfloat16):
        resized, _ = resize_tensor(image, 25)
    assert torch.equal(resized, resize_tensor(image, 25)[0])


def test_gradients_reach_the_image() -> None:
    image = torch.rand(1, 1, 12, 9, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: resize_tensor(x, 5)[0], image)


@pytest.mark.parametrize("interpolation", ["bicubic", "nearest", "nearest-exact", "area"])
def test_other_interpolations_keep_a_constant_image(interpolation: str) -> None:
    resized, _ = resize_tensor(torch.full((3, 37, 53), 0.25), 20, interpolation=interpolation)
    assert resized.shape == (3, 13, 20)
    assert (resized - 0.25).abs().max() <= ROUNDING


def test_without_antialiasing_nothing_is_blurred() -> None:
    image = torch.rand(1, 1, 37, 53)
    expected = torch.nn.functional.interpolate(image, size=(13, 20), mode="bilinear")
    assert torch.equal(resize_tensor(image, 20, antialias=False)[0], expected)


def test_the_preprocessor_has_the_published_defaults() -> None:
    assert ImagePreprocessor.default_conf == {
        "resize": None,
        "side": "long",
        "interpolation": "bilinear",
        "align_corners": None,
        "antialias": True,
    }
    image = torch.rand(1, 3, 30, 40)
    kept, scales = ImagePreprocessor()(image)
    assert torch.equal(kept, image)
    assert scales.tolist() == [1, 1]
    resized, scales = ImagePreprocessor(resize=20, side="short")(image)
    assert resized.shape == (1, 3, 20, 26)
    assert scales.tolist() == pytest.approx([26 / 40, 20 / 30])


def test_the_preprocessor_names_a_misspelt_option() -> None:
    with pytest.warns(UserWarning, match=r"'reszie'.*did you mean 'resize'"):
        ImagePreprocessor(reszie=20)


@pytest.mark.parametrize("size", [0, -1, 2.5, True, "800", (1, 2, 3), (4,), (0, 5), (True, 5), ()])
def test_a_size_without_meaning_is_refused(size: object) -> None:
    with pytest.raises(InputError, match="resize is"):
        resize_tensor(torch.rand(3, 8, 8), size)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("size", "side"), [(2_000_000, "long"), (10**400, "long"), ((8, 65_537), "long"), (10_000, "short")]
)
def test_a_size_beyond_all_memory_is_refused(size: int | tuple[int, int], side: str) -> None:
    message = r"resize is .*makes an edge of this image, 80 x 8 px, longer than 65,536 px; give a smaller one"
    with pytest.raises(InputError, match=message):
        resize_tensor(torch.rand(3, 8, 80), size, side=side)


def test_the_largest_size() -> None:
    assert resize_tensor(torch.rand(1, 1, 80), 65_536)[0].shape == (1, 819, 65_536)
    assert target_size(8, 8, (65_536, 65_536)) == (65_536, 65_536)


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (np.zeros((3, 8, 8), np.float32), "ndarray"),
        (torch.zeros(8, 8), r"\(8, 8\)"),
        (torch.zeros(1, 1, 3, 8, 8), r"\(1, 1, 3, 8, 8\)"),
        (torch.zeros(3, 0, 8), r"\(3, 0, 8\)"),
        (torch.zeros(3, 8, 8, dtype=torch.uint8), r"torch\.uint8"),
    ],
)
def test_what_is_no_image_is_refused(image: object, message: str) -> None:
    with pytest.raises(InputError, match=message):
        resize_tensor(image, 4)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"side": "longest"}, "side is 'longest'; choose one of long, short"),
        ({"interpolation": "linear"}, "interpolation is 'linear'; choose one of bilinear"),
        ({"interpolation": "area", "align_corners": True}, "align_corners has no meaning"),
    ],
)
def test_a_mode_that_does_not_exist_is_refused(options: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        resize_tensor(torch.rand(3, 8, 8), 4, **options)  # type: ignore[arg-type]
