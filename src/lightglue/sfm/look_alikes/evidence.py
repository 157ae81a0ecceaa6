"""What speaks for and against a pair, before it is compared with others.

Two images of one place share more than the matches that made the pair. Points of the first image whose depth is known
from its other pairs must be seen by the second where the relative pose projects them into it; a look-alike lacks them
(missing correspondences: Zach et al., CVPR 2010; Jiang et al., CVPR 2012). And the network is less sure of look-alikes:
its scores are lower than those of true pairs of the same collection.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lightglue.sfm.look_alikes.view_graph import PairGeometry, ViewGraph

__all__ = ["Evidence", "gather_evidence"]

Array = NDArray[np.float64]

_NEIGHBOURS = 5  # other pairs of an image, those with most inliers, that its depths are taken from
_PARALLAX = 1.0  # degrees, below which a depth says nothing
_COMMON = 8  # keypoints that relate the scales of two pairs, at the fewest
_SPREAD = 0.3  # median of how far these disagree (log), beyond which the scale is not known
_MARGIN = 0.05  # of the longer edge, near which a point may be out of sight
_TURNED = 30.0  # degrees between the rays to a point, beyond which it may look different
_ZOOMED = 1.8  # times as near or far: the same
_EXPECTED = 5  # points that must be seen, below which nothing follows
_TRUSTED = 30  # of which what follows is trusted by half
_CELL = 1 / 20  # of the longer edge: nothing within such a cell of an unseen point is matched


@dataclass(frozen=True, eq=False)
class Evidence:
    """Of each pair of a graph."""

    expected: NDArray[np.int64]  # (E,) points that the other image must see, of the direction that knows fewer
    seen: Array  # (E,) share of them that are matched, of the worse direction; NaN where too few are expected
    empty: Array  # (E,) share that lies where nothing is matched, of the worse direction; NaN likewise
    shared: Array  # (E,) share matched of keypoints among the matches that two other pairs have, too; NaN: none
    logit: Array  # (E,) of the probability that the pair is true, by all this and its scores

    @property
    def probability(self) -> Array:
        """(E,) that the pair is true, by what is known of it alone."""
        result: Array = 1 / (1 + np.exp(-np.clip(self.logit, -30, 30)))
        return result


def gather_evidence(graph: ViewGraph) -> Evidence:
    """What is known of each pair of a graph."""
    counts = [np.zeros(len(rays), np.int64) for rays in graph.rays]
    for pair in graph.pairs:
        counts[pair.first][pair.matches[:, 0]] += 1
        counts[pair.second][pair.matches[:, 1]] += 1
    sides = _sides(graph)
    rows = [_of_pair(graph, pair, sides, counts) for pair in graph.pairs]
    columns = np.array(rows, np.float64).reshape(-1, 4).T
    expected, seen, empty, shared = columns
    return Evidence(expected.astype(np.int64), seen, empty, shared, _logit(graph, expected, seen, empty, shared))


def _logit(graph: ViewGraph, expected: Array, seen: Array, empty: Array, shared: Array) -> Array:
    """Each term is 0 where nothing is known, or where true and false pairs are about as frequent.

    The weights are rounded from a logistic regression on pairs with known truth: docs/decisions/022.
    """
    score = np.array([pair.score for pair in graph.pairs], np.float64)
    if np.isfinite(score).any():  # relative to the best of the collection: features differ in what they reach
        score = score / max(float(np.nanpercentile(score, 90)), 1e-6)
    trust = expected / (expected + _TRUSTED)
    terms = 8 * (score - 0.6), 9 * trust * (seen - 0.35), 12 * trust * (0.1 - empty), 3 * (shared - 0.38)
    logit: Array = np.sum([np.nan_to_num(term) for term in terms], axis=0)
    return logit


@dataclass(frozen=True, eq=False)
class _Side:
    """A pair as one of its images sees it."""

    other: int
    rows: NDArray[np.int32]  # (K,) keypoints of the image
    depths: NDArray[np.float32]  # (K,)
    parallax: NDArray[np.float32]  # (K,)
    rotation: Array  # to the other camera
    translation: Array


def _sides(graph: ViewGraph) -> list[list[_Side]]:
    """The pairs of each image, those with most inliers first."""
    sides: list[list[_Side]] = [[] for _ in graph.names]
    for pair in sorted(graph.pairs, key=lambda pair: (-pair.num_inliers, pair.number)):
        sides[pair.first].append(_side(pair, 0))
        sides[pair.second].append(_side(pair, 1))
    return sides


def _side(pair: PairGeometry, column: int) -> _Side:
    R, t = pair.rotation, pair.translation
    if column:
        R, t = R.T, -R.T @ t
    other = pair.first if column else pair.second
    return _Side(other, pair.matches[:, column], pair.depths[:, column], pair.parallax, R, t)


def _of_pair(
    graph: ViewGraph, pair: PairGeometry, sides: list[list[_Side]], counts: list[NDArray[np.int64]]
) -> tuple[float, float, float, float]:
    expected, seen, empty, shared = zip(
        *(_of_side(graph, row, _side(pair, column), sides[row], counts[row]) for column, row in enumerate(_ends(pair))),
        strict=True,
    )
    return (min(expected), *(_worst(values, pick) for values, pick in ((seen, min), (empty, max), (shared, min))))


def _ends(pair: PairGeometry) -> tuple[int, int]:
    return pair.first, pair.second


def _worst(values: tuple[float, ...], pick: Callable[[list[float]], float]) -> float:
    known = [value for value in values if np.isfinite(value)]
    return pick(known) if known else np.nan


def _of_side(
    graph: ViewGraph, image: int, side: _Side, others: list[_Side], counts: NDArray[np.int64]
) -> tuple[float, float, float, float]:
    """Points expected, the share that is seen, the share where nothing is, and the share of the shared."""
    rays = graph.rays[image]
    matched = np.zeros(len(rays), bool)
    matched[side.rows] = True
    grid = _Grid(graph, image, matched)
    reliable = (counts - matched >= 2) & grid.near
    shared = float(matched[reliable].mean()) if reliable.any() else np.nan
    depths = _depths(len(rays), side, [other for other in others if other.other != side.other][:_NEIGHBOURS])
    expected = _expected(graph, image, side, depths)
    count = int(expected.sum())
    if count < _EXPECTED:
        return count, np.nan, np.nan, shared
    empty = expected & ~matched & ~grid.near
    return count, float((expected & matched).sum()) / count, float(empty.sum()) / count, shared


class _Grid:
    """Which keypoints of an image are near one that is matched: in its cell or one beside."""

    def __init__(self, graph: ViewGraph, image: int, matched: NDArray[np.bool_]) -> None:
        camera, size = graph.cameras[image], graph.sizes[image]
        pixels = graph.rays[image] * camera.pinhole[:2] + camera.pinhole[2:]
        cells = np.nan_to_num(np.floor(pixels / (max(size) * _CELL)))  # a lens may see no ray at a keypoint
        cells = np.clip(cells, 0, int(1 / _CELL)).astype(np.int64) + 1
        grid = np.zeros((int(1 / _CELL) + 3,) * 2, bool)
        x, y = cells[matched].T
        for dx in (-1, 0, 1):
            for dy in (-1, 0, 1):
                grid[x + dx, y + dy] = True
        self.near: NDArray[np.bool_] = grid[cells[:, 0], cells[:, 1]]


def _depths(count: int, side: _Side, others: list[_Side]) -> Array:
    """(count,) of an image's keypoints by its other pairs, in the unit of this one; NaN where they are not known."""
    own = np.full(count, np.nan)
    own[side.rows] = side.depths
    depths, best = np.full(count, np.nan), np.full(count, _PARALLAX)
    for other in others:
        usable = np.isfinite(other.depths) & (other.parallax > _PARALLAX)
        rows, theirs, parallax = other.rows[usable], other.depths[usable], other.parallax[usable]
        ratios = np.log(own[rows] / theirs)
        ratios = ratios[np.isfinite(ratios)]
        if len(ratios) < _COMMON:
            continue
        scale = float(np.median(ratios))
        if np.median(np.abs(ratios - scale)) > _SPREAD:
            continue
        better = parallax > best[rows]
        depths[rows[better]], best[rows[better]] = theirs[better] * np.exp(scale), parallax[better]
    return depths


def _expected(graph: ViewGraph, image: int, side: _Side, depths: Array) -> NDArray[np.bool_]:
    """Which keypoints the other image must see."""
    known = np.flatnonzero(np.isfinite(depths))
    expected = np.zeros(len(depths), bool)
    here = np.hstack((graph.rays[image][known], np.ones((len(known), 1)))) * depths[known, None]
    turned = here @ side.rotation.T
    there = turned + side.translation
    ahead = there[:, 2] > 1e-6
    camera, (width, height) = graph.cameras[side.other], graph.sizes[side.other]
    x, y = (there[:, :2] / np.where(ahead, there[:, 2], 1)[:, None] * camera.pinhole[:2] + camera.pinhole[2:]).T
    margin = _MARGIN * max(width, height)
    inside = (x > margin) & (x < width - margin) & (y > margin) & (y < height - margin)
    length, other_length = np.linalg.norm(here, axis=1), np.linalg.norm(there, axis=1)
    cosine = (turned * there).sum(1) / np.maximum(length * other_length, 1e-12)
    alike = (cosine > np.cos(np.radians(_TURNED))) & (
        np.abs(np.log(np.maximum(other_length, 1e-12) / np.maximum(length, 1e-12))) < np.log(_ZOOMED)
    )
    expected[known] = ahead & inside & alike
    return expected
