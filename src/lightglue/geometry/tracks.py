"""One position for each keypoint, from many measurements of where one image shows what another shows.

A measurement says: what image I shows at x_i is seen in image J at `position`, and d px beside it `matrix` d px beside.
The keypoints i and j are the same thing in space where

    x_j + d_j = position + matrix d_i

and the displacements d of all keypoints at once make these residuals small: least squares, each weighted by its
certainty, and again and again by how well it fits (Geman and McClure's weights), so that what contradicts the others,
such as a wrong match, has no say. A weak pull to where the detector put a keypoint decides what is left free: a track
may lie anywhere as long as its observations agree.

Keypoints that no measurement connects know nothing of each other. `solve_displacements` solves for one connected part
after the other, of which most are tracks of a few keypoints: those of equal size at once, directly. Where wrong matches
join so many that this would take longer, it uses conjugate gradients, preconditioned by the 2 x 2 block of each
keypoint. `solve_densely` writes the same normal equations down, for tests and for reading.

M stands for the measurements, N for the keypoints.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

__all__ = ["Measurements", "Solution", "solve_densely", "solve_displacements"]

Floats: TypeAlias = NDArray[np.float64]

_ROUNDS = 10  # of new weights
_STEPS = 50  # of conjugate gradients, at most, in each round
_TOLERANCE = 1e-12  # share of the squared residual of the normal equations that may be left
_DIRECT = 64  # keypoints of a part, up to which it is solved for directly
_NUMBERS = 1 << 22  # of the normal equations of parts that are solved for at once


@dataclass(frozen=True, eq=False)
class Measurements:
    """Where keypoints i are seen, in the images of the keypoints j that they are matched with."""

    i: NDArray[np.int64]  # (M,) rows of keypoints
    j: NDArray[np.int64]  # (M,)
    offset: Floats  # (M, 2) px: the position where i is seen, less that of keypoint j
    matrix: Floats  # (M, 2, 2): local map from the image of i to that of j
    deviation: Floats  # (M,) px: standard deviation of the position

    def __len__(self) -> int:
        return len(self.i)

    def rows(self, index: NDArray[np.bool_]) -> Measurements:
        """Some of them."""
        i, j = self.i[index], self.j[index]
        return Measurements(i, j, self.offset[index], self.matrix[index], self.deviation[index])


@dataclass(frozen=True, eq=False)
class Solution:
    """How far keypoints are from where their matches see them."""

    displacements: Floats  # (N, 2) px
    weights: Floats  # (M,) in [0, 1]: 1 where a measurement agrees with the others
    support: Floats  # (N,): sum of the weights of a keypoint's measurements


def solve_displacements(found: Measurements, count: int, prior: float, floor: float, outlier: float) -> Solution:
    """The displacements of `count` keypoints.

    Args:
        prior: px, standard deviation of a keypoint's displacement before anything is measured.
        floor: px, added in squares to the deviations: what they do not know of.
        outlier: px, residual at which a measurement keeps a quarter of its weight.
    """
    if not len(found):
        return _solution(found, np.zeros((count, 2)), outlier)
    measured, rows = np.unique(np.concatenate([found.i, found.j]), return_inverse=True)
    some = replace(found, i=rows[: len(found)], j=rows[len(found) :])  # of the keypoints that are measured: few of all
    parts = _parts(some, len(measured))
    is_small = np.bincount(parts)[parts] <= _DIRECT
    every = np.zeros((count, 2))
    for solve, of in ((_Directly(parts), is_small), (_conjugate_gradients, ~is_small)):
        those = some.rows(of[some.i])
        if len(those):
            every[measured] += _weighted(those, len(measured), prior, floor, outlier, solve)
    return _solution(found, every, outlier)


def _weighted(
    found: Measurements,
    count: int,
    prior: float,
    floor: float,
    outlier: float,
    solve: Callable[[_Normal, Floats], Floats],
) -> Floats:
    """(N, 2): the displacements, weighted again and again. solve: the normal equations, from displacements on."""
    graph = _Graph.of(found, count)
    d, weights = np.zeros((count, 2)), np.ones(len(found))
    for k in range(_ROUNDS):
        if k:
            weights = _weights(found, d, outlier)
        d = solve(_normal(graph, found, _certainty(found, weights, floor), prior), d)
    return d


def _parts(found: Measurements, count: int) -> NDArray[np.int64]:
    """(N,) of each keypoint the lowest one that measurements connect it with."""
    part = np.arange(count)
    while True:
        least = np.minimum(part[found.i], part[found.j])
        lower = part.copy()
        np.minimum.at(lower, found.i, least)
        np.minimum.at(lower, found.j, least)
        lower = lower[lower]
        if (lower == part).all():
            return part
        part = lower


def solve_densely(found: Measurements, count: int, prior: float, floor: float, outlier: float) -> Solution:
    """The same by the normal equations in full: for few keypoints."""
    d: Floats = np.zeros((count, 2))
    weights = np.ones(len(found))
    for k in range(_ROUNDS):
        if k:
            weights = _weights(found, d, outlier)
        normal, right = np.eye(2 * count) / prior**2, np.zeros(2 * count)
        for m, w in enumerate(_certainty(found, weights, floor)):
            row = np.zeros((2, 2 * count))  # d -> d_j - matrix d_i
            row[:, 2 * found.j[m] : 2 * found.j[m] + 2] += np.eye(2)
            row[:, 2 * found.i[m] : 2 * found.i[m] + 2] -= found.matrix[m]
            normal += w * row.T @ row
            right += w * row.T @ found.offset[m]
        d = np.asarray(np.linalg.solve(normal, right), np.float64).reshape(-1, 2)
    return _solution(found, d, outlier)


def _solution(found: Measurements, d: Floats, outlier: float) -> Solution:
    weights = _weights(found, d, outlier)
    support = np.zeros(len(d))
    for rows in (found.i, found.j):
        support += np.bincount(rows, weights, len(d))
    return Solution(d, weights, support)


def _certainty(found: Measurements, weights: Floats, floor: float) -> Floats:
    certainty: Floats = weights / (found.deviation**2 + floor**2)
    return certainty


def _weights(found: Measurements, d: Floats, outlier: float) -> Floats:
    """Geman and McClure's."""
    residual = _difference(found, d) - found.offset
    weights: Floats = 1 / (1 + (residual**2).sum(1) / outlier**2) ** 2
    return weights


def _difference(found: Measurements, d: Floats) -> Floats:
    """(M, 2): d_j - matrix d_i."""
    there, here = d[found.j], d[found.i]
    return np.stack([there[:, k] - (found.matrix[:, k] * here).sum(1) for k in range(2)], 1)


def _sums(rows: NDArray[np.int64], values: Floats, count: int) -> Floats:
    """(count,): of the values of each row."""
    return np.bincount(rows, values, count).astype(np.float64, copy=False)


@dataclass(frozen=True, eq=False)
class _Graph:
    """Which keypoints are measured with which: two are an edge, whichever of them was looked for and how often."""

    count: int  # of keypoints
    low: NDArray[np.int64]  # (E,) sorted; the keypoint with the lower row, and that with the higher
    high: NDArray[np.int64]  # (E,)
    edge: NDArray[np.int64]  # (M,) of each measurement
    scratch: Floats  # (3, 2, E): what is written to again costs a third of new arrays, whose pages are new, too

    @classmethod
    def of(cls, found: Measurements, count: int) -> _Graph:
        key = np.minimum(found.i, found.j) * count + np.maximum(found.i, found.j)
        edges, edge = np.unique(key, return_inverse=True)
        low, high = np.divmod(edges, max(1, count))
        return cls(count, low, high, edge, np.empty((3, 2, len(edges))))

    def sum_at(self, rows: NDArray[np.int64], values: Floats) -> Floats:
        """(N,): of the values of each keypoint."""
        return _sums(rows, values, self.count)


@dataclass(frozen=True, eq=False)
class _Normal:
    """The normal equations: 2 x 2 blocks of keypoints and of edges, each number of a block an array of its own."""

    graph: _Graph
    diagonal: Floats  # (3, N): xx, xy, yy
    edges: Floats  # (2, 2, E): the block in the rows of the lower keypoint and the columns of the higher
    right: Floats  # (2, N)

    def times(self, d: Floats) -> Floats:
        """Their left side, of displacements (2, N)."""
        graph, (xx, xy, yy), block = self.graph, self.diagonal, self.edges
        low, high, terms = graph.scratch
        for k in range(2):
            np.take(d[k], graph.low, out=low[k], mode="clip")
            np.take(d[k], graph.high, out=high[k], mode="clip")
        product = np.stack([xx * d[0] + xy * d[1], xy * d[0] + yy * d[1]])
        for k in range(2):
            np.multiply(block[k], high, out=terms)
            product[k] += graph.sum_at(graph.low, np.add(terms[0], terms[1], out=terms[0]))
            np.multiply(block[:, k], low, out=terms)
            product[k] += graph.sum_at(graph.high, np.add(terms[0], terms[1], out=terms[0]))
        return product


def _normal(graph: _Graph, found: Measurements, certainty: Floats, prior: float) -> _Normal:
    """Those of `solve_densely`, summed up by keypoints and edges."""
    i, j = found.i, found.j
    weighted = certainty[:, None, None] * found.matrix
    squares = [(weighted[:, :, a] * found.matrix[:, :, b]).sum(1) for a, b in ((0, 0), (0, 1), (1, 1))]
    diagonal = np.stack([graph.sum_at(i, square) for square in squares])
    diagonal[[0, 2]] += graph.sum_at(j, certainty) + 1 / prior**2
    # The block of rows j and columns i is -certainty matrix; where j is the higher keypoint its transpose is wanted.
    across = np.where((i < j)[:, None, None], weighted.transpose(0, 2, 1), weighted)
    edges = -np.stack([_sums(graph.edge, across[:, a, b], len(graph.low)) for a in range(2) for b in range(2)]).reshape(
        2, 2, -1
    )
    forces = certainty[:, None] * found.offset
    back = [(weighted[:, :, k] * found.offset).sum(1) for k in range(2)]
    right = np.stack([graph.sum_at(j, forces[:, k]) - graph.sum_at(i, back[k]) for k in range(2)])
    return _Normal(graph, diagonal, edges, right)


class _Some(NamedTuple):
    """Parts of as many keypoints, and their edges."""

    rows: NDArray[np.int64]  # (P, n) of keypoints
    edges: NDArray[np.int64]  # (E',) of the graph
    part: NDArray[np.int64]  # (E',) of each edge, and which of its keypoints it joins
    low: NDArray[np.int64]  # (E',)
    high: NDArray[np.int64]  # (E',)


class _Directly:
    """Solves the normal equations of one graph part by part: those of parts of as many keypoints at once.

    parts: (N,) of each keypoint.
    """

    def __init__(self, parts: NDArray[np.int64]) -> None:
        self.parts = parts
        self.some: list[_Some] | None = None

    def __call__(self, normal: _Normal, start: Floats) -> Floats:
        """(N, 2); 0 of keypoints in parts of more than `_DIRECT`."""
        self.some = list(_of_each_size(normal.graph, self.parts)) if self.some is None else self.some
        d = np.zeros((normal.graph.count, 2))
        for rows, edges, part, low, high in self.some:
            count, size = rows.shape
            left = np.zeros((count, size, 2, size, 2))
            own, (xx, xy, yy) = np.arange(size), normal.diagonal[:, rows]
            left[:, own, 0, own, 0], left[:, own, 0, own, 1] = xx, xy
            left[:, own, 1, own, 0], left[:, own, 1, own, 1] = xy, yy
            block = normal.edges[:, :, edges].transpose(2, 0, 1)
            left[part, low, :, high, :] = block
            left[part, high, :, low, :] = block.transpose(0, 2, 1)
            right = normal.right[:, rows].transpose(1, 2, 0).reshape(count, 2 * size, 1)
            d[rows] = np.linalg.solve(left.reshape(count, 2 * size, 2 * size), right).reshape(count, size, 2)
        return d


def _of_each_size(graph: _Graph, parts: NDArray[np.int64]) -> Iterator[_Some]:
    """The parts of up to `_DIRECT` keypoints, as many at once as `_NUMBERS` allows."""
    sizes = np.bincount(parts, minlength=len(parts))[parts]
    order = np.lexsort((parts, sizes))  # part after part, the small ones first
    place = np.empty(len(parts), np.int64)
    place[order] = np.arange(len(parts))
    low, high, ordered = place[graph.low], place[graph.high], sizes[order]
    by_place = np.argsort(low, kind="stable")
    for size in np.unique(ordered[ordered <= _DIRECT]).tolist():
        first, last = np.searchsorted(ordered, [size, size + 1]).tolist()
        step = size * max(1, _NUMBERS // (2 * size) ** 2)
        for begin in range(first, last, step):
            end = min(last, begin + step)
            edges = by_place[slice(*np.searchsorted(low[by_place], [begin, end]))]
            part, one = np.divmod(low[edges] - begin, size)
            yield _Some(order[begin:end].reshape(-1, size), edges, part, one, (high[edges] - begin) % size)


def _conjugate_gradients(normal: _Normal, start: Floats) -> Floats:
    """Solve the normal equations, starting at displacements (N, 2)."""
    xx, xy, yy = normal.diagonal
    det = xx * yy - xy * xy

    def conditioned(r: Floats) -> Floats:
        solved: Floats = np.stack([yy * r[0] - xy * r[1], xx * r[1] - xy * r[0]]) / det
        return solved

    d = np.ascontiguousarray(start.T)
    residual = normal.right - normal.times(d)
    z = conditioned(residual)
    direction, product = z, float((residual * z).sum())
    least = _TOLERANCE * float((normal.right * conditioned(normal.right)).sum())
    for _ in range(_STEPS):
        if product <= least:
            break
        along = normal.times(direction)
        step = product / float((direction * along).sum())
        d, residual = d + step * direction, residual - step * along
        z = conditioned(residual)
        product, before = float((residual * z).sum()), product
        direction = z + product / before * direction
    return np.ascontiguousarray(d.T)
