"""From a score map to keypoints: suppression, borders, selection, sub-pixel positions, sampling.

Small pure functions that the extractors share. Maps are (B, 1, H, W) or (C, H, W); positions are x y in pixels, the
centre of the top-left pixel being (0, 0); a flat index is y * W + x, so its order is the raster order.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = [
    "clear_border",
    "nms_maxima",
    "refine",
    "refine_with_spread",
    "sample_bilinear",
    "simple_nms",
    "strict_maxima",
    "strongest",
    "window_maxima",
    "xy_of",
]

# The soft-argmax temperature that ALIKED's detector was trained with (Zhao et al. 2023; github.com/Shiaoming/ALIKED).
TEMPERATURE = 0.1


def simple_nms(scores: Tensor, nms_radius: int) -> Tensor:
    """Non-maximum suppression in square windows, as SuperPoint and ALIKED publish it.

    A window's maximum suppresses its neighbours; then, twice over, a point that is the largest of those not suppressed
    so far is taken up too. Tied maxima all stay.

    Args:
        scores: (..., H, W). Negative ones, such as a mask puts in, are no maxima.
        nms_radius: half the window's side in px; the side is 2 * nms_radius + 1.

    Returns:
        (..., H, W), `scores` at the maxima and 0 elsewhere.
    """
    scores = scores.clamp(min=0)
    return scores * nms_maxima(scores, nms_radius)


def nms_maxima(scores: Tensor, radius: int) -> Tensor:
    """Where `simple_nms` keeps the scores (B, 1, H, W): bool (B, 1, H, W)."""
    maxima = window_maxima(scores, radius)
    for _ in range(2):
        free = _window_max(maxima.view(torch.uint8), radius) == 0
        rest = scores * free
        maxima |= window_maxima(rest, radius) & free
    return maxima


def window_maxima(scores: Tensor, radius: int) -> Tensor:
    """Where scores (B, 1, H, W), not negative, are the largest in their window of side 2 * radius + 1: bool.

    Tied maxima all stay.
    """
    return scores == _window_max(scores, radius)


def _window_max(values: Tensor, radius: int) -> Tensor:
    # None of the values is negative, so that zeros around them change nothing.
    radius = min(radius, max(values.shape[-2:]))  # a larger window holds no more
    padded = F.pad(values, (radius,) * 4)
    return _sliding_max(_sliding_max(padded, 2 * radius + 1, -2), 2 * radius + 1, -1)


def strict_maxima(scores: Tensor, window: int) -> Tensor:
    """Where a score is greater than every other one in its window, and the window lies inside the map.

    This is the rule of kornia 0.9 (kornia.geometry.subpix.nms2d), with which the published DISK detects: tied maxima
    and the strip along the border are never keypoints. The window of an even side reaches one pixel further down and
    right than up and left.

    Args:
        scores: (B, 1, H, W).
        window: side of the square window, px.

    Returns:
        (B, 1, H, W) bool.
    """
    before, after = (window - 1) // 2, window // 2
    h, w = scores.shape[-2:]
    maxima = torch.zeros_like(scores, dtype=torch.bool)
    rows, cols = h - window + 1, w - window + 1
    if rows < 1 or cols < 1:
        return maxima
    centre = scores[..., before : before + rows, before : before + cols]
    strict = torch.ones_like(centre, dtype=torch.bool)
    # The window without its centre in four rectangles (top, left, height, width): above, below, left, right.
    for top, left, height, width in (
        (0, 0, before, window),
        (before + 1, 0, after, window),
        (before, 0, 1, before),
        (before, before + 1, 1, after),
    ):
        if height > 0 and width > 0:
            region = scores[..., top : top + height - 1 + rows, left : left + width - 1 + cols]
            strict &= centre > _sliding_max(_sliding_max(region, width, -1), height, -2)
    maxima[..., before : before + rows, before : before + cols] = strict
    return maxima


def _sliding_max(values: Tensor, window: int, dim: int) -> Tensor:
    """Maximum of every `window` neighbours along `dim`, by doubling: on CPUs much faster than max pooling."""
    length = 1
    while length < window:
        step = min(length, window - length)
        kept = values.shape[dim] - step
        values = torch.maximum(values.narrow(dim, 0, kept), values.narrow(dim, step, kept))
        length += step
    return values


def clear_border(scores: Tensor, before: int, after: int, image_size: Tensor | None = None) -> Tensor:
    """Set to zero what lies in the border, and outside the image where the map is that of a padded image.

    Args:
        scores: (B, 1, H, W), numbers or bool.
        before: width of the border at the top and left, px.
        after: width of the border at the bottom and right, px.
        image_size: (B, 2) width height of each image in the map's top-left corner, px; None: the whole map.
    """
    h, w = scores.shape[-2:]
    if image_size is None:
        image_size = torch.tensor([[w, h]], device=scores.device)
    x, y = (torch.arange(n, device=scores.device)[None] for n in (w, h))
    size = image_size.to(scores.device).long()
    in_x = (x >= before) & (x < size[:, :1] - after)  # (B, W)
    in_y = (y >= before) & (y < size[:, 1:] - after)  # (B, H)
    inside = in_y[:, None, :, None] & in_x[:, None, None, :]
    return scores & inside if scores.dtype == torch.bool else scores.masked_fill(~inside, 0)


def strongest(scores: Tensor, count: int) -> Tensor:
    """Indices of the `count` largest of `scores` (N,), largest first, ties by position; all where N is less."""
    candidates = torch.arange(len(scores), device=scores.device)
    if 0 < count < len(scores):  # sorting is slow: first drop what cannot be among them
        candidates = candidates[scores >= scores.topk(count).values[-1]]
    return candidates[scores[candidates].sort(descending=True, stable=True).indices[:count]]


def xy_of(indices: Tensor, width: int) -> Tensor:
    """(N, 2) int64 x y of flat indices (N,) into a map of this width."""
    return torch.stack((indices % width, indices.div(width, rounding_mode="floor")), dim=-1)


def refine(scores: Tensor, xy: Tensor, radius: int, temperature: float = TEMPERATURE) -> Tensor:
    """Sub-pixel positions: the soft-argmax of the scores in the window around each maximum.

    Differentiable in `scores`. The windows are gathered at the maxima only; what lies outside the map counts as 0.

    Args:
        scores: (H, W).
        xy: (N, 2) int64, the maxima.
        radius: half the window's side in px.
        temperature: of the soft-argmax.

    Returns:
        (N, 2) x y in px, of the dtype of `scores`.
    """
    weights, offsets = _soft_window(scores, xy, radius, temperature)
    return xy + weights @ offsets


def refine_with_spread(scores: Tensor, xy: Tensor, radius: int) -> tuple[Tensor, Tensor]:
    """The positions (N, 2) of `refine`, and how widely the scores around each spread, in squares of the radius (N,)."""
    weights, offsets = _soft_window(scores, xy, radius, TEMPERATURE)
    shift = weights @ offsets
    spread = weights @ (offsets**2).sum(1) - (shift**2).sum(1)
    return xy + shift, spread / max(radius, 1) ** 2


def _soft_window(scores: Tensor, xy: Tensor, radius: int, temperature: float) -> tuple[Tensor, Tensor]:
    """The softmax (N, K) of the scores in the window around each of `xy` (N, 2), and the window's offsets (K, 2)."""
    h, w = scores.shape
    steps = torch.arange(-radius, radius + 1, device=scores.device)
    dy, dx = torch.meshgrid(steps, steps, indexing="ij")
    offsets = torch.stack((dx.flatten(), dy.flatten()), dim=-1)  # (K, 2), raster order
    x, y = (xy[:, None] + offsets).unbind(dim=-1)  # (N, K) each
    inside = (x >= 0) & (x < w) & (y >= 0) & (y < h)
    window = scores[y.clamp(0, h - 1), x.clamp(0, w - 1)].masked_fill(~inside, 0)  # (N, K)
    return (window / temperature).softmax(dim=-1), offsets.to(scores.dtype)


def sample_bilinear(maps: Tensor, xy: Tensor, outside: str = "zeros") -> Tensor:
    """Values of `maps` (C, H, W) at positions `xy` (N, 2) in px: (N, C).

    `outside` says what lies around the map: "zeros", or "border" for its outermost pixels continued.
    """
    h, w = maps.shape[-2:]
    size = torch.tensor([w, h], dtype=xy.dtype, device=xy.device)
    # -1 and 1 are the outer edges of the map, not its outermost pixel centres: also right for a side of one pixel.
    grid = ((2 * xy + 1) / size - 1).to(maps.dtype)
    values = F.grid_sample(maps[None], grid[None, None], padding_mode=outside, align_corners=False)
    return values[0, :, 0].T
