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

from dataclasses import dataclass
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
    d, weights = np.zeros((count, 2)), np.ones(len(found))
    for k in range(_ROUNDS):
        if k:
            weights = _weights(found, d, outlier)
        d = _conjugate_gradients(found, _certainty(found, weights, floor), d, prior)
    return _solution(found, d, outlier)


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
    difference: Floats = d[found.j] - np.einsum("mij,mj->mi", found.matrix, d[found.i])
    return difference


def _gather(found: Measurements, forces: Floats, count: int) -> Floats:
    """(N, 2): the transpose of `_difference`."""
    back = -np.einsum("mij,mi->mj", found.matrix, forces)
    columns = [np.bincount(found.j, forces[:, k], count) + np.bincount(found.i, back[:, k], count) for k in range(2)]
    return np.stack(columns, 1)


def _conjugate_gradients(found: Measurements, certainty: Floats, d: Floats, prior: float) -> Floats:
    """Solve the normal equations, starting at d."""
    count = len(d)

    def normal(d: Floats) -> Floats:
        return _gather(found, certainty[:, None] * _difference(found, d), count) + d / prior**2

    inverse = np.linalg.inv(_blocks(found, certainty, count, prior))
    right = _gather(found, certainty[:, None] * found.offset, count)
    residual = right - normal(d)
    z = np.einsum("nij,nj->ni", inverse, residual)
    direction, product = z, float((residual * z).sum())
    least = _TOLERANCE * float((right * np.einsum("nij,nj->ni", inverse, right)).sum())
    for _ in range(_STEPS):
        if product <= least:
            break
        along = normal(direction)
        step = product / float((direction * along).sum())
        d, residual = d + step * direction, residual - step * along
        z = np.einsum("nij,nj->ni", inverse, residual)
        product, before = float((residual * z).sum()), product
        direction = z + product / before * direction
    return d


def _blocks(found: Measurements, certainty: Floats, count: int, prior: float) -> Floats:
    """(N, 2, 2): the blocks on the diagonal of the normal equations."""
    squares = np.einsum("mki,mkj->mij", found.matrix, found.matrix) * certainty[:, None, None]
    diagonal = np.bincount(found.j, certainty, count) + 1 / prior**2
    blocks = np.empty((count, 2, 2))
    for row in range(2):
        for column in range(2):
            blocks[:, row, column] = np.bincount(found.i, squares[:, row, column], count) + diagonal * (row == column)
    return blocks
