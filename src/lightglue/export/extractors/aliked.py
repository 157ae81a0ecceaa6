"""ALIKED as a graph, after `lightglue.extractors.aliked_network`, without dense descriptors.

The score head's first layer comes before the enlargement of the levels, and descriptors are read from the levels at the
pixels that the descriptor head asks for, as `aliked_fast` and `aliked_sparse` do. A deformable convolution samples all
its positions and multiplies once; ONNX's DeformConv is no faster, and OpenVINO does not have it.
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
from lightglue.export.extractors.sampling import corners, mixed, sample_rows
from lightglue.extractors.aliked_network import STRIDE, AlikedNetwork

__all__ = ["AlikedGraph", "Grid", "on_grid", "score_head", "write_aliked"]


STRIPS = 8  # of the finest map, worked on one after the other so that they stay in the cache


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
        """The finest map (1, c1, H', W'), and the three coarse levels (1, d, h, w)."""
        g, n = self._g, self._network
        x = self.grid.image
        for i in (1, 2):
            x = g("Selu", conv(g, f"block1/conv{i}", x, _merged(n.block1, i)))
        fine, levels = x, []
        for number, side in ((2, 2), (3, 4), (4, 4)):
            x = self._block(f"block{number}", getattr(n, f"block{number}"), pool(g, x, side))
            levels.append(g("Selu", conv(g, f"conv{number}", x, kernel(getattr(n, f"conv{number}")))))
        return fine, levels

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
        logits = score_head(
            g,
            "score_head",
            self._network.score_head,
            (self._fine, kernel(self._network.conv1)),
            self._levels,
            self.grid.size,
        )
        return self.grid.cropped(g, g("Sigmoid", logits))

    def describe(self, keypoints: Value) -> Value:
        """Descriptors (K, D), L2-normalised, at `keypoints` (K, 2) x y in px of the image."""
        with self._g.scope("describe"):
            return self._describe(keypoints)

    def _describe(self, keypoints: Value) -> Value:
        g, head = self._g, self._network.desc_head
        places, dim = head.agg_weights.shape[:2]
        limit = g("Mul", g("ReduceMax", self.extent, keepdims=0), g.floats(0.25))

        features, norms = self._read(g("Reshape", self._patches(keypoints), g.integers(-1, 2)))
        patches = g("Reshape", g("Div", features, norms), g.integers(-1, 9 * dim))
        hidden = g("Selu", self._linear("offset_conv/0", patches, kernel(head.offset_conv[0])))
        offsets = g("Clip", self._linear("offset_conv/2", hidden, kernel(head.offset_conv[2])), g("Neg", limit), limit)
        offsets = g("Transpose", g("Reshape", offsets, g.integers(-1, 2, places)), perm=[0, 2, 1])  # first x, then y
        at = g("Reshape", g("Add", offsets, g("Unsqueeze", keypoints, g.integers(1))), g.integers(-1, 2))

        pixels, weights = corners(g, at, _swapped(g, self.grid.inner))  # zeros outside of the image
        features, norms = self._read(g("Reshape", pixels, g.integers(-1, 2)))
        weights = g("Div", weights, g("Reshape", norms, g.integers(-1, 4)))
        samples = mixed(g, g("Reshape", features, g.integers(-1, 4, dim)), weights, dim)
        sf = np.ascontiguousarray(array(head.sf_conv.weight)[:, :, 0, 0].T)
        samples = g("Selu", g("MatMul", samples, g.constant(sf, "desc_head/sf_conv/weight")))
        join = g.constant(array(head.agg_weights).reshape(-1, dim), "desc_head/agg_weights")
        return normalised(g, g("MatMul", g("Reshape", samples, g.integers(-1, places * dim)), join), 1)

    def _linear(self, name: str, x: Value, layer: Kernel) -> Value:
        """Of rows that hold a patch's pixels one after the other."""
        g = self._g
        weight = np.ascontiguousarray(layer.weight.transpose(2, 3, 1, 0).reshape(-1, len(layer.weight)))
        tensors = g.constant(weight, f"desc_head/{name}/weight"), g.constant(layer.bias, f"desc_head/{name}/bias")
        return g("Gemm", x, *tensors)

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
        """Features (P, D) at pixels (P, 2) int64 of the image, and their lengths (P, 1)."""
        g, layer = self._g, kernel(self._network.conv1)
        channels = layer.weight.shape[1]
        pixels = g("Add", pixels, _swapped(g, self.grid.before))
        width = g("Gather", self.grid.size, g.constant(np.int64(1)))
        table = g("Reshape", self._fine, g.integers(channels, -1))
        fine = g("Gather", table, flat_index(g, pixels, width), axis=1)
        parts = [g("Selu", g("Gemm", fine, g.constant(_matrix(layer), "conv1/matrix"), transA=1, transB=1))]
        last = g.cast(g("Sub", _swapped(g, self.grid.size), g.integers(1)), "float32")
        positions = g("Div", g.cast(pixels, "float32"), last)
        for level in self._levels:
            size = _swapped(g, height_width(g, level))
            at = g("Mul", positions, g.cast(g("Sub", size, g.integers(1)), "float32"))
            parts.append(sample_rows(g, level, at, size))
        features = g("Concat", *parts, axis=1)
        return features, lengths(g, features, 1)


def score_head(
    g: GraphBuilder, name: str, head: Any, fine: tuple[Value, Kernel], levels: Sequence[Value], size: Value
) -> Value:
    """Logits (1, 1, H', W') from the levels of a pyramid, as if these were enlarged to `size` and joined.

    fine: the finest map (1, c1, H', W') and the 1x1 convolution that makes a level of it.
    """
    first, (maps, project) = kernel(head[0]), fine
    d, outputs = len(project.weight), len(first.weight)
    own = g.constant(_matrix(project), f"{name}/finest"), g.constant(_matrix(first)[:, :d], f"{name}/0/level0")
    strips = []
    for strip in g.several("Split", STRIPS, maps, axis=2, num_outputs=STRIPS):
        pixels = g("Reshape", strip, g.integers(project.weight.shape[1], -1))
        strips.append(g("MatMul", own[1], g("Selu", g("MatMul", own[0], pixels))))
    joined = g("Concat", *strips, axis=1)
    total = g("Reshape", joined, g("Concat", g.integers(1, outputs), size, axis=0))
    for i, level in enumerate(levels, start=1):
        part = conv(g, f"{name}/0/level{i}", level, first.of_inputs(slice(i * d, (i + 1) * d)))
        total = g("Add", total, resized(g, part, outputs, size, align_corners=True))
    for i in (2, 4, 6):
        total = conv(g, f"{name}/{i}", g("Selu", total), kernel(head[i]))
    return total


def _matrix(layer: Kernel) -> Any:
    """(O, C) of a 1x1 convolution."""
    return np.ascontiguousarray(layer.weight[:, :, 0, 0])


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
    extent = _swapped(g, size)
    limit = g("Mul", g.cast(g("ReduceMax", size, keepdims=0), "float32"), g.floats(0.25))
    order = np.arange(18).reshape(9, 2)[:, ::-1].ravel()  # the network gives dy dx, positions are x y
    predicted = Kernel(np.ascontiguousarray(offsets.weight[order]), offsets.bias[order])
    shifts = g("Clip", conv(g, f"{name}/offset_conv", x, predicted), g("Neg", limit), limit)
    shifts = g("Reshape", g("Transpose", shifts, perm=[0, 2, 3, 1]), g.integers(-1, 9, 2))  # (h w, 9, 2)
    steps = np.stack(np.meshgrid(np.arange(-1, 2), np.arange(-1, 2), indexing="xy"), -1)
    steps = steps.reshape(1, 9, 2).astype(np.float32)
    at = g("Add", g("Add", _positions(g, size), g.constant(steps, "deformable_steps")), shifts)
    samples = sample_rows(g, x, g("Reshape", at, g.integers(-1, 2)), extent)
    weight = np.ascontiguousarray(whole.weight.transpose(2, 3, 1, 0).reshape(9 * channels, outputs))
    tensors = g.constant(weight, f"{name}/weight"), g.constant(whole.bias, f"{name}/bias")
    rows = g("Gemm", g("Reshape", samples, g.integers(-1, 9 * channels)), *tensors)
    return g("Reshape", g("Transpose", rows, perm=[1, 0]), g("Concat", g.integers(1, outputs), size, axis=0))


def _positions(g: GraphBuilder, size: Value) -> Value:
    """(h w, 1, 2) float32 x y of each pixel of a map."""
    shape = g("Concat", size, g.integers(1), axis=0)
    axes, (zero, one) = [], (g.constant(np.int64(value)) for value in (0, 1))
    for axis, view in ((one, (1, -1, 1)), (zero, (-1, 1, 1))):
        steps = g("Range", zero, g("Gather", size, axis), one)
        axes.append(g("Expand", g("Reshape", steps, g.integers(*view)), shape))
    return g.cast(g("Reshape", g("Concat", *axes, axis=2), g.integers(-1, 1, 2)), "float32")
