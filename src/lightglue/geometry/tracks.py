"""One position for each keypoint, from many measurements of where one image shows what another shows.

A measurement says: what image I shows at x_i is seen in image J at `position`, and d px beside it `matrix` d px beside.
The keypoints i and j are the same thing in space where

    x_j + d_j = position + matrix d_i

and the displacements d of all keypoints at once make these residuals small: least squares, each weighted by its
certainty, and again and again by how well it fits (Geman and McClure's weights), so that what contradicts the others,
such as a wrong match, has no say. A weak pull to where the detector put a keypoint decides what is left free: a track
may lie anywhere as long as its observations agree.

`solve_displacements` uses conjugate gradients, preconditioned by the 2 x 2 block of each keypoint;
`solve_densely` writes the same normal equations down, for tests and for reading.

M stands for the measurements, N for the keypoints.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

__all__ = ["Measurements", "Solution", "solve_densely", "solve_displacements"]

Floats: TypeAlias = NDArray[np.float64]

_ROUNDS = 10  # of new weights
_STEPS = 50  # of conjugate gradients, at most, in each round
_TOLERANCE = 1e-12  # share of the squared residual of the normal equations that may be left


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
    graph = _Graph.of(some, len(measured))
    d, weights = np.zeros((len(measured), 2)), np.ones(len(found))
    for k in range(_ROUNDS):
        if k:
            weights = _weights(some, d, outlier)
        d = _conjugate_gradients(_normal(graph, some, _certainty(some, weights, floor), prior), d)
    every = np.zeros((count, 2))
    every[measured] = d
    return _solution(found, every, outlier)


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
