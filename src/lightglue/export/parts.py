"""The pieces that every format of a matcher is made of: embedding, layers, what is decided after one, the head.

The tokens of an image are (M, d), or (B, M, d) in a graph with a batch. Shapes below are without B.
M, N keypoints; d width, h heads of width e.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from lightglue.export.builder import GraphBuilder, Value
from lightglue.export.parameters import Block, Layer, Parameters
from lightglue.export.precision import Precision

__all__ = ["Assigned", "Image", "Logits", "Parts"]

_NEGLIGIBLE = 40.0  # exp(-40) times 20,000 keypoints is nothing beside 1 in float32
_EVERY = 8


@dataclass(frozen=True)
class Image:
    """An image's tokens on their way through the layers."""

    tokens: Value  # (M, d)
    cosines: Value  # (M, 1, e / 2), of the angles by which pairs of channels are rotated
    sines: Value  # (M, 1, e / 2)


@dataclass(frozen=True)
class Logits:
    """What the rows of an image say after a layer."""

    matchability: Value  # (M, 1)
    confidence: Value | None  # (M, 1); None after the last layer


@dataclass(frozen=True)
class Assigned:
    """The head's result."""

    partners: Value  # (M,) int64, the best keypoint of image 1, or -1 where it has a better one itself
    scores: Value  # (M,) float32 in [0, 1], 0 where the partner is -1


class Parts:
    """Writes the pieces of one network into graphs.

    batched: whether tensors have a batch dimension. guarded: whether images may have no keypoints; without, a graph
    is simpler for runtimes that want fixed shapes. bounded: see `_bounded`; for programs that leave denormal numbers as
    they are and cannot be told otherwise. Others are faster without: runtimes fuse attention only where it is plain.
    """

    def __init__(
        self, parameters: Parameters, precision: Precision, batched: bool, guarded: bool = True, bounded: bool = False
    ) -> None:
        self.parameters, self.precision, self._is_bounded = parameters, precision, bounded
        self._batch = 1 if batched else 0  # dimensions before the rows
        self.guarded = guarded

    # -- embedding ---------------------------------------------------------------------------------------------------

    def embed(self, g: GraphBuilder, positions: Value, descriptors: Value) -> Image:
        """From normalised positions (M, 2 or 4) and descriptors (M, D)."""
        parameters = self.parameters
        tokens = descriptors
        if parameters.input is not None:
            product = g("MatMul", descriptors, g.constant(parameters.input.weight, "input/weight"))
            tokens = g("Add", product, g.constant(parameters.input.bias, "input/bias"))
        angles = g("MatMul", positions, g.constant(parameters.frequencies, "positions/frequencies"))
        angles = g("Unsqueeze", angles, g.integers(-2))
        return Image(tokens, g("Cos", angles), g("Sin", angles))

    def normalise(self, g: GraphBuilder, keypoints: Value, size: Value) -> Value:
        """(M, 2) px and the image's size (2,), or (B, 2), to about [-1, 1]."""
        centre = g("Mul", size, g.floats(0.5))
        longest = g("ReduceMax", centre, g.integers(-1), keepdims=1)
        if self._batch:
            centre, longest = (g("Unsqueeze", each, g.integers(1)) for each in (centre, longest))
        return g("Div", g("Sub", keypoints, centre), longest)

    # -- layers ------------------------------------------------------------------------------------------------------

    def layer(self, g: GraphBuilder, index: int, image0: Image, image1: Image) -> tuple[Image, Image]:
        """Self-attention in both images, then cross-attention between them."""
        layer = self.parameters.layers[index]
        with g.scope(f"layer_{index}"):
            name = f"layer_{index}/own"
            with g.scope("own"):
                x0, x1 = (self._own(g, layer.own, name, image) for image in (image0, image1))
            name = f"layer_{index}/cross"
            with g.scope("cross"):
                x0, x1 = self._cross(g, layer.cross, name, x0, x1)
        return Image(x0, image0.cosines, image0.sines), Image(x1, image1.cosines, image1.sines)

    def _own(self, g: GraphBuilder, block: Block, name: str, image: Image) -> Value:
        d, h = self.parameters.width, self.parameters.heads
        projected = self.precision.linear(g, image.tokens, block.project, f"{name}/project")
        pieces = g.split(projected, [d, d, d], axis=-1)
        real, imaginary = (self._unfold(g, piece, 2 * h, d // (2 * h)) for piece in pieces[:2])  # (M, 2 h, e / 2)
        turned = (
            g("Sub", g("Mul", real, image.cosines), g("Mul", imaginary, image.sines)),
            g("Add", g("Mul", imaginary, image.cosines), g("Mul", real, image.sines)),
        )
        queries, keys = g.split(g("Concat", *turned, axis=-1), [h, h], axis=self._batch + 1)
        attended = self._attend(
            g, self._rows(g, queries), self._columns(g, keys), self._rows(g, self._unfold(g, pieces[2], h, d // h))
        )
        return self._update(g, block, name, image.tokens, attended)

    def _cross(self, g: GraphBuilder, block: Block, name: str, x0: Value, x1: Value) -> tuple[Value, Value]:
        d, h = self.parameters.width, self.parameters.heads
        heads = []
        for x in (x0, x1):
            pieces = g.split(self.precision.linear(g, x, block.project, f"{name}/project"), [d, d], axis=-1)
            heads.append([self._unfold(g, piece, h, d // h) for piece in pieces])
        (shared0, values0), (shared1, values1) = heads
        from0 = self._attend(g, self._rows(g, shared0), self._columns(g, shared1), self._rows(g, values1))
        from1 = self._attend(g, self._rows(g, shared1), self._columns(g, shared0), self._rows(g, values0))
        return self._update(g, block, name, x0, from0), self._update(g, block, name, x1, from1)

    def _unfold(self, g: GraphBuilder, x: Value, groups: int, width: int) -> Value:
        """(M, groups * width) -> (M, groups, width)."""
        return g("Reshape", x, g.integers(*[0] * (self._batch + 1), groups, width))

    def _rows(self, g: GraphBuilder, x: Value) -> Value:
        """(M, h, e) -> (h, M, e)."""
        return g("Transpose", x, perm=[0, 2, 1, 3] if self._batch else [1, 0, 2])

    def _columns(self, g: GraphBuilder, x: Value) -> Value:
        """(N, h, e) -> (h, e, N)."""
        return g("Transpose", x, perm=[0, 2, 3, 1] if self._batch else [1, 2, 0])

    def _attend(self, g: GraphBuilder, queries: Value, keys: Value, values: Value) -> Value:
        """(h, M, e), (h, e, N), (h, N, e) -> (M, d)."""
        products = g("MatMul", queries, keys)
        if self._is_bounded:
            products = self._bounded(g, products)
        weights = g("Softmax", products, axis=-1)
        by_row = self._rows(g, g("MatMul", weights, values))  # its own inverse
        return g("Reshape", by_row, g.integers(*[0] * (self._batch + 1), self.parameters.width))

    def _bounded(self, g: GraphBuilder, products: Value) -> Value:
        """(h, M, N) without the products that are so small that the softmax would make denormal numbers of them.

        Trained attention is sharp: up to four in five weights are below exp(-87), and there a CPU computes ten times
        slower. A bound of 40 below a row's greatest product changes no sum in float32. To find that one exactly takes
        longer than the product itself; the greatest of every eighth is near enough, and never too great.
        """
        last = self._batch + 2
        end = g.integers(np.iinfo(np.int64).max)
        some = g("Slice", products, g.integers(0), end, g.integers(last), g.integers(_EVERY))
        greatest = g("ReduceMax", some, g.integers(-1), keepdims=1)
        return g("Max", products, g("Sub", greatest, g.floats(_NEGLIGIBLE)))

    def _update(self, g: GraphBuilder, block: Block, name: str, x: Value, attended: Value) -> Value:
        hidden = self.precision.linear(g, g("Concat", x, attended, axis=-1), block.first, f"{name}/first")
        weight, bias = (
            g.constant(block.norm_weight, f"{name}/norm/weight"),
            g.constant(block.norm_bias, f"{name}/norm/bias"),
        )
        normed = g("LayerNormalization", hidden, weight, bias, axis=-1, epsilon=block.norm_eps)
        return g("Add", x, self.precision.linear(g, g("Gelu", normed), block.last, f"{name}/last"))

    # -- decisions and matches ---------------------------------------------------------------------------------------

    def logits(self, g: GraphBuilder, index: int, tokens: Value) -> Logits:
        """Of the rows (M, d) after a layer."""
        with g.scope(f"scores_{index}"):
            linear = self.parameters.layers[index].scores
            product = g("MatMul", tokens, g.constant(linear.weight, f"scores_{index}/weight"))
            both = g("Add", product, g.constant(linear.bias, f"scores_{index}/bias"))
            if len(linear.bias) == 1:
                return Logits(both, None)
            return Logits(*g.split(both, [1, 1], axis=-1))

    def head(self, g: GraphBuilder, index: int, tokens0: Value, tokens1: Value) -> Assigned:
        """Double softmax and mutual check, with the head of a layer.

        An image without keypoints gets one row of zeros, so that there is always a best one; it never counts.
        """
        with g.scope(f"head_{index}"):
            padded0, padded1 = tokens0, tokens1
            if self.guarded:
                padded0, padded1 = self._at_least_one(g, tokens0), self._at_least_one(g, tokens1)
            layer = self.parameters.layers[index]
            similarity = self._similarity(g, index, layer, padded0, padded1)
            z0, z1 = (self.logits(g, index, x).matchability for x in (padded0, padded1))
            term0 = g("Sub", self._log_sigmoid(g, z0), g("ReduceLogSumExp", similarity, g.integers(-1)))
            column = g("Transpose", self._log_sigmoid(g, z1), perm=[0, 2, 1] if self._batch else [1, 0])
            term1 = g("Sub", column, g("ReduceLogSumExp", similarity, g.integers(-2)))
            scores = g("Add", g("Add", g("Mul", similarity, g.floats(2)), term0), term1)
            return self._mutual(g, scores, tokens0, tokens1)

    def _at_least_one(self, g: GraphBuilder, x: Value) -> Value:
        rows = g("Shape", x, start=self._batch, end=self._batch + 1)
        missing = g("Max", g("Sub", g.integers(1), rows), g.integers(0))
        begin = [0] * (self._batch + 2)
        pads = g("Concat", g.integers(*begin, *begin[: self._batch]), missing, g.integers(0), axis=0)
        return g("Pad", x, pads)

    def _similarity(self, g: GraphBuilder, index: int, layer: Layer, x0: Value, x1: Value) -> Value:
        weight = self.precision.weight(g, layer.compared.weight, f"compared_{index}/weight")
        bias = g.constant(layer.compared.bias, f"compared_{index}/bias")
        compared0, compared1 = (g("Add", g("MatMul", x, weight), bias) for x in (x0, x1))
        return g("MatMul", compared0, g("Transpose", compared1, perm=[0, 2, 1] if self._batch else [1, 0]))

    def _log_sigmoid(self, g: GraphBuilder, z: Value) -> Value:
        return g("Neg", g("Softplus", g("Neg", z)))

    def _mutual(self, g: GraphBuilder, scores: Value, tokens0: Value, tokens1: Value) -> Assigned:
        """From the log scores, of which the first row or column is none where an image has no keypoints."""
        best = g("ReduceMax", scores, g.integers(-1), keepdims=0)
        partner0 = g("ArgMax", scores, axis=-1, keepdims=0)
        partner1 = g("ArgMax", scores, axis=-2, keepdims=0)
        back = g("GatherElements", partner1, partner0, axis=-1)
        one, zero = g.constant(np.int64(1)), g.constant(np.int64(0))
        size0 = g("Squeeze", g("Shape", partner0, start=self._batch, end=self._batch + 1), g.integers(0))
        mutual = g("Equal", back, g("Range", zero, size0, one))
        if self.guarded:
            rows1 = g("Shape", tokens1, start=self._batch, end=self._batch + 1)
            mutual = g("And", mutual, g("Greater", rows1, zero))
        partners = g("Where", mutual, partner0, g.constant(np.int64(-1)))
        values = g("Where", mutual, g("Exp", best), g.floats(0))
        if self.guarded:
            rows0 = g("Shape", tokens0, start=self._batch, end=self._batch + 1)
            partners, values = (
                g("Slice", each, g.integers(0), rows0, g.integers(self._batch)) for each in (partners, values)
            )
        return Assigned(partners, values)

    def above(self, g: GraphBuilder, found: Assigned, threshold: float) -> Value:
        """(M,) int64: the partners whose scores exceed the threshold, -1 elsewhere."""
        return g("Where", g("Greater", found.scores, g.floats(threshold)), found.partners, g.constant(np.int64(-1)))
