"""Which verified pairs are false: the strongest set of pairs that agree with one rotation of every image.

A pair that contradicts it is dropped. Pairs that agree only because nothing else joins their images are judged by
themselves, for a look-alike that nothing contradicts agrees with anything: where none of them is likely, they are
dropped and the map falls apart; where one is likely enough, they stay and the map is doubted.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from lightglue.sfm.look_alikes.evidence import Evidence
from lightglue.sfm.look_alikes.knowledge import Knowledge, shift
from lightglue.sfm.look_alikes.rotations import (
    angles,
    average_rotations,
    components,
    residuals,
    spanning_forest,
    triangle_support,
)
from lightglue.sfm.look_alikes.view_graph import ViewGraph

__all__ = ["CONTRADICTS", "OUT_OF_ORDER", "WEAK", "Decision", "decide"]

Array = NDArray[np.float64]
Flags = NDArray[np.bool_]

CONTRADICTS = "its rotation contradicts those of the other pairs"
OUT_OF_ORDER = "it contradicts the order of the images, a sequence by {}"
WEAK = "nothing but unlikely pairs joins its images with the others"

_TOLERANCE = 15.0  # degrees that a pair may be off: of weak true ones, with a guessed focal length, some are off by 8
_STARTS = 12  # spanning trees
_LIKELY = 0.85  # a pair is taken by itself to be true
_UNLIKELY = 0.1  # where no pair between two parts of a collection is likelier, they are not joined
_SEQUENCE = 0.9  # share of neighbours that must have a pair, for an order to mean anything
_WINDOW = 4  # places in a sequence within which pairs are believed
_RULED_OUT = 0.01  # probability of a pair that contradicts a sequence
_BELIEF = 0.5  # how far the logit of a pair falls where those that contradict it are likely, per theirs
_SURE = 8.0  # logit beyond which they are not believed any more
_DRIFT = 30.0  # degrees that the rotations along a sequence may be off when it closes


@dataclass(frozen=True, eq=False)
class Decision:
    """Which pairs of a graph to keep."""

    probability: Array  # (E,) that the pair is true, by itself and by what contradicts it
    alone: Array  # (E,) by itself, and by the order of a sequence
    residual: Array  # (E,) degrees between its rotation and that of its images
    reasons: tuple[str | None, ...]  # why it is dropped; None: it is kept
    doubtful: Flags  # (E,) kept, though only unlikely pairs join its two sides
    order: str | None  # the order of the images that decided: "the names" or "the times"

    @property
    def kept(self) -> Flags:
        """(E,)."""
        return np.array([reason is None for reason in self.reasons], np.bool_)


def decide(graph: ViewGraph, evidence: Evidence, knowledge: Knowledge | None = None, seed: int = 0) -> Decision:
    """Which pairs of a graph are false. knowledge: None for the order of the names alone."""
    knowledge = knowledge or Knowledge.of(graph.names)
    edges, relative, count = graph.edges, graph.rotations, len(graph.names)
    logit = evidence.logit + shift(knowledge, edges, evidence.probability)
    probability = _sigmoid(logit)
    weights = _weights(graph, probability)
    residual = residuals(edges, relative, average_rotations(edges, relative, weights, count, _STARTS, seed))
    order, near = _order(graph, knowledge, probability, residual)
    if order is not None:
        residual = residuals(edges, relative, _along_sequence(edges, relative, weights, near, count, seed))
    agrees = residual <= _TOLERANCE
    trusted = ((probability >= _LIKELY) & agrees) | near
    if len(edges) == 1:  # nothing to compare it with
        trusted[:] = True
    weak, doubtful = _joins(edges, agrees, trusted, probability, count)
    contradicts = CONTRADICTS if order is None else OUT_OF_ORDER.format(order)
    reasons = tuple(contradicts if not agrees[row] else WEAK if weak[row] else None for row in range(len(edges)))
    kept = np.array([reason is None for reason in reasons], np.bool_)
    contradicted = _contradicted(edges, logit, kept, ~agrees, count)
    if order is not None:  # what the order of a sequence rules out is no longer likely
        ruled_out = np.where(agrees, 1.0, _RULED_OUT)
        probability, contradicted = np.minimum(probability, ruled_out), np.minimum(contradicted, ruled_out)
    return Decision(contradicted, probability, residual, reasons, doubtful, order)


def _sigmoid(logit: Array) -> Array:
    result: Array = 1 / (1 + np.exp(-np.clip(logit, -30, 30)))
    return result


def _order(graph: ViewGraph, knowledge: Knowledge, probability: Array, residual: Array) -> tuple[str | None, Flags]:
    """The order of the images that is to decide, and which pairs are of neighbours in it.

    None, and no pairs, where there is no sequence, or where what the pairs agree on does not contradict it.
    """
    for name, places in knowledge.orders:
        apart = np.abs(np.diff(places[graph.edges], axis=1)[:, 0])
        steps = (apart == 1) & (probability >= _UNLIKELY)
        if (residual[steps] > _TOLERANCE).any() and _is_sequence(graph, places, probability):
            return name, apart <= _WINDOW
    return None, np.zeros(len(graph.pairs), np.bool_)


def _weights(graph: ViewGraph, probability: Array) -> Array:
    """How much a pair counts: more with inliers and likelihood, and where circles of three pairs agree with it."""
    inliers = np.array([pair.num_inliers for pair in graph.pairs], np.float64)
    weights = np.log1p(inliers) * probability + 1e-6
    agree, contradict = triangle_support(graph.edges, graph.rotations, weights, len(graph.names))
    result: Array = weights * (agree + 1) / (agree + contradict + 2) + 1e-9
    return result


def _is_sequence(graph: ViewGraph, places: NDArray[np.int64], probability: Array) -> bool:
    """Whether nearly all neighbours in an order have a pair that may be true, and circles of three of them agree."""
    count = len(places)
    if count < 2 * _WINDOW:
        return False
    towards: dict[tuple[int, int], Array] = {}  # rotations between places
    for (a, b), R, likely in zip(places[graph.edges].tolist(), graph.rotations, probability, strict=True):
        if likely >= _UNLIKELY:
            towards[min(a, b), max(a, b)] = R if a < b else R.T
    steps = [towards.get((place, place + 1)) for place in range(count - 1)]
    if np.mean([R is not None for R in steps]) < _SEQUENCE:
        return False
    circles = [
        second @ first @ towards[place, place + 2].T
        for place, (first, second) in enumerate(pairwise(steps))
        if first is not None and second is not None and (place, place + 2) in towards
    ]
    if len(circles) < _SEQUENCE * (count - 2):
        return False
    return bool(np.mean(angles(np.array(circles)) < _TOLERANCE) >= _SEQUENCE)


def _along_sequence(
    edges: NDArray[np.int64], relative: Array, weights: Array, near: Flags, count: int, seed: int
) -> Array:
    """Rotations by the pairs of neighbours first, then by all that agree with these."""
    rotations = average_rotations(edges[near], relative[near], weights[near], count, _STARTS, seed)
    for tolerance in (_DRIFT, _TOLERANCE):
        agrees = near | (residuals(edges, relative, rotations) <= tolerance)
        rotations = average_rotations(edges[agrees], relative[agrees], weights[agrees], count, 1, seed)
    return rotations


def _contradicted(edges: NDArray[np.int64], logit: Array, kept: Flags, against: Flags, count: int) -> Array:
    """The probability of each pair, once it is known what contradicts it.

    A pair between two images that others join is the less likely the likelier these are: the least likely pair of the
    best way round.
    """
    tree = np.flatnonzero(kept)[spanning_forest(edges[kept], logit[kept], count)]
    parent, depth, least = _rooted(edges[tree], logit[tree], count)
    result = logit.astype(np.float64).copy()
    for row in np.flatnonzero(against).tolist():
        a, b = edges[row].tolist()
        way = np.inf
        while a != b and a >= 0 and b >= 0:
            if depth[a] < depth[b]:
                a, b = b, a
            way, a = min(way, least[a]), int(parent[a])
        if a == b and np.isfinite(way):
            result[row] -= _BELIEF * float(np.clip(way, 0, _SURE))
    return _sigmoid(result)


def _rooted(edges: NDArray[np.int64], logit: Array, count: int) -> tuple[NDArray[np.int64], NDArray[np.int64], Array]:
    """Of a forest: each node's parent, -1 for roots, its depth, and the logit of the edge between both."""
    neighbours: list[list[tuple[int, float]]] = [[] for _ in range(count)]
    for (a, b), weight in zip(edges.tolist(), logit.tolist(), strict=True):
        neighbours[a].append((b, weight))
        neighbours[b].append((a, weight))
    parent, depth, least = np.full(count, -1), np.full(count, -1), np.full(count, np.inf)
    for first in range(count):
        waiting = [first] if depth[first] < 0 else []
        depth[first] = max(depth[first], 0)
        while waiting:
            node = waiting.pop()
            for other, weight in neighbours[node]:
                if depth[other] < 0:
                    parent[other], depth[other], least[other] = node, depth[node] + 1, weight
                    waiting.append(other)
    return parent, depth, least


def _joins(
    edges: NDArray[np.int64], agrees: Flags, trusted: Flags, probability: Array, count: int
) -> tuple[Flags, Flags]:
    """Of the pairs that agree: those to drop, and those that leave a doubt.

    The parts that likely pairs hold together are joined by the likeliest of the other pairs first. Those between two
    parts speak for it together, though not as if each were independent: what looks alike once, looks alike again.
    """
    weak, doubtful = np.zeros(len(edges), bool), np.zeros(len(edges), bool)
    part = components(edges[agrees & trusted], count)
    while True:
        between = agrees & ~weak & (part[edges[:, 0]] != part[edges[:, 1]])
        if not between.any():
            return weak, doubtful
        best = int(np.argmax(np.where(between, probability, -1)))
        ends = {int(part[edges[best, 0]]), int(part[edges[best, 1]])}
        same = between & np.isin(part[edges[:, 0]], list(ends)) & np.isin(part[edges[:, 1]], list(ends))
        if probability[best] < _UNLIKELY:
            weak |= between
            return weak, doubtful
        doubtful |= same
        part[part == max(ends)] = min(ends)
