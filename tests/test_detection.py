"""From score maps to keypoints, each function against plain loops over pixels."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from lightglue.extractors.detection import (
    clear_border,
    refine,
    sample_bilinear,
    simple_nms,
    strict_maxima,
    strongest,
    xy_of,
)


def scores_of(h: int, w: int, seed: int = 0, levels: int = 1000) -> Tensor:
    """Random scores (1, 1, h, w) in [0, 1]; few `levels` give many ties."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(levels, (1, 1, h, w), generator=generator) / levels


def window(values: Tensor, y: int, x: int, before: int, after: int) -> Tensor:
    h, w = values.shape
    return values[max(y - before, 0) : min(y + after + 1, h), max(x - before, 0) : min(x + after + 1, w)]


def nms_by_loops(scores: Tensor, radius: int) -> Tensor:
    h, w = scores.shape
    pixels = [(y, x) for y in range(h) for x in range(w)]
    kept = torch.zeros_like(scores, dtype=torch.bool)
    for y, x in pixels:
        kept[y, x] = scores[y, x] == window(scores, y, x, radius, radius).max()
    for _ in range(2):
        suppressed = torch.zeros_like(kept)
        for y, x in pixels:
            suppressed[y, x] = window(kept, y, x, radius, radius).any()
        rest = scores * ~suppressed
        for y, x in pixels:
            if not suppressed[y, x] and rest[y, x] == window(rest, y, x, radius, radius).max():
                kept[y, x] = True
    return scores * kept


@pytest.mark.parametrize("radius", [0, 1, 2, 3])
@pytest.mark.parametrize(("h", "w"), [(1, 1), (1, 9), (9, 1), (12, 15)])
@pytest.mark.parametrize("levels", [4, 1000])
def test_nms_keeps_maxima_and_those_that_only_suppressed_points_outshine(
    h: int, w: int, radius: int, levels: int
) -> None:
    scores = scores_of(h, w, levels=levels)
    assert torch.equal(simple_nms(scores, radius)[0, 0], nms_by_loops(scores[0, 0], radius))


def test_nms_takes_up_a_point_beside_a_suppressed_one() -> None:
    row = torch.tensor([0.9, 0.8, 0.7, 0.6, 0.5]).view(1, 1, 1, 5)
    assert torch.equal(simple_nms(row, 1).flatten(), torch.tensor([0.9, 0.0, 0.7, 0.0, 0.5]))


@pytest.mark.parametrize("side", [1, 2, 3, 4, 5, 7])
@pytest.mark.parametrize(("h", "w"), [(1, 1), (5, 5), (4, 20), (13, 11)])
@pytest.mark.parametrize("levels", [3, 1000])
def test_strict_maxima_exceed_all_others_in_a_window_inside_the_map(h: int, w: int, side: int, levels: int) -> None:
    scores = scores_of(h, w, levels=levels)
    before, after = (side - 1) // 2, side // 2
    expected = torch.zeros(h, w, dtype=torch.bool)
    for y in range(before, h - after):
        for x in range(before, w - after):
            around = window(scores[0, 0], y, x, before, after)
            expected[y, x] = (around >= scores[0, 0, y, x]).sum() == 1
    assert torch.equal(strict_maxima(scores, side)[0, 0], expected)


def test_strict_maxima_may_be_negative() -> None:
    scores = torch.full((1, 1, 5, 5), -2.0)
    scores[0, 0, 2, 2] = -1
    assert strict_maxima(scores, 5).nonzero().tolist() == [[0, 0, 2, 2]]


def test_the_border_is_cleared_on_all_sides() -> None:
    kept = clear_border(torch.ones(1, 1, 6, 7), 2, 1)[0, 0]
    assert kept.sum() == 3 * 4
    assert kept[2:5, 2:6].all()


def test_the_border_of_each_padded_image_is_its_own() -> None:
    sizes = torch.tensor([[4, 6], [7, 3], [100, 100]])  # width height
    kept = clear_border(torch.ones(3, 1, 6, 7, dtype=torch.bool), 1, 1, sizes)
    assert kept.dtype == torch.bool
    assert [int(image.sum()) for image in kept] == [2 * 4, 5 * 1, 6 * 5]  # larger than the map: nothing is padding
    assert kept[0, 0, 1:5, 1:3].all()
    assert kept[1, 0, 1:2, 1:6].all()


def test_a_border_wider_than_the_image_leaves_nothing() -> None:
    assert not clear_border(torch.ones(1, 1, 3, 3), 2, 2).any()


def test_the_strongest_come_first_and_ties_by_position() -> None:
    scores = torch.tensor([0.1, 0.9, 0.5, 0.9, 0.5, 0.9])
    assert strongest(scores, 4).tolist() == [1, 3, 5, 2]
    assert strongest(scores, 0).tolist() == []
    assert strongest(scores[:2], 10).tolist() == [1, 0]
    assert strongest(torch.full((5000,), 0.5), 3).tolist() == [0, 1, 2]


def test_flat_indices_are_in_raster_order() -> None:
    assert xy_of(torch.tensor([0, 6, 7, 20]), 7).tolist() == [[0, 0], [6, 0], [0, 1], [6, 2]]


def test_refinement_is_the_soft_argmax_of_the_window() -> None:
    scores = scores_of(9, 8)[0, 0]
    for y in range(9):
        for x in range(8):
            weights, sums = 0.0, [0.0, 0.0]
            for dy in (-2, -1, 0, 1, 2):
                for dx in (-2, -1, 0, 1, 2):
                    inside = 0 <= y + dy < 9 and 0 <= x + dx < 8
                    weight = math.exp((scores[y + dy, x + dx].item() if inside else 0.0) / 0.1)
                    weights += weight
                    sums = [sums[0] + weight * dx, sums[1] + weight * dy]
            expected = torch.tensor([x + sums[0] / weights, y + sums[1] / weights])
            torch.testing.assert_close(refine(scores, torch.tensor([[x, y]]), 2)[0], expected)


def test_refinement_of_a_symmetric_peak_stays_and_without_a_window_too() -> None:
    scores = torch.zeros(7, 7)
    scores[3, 3] = 1
    assert refine(scores, torch.tensor([[3, 3]]), 2).tolist() == [[3, 3]]
    assert refine(scores_of(7, 7)[0, 0], torch.tensor([[2, 5]]), 0).tolist() == [[2, 5]]
    assert refine(scores, torch.zeros(0, 2, dtype=torch.long), 2).shape == (0, 2)


def test_refinement_lets_gradients_through() -> None:
    scores = scores_of(7, 7)[0, 0].requires_grad_()
    refine(scores, torch.tensor([[3, 3]]), 2).sum().backward()
    assert scores.grad is not None
    assert scores.grad[1:6, 1:6].abs().min() > 0


@pytest.mark.parametrize(("h", "w"), [(1, 1), (1, 6), (5, 1), (5, 6)])
def test_sampling_reads_pixels_at_their_centres(h: int, w: int) -> None:
    maps = torch.rand(3, h, w, generator=torch.Generator().manual_seed(0))
    xy = torch.tensor([[x, y] for y in range(h) for x in range(w)], dtype=torch.float32)
    torch.testing.assert_close(sample_bilinear(maps, xy), maps.flatten(1).T, atol=1e-5, rtol=0)


def test_sampling_interpolates_between_pixels_and_says_what_lies_outside() -> None:
    maps = torch.tensor([[[0.0, 1.0], [2.0, 5.0]]])
    xy = torch.tensor([[0.5, 0.5], [0.25, 0.0], [-0.5, 0.0], [5.0, 5.0]])
    torch.testing.assert_close(sample_bilinear(maps, xy)[:, 0], torch.tensor([2.0, 0.25, 0.0, 0.0]))
    torch.testing.assert_close(sample_bilinear(maps, xy, "border")[:, 0], torch.tensor([2.0, 0.25, 0.0, 5.0]))
    assert sample_bilinear(maps, xy[:0]).shape == (0, 1)


def test_sampling_agrees_with_torch_on_aligned_corners() -> None:
    maps = torch.rand(4, 9, 12, generator=torch.Generator().manual_seed(1))
    xy = torch.rand(50, 2, generator=torch.Generator().manual_seed(2)) * 14 - 1
    grid = (2 * xy / torch.tensor([11.0, 8.0]) - 1)[None, None]
    expected = F.grid_sample(maps[None], grid, align_corners=True)[0, :, 0].T
    torch.testing.assert_close(sample_bilinear(maps, xy), expected, atol=1e-5, rtol=0)
