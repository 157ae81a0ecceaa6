"""ALIKED as a graph, after `lightglue.extractors.aliked_network`, without dense descriptors.

The score head's first layer comes before the enlargement of the levels, and descriptors are read from the levels at the
pixels that the descriptor head asks for, as `aliked_fast` and `aliked_sparse` do. A deformable convolution samples all
its positions by one GridSample, which every runtime has; ONNX's DeformConv is no faster.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
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
    refine,
    sample,
)
from lightglue.export.extractors.layers import (
    Kernel,
    array,
    conv,
    height_width,
    kernel,
    lengths,
    merged,
    normalised,
    pool,
    resized,
)
from lightglue.extractors.aliked_network import STRIDE, AlikedNetwork

__all__ = ["AlikedGraph", "Grid", "on_grid", "score_head", "write_aliked"]


@dataclass(frozen=True)
class Grid:
    """An image padded to multiples of `STRIDE`, with its border, as much on either side."""

    image: Value  # (1, 3, H', W')
    size: Value  # (2,) int64 H' W'
    before: Value  # (2,) int64, px above and to the left of the image
    inner: Value  # (2,) int64 H W of the image

    def cropped(self, g: GraphBuilder, maps: Value) -> Value:
        """(1, C, H', W') to (1, C, H, W)."""
        return g("Slice", maps, self.before, g("Add", self.before, self.inner), g.integers(2, 3))


def on_grid(g: GraphBuilder, image: Value) -> Grid:
    """An image (1, 3, H, W) of any size."""
    size = height_width(g, image)
    missing = g("Mod", g("Neg", size), g.integers(STRIDE))
    before = g("Div", missing, g.integers(2))
    none = g.integers(0, 0)
    pads = g("Concat", none, before, none, g("Sub", missing, before), axis=0)
    padded = g("Pad", image, pads, mode="edge")
    return Grid(padded, g("Add", size, missing), before, size)


def write_aliked(g: GraphBuilder, network: AlikedNetwork, nms_radius: int, image: Value, request: Request) -> Found:
    """An image (1, 3, H, W) in [0, 1] to its keypoints."""
    aliked = AlikedGraph(g, network, image)
    with g.scope("detect"):
        scores = aliked.scores()
        width = g("Gather", aliked.grid.inner, g.constant(np.int64(1)))
        flat = g("Reshape", scores, g.integers(-1))
        chosen = g("And", nms_maxima(g, scores, nms_radius), g("Greater", scores, request.min_score))
        pixels = candidates(g, chosen, (nms_radius, nms_radius))
        order = best(g, g("Gather", flat, flat_index(g, pixels, width)), request.max_keypoints)
        keypoints = refine(g, flat, g("Gather", pixels, order, axis=0), width, nms_radius)
        values = g("Reshape", sample(g, scores, keypoints, aliked.extent), g.integers(-1))
    return Found(keypoints, aliked.describe(keypoints), values)


class AlikedGraph:
    """What the network makes of an image: its encoder's nodes, and on demand those of scores and descriptors."""

    def __init__(self, g: GraphBuilder, network: AlikedNetwork, image: Value) -> None:
        self._g, self._network = g, network
        with g.scope("pad"):
            self.grid = on_grid(g, image)
            self.extent = g.cast(_swapped(g, self.grid.inner), "float32")  # (2,) w h of the image
        with g.scope("encode"):
            self._fine, self._levels = self._encode()

    def _encode(self) -> tuple[Value, list[Value]]:
        """The finest map (1, c1, H', W'), and the four levels (1, d, h, w)."""
        g, n = self._g, self._network
        x = self.grid.image
        for i in (1, 2):
            x = g("Selu", conv(g, f"block1/conv{i}", x, _merged(n.block1, i)))
        maps = [x]
        for number, side in ((2, 2), (3, 4), (4, 4)):
            maps.append(self._block(f"block{number}", getattr(n, f"block{number}"), pool(g, maps[-1], side)))
        levels = [
            g("Selu", conv(g, f"conv{i}", each, kernel(getattr(n, f"conv{i}")))) for i, each in enumerate(maps, start=1)
        ]
        return maps[0], levels

    def _block(self, name: str, block: Any, x: Value) -> Value:
        g = self._g
        inner = self._conv3(f"{name}/conv2", block, 2, g("Selu", self._conv3(f"{name}/conv1", block, 1, x)))
        return g("Selu", g("Add", inner, conv(g, f"{name}/downsample", x, kernel(block.downsample))))

    def _conv3(self, name: str, block: Any, index: int, x: Value) -> Value:
        layer = getattr(block, f"conv{index}")
        if not hasattr(layer, "offset_conv"):
            return conv(self._g, name, x, _merged(block, index))
        whole = merged(layer.regular_conv, getattr(block, f"bn{index}"))
        return _deformable(self._g, name, x, kernel(layer.offset_conv), whole)

    def scores(self) -> Value:
        """(1, 1, H, W) in [0, 1]."""
        g = self._g
        logits = score_head(g, "score_head", self._network.score_head, self._levels, self.grid.size)
        return self.grid.cropped(g, g("Sigmoid", logits))

    def describe(self, keypoints: Value) -> Value:
        """Descriptors (K, D), L2-normalised, at `keypoints` (K, 2) x y in px of the image."""
        with self._g.scope("describe"):
            return self._describe(keypoints)

    def _describe(self, keypoints: Value) -> Value:
        g, head = self._g, self._network.desc_head
        places, dim = head.agg_weights.shape[:2]
        last = g("Sub", self.extent, g.floats(1))
        limit = g("Mul", g("ReduceMax", self.extent, keepdims=0), g.floats(0.25))

        features, norms = self._read(g("Reshape", self._patches(keypoints), g.integers(-1, 2)))
        patches = g("Reshape", g("Div", features, norms), g.integers(dim, -1, 9))
        patches = g("Reshape", g("Transpose", patches, perm=[1, 0, 2]), g.integers(-1, dim * 9))
        hidden = g("Selu", self._linear("offset_conv/0", patches, kernel(head.offset_conv[0])))
        offsets = g("Clip", self._linear("offset_conv/2", hidden, kernel(head.offset_conv[2])), g("Neg", limit), limit)
        offsets = g("Transpose", g("Reshape", offsets, g.integers(-1, 2, places)), perm=[0, 2, 1])  # first x, then y
        at = g("Reshape", g("Add", offsets, g("Unsqueeze", keypoints, g.integers(1))), g.integers(1, -1, 2))

        steps = np.array([[0, 0], [1, 0], [0, 1], [1, 1]], np.float32).reshape(4, 1, 2)
        pixels = g("Add", g("Floor", at), g.constant(steps, "corner_steps"))  # (4, P, 2)
        inside = g("Max", g("Min", pixels, last), g.floats(0))
        near = g("Sub", g.floats(1), g("Abs", g("Sub", at, pixels)))
        near = g("Mul", near, g.cast(g("Equal", inside, pixels), "float32"))  # zeros outside of the image
        weights = g("Reshape", g("ReduceProd", near, g.integers(2), keepdims=0), g.integers(1, -1))
        features, norms = self._read(g("Reshape", g.cast(inside, "int64"), g.integers(-1, 2)))
        features = g("Reshape", g("Mul", features, g("Div", weights, norms)), g.integers(dim, 4, -1))
        samples = g("ReduceSum", features, g.integers(1), keepdims=0)  # (D, P)

        sf = g.constant(kernel(head.sf_conv).weight[:, :, 0, 0], "desc_head/sf_conv/weight")
        samples = g("Transpose", g("Selu", g("MatMul", sf, samples)), perm=[1, 0])
        join = g.constant(array(head.agg_weights).reshape(-1, dim), "desc_head/agg_weights")
        return normalised(g, g("MatMul", g("Reshape", samples, g.integers(-1, places * dim)), join), 1)

    def _linear(self, name: str, x: Value, layer: Kernel) -> Value:
        g = self._g
        weight = g.constant(layer.weight.reshape(len(layer.weight), -1), f"desc_head/{name}/weight")
        return g("Gemm", x, weight, g.constant(layer.bias, f"desc_head/{name}/bias"), transB=1)

    def _patches(self, keypoints: Value) -> Value:
        """The pixels (K, 9, 2) of the patch around each keypoint: `aliked_network.patch_pixels`."""
        g = self._g
        size = _swapped(g, self.grid.inner)
        corner = g("Sub", g.cast(keypoints, "int64"), g.integers(1))
        corner = g("Max", g("Min", corner, g("Sub", size, g.integers(4))), g.integers(0))
        steps = np.stack(np.meshgrid(np.arange(3), np.arange(3), indexing="xy"), -1).reshape(1, 9, 2).astype(np.int64)
        pixels = g("Add", g("Unsqueeze", corner, g.integers(1)), g.constant(steps, "patch_steps"))
        return g("Min", pixels, g("Sub", size, g.integers(1)))

    def _read(self, pixels: Value) -> tuple[Value, Value]:
        """Features (D, P) at pixels (P, 2) int64 of the image, and their lengths (1, P)."""
        g, layer = self._g, kernel(self._network.conv1)
        d, channels = layer.weight.shape[:2]
        pixels = g("Add", pixels, _swapped(g, self.grid.before))
        width = g("Gather", self.grid.size, g.constant(np.int64(1)))
        table = g("Reshape", self._fine, g.integers(channels, -1))
        fine = g("Gather", table, flat_index(g, pixels, width), axis=1)
        fine = g("Selu", g("MatMul", g.constant(layer.weight[:, :, 0, 0], "conv1/matrix"), fine))
        last = g.cast(g("Sub", _swapped(g, self.grid.size), g.integers(1)), "float32")
        grid = g("Sub", g("Div", g("Mul", g.cast(pixels, "float32"), g.floats(2)), last), g.floats(1))
        grid = g("Unsqueeze", grid, g.integers(0, 1))
        coarse = [
            g("GridSample", level, grid, mode="linear", padding_mode="border", align_corners=1)
            for level in self._levels[1:]
        ]
        features = g("Concat", fine, *(g("Reshape", each, g.integers(d, -1)) for each in coarse), axis=0)
        return features, lengths(g, features, 0)


def score_head(g: GraphBuilder, name: str, head: Any, levels: Sequence[Value], size: Value) -> Value:
    """Logits (1, 1, H', W') from the levels of a pyramid, as if these were enlarged to `size` and joined."""
    first = kernel(head[0])
    d = first.weight.shape[1] // len(levels)
    total: Value | None = None
    for i, level in enumerate(levels):
        part = conv(g, f"{name}/0/level{i}", level, first.of_inputs(slice(i * d, (i + 1) * d)))
        part = part if i == 0 else resized(g, part, len(first.weight), size, align_corners=True)
        total = part if total is None else g("Add", total, part)
    assert total is not None
    for i in (2, 4, 6):
        total = conv(g, f"{name}/{i}", g("Selu", total), kernel(head[i]))
    return total


def _merged(block: Any, index: int) -> Kernel:
    return merged(getattr(block, f"conv{index}"), getattr(block, f"bn{index}"))


def _swapped(g: GraphBuilder, pair: Value) -> Value:
    """Height and width as width and height, or the other way round."""
    return g("Gather", pair, g.integers(1, 0))


def _deformable(g: GraphBuilder, name: str, x: Value, offsets: Kernel, whole: Kernel) -> Value:
    """3x3 deformable convolution; an offset is at most a quarter of the longer side."""
    assert offsets.bias is not None
    outputs, channels = whole.weight.shape[:2]
    size = height_width(g, x)
    extent = g("Reshape", g.cast(_swapped(g, size), "float32"), g.integers(1, 2, 1, 1))
    limit = g("Mul", g("ReduceMax", extent, keepdims=0), g.floats(0.25))
    order = np.arange(18).reshape(9, 2)[:, ::-1].ravel()  # the network gives dy dx, GridSample wants x y
    predicted = Kernel(np.ascontiguousarray(offsets.weight[order]), offsets.bias[order])
    shifts = g("Clip", conv(g, f"{name}/offset_conv", x, predicted), g("Neg", limit), limit)
    shifts = g("Reshape", shifts, g("Concat", g.integers(9, 2), size, axis=0))
    places = np.stack(np.meshgrid(np.arange(-1, 2), np.arange(-1, 2), indexing="xy"), -1)
    steps = (places.reshape(9, 2, 1, 1) + 0.5).astype(np.float32)
    at = g("Add", g("Add", _positions(g, size), g.constant(steps, "deformable_steps")), shifts)
    grid = g("Sub", g("Mul", at, g("Div", g.floats(2), extent)), g.floats(1))
    rows = g("Concat", g.integers(1, -1), g("Slice", size, g.integers(1), g.integers(2)), g.integers(2), axis=0)
    grid = g("Reshape", g("Transpose", grid, perm=[0, 2, 3, 1]), rows)  # (1, 9 h, w, 2)
    samples = g("GridSample", x, grid, mode="linear", padding_mode="zeros", align_corners=0)
    samples = g("Reshape", samples, g("Concat", g.integers(1, 9 * channels), size, axis=0))
    return conv(g, name, samples, Kernel(whole.weight.reshape(outputs, 9 * channels, 1, 1), whole.bias))


def _positions(g: GraphBuilder, size: Value) -> Value:
    """(1, 2, h, w) float32 x y of each pixel of a map."""
    shape = g("Concat", g.integers(1, 1), size, axis=0)
    axes = []
    for axis, view in ((1, (1, 1, 1, -1)), (0, (1, 1, -1, 1))):
        steps = g(
            "Range", g.constant(np.int64(0)), g("Gather", size, g.constant(np.int64(axis))), g.constant(np.int64(1))
        )
        axes.append(g("Expand", g("Reshape", steps, g.integers(*view)), shape))
    return g.cast(g("Concat", *axes, axis=1), "float32")
