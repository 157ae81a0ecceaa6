"""SuperPoint as a graph, after `lightglue.extractors.superpoint_network`, either layout."""

from __future__ import annotations

from typing import Any

import numpy as np

from lightglue.export.builder import GraphBuilder, Value
from lightglue.export.extractors.keypoints import (
    Found,
    Request,
    best,
    candidates,
    flat_index,
    nms_maxima,
    sample,
)
from lightglue.export.extractors.layers import Kernel, array, conv, height_width, kernel, normalised
from lightglue.extractors.grayscale import BLUE, GREEN, RED
from lightglue.extractors.superpoint_network import SuperPointNetwork

__all__ = ["write_superpoint"]


def write_superpoint(
    g: GraphBuilder, network: SuperPointNetwork, nms_radius: int, border: int, image: Value, request: Request
) -> Found:
    """An image (1, 3, H, W) in [0, 1] to its keypoints; border: width of the strip without any, px."""
    stride, size = network.stride, height_width(g, image)
    with g.scope("encode"):
        gray = conv(g, "gray", image, Kernel(np.array([RED, GREEN, BLUE], np.float32).reshape(1, 3, 1, 1), None))
        short = g("Max", g("Sub", g.integers(stride), size), g.integers(0))
        gray = g("Pad", gray, g("Concat", g.integers(0, 0, 0, 0, 0, 0), short, axis=0))
        logits, dense = _encode(g, network, gray)
    with g.scope("detect"):
        pixels = g("Slice", g("Softmax", logits, axis=1), g.integers(0), g.integers(stride**2), g.integers(1))
        scores = g("DepthToSpace", pixels, blocksize=stride)
        inner = g("Min", size, height_width(g, scores))
        scores = g("Slice", scores, g.integers(0, 0), inner, g.integers(2, 3))
        width = g("Gather", inner, g.constant(np.int64(1)))
        least = g("Max", request.min_score, g.floats(0))
        chosen = g("And", nms_maxima(g, scores, nms_radius), g("Greater", scores, least))
        pixels = candidates(g, chosen, (border, border))
        values = g("Gather", g("Reshape", scores, g.integers(-1)), flat_index(g, pixels, width))
        order = best(g, values, request.max_keypoints)
        pixels, values = g("Gather", pixels, order, axis=0), g("Gather", values, order)
    with g.scope("describe"):
        keypoints = g.cast(pixels, "float32")
        return Found(keypoints, _describe(g, network, dense, keypoints), values)


def _layer(g: GraphBuilder, network: SuperPointNetwork, name: str, x: Value, active: bool = True) -> Value:
    layer: Any = network.get_submodule(f"conv{name}")
    x = conv(g, f"conv{name}", x, kernel(layer))
    if active:
        x = g("Relu", x)
    if not network.batch_norm:
        return x
    norm: Any = network.get_submodule(f"bn{name}")  # after the activation: not to be merged into the convolution
    tensors = {"weight": norm.weight, "bias": norm.bias, "mean": norm.running_mean, "variance": norm.running_var}
    constants = (g.constant(array(value), f"bn{name}/{part}") for part, value in tensors.items())
    return g("BatchNormalization", x, *constants, epsilon=norm.eps)


def _encode(g: GraphBuilder, network: SuperPointNetwork, x: Value) -> tuple[Value, Value]:
    """Logits (1, S * S + 1, h, w) and descriptors (1, D, h, w), not normalised."""
    for number in range(1, network.blocks + 1):
        for part in "ab":
            x = _layer(g, network, f"{number}{part}", x)
        if number < network.blocks:
            x = g("MaxPool", x, kernel_shape=[2, 2], strides=[2, 2])
    heads = (_layer(g, network, f"{head}b", _layer(g, network, f"{head}a", x), active=False) for head in "PD")
    logits, dense = heads
    return logits, dense


def _describe(g: GraphBuilder, network: SuperPointNetwork, dense: Value, keypoints: Value) -> Value:
    """Descriptors (K, D), L2-normalised, at `keypoints` (K, 2)."""
    stride = network.stride
    cells = g.cast(g("Gather", height_width(g, dense), g.integers(1, 0)), "float32")
    centre = g("Sub", keypoints, g.floats((stride - 1) / 2))
    if network.batch_norm:
        positions = g("Div", centre, g.floats(stride))
    else:
        extent = g("Sub", g("Mul", cells, g.floats(stride)), g.floats((stride + 1) / 2))
        positions = g("Div", g("Mul", centre, g("Sub", cells, g.floats(1))), extent)
    values = sample(g, normalised(g, dense, 1), positions, cells)
    return normalised(g, g("Transpose", values, perm=[1, 0]), 1)
