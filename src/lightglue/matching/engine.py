"""The adaptive pass over packed pairs: layer by layer, pairs finish and keypoints drop out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from lightglue.matching import adaptive
from lightglue.matching.assignment import Assignment, unmatched
from lightglue.matching.packing import MIN_ROWS, PackedPairs, kept_rows
from lightglue.matching.steps import ImageTokens, Steps
from lightglue.timing import span

__all__ = ["EngineOptions", "PairResult", "match_packed"]


@dataclass(frozen=True)
class EngineOptions:
    """What may change from call to call."""

    depth_confidence: float  # <= 0: no early stop
    width_confidence: float  # <= 0: no pruning
    filter_threshold: float
    pruning_min_keypoints: int  # an image with this many keypoints or fewer is not pruned
    layers: int | None = None  # the most that a pair goes through; None: all


@dataclass(frozen=True)
class PairResult:
    """Matches of one pair, with indices into the keypoints that were given."""

    assignment: Assignment
    stop: int  # layers run
    prune0: Tensor  # (M,) layers that each keypoint went through: int64 where pruning is on, else float32
    prune1: Tensor  # (N,)


def pack(pairs: Sequence[tuple[ImageTokens, ImageTokens]]) -> PackedPairs:
    """All pairs as one batch of packed tokens."""
    images = [image for pair in pairs for image in pair]
    counts = tuple(len(image.tokens) for image in images)
    spare = max(0, MIN_ROWS - sum(counts))

    def rows(tensors: list[Tensor]) -> Tensor:
        return torch.cat([*tensors, tensors[0].new_zeros(spare, tensors[0].shape[1])])

    tokens = rows([image.tokens for image in images])
    return PackedPairs(
        tokens=tokens,
        rotation=rows([image.rotation for image in images]),
        slots=torch.arange(len(tokens), device=tokens.device),
        counts=counts,
        pairs=tuple(range(len(pairs))),
    )


class Results:
    """The results so far: one entry a pair, and a count of layers for every keypoint of the call."""

    def __init__(self, packed: PackedPairs, depth: int, options: EngineOptions) -> None:
        self.options = options
        self.dtype = packed.tokens.dtype  # of the scores
        self.slices = packed.slices()  # which entries of `layers_run` are each image's keypoints
        self.found: list[PairResult | None] = [None] * len(packed.pairs)
        device = packed.tokens.device
        if options.width_confidence > 0:
            self.layers_run = torch.ones(len(packed.slots), dtype=torch.int64, device=device)
        else:
            self.layers_run = torch.full((len(packed.slots),), float(depth), device=device)

    def counts(self, pair: int) -> tuple[int, int]:
        """How many keypoints were given of both images of a pair."""
        rows0, rows1 = self.slices[2 * pair : 2 * pair + 2]
        return rows0.stop - rows0.start, rows1.stop - rows1.start

    def finish(self, pair: int, stop: int, found: Assignment, slots0: Tensor, slots1: Tensor) -> None:
        """Record a pair. `found` indexes the rows that are left; slots0 and slots1 say which keypoints they are."""
        index0, index1 = slots0 - self.slices[2 * pair].start, slots1 - self.slices[2 * pair + 1].start
        full = unmatched(*self.counts(pair), found.scores0)
        full.matches0[index0] = torch.where(found.matches0 < 0, -1, index1[found.matches0])
        full.matches1[index1] = torch.where(found.matches1 < 0, -1, index0[found.matches1])
        full.scores0[index0] = found.scores0
        full.scores1[index1] = found.scores1
        self._record(pair, stop, full)

    def finish_empty(self, pair: int, stop: int) -> None:
        """Record a pair of which an image has no keypoints left."""
        like = torch.empty(0, dtype=self.dtype, device=self.layers_run.device)
        self._record(pair, stop, unmatched(*self.counts(pair), like))

    def _record(self, pair: int, stop: int, assignment: Assignment) -> None:
        prune0, prune1 = (self.layers_run[rows].clone() for rows in self.slices[2 * pair : 2 * pair + 2])
        self.found[pair] = PairResult(assignment, stop, prune0, prune1)


def match_packed(
    steps: Steps, pairs: Sequence[tuple[ImageTokens, ImageTokens]], options: EngineOptions
) -> list[PairResult]:
    """Match all pairs, each as if it were alone: it stops when it is sure, and is pruned image by image."""
    packed = pack(pairs)
    depth = steps.n_layers if options.layers is None else min(options.layers, steps.n_layers)
    results = Results(packed, depth, options)
    for i in range(depth):
        packed = _drop_empty(packed, results, stop=i + 1)
        if not packed.pairs:
            break
        with span(f"layer {i + 1}", keypoints=sum(packed.counts)):
            packed = steps.run(i, packed)
        if i < depth - 1:
            with span("decide"):
                packed = _adapt(steps, packed, results, i)
    _finish_pairs(steps, packed, results, range(len(packed.pairs)), depth - 1)
    return [result for result in results.found if result is not None]


def _drop_empty(packed: PackedPairs, results: Results, stop: int) -> PackedPairs:
    """Finish the pairs of which an image has no keypoints (left); the rest goes on."""
    alive = [min(packed.counts[2 * k : 2 * k + 2]) > 0 for k in range(len(packed.pairs))]
    for pair, going_on in zip(packed.pairs, alive, strict=True):
        if not going_on:
            results.finish_empty(pair, stop)
    return _keep(packed, alive, torch.ones_like(packed.slots, dtype=torch.bool), packed.counts)


def _adapt(steps: Steps, packed: PackedPairs, results: Results, layer: int) -> PackedPairs:
    """After a layer: finish the pairs that are sure, prune the images of the others."""
    options = results.options
    threshold = steps.network.confidence_thresholds[layer]
    may_stop, may_prune = options.depth_confidence > 0, options.width_confidence > 0
    prunable = [may_prune and count > options.pruning_min_keypoints for count in packed.counts]
    if not may_stop and not any(prunable):
        return packed

    confidence = steps.confidence(layer, packed) if may_stop else None
    unsure = torch.zeros_like(packed.slots, dtype=torch.bool) if confidence is None else confidence < threshold
    keep = torch.ones_like(unsure)
    if any(prunable):
        keep = adaptive.keep_mask(steps.matchability(layer, packed), confidence, threshold, options.width_confidence)
    # One transfer a layer: what the decisions need, as Python numbers.
    n_unsure, n_kept = packed.per_image_sums(torch.stack((unsure, keep))).tolist()

    stopping = []
    for k, pair in enumerate(packed.pairs):
        unsure_pair = n_unsure[2 * k] + n_unsure[2 * k + 1]
        given = sum(results.counts(pair))
        stopping.append(may_stop and adaptive.should_stop(unsure_pair, given, options.depth_confidence))
    _finish_pairs(steps, packed, results, [k for k, stop in enumerate(stopping) if stop], layer)
    return _prune(packed, results, [not stop for stop in stopping], prunable, keep, n_kept)


def _prune(
    packed: PackedPairs,
    results: Results,
    alive: list[bool],  # a flag a pair
    prunable: list[bool],  # a flag an image
    keep: Tensor,  # (R,) bool
    n_kept: list[int],  # a number an image
) -> PackedPairs:
    """Drop the pairs that are done, and the unmatchable keypoints of those images that may be pruned."""
    if any(going_on and prunable[2 * k + side] for k, going_on in enumerate(alive) for side in (0, 1)):
        pruned = packed.per_row([alive[i // 2] and prunable[i] for i in range(len(prunable))])
        results.layers_run.index_add_(0, packed.slots, (keep & pruned).long())
        keep = keep | ~pruned
        counts = [n_kept[i] if prunable[i] else count for i, count in enumerate(packed.counts)]
    else:
        keep, counts = torch.ones_like(keep), list(packed.counts)
    return _keep(packed, alive, keep, counts)


def _keep(packed: PackedPairs, alive: list[bool], keep: Tensor, counts: Sequence[int]) -> PackedPairs:
    """The rows of `keep` (R,) bool, as far as their pairs are alive. counts: how many it leaves of each image."""
    counts = [count for i, count in enumerate(counts) if alive[i // 2]]
    if all(alive) and sum(counts) == sum(packed.counts):
        return packed
    keep = keep & packed.per_row([alive[i // 2] for i in range(len(packed.counts))])
    pairs = [pair for pair, going_on in zip(packed.pairs, alive, strict=True) if going_on]
    return packed.select(kept_rows(keep, sum(counts)), counts, pairs)


def _finish_pairs(steps: Steps, packed: PackedPairs, results: Results, positions: Sequence[int], layer: int) -> None:
    """Assign matches, with the head of `layer`, to the pairs at `positions` of the batch."""
    slices = packed.slices()
    for k in positions:
        rows0, rows1 = slices[2 * k], slices[2 * k + 1]
        x0, x1 = packed.tokens[rows0], packed.tokens[rows1]
        with span("assign", keypoints=len(x0) + len(x1)):
            found = steps.assign(layer, x0, x1, results.options.filter_threshold)
        results.finish(packed.pairs[k], layer + 1, found, packed.slots[rows0], packed.slots[rows1])
