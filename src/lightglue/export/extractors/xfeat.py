"""XFeat as a graph, after `lightglue.extractors.xfeat` and `xfeat_network`."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from lightglue.export.builder import GraphBuilder, Value
from lightglue.export.extractors.keypoints import Found, Request, best, candidates, flat_index, window_max
from lightglue.export.extractors.layers import (
    conv,
    height_width,
    kernel,
    merged,
    normalised,
    padded_below,
    pool,
    resized,
)
from lightglue.extractors.xfeat_network import CELL, EPSILON, STRIDE, ConvLayer, XFeatNetwork

__all__ = ["write_xfeat"]

CHANNELS = 64  # of a feature


class _Fitted(NamedTuple):
    """An image as the network takes it: `xfeat._Fitted`."""

    image: Value  # (1, 1, H', W'), normalised
    size: Value  # (2,) int64, height and width of what the image fills
    padded: Value  # (2,) int64 H' W'
    ratio: Value  # (2,) float32, px of the original for one of this, x y


def write_xfeat(g: GraphBuilder, network: XFeatNetwork, nms_radius: int, image: Value, request: Request) -> Found:
    """An image (1, 3, H, W) in [0, 1] to its keypoints."""
    with g.scope("fit"):
        fitted = _fit(g, image)
    with g.scope("encode"):
        features, reliability = _encode(g, network, fitted.image)
    with g.scope("detect"):
        heat = g("Slice", _heatmap(g, network, fitted.image), g.integers(0, 0), fitted.size, g.integers(2, 3))
        pixels = _detect(g, heat, fitted, nms_radius, request)
        width = g("Gather", fitted.size, g.constant(np.int64(1)))
        grid = _grid(g, pixels, fitted)
        trust = g("Reshape", g("GridSample", reliability, grid, mode="linear"), g.integers(-1))
        index = flat_index(g, pixels, width)
        scores = g("Mul", g("Gather", g("Reshape", heat, g.integers(-1)), index), trust)
        # The first pixel never is a keypoint, nor is one without a score.
        valid = g("And", g("Greater", scores, g.floats(0)), g("Greater", index, g.constant(np.int64(0))))
        valid = g("Reshape", g("NonZero", valid), g.integers(-1))
        chosen = g("Gather", valid, best(g, g("Gather", scores, valid), request.max_keypoints))
        scores, pixels = g("Gather", scores, chosen), g("Gather", pixels, chosen, axis=0)
    with g.scope("describe"):
        values = g("GridSample", normalised(g, features, 1), _grid(g, pixels, fitted), mode="cubic")
        descriptors = normalised(g, g("Transpose", g("Squeeze", values, g.integers(0, 2)), perm=[1, 0]), 1)
        return Found(g("Mul", g.cast(pixels, "float32"), fitted.ratio), descriptors, scores)


def _fit(g: GraphBuilder, image: Value) -> _Fitted:
    """Gray, its sides rounded down to multiples of STRIDE by resizing; shorter ones are padded."""
    gray = g("ReduceMean", image, g.integers(1), keepdims=1)
    original = height_width(g, image)
    stride = g.integers(STRIDE)
    size = g("Mul", g("Div", original, stride), stride)
    size = g("Where", g("Greater", size, g.integers(0)), size, original)
    gray = resized(g, gray, 1, size, align_corners=False)
    axes = g.integers(1, 2, 3)
    centred = g("Sub", gray, g("ReduceMean", gray, axes, keepdims=1))
    variance = g("ReduceMean", g("Mul", centred, centred), axes, keepdims=1)
    gray = g("Div", centred, g("Sqrt", g("Add", variance, g.floats(EPSILON))))
    ratio = g("Div", g.cast(original, "float32"), g.cast(size, "float32"))
    padded = padded_below(g, gray, STRIDE)
    return _Fitted(padded, size, height_width(g, padded), g("Gather", ratio, g.integers(1, 0)))


def _layers(g: GraphBuilder, name: str, layers: Any, x: Value) -> Value:
    """Convolutions with their batch norms and ReLU, and plain ones."""
    for i, layer in enumerate(layers):
        if isinstance(layer, ConvLayer):
            inner: Any = layer.layer
            x = g("Relu", conv(g, f"{name}/{i}", x, merged(inner[0], inner[1]), stride=inner[0].stride[0]))
        elif hasattr(layer, "weight"):
            x = conv(g, f"{name}/{i}", x, kernel(layer))
        else:
            x = g("Sigmoid", x)
    return x


def _encode(g: GraphBuilder, network: XFeatNetwork, image: Value) -> tuple[Value, Value]:
    """Features (1, 64, h, w), not normalised, and reliability (1, 1, h, w)."""
    n = network
    beside = conv(g, "skip1/1", pool(g, image, 4), kernel(n.skip1[1]))
    x = g("Add", _layers(g, "block1", n.block1, image), beside)
    fine = _layers(g, "block3", n.block3, _layers(g, "block2", n.block2, x))
    middle = _layers(g, "block4", n.block4, fine)
    coarse = _layers(g, "block5", n.block5, middle)
    size = height_width(g, fine)
    pyramid = fine
    for small in (middle, coarse):
        pyramid = g("Add", pyramid, resized(g, small, CHANNELS, size, align_corners=False))
    features = _layers(g, "block_fusion", n.block_fusion, pyramid)
    return features, _layers(g, "heatmap_head", n.heatmap_head, features)


def _heatmap(g: GraphBuilder, network: XFeatNetwork, image: Value) -> Value:
    """Each pixel's probability (1, 1, H', W') of being the keypoint of its cell."""
    logits = _layers(g, "keypoint_head", network.keypoint_head, g("SpaceToDepth", image, blocksize=CELL))
    pixels = g("Slice", g("Softmax", logits, axis=1), g.integers(0), g.integers(CELL**2), g.integers(1))
    return g("DepthToSpace", pixels, blocksize=CELL)


def _detect(g: GraphBuilder, heat: Value, fitted: _Fitted, radius: int, request: Request) -> Value:
    """The maxima (N, 2) int64 x y; the last row and column of the map with its padding have none."""
    least = g("Max", request.min_score, g.floats(0))
    maxima = g("And", g("Equal", heat, window_max(g, heat, radius)), g("Greater", heat, least))
    inner = g("Min", fitted.size, g("Sub", fitted.padded, g.integers(1)))
    return candidates(g, g("Slice", maxima, g.integers(0, 0), inner, g.integers(2, 3)))


def _grid(g: GraphBuilder, pixels: Value, fitted: _Fitted) -> Value:
    """Where pixels (N, 2) lie among the cells, as GridSample takes it: `xfeat_network.cells_at`."""
    last = g.cast(g("Sub", g("Gather", fitted.padded, g.integers(1, 0)), g.integers(1)), "float32")
    grid = g("Sub", g("Mul", g("Div", g.cast(pixels, "float32"), last), g.floats(2)), g.floats(1))
    return g("Unsqueeze", grid, g.integers(0, 1))
