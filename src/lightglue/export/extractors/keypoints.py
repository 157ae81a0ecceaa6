"""From a score map to keypoints as nodes: the functions of `lightglue.extractors.detection` for one image of any size.

Maps are (1, C, H, W), positions (N, 2) x y in px; a flat index is y * W + x.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from lightglue.export.builder import GraphBuilder, Value
from lightglue.export.extractors.layers import height_width
from lightglue.extractors.detection import TEMPERATURE

__all__ = [
    "Found",
    "Request",
    "best",
    "candidates",
    "flat_index",
    "nms_maxima",
    "refine",
    "sample",
    "window_max",
    "window_offsets",
]


class Request(NamedTuple):
    """What an extractor's file is asked for beside the image."""

    max_keypoints: Value  # () int64, negative: all
    min_score: Value  # () float32, as the extractor's `detection_threshold`


class Found(NamedTuple):
    """The keypoints of an image, best first."""

    keypoints: Value  # (K, 2) float32
    descriptors: Value  # (K, D) float32
    scores: Value  # (K,) float32


def window_max(g: GraphBuilder, x: Value, radius: int) -> Value:
    """The greatest value in the square window around each pixel; rows and columns one after the other."""
    side = 2 * radius + 1
    rows = g("MaxPool", x, kernel_shape=[1, side], pads=[0, radius, 0, radius])
    return g("MaxPool", rows, kernel_shape=[side, 1], pads=[radius, 0, radius, 0])


def nms_maxima(g: GraphBuilder, scores: Value, radius: int) -> Value:
    """Where `detection.simple_nms` keeps scores that are not negative: bool."""
    maxima = g("Equal", scores, window_max(g, scores, radius))
    for _ in range(2):
        suppressed = g("Greater", window_max(g, g.cast(maxima, "float32"), radius), g.floats(0))
        rest = g("Where", suppressed, g.floats(0), scores)
        more = g("And", g("Equal", rest, window_max(g, rest, radius)), g("Not", suppressed))
        maxima = g("Or", maxima, more)
    return maxima


def candidates(g: GraphBuilder, chosen: Value, border: tuple[int, int] = (0, 0)) -> Value:
    """The pixels (N, 2) int64 where a map (1, 1, H, W) of bool is true, in raster order.

    border: the width of the strips before and after the map in which nothing counts.
    """
    before, after = border
    if before or after:
        size = height_width(g, chosen)
        starts, ends = g.integers(before, before), g("Sub", size, g.integers(after))
        chosen = g("Slice", chosen, starts, ends, g.integers(2, 3))
    yx = g("NonZero", g("Squeeze", chosen, g.integers(0, 1)))
    xy = g("Transpose", g("Gather", yx, g.integers(1, 0), axis=0), perm=[1, 0])
    return g("Add", xy, g.integers(before)) if before else xy


def flat_index(g: GraphBuilder, pixels: Value, width: Value) -> Value:
    """Of pixels (..., 2) int64 in a map of this width, () int64: (...)."""
    x, y = (g("Gather", pixels, g.constant(np.int64(i)), axis=-1) for i in (0, 1))
    return g("Add", g("Mul", y, width), x)


def best(g: GraphBuilder, scores: Value, limit: Value) -> Value:
    """Indices (K,) of the `limit` largest of `scores` (N,), largest first, ties by position; all where it is negative
    or N less."""
    count = g("Shape", scores)
    limit = g("Reshape", limit, g.integers(1))
    wanted = g("Where", g("Less", limit, g.integers(0)), count, g("Min", limit, count))
    return g.several("TopK", 2, scores, wanted)[1]


def refine(
    g: GraphBuilder, flat: Value, pixels: Value, width: Value, radius: int, temperature: float = TEMPERATURE
) -> Value:
    """Sub-pixel positions (K, 2): `detection.refine` where the windows lie inside of the map.

    Args:
        flat: (H * W,) the scores.
        pixels: (K, 2) int64, the maxima, at least `radius` px from the map's border.
        width: () int64, W.
    """
    offsets = window_offsets(radius)
    x, y = (g.constant(np.ascontiguousarray(offsets[:, i]), f"window{radius}/{'xy'[i]}") for i in (0, 1))
    steps = g("Add", g("Mul", y, width), x)  # (k,)
    index = g("Add", g("Unsqueeze", flat_index(g, pixels, width), g.integers(1)), steps)
    weights = g("Softmax", g("Div", g("Gather", flat, index), g.floats(temperature)), axis=-1)
    shift = g("MatMul", weights, g.constant(offsets.astype(np.float32), f"window{radius}/offsets"))
    return g("Add", g.cast(pixels, "float32"), shift)


def window_offsets(radius: int) -> np.ndarray[tuple[int, ...], np.dtype[np.int64]]:
    """(k, 2) int64 x y of the pixels of a window around its middle, raster order."""
    steps = np.arange(-radius, radius + 1)
    dy, dx = np.meshgrid(steps, steps, indexing="ij")
    return np.stack((dx.ravel(), dy.ravel()), axis=-1).astype(np.int64)


def sample(g: GraphBuilder, maps: Value, xy: Value, size: Value, mode: str = "linear", outside: str = "zeros") -> Value:
    """Values (C, N) of maps (1, C, h, w) at positions (N, 2) in px. size: (2,) float32 w h of the maps."""
    grid = g("Sub", g("Div", g("Add", g("Mul", xy, g.floats(2)), g.floats(1)), size), g.floats(1))
    values = g("GridSample", maps, g("Unsqueeze", grid, g.integers(0, 1)), mode=mode, padding_mode=outside)
    return g("Squeeze", values, g.integers(0, 2))
