"""Early stopping and pruning inside a graph: an `If` after every layer, with the rest of the layers in its else-branch.

The decisions are those of `lightglue.matching.engine` for one pair: the same results for any number of keypoints, none
included, and where pruning leaves an image without any.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from lightglue.export.builder import GraphBuilder, TensorType, Value
from lightglue.export.parts import Image, Logits, Parts

__all__ = ["Found", "Thresholds", "adaptive_pass"]


@dataclass(frozen=True)
class Thresholds:
    """What decides in a graph; as `lightglue.matching.engine.EngineOptions`."""

    depth_confidence: float  # <= 0: no early stop
    width_confidence: float  # <= 0: no pruning
    filter_threshold: float
    pruning_min_keypoints: int  # an image with this many keypoints or fewer is not pruned


@dataclass(frozen=True)
class Found:
    """The result of a pair, for all keypoints that were given. Of format `adaptive` all of it is written."""

    matches0: Value  # (M,) int64
    scores0: Value  # (M,) float32
    stop: Value  # () int64
    prune0: Value  # (M,) int64
    prune1: Value  # (N,) int64


_BRANCH = (
    TensorType("int64", ("M",)),
    TensorType("float32", ("M",)),
    TensorType("int64", ()),
    TensorType("int64", ("M",)),
    TensorType("int64", ("N",)),
)


@dataclass(frozen=True)
class _Side:
    """An image with what is left of its keypoints."""

    image: Image
    slots: Value  # (M',) int64, which of the given keypoints the rows are
    layers_run: Value  # (M,) int64, for all keypoints that were given


def adaptive_pass(g: GraphBuilder, parts: Parts, images: tuple[Image, Image], thresholds: Thresholds) -> Found:
    """The whole pass, from the embedded images."""
    return _Pass(g, parts, images, thresholds).run()


class _Pass:
    def __init__(self, g: GraphBuilder, parts: Parts, images: tuple[Image, Image], thresholds: Thresholds) -> None:
        self.g, self.parts, self.thresholds = g, parts, thresholds
        self.n_layers = len(parts.parameters.layers)
        self.may_stop, self.may_prune = thresholds.depth_confidence > 0, thresholds.width_confidence > 0
        self.images = images
        zero, one = g.constant(np.int64(0)), g.constant(np.int64(1))
        self.shapes = [g("Shape", image.tokens, start=0, end=1) for image in images]  # (1,) each
        self.counts = [g("Squeeze", shape, g.integers(0)) for shape in self.shapes]
        self.total = g.cast(g("Add", *self.counts), "float32")
        self.slots = [g("Range", zero, count, one) for count in self.counts]

    def run(self) -> Found:
        g, at_start = self.g, np.int64(1 if self.may_prune else self.n_layers)
        runs = [g("Expand", g.constant(at_start), shape) for shape in self.shapes]
        sides = [_Side(*each) for each in zip(self.images, self.slots, runs, strict=True)]
        return Found(*self._from_layer(g, 0, sides))

    def _from_layer(self, g: GraphBuilder, index: int, sides: Sequence[_Side]) -> Sequence[Value]:
        """This layer, and what comes after it."""
        images = self.parts.layer(g, index, sides[0].image, sides[1].image)
        after = [_Side(image, side.slots, side.layers_run) for image, side in zip(images, sides, strict=True)]
        if index == self.n_layers - 1:
            return self._finish(g, index, after)
        if not self.may_stop and not self.may_prune:
            return self._from_layer(g, index + 1, after)
        logits = [self.parts.logits(g, index, image.tokens) for image in images]
        return g.when(
            self._is_done(g, index, after, logits),
            _BRANCH,
            (f"stop_{index}", lambda branch: self._finish(branch, index, after)),
            (
                f"after_{index}",
                lambda branch: self._from_layer(branch, index + 1, self._pruned(branch, index, after, logits)),
            ),
        )

    def _is_done(self, g: GraphBuilder, index: int, sides: Sequence[_Side], logits: Sequence[Logits]) -> Value:
        """() bool: enough keypoints are sure, or an image has had none before this layer."""
        with g.scope(f"decide_{index}"):
            done = self._empty(g, sides) if self.parts.guarded and (index == 0 or self.may_prune) else None
            if not self.may_stop:
                assert done is not None, "without pruning or stopping there is nothing to decide"
                return done
            unsure = [g("Less", self._confidence(g, each), self._threshold(g, index)) for each in logits]
            counted = g("Add", *(g("ReduceSum", g.cast(each, "float32"), keepdims=0) for each in unsure))
            sure = g("Sub", g.floats(1), g("Div", counted, self.total))
            enough = g("Greater", sure, g.floats(self.thresholds.depth_confidence))
            return enough if done is None else g("Or", done, enough)

    def _empty(self, g: GraphBuilder, sides: Sequence[_Side]) -> Value:
        """() bool: an image has no keypoints left."""
        return g("Equal", g("Min", *(g("Size", side.slots) for side in sides)), g.constant(np.int64(0)))

    def _confidence(self, g: GraphBuilder, logits: Logits) -> Value:
        assert logits.confidence is not None
        return g("Sigmoid", logits.confidence)

    def _threshold(self, g: GraphBuilder, index: int) -> Value:
        return g.floats(self.parts.parameters.confidence_thresholds[index])

    def _pruned(self, g: GraphBuilder, index: int, sides: Sequence[_Side], logits: Sequence[Logits]) -> Sequence[_Side]:
        """Without the keypoints that are sure and cannot be matched, in images of more than the smallest number."""
        if not self.may_prune:
            return sides
        with g.scope(f"prune_{index}"):
            return [self._prune(g, index, side, each) for side, each in zip(sides, logits, strict=True)]

    def _prune(self, g: GraphBuilder, index: int, side: _Side, logits: Logits) -> _Side:
        matchable = g("Greater", g("Sigmoid", logits.matchability), g.floats(1 - self.thresholds.width_confidence))
        keep = matchable
        if self.may_stop:
            unsure = g("LessOrEqual", self._confidence(g, logits), self._threshold(g, index))
            keep = g("Or", matchable, unsure)
        least = g.constant(np.int64(self.thresholds.pruning_min_keypoints))
        prunable = g("Greater", g("Size", side.slots), least)
        keep = g("Reshape", g("Or", keep, g("Not", prunable)), g.integers(-1))
        rows = g("Reshape", g("NonZero", keep), g.integers(-1))
        image = Image(*(g("Gather", each, rows, axis=0) for each in vars(side.image).values()))
        slots = g("Gather", side.slots, rows, axis=0)
        more = g("Expand", g.cast(prunable, "int64"), g("Shape", slots))
        layers_run = g("ScatterElements", side.layers_run, slots, more, axis=0, reduction="add")
        return _Side(image, slots, layers_run)

    def _finish(self, g: GraphBuilder, index: int, sides: Sequence[_Side]) -> Sequence[Value]:
        """The matches after a layer, of all keypoints that were given."""
        found = self.parts.head(g, index, *(side.image.tokens for side in sides))
        matches, scores = self.parts.above(g, found, self.thresholds.filter_threshold), found.scores
        if self.may_prune:
            nowhere = g.integers(-1)
            matches = g("Gather", g("Concat", sides[1].slots, nowhere, axis=0), matches, axis=0)  # -1: the last one
            empty = g("Expand", g.constant(np.int64(-1)), self.shapes[0]), g("Expand", g.floats(0), self.shapes[0])
            matches, scores = (
                g("ScatterElements", full, sides[0].slots, values, axis=0)
                for full, values in zip(empty, (matches, scores), strict=True)
            )
        return matches, scores, self._stop(g, index, sides), *(side.layers_run for side in sides)

    def _stop(self, g: GraphBuilder, index: int, sides: Sequence[_Side]) -> Value:
        """() int64: the number of layers, which were run in vain where an image has had no keypoints from the start."""
        run = g.constant(np.int64(index + 1))
        if self.may_stop or self.may_prune or not self.parts.guarded:
            return run
        return g("Where", self._empty(g, sides), g.constant(np.int64(1)), run)
