"""One displacement for each point, from what several references say of it, of which some are wrong.

A reference, an image whose points stay, says where a point is, and how sure that is. The displacement of a point makes
the residuals small: least squares, each weighted by its certainty, and again and again by how well it fits (Geman and
McClure's weights), with a weak pull to where the point was: `lightglue.geometry.tracks` for points of one image, of
which each is solved for alone.

M stands for the measurements, N for the points.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

__all__ = ["Combined", "combine", "combine_one_by_one"]

Floats = NDArray[np.float64]

_ROUNDS = 10  # of new weights, as in the solution of tracks


class Combined(NamedTuple):
    """How far points are from where they were."""

    displacements: Floats  # (N, 2) px; 0 where nothing was measured
    support: Floats  # (N,): sum of the weights of a point's measurements, each at most 1


def combine(
    rows: NDArray[np.int64], offsets: Floats, deviations: Floats, count: int, prior: float, floor: float, outlier: float
) -> Combined:
    """The displacements of `count` points.

    Args:
        rows: (M,), of which point.
        offsets: (M, 2) px, how far a reference sees it from where it was.
        deviations: (M,) px, standard deviation of that.
        prior: px, standard deviation of a displacement before anything is measured.
        floor: px, added in squares to the deviations: what they do not know of.
        outlier: px, residual at which a measurement keeps a quarter of its weight.
    """
    certainty, weights = 1 / (deviations**2 + floor**2), np.ones(len(rows))
    for _ in range(_ROUNDS):
        used = certainty * weights
        total = np.bincount(rows, used, count) + 1 / prior**2
        sums = [np.bincount(rows, used * offsets[:, axis], count) for axis in range(2)]
        found: Floats = np.stack(sums, 1) / total[:, None]
        weights = _weights(found[rows] - offsets, outlier)
    support: Floats = np.bincount(rows, weights, count).astype(np.float64)
    return Combined(found, support)


def combine_one_by_one(
    rows: NDArray[np.int64], offsets: Floats, deviations: Floats, count: int, prior: float, floor: float, outlier: float
) -> Combined:
    """The same point by point, for tests and for reading."""
    found, support = np.zeros((count, 2)), np.zeros(count)
    for point in range(count):
        own, sigma = offsets[rows == point], deviations[rows == point]
        weights = np.ones(len(own))
        for _ in range(_ROUNDS):
            used = weights / (sigma**2 + floor**2)
            found[point] = (used[:, None] * own).sum(0) / (used.sum() + 1 / prior**2)
            weights = _weights(found[point] - own, outlier)
        support[point] = weights.sum()
    return Combined(found, support)


def _weights(residuals: Floats, outlier: float) -> Floats:
    """Geman and McClure's."""
    weights: Floats = 1 / (1 + (residuals**2).sum(1) / outlier**2) ** 2
    return weights
