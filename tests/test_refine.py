"""Refinement of matched points: exact on images whose motion is known, and careful where there is nothing to see."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
import pytest
import torch
from torch import Tensor

from lightglue import load_image
from lightglue.errors import InputError
from lightglue.geometry.refine import (
    Pair,
    RefineOptions,
    fit_local_maps,
    measure_matches,
    measure_pairs,
    refine_matches,
)
from support import ASSETS

H, W = 200, 260
IDENTITY = np.eye(3)


def texture(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """A smooth picture that is known everywhere, with values in [0, 1]: sums of waves of 9 to 40 px."""
    rng = np.random.default_rng(0)
    value = np.zeros_like(x)
    for _ in range(40):
        length, angle, phase = rng.uniform(9, 40), rng.uniform(0, np.pi), rng.uniform(0, 2 * np.pi)
        value += np.sin(2 * np.pi * (x * np.cos(angle) + y * np.sin(angle)) / length + phase)
    return np.clip(0.5 + value / 30, 0, 1)


def warp(homography: np.ndarray, points: np.ndarray) -> np.ndarray:
    mapped = np.c_[points, np.ones(len(points))] @ homography.T
    return mapped[:, :2] / mapped[:, 2:]


def picture(homography: np.ndarray = IDENTITY, size: tuple[int, int] = (H, W)) -> Tensor:
    """(1, H, W): the texture as seen after `homography`."""
    y, x = np.mgrid[: size[0], : size[1]].astype(float)
    back = warp(np.linalg.inv(homography), np.c_[x.ravel(), y.ravel()])
    return torch.from_numpy(texture(back[:, 0], back[:, 1]).reshape(1, *size)).float()


def matches(homography: np.ndarray, count: int = 150, noise: float = 0.5, seed: int = 1) -> tuple[Tensor, Tensor]:
    """Points of image 0, and where they come to in image 1, `noise` px off."""
    rng = np.random.default_rng(seed)
    points0 = rng.uniform(25, (W - 25, H - 25), (count, 2))
    points1 = warp(homography, points0) + rng.normal(0, noise, (count, 2))
    return torch.from_numpy(points0).float(), torch.from_numpy(points1).float()


def errors(homography: np.ndarray, points0: Tensor, points1: Tensor) -> np.ndarray:
    return np.linalg.norm(warp(homography, points0.numpy()) - points1.numpy(), axis=1)


SHIFT = np.array([[1, 0, 3.3], [0, 1, -2.6], [0, 0, 1]])
AFFINE = np.array([[1.1, 0.15, -12.0], [-0.1, 0.93, 9.0], [0, 0, 1]])
TURN = np.array([[0.0, -1.0, 210.0], [1.0, 0.0, -20.0], [0, 0, 1]])
HOMOGRAPHY = np.array([[1.05, 0.08, -8.0], [-0.04, 0.97, 5.0], [2e-4, -1e-4, 1]])


@pytest.mark.parametrize("motion", [SHIFT, AFFINE, TURN, HOMOGRAPHY], ids=["shift", "affine", "turn", "homography"])
def test_points_come_to_where_they_belong(motion: np.ndarray) -> None:
    points0, points1 = matches(motion)
    found = refine_matches(picture(), picture(motion), points0, points1)
    inside = found.moved.numpy()
    assert inside.mean() > 0.8  # the others have left the picture
    assert np.median(errors(motion, points0, points1)) > 0.4
    after = errors(motion, points0, found.points1)[inside]
    assert np.quantile(after, 0.98) < 0.05
    assert after.max() < 0.1
    assert torch.equal(found.points0, points0)
    assert torch.equal(found.points1[~found.moved], points1[~found.moved])
    assert (found.points1.dtype, found.moved.dtype) == (torch.float32, torch.bool)


def test_brightness_and_contrast_do_not_matter() -> None:
    points0, points1 = matches(AFFINE)
    plain = refine_matches(picture(), picture(AFFINE), points0, points1)
    other = refine_matches(picture(), 0.3 + 0.5 * picture(AFFINE), points0, points1)
    assert torch.equal(plain.moved, other.moved)
    torch.testing.assert_close(plain.points1, other.points1, atol=0.01, rtol=0)


def test_a_negative_is_not_aligned() -> None:
    points0, points1 = matches(SHIFT)
    assert refine_matches(picture(), 1 - picture(SHIFT), points0, points1).moved.float().mean() < 0.1


def test_wrong_matches_do_not_spoil_their_neighbours() -> None:
    points0, points1 = matches(AFFINE)
    wrong = points1.clone()
    wrong[::5] = wrong[::5].flip(0)
    found = refine_matches(picture(), picture(AFFINE), points0, wrong)
    right = torch.ones(len(points0), dtype=torch.bool)
    right[::5] = False
    assert found.moved[right].float().mean() > 0.75
    assert errors(AFFINE, points0, found.points1)[(right & found.moved).numpy()].max() < 0.1
    assert (found.points1 - wrong).norm(dim=1).max() <= RefineOptions().max_shift


def test_the_fast_path_is_the_readable_one() -> None:
    points0, points1 = matches(HOMOGRAPHY, 40)
    images = picture(), picture(HOMOGRAPHY)
    options = RefineOptions(rounds=1)
    found = refine_matches(*images, points0, points1, options)
    nearest = torch.cdist(points0, points0).topk(options.neighbors + 1, largest=False).indices
    maps = fit_local_maps(points0, points1, nearest, torch.ones(len(points0), dtype=torch.bool))
    compared = 0
    for k in range(len(points0)):
        place = slow_place(images, points0[k].numpy(), maps.position[k].numpy(), maps.matrix[k].numpy(), options)
        if found.moved[k] and place is not None:  # it leaves out windows that are cut by a border
            np.testing.assert_allclose(found.points1[k], place, atol=2e-3)
            compared += 1
    assert compared > 25


def slow_place(
    images: tuple[Tensor, Tensor], point0: np.ndarray, place: np.ndarray, matrix: np.ndarray, options: RefineOptions
) -> np.ndarray | None:
    """One point, step by step: None where a window leaves its image or the point does not settle."""
    image0, image1 = (image[0].double().numpy() for image in images)
    half = options.window // 2
    offsets = [(x, y) for y in range(-half, half + 1) for x in range(-half, half + 1)]
    offsets = [offset for offset in offsets if np.hypot(*offset) <= options.window / 2]
    rows = []
    for x, y in offsets:
        ring = [
            bilinear(image0, point0 + np.array([x + dx, y + dy]))
            for dx, dy in ((0, 0), (1, 0), (-1, 0), (0, 1), (0, -1))
        ]
        if None in ring:
            return None
        value, right, left, below, above = ring
        rows.append((1, value, (right - left) / 2, (below - above) / 2))
    design, root = np.array(rows), np.array([np.exp(-(x * x + y * y) / (4 * options.sigma**2)) for x, y in offsets])
    for _ in range(options.iterations):
        window = [bilinear(image1, place + matrix @ offset) for offset in offsets]
        if None in window:
            return None
        unknowns = np.linalg.lstsq(design * root[:, None], np.array(window) * root, rcond=None)[0]
        step = unknowns[2:] / unknowns[1]
        length = np.hypot(*step)
        place = place - matrix @ step * min(1, 2 / max(length, 1e-9))
        if length < options.tolerance:
            return place
    return None


def bilinear(image: np.ndarray, at: np.ndarray) -> float | None:
    x, y = int(np.floor(at[0])), int(np.floor(at[1]))
    if x < 0 or y < 0 or x + 1 >= image.shape[1] or y + 1 >= image.shape[0]:
        return None
    u, v = at[0] - x, at[1] - y
    upper, lower = image[y, x : x + 2] @ (1 - u, u), image[y + 1, x : x + 2] @ (1 - u, u)
    return float((1 - v) * upper + v * lower)


@pytest.mark.parametrize("what", ["constant", "noise", "stripes", "one constant", "nan"])
def test_where_there_is_nothing_to_align_points_keep_their_place(what: str) -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.arange(W).float().expand(1, H, W)
    constant, noise = torch.full((1, H, W), 0.5), torch.rand(1, H, W, generator=generator)
    images = {
        "constant": (constant, constant),
        "noise": (noise, torch.rand(1, H, W, generator=generator)),
        "stripes": (0.5 + 0.4 * torch.sin(x / 4),) * 2,
        "one constant": (picture(), constant),
        "nan": (picture(), torch.full((1, H, W), torch.nan)),
    }[what]
    points0, points1 = matches(SHIFT)
    found = refine_matches(*images, points0, points1)
    assert found.moved.float().mean() < 0.05
    assert torch.equal(found.points1[~found.moved], points1[~found.moved])


def test_points_at_the_border_and_outside_never_crash_and_are_never_thrown_far() -> None:
    inner0, inner1 = matches(SHIFT)
    edge = torch.tensor(
        [[0.0, 0.0], [W - 1, H - 1], [0, 100], [W - 1, 3], [-5, 20], [W + 40, 50], [1e30, -1e30], [4, 4]]
    )
    points0 = torch.cat((inner0, edge))
    points1 = torch.cat((inner1, edge + torch.tensor([3.3, -2.6])))
    found = refine_matches(picture(), picture(SHIFT), points0, points1)
    assert found.points1.isfinite().all()
    outside = slice(len(inner0) + 4, len(inner0) + 7)
    assert not found.moved[outside].any()
    assert torch.equal(found.points1[outside], points1[outside])
    assert errors(SHIFT, points0, found.points1)[found.moved.numpy()].max() < 0.1
    assert found.moved[len(inner0) - 1]


@pytest.mark.parametrize("count", [0, 1, 2, 3, 4, 5])
def test_few_matches(count: int) -> None:
    points0, points1 = matches(SHIFT, 5, noise=0.2)
    points0, points1 = points0[:count], points1[:count]
    found = refine_matches(picture(), picture(SHIFT), points0, points1)
    assert found.points1.shape == (count, 2)
    assert found.moved.shape == (count,)
    if count < 4:
        assert torch.equal(found.points1, points1)
        assert not found.moved.any()


@pytest.mark.parametrize("kind", ["duplicates", "line"])
def test_matches_that_fix_no_map_keep_their_place(kind: str) -> None:
    points0 = torch.full((30, 2), 100.0)
    if kind == "line":
        points0 = torch.stack((torch.linspace(30, 200, 30), torch.linspace(40, 150, 30)), 1)
    points1 = points0 + torch.tensor([3.0, -2.5])
    found = refine_matches(picture(), picture(SHIFT), points0, points1)
    assert not found.moved.any()
    assert torch.equal(found.points1, points1)


def test_images_of_other_sizes_kinds_and_channels() -> None:
    points0, points1 = matches(AFFINE)
    image0, image1 = picture(), picture(AFFINE, (170, 300))
    plain = refine_matches(image0, image1, points0, points1)
    assert plain.moved.float().mean() > 0.5
    color = refine_matches(image0.expand(3, -1, -1), image1.double(), points0.double().numpy(), points1.tolist())
    torch.testing.assert_close(color.points1, plain.points1, atol=1e-3, rtol=0)
    arrays = [(image[0] * 255).round().byte().numpy() for image in (image0, image1)]
    bytes_ = refine_matches(arrays[0], np.dstack([arrays[1]] * 3), points0, points1)
    both = bytes_.moved & plain.moved
    assert both.float().mean() > 0.5
    torch.testing.assert_close(bytes_.points1[both], plain.points1[both], atol=0.05, rtol=0)


def test_inputs_are_left_alone_and_results_are_the_same_each_time() -> None:
    images, points = (picture(), picture(AFFINE)), matches(AFFINE)
    before = [each.clone() for each in (*images, *points)]
    points[1].requires_grad_()
    first, second = refine_matches(*images, *points), refine_matches(*images, *points)
    assert torch.equal(first.points1, second.points1)
    assert torch.equal(first.moved, second.moved)
    assert not first.points1.requires_grad
    for now, then in zip((*images, *points), before, strict=True):
        assert torch.equal(now.detach(), then)
    first.points0.zero_()
    assert torch.equal(points[0], before[2])


def test_a_point_depends_on_the_matches_around_it_only() -> None:
    points0, points1 = matches(AFFINE, 600)
    images = picture(), picture(AFFINE)
    whole = refine_matches(*images, points0, points1)
    left = points0[:, 0] < 150
    part = refine_matches(*images, points0[left], points1[left])
    far = points0[left][:, 0] < 90
    torch.testing.assert_close(part.points1[far], whole.points1[left][far], atol=1e-3, rtol=0)
    order = torch.randperm(600, generator=torch.Generator().manual_seed(0))
    mixed = refine_matches(*images, points0[order], points1[order])
    torch.testing.assert_close(mixed.points1, whole.points1[order], atol=1e-3, rtol=0)


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"points0": torch.full((9, 2), torch.nan)}, "NaN"),
        ({"points1": torch.full((9, 2), torch.inf)}, "infinity in 9 rows"),
        ({"points0": torch.zeros(9, 3)}, r"\(9, 3\)"),
        ({"points0": torch.zeros(8, 2)}, "8 points0 and 9 points1"),
        ({"points1": "here"}, "str"),
        ({"image0": torch.zeros(20, 20)}, r"image0 is torch.float32 \(20, 20\)"),
        ({"image1": torch.zeros(3, 20, 20, dtype=torch.uint8)}, "image1"),
        ({"image1": np.zeros((20, 20))}, "float64"),
        ({"image1": None}, "NoneType"),
        ({"image0": torch.zeros(3, 0, 20)}, "image0"),
    ],
)
def test_what_is_no_image_or_no_point_is_refused(wrong: dict[str, Any], said: str) -> None:
    given = {"image0": picture(), "image1": picture(), "points0": torch.zeros(9, 2), "points1": torch.zeros(9, 2)}
    with pytest.raises(InputError, match=said):
        refine_matches(**{**given, **wrong})


@pytest.mark.parametrize(
    "wrong",
    [
        {"window": 14},
        {"window": 1},
        {"window": 15.0},
        {"neighbors": 2},
        {"iterations": 0},
        {"rounds": True},
        {"sigma": 0},
        {"max_shift": float("nan")},
        {"max_deviation": -1.0},
        {"max_residual": None},
        {"tolerance": "0.1"},
    ],
)
def test_options_are_checked(wrong: dict[str, Any]) -> None:
    name, value = next(iter(wrong.items()))
    with pytest.raises(InputError, match=name):
        RefineOptions(**{name: value})


def test_a_photograph_and_its_warped_copy() -> None:
    image0 = load_image(ASSETS / "montmartre_close.jpg", resize=640)
    motion = np.array([[1.08, 0.12, -30.0], [-0.09, 0.95, 40.0], [1e-4, 5e-5, 1]])
    height, width = image0.shape[-2:]
    array = image0.permute(1, 2, 0).numpy()
    warped = cv2.warpPerspective(array, motion, (width, height), flags=cv2.INTER_CUBIC)
    rng = np.random.default_rng(3)
    warped = 0.85 * warped + 0.05 + rng.normal(0, 0.01, warped.shape)
    image1 = torch.from_numpy(warped).permute(2, 0, 1).float()
    corners = cv2.goodFeaturesToTrack((array.mean(2) * 255).astype(np.uint8), 500, 0.01, 8)[:, 0]
    points0 = torch.from_numpy(corners + rng.normal(0, 0.5, corners.shape)).float()
    points1 = torch.from_numpy(warp(motion, points0.numpy()) + rng.normal(0, 1, points0.shape)).float()
    shown = (points1 > 20).all(1) & (points1 < torch.tensor([width - 21, height - 21])).all(1)
    points0, points1 = points0[shown], points1[shown]
    before = errors(motion, points0, points1)
    after = errors(motion, points0, refine_matches(image0, image1, points0, points1).points1)
    assert len(before) > 200
    assert (before < 0.5).mean() < 0.2
    assert (after < 0.5).mean() > 0.9
    assert np.median(after) < 0.1


def test_pairs_that_are_measured_together_are_measured_as_if_alone() -> None:
    wide = picture(size=(H, W + 40))
    few, many = matches(AFFINE, 9, seed=4), matches(AFFINE, 80)
    alike = [
        Pair(picture()[0], picture(AFFINE)[0], *many),
        Pair(wide[0], picture(SHIFT)[0], *matches(SHIFT, 30, seed=2)),
        Pair(picture(AFFINE)[0], picture()[0], *many[::-1]),
        Pair(picture()[0], picture(AFFINE)[0], *few),  # fewer than a match has neighbours
        Pair(picture()[0], picture(AFFINE)[0], few[0][:3], few[1][:3]),  # too few for a map
        Pair(picture()[0], picture(AFFINE)[0], few[0][:0], few[1][:0]),
    ]
    together = measure_pairs(alike, RefineOptions())
    assert [int(each.good.sum()) > 0 for each in together] == [True, True, True, True, False, False]
    for pair, found in zip(alike, together, strict=True):
        alone = measure_matches(*pair, RefineOptions())
        assert torch.equal(found.good, alone.good)
        torch.testing.assert_close(found.position, alone.position, atol=1e-4, rtol=0)
        for field in (2, 3):
            torch.testing.assert_close(found[field][found.good], alone[field][found.good], atol=1e-4, rtol=1e-3)


def test_together_and_alone_no_pair_at_all_is_fine() -> None:
    assert measure_pairs([], RefineOptions()) == []
