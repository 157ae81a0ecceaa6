"""DISK as a graph, after `lightglue.extractors.disk_network`, with the last convolution's descriptors at keypoints.

That convolution is four fifths of the network's arithmetic. Its one output for the heatmap is a transposed convolution
with the kernel turned round, which runtimes do as a matrix product and sums: faster than a convolution to one channel.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from lightglue.export.builder import GraphBuilder, Value
from lightglue.export.extractors.keypoints import Found, Request, best, candidates, flat_index, window_offsets
from lightglue.export.extractors.layers import (
    Kernel,
    array,
    conv,
    height_width,
    kernel,
    normalised,
    padded_below,
    pool,
    resized,
)
from lightglue.extractors.disk_network import EPSILON, KERNEL, REACH, STRIDE, ConvBlock, DiskNetwork

__all__ = ["write_disk"]


class _Last(NamedTuple):
    """What the last convolution reads, (1, C, H', W'), and its kernel."""

    maps: Value
    kernel: Kernel

    @property
    def channels(self) -> int:
        return int(self.kernel.weight.shape[1])


def write_disk(g: GraphBuilder, network: DiskNetwork, window: int, image: Value, request: Request) -> Found:
    """An image (1, 3, H, W) in [0, 1] to its keypoints; window: side of that of which a keypoint is the maximum."""
    size = height_width(g, image)
    with g.scope("encode"):
        last = _encode(g, network, padded_below(g, image, STRIDE))
    with g.scope("detect"):
        heat = _heatmap(g, last)
        before = (window - 1) // 2
        width = g("Gather", height_width(g, heat), g.constant(np.int64(1)))
        flat = g("Reshape", heat, g.integers(-1))
        inner = g("Max", g("Sub", size, g.integers(window - 1)), g.integers(0))
        chosen = g("Slice", _strict_maxima(g, heat, window, request), g.integers(0, 0), inner, g.integers(2, 3))
        pixels = g("Add", candidates(g, chosen), g.integers(before))
        order = best(g, g("Gather", flat, flat_index(g, pixels, width)), request.max_keypoints)
        pixels = g("Gather", pixels, order, axis=0)
        scores = g("Gather", flat, flat_index(g, pixels, width))
    with g.scope("describe"):
        return Found(g.cast(pixels, "float32"), _describe(g, last, pixels), scores)


def _encode(g: GraphBuilder, network: DiskNetwork, image: Value) -> _Last:
    """All but the last convolution."""
    unet = network.unet
    maps = [conv(g, "unet/path_down0", image, _unbiased(unet.first.conv))]
    down: Any
    for i, down in enumerate(list(unet.path_down)[1:], start=1):
        x = _gate(g, f"unet/path_down{i}", down[1], _normalised(g, pool(g, maps[-1], 2)))
        maps.append(conv(g, f"unet/path_down{i}", x, _unbiased(down[1].conv)))
    x = maps.pop()
    channels = int(down[1].conv.out_channels)
    up: Any
    for i, up in enumerate(unet.path_up):
        name, beside, block = f"unet/path_up{i}", maps.pop(), up.conv
        below = resized(g, _normalised(g, x, enlarged=True), channels, height_width(g, beside), align_corners=False)
        x = _gate(g, name, block, g("Concat", below, _normalised(g, beside), axis=1))
        if i < len(unet.path_up) - 1:
            x, channels = conv(g, name, x, _unbiased(block.conv)), int(block.conv.out_channels)
    return _Last(x, kernel(block.conv))


def _unbiased(layer: Any) -> Kernel:
    """Without its bias, which the normalisation after it takes away."""
    return Kernel(array(layer.weight), None)


def _gate(g: GraphBuilder, name: str, block: ConvBlock, x: Value) -> Value:
    """PReLU."""
    return g("PRelu", x, g.constant(array(block.slopes).reshape(-1, 1, 1), f"{name}/slopes"))


def _normalised(g: GraphBuilder, x: Value, enlarged: bool = False) -> Value:
    """Instance norm; `enlarged`: with the statistics of the map enlarged twofold, as it commutes with the enlargement.

    Sums go along rows, then over these: runtimes' InstanceNormalization adds up a large map in one float32, and loses
    digits that scores need. The variance of the enlarged map is as in `disk_fast._enlarged_statistics`.
    """
    size = height_width(g, x)
    pixels = g.cast(g("ReduceProd", size, keepdims=0), "float32")
    mean = g("ReduceMean", g("ReduceMean", x, g.integers(3)), g.integers(2))
    centred = g("Sub", x, mean)
    squares = _squares(g, centred)
    if enlarged:
        dx, dy = _differences(g, x, 3), _differences(g, x, 2)
        along = g("Add", _squares(g, dx), _squares(g, dy))
        across = _squares(g, _differences(g, dy, 3))
        lost = g("Sub", g("Mul", along, g.floats(3 / 16)), g("Mul", across, g.floats(9 / 256)))
        squares = g("Sub", squares, lost)
    deviation = g("Sqrt", g("Add", g("Div", squares, pixels), g.floats(EPSILON)))
    return g("Mul", centred, g("Reciprocal", deviation))


def _squares(g: GraphBuilder, x: Value) -> Value:
    """Sums of squares (1, C, 1, 1)."""
    return g("ReduceSum", g("ReduceSumSquare", x, g.integers(3)), g.integers(2))


def _differences(g: GraphBuilder, x: Value, axis: int) -> Value:
    """Between neighbours along an axis."""
    axes, last = g.integers(axis), g.integers(2**31 - 1)
    after = g("Slice", x, g.integers(1), last, axes)
    return g("Sub", after, g("Slice", x, g.integers(0), g.integers(-1), axes))


def _heatmap(g: GraphBuilder, last: _Last) -> Value:
    """(1, 1, H', W')."""
    assert last.kernel.bias is not None
    weight = np.ascontiguousarray(last.kernel.weight[-1][:, None, ::-1, ::-1])  # (C, 1, k, k)
    tensors = g.constant(weight, "heatmap/weight"), g.constant(last.kernel.bias[-1:], "heatmap/bias")
    return g("ConvTranspose", last.maps, *tensors, kernel_shape=[KERNEL, KERNEL], pads=[REACH] * 4)


def _strict_maxima(g: GraphBuilder, heat: Value, window: int, request: Request) -> Value:
    """`detection.strict_maxima` of the pixels whose window lies inside of the map, (1, 1, H' - w + 1, W' - w + 1)."""
    before, after = (window - 1) // 2, window // 2
    axes = g.integers(2, 3)
    inner = g("Sub", height_width(g, heat), g.integers(window - 1))  # rows, columns

    def part(top: int, left: int, height: int, width: int) -> Value:
        starts = g.integers(top, left)
        ends = g("Add", inner, g.integers(top + height - 1, left + width - 1))
        return g("Slice", heat, starts, ends, axes)

    centre = part(before, before, 1, 1)
    strict = g("Greater", centre, request.min_score)
    # The window without its centre in four rectangles: above, below, left, right.
    for top, left, height, width in (
        (0, 0, before, window),
        (before + 1, 0, after, window),
        (before, 0, 1, before),
        (before, before + 1, 1, after),
    ):
        if height and width:
            around = g("MaxPool", part(top, left, height, width), kernel_shape=[height, width])
            strict = g("And", strict, g("Greater", centre, around))
    return strict


def _describe(g: GraphBuilder, last: _Last, pixels: Value) -> Value:
    """Descriptors (K, D), L2-normalised, at `pixels` (K, 2) int64."""
    assert last.kernel.bias is not None
    steps = window_offsets(REACH)
    size = g("Gather", height_width(g, last.maps), g.integers(1, 0))
    width = g("Gather", size, g.constant(np.int64(0)))
    around = g("Add", g("Unsqueeze", pixels, g.integers(1)), g.constant(steps, f"window{REACH}/pixels"))  # (K, 25, 2)
    inside = g("Max", g("Min", around, g("Sub", size, g.integers(1))), g.integers(0))
    index = g("Reshape", flat_index(g, inside, width), g.integers(-1))
    values = g("Gather", g("Reshape", last.maps, g.integers(last.channels, -1)), index, axis=1)
    same = g("ReduceMin", g.cast(g("Equal", inside, around), "float32"), g.integers(2), keepdims=0)
    values = g("Mul", values, g("Reshape", same, g.integers(1, -1)))  # the convolution's zeros around the map
    rows = g("Transpose", g("Reshape", values, g.integers(last.channels, -1, len(steps))), perm=[1, 0, 2])
    rows = g("Reshape", rows, g.integers(-1, last.channels * len(steps)))
    weight = np.ascontiguousarray(last.kernel.weight[:-1].reshape(len(last.kernel.weight) - 1, -1))
    tensors = g.constant(weight, "descriptors/weight"), g.constant(last.kernel.bias[:-1], "descriptors/bias")
    return normalised(g, g("Gemm", rows, *tensors, transB=1), 1)
