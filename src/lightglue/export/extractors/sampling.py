"""Reading a map between its pixels.

A position's values are a row, so that samples that belong together lie side by side for the product after them.
"""

from __future__ import annotations

import numpy as np

from lightglue.export.builder import GraphBuilder, Value
from lightglue.export.extractors.keypoints import sample

__all__ = ["corners", "mixed", "sample_rows"]


def sample_rows(g: GraphBuilder, maps: Value, at: Value, size: Value) -> Value:
    """Bilinear values (P, C) of maps (1, C, h, w) at positions (P, 2) x y in px; zeros outside.

    size: (2,) int64, w h. By GridSample: to gather the corners' rows and to add them up was no faster in ONNX Runtime,
    and slower in OpenVINO.
    """
    return g("Transpose", sample(g, maps, at, g.cast(size, "float32")), perm=[1, 0])


def corners(g: GraphBuilder, at: Value, size: Value) -> tuple[Value, Value]:
    """The four pixels (P, 4, 2) int64 x y around positions (P, 2), moved inside the map, and their weights (P, 4), 0
    where they were not inside. size: (2,) int64, w h."""
    last = g.cast(g("Sub", size, g.integers(1)), "float32")
    pixels, weights = [], []
    for axis, steps in enumerate(([0, 1, 0, 1], [0, 0, 1, 1])):
        index = g.integers(axis)
        one = g("Gather", at, index, axis=1)  # (P, 1)
        pixel = g("Add", g("Floor", one), g.constant(np.array([steps], np.float32), f"corners/{'xy'[axis]}"))
        inside = g("Max", g("Min", pixel, g("Gather", last, index)), g.floats(0))
        near = g("Sub", g.floats(1), g("Abs", g("Sub", one, pixel)))
        weights.append(g("Mul", near, g.cast(g("Equal", inside, pixel), "float32")))
        pixels.append(g("Unsqueeze", inside, g.integers(2)))
    return g.cast(g("Concat", *pixels, axis=2), "int64"), g("Mul", *weights)


def mixed(g: GraphBuilder, rows: Value, weights: Value, channels: int) -> Value:
    """Sums (P, C) of four rows each, (P, 4, C), weighted by (P, 4)."""
    product = g("MatMul", g("Unsqueeze", weights, g.integers(1)), rows)
    return g("Reshape", product, g.integers(-1, channels))
