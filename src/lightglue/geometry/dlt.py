"""A homography from all matches, without looking for outliers: the direct linear transform.

Hartley and Zisserman, Multiple View Geometry, 4.1 and 4.4: two equations a match, both sets of points moved and scaled
to mean 0 and mean distance sqrt(2) first, the solution being the direction that they agree on best.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from lightglue.errors import InputError
from lightglue.geometry.points import as_matches, homogeneous, on_cpu

__all__ = ["fit_homography"]


def fit_homography(points0: Any, points1: Any, weights: Any = None) -> NDArray[np.float64] | None:
    """H (3, 3) with H x0 = x1 in the weighted least algebraic squares; its largest entry is 1 or -1.

    Args:
        points0, points1: (K, 2), px.
        weights: (K,) at least 0, such as the scores of the matches; None for 1.

    Returns:
        None where there are fewer than four matches of a weight above 0, or they do not determine it.

    Raises InputError.
    """
    first, second = as_matches(points0, points1)
    w = _weights(weights, len(first))
    first, second, w = first[w > 0], second[w > 0], w[w > 0]
    if len(first) < 4:
        return None
    S0, S1 = _normalizer(first), _normalizer(second)
    if S0 is None or S1 is None:
        return None
    x0, x1 = homogeneous(first) @ S0.T, homogeneous(second) @ S1.T
    nothing = np.zeros_like(x0)
    rows = np.concatenate(
        [
            np.concatenate([nothing, -x0, x1[:, 1:2] * x0], axis=1),
            np.concatenate([x0, nothing, -x1[:, :1] * x0], axis=1),
        ]
    )
    values, vectors = np.linalg.eigh(rows.T @ (rows * np.concatenate([w, w])[:, None]))
    if values[1] <= 1e-12 * values[-1]:  # a second solution fits as well: points on a line, or the same ones
        return None
    H = np.linalg.inv(S1) @ vectors[:, 0].reshape(3, 3) @ S0
    return np.asarray(H / np.abs(H).max())


def _weights(weights: Any, count: int) -> NDArray[np.float64]:
    if weights is None:
        return np.ones(count)
    w = np.asarray(on_cpu(weights), dtype=np.float64)
    if w.shape != (count,) or not (np.isfinite(w) & (w >= 0)).all():
        raise InputError(f"weights have the shape {w.shape}; give ({count},) finite numbers of at least 0.")
    return w


def _normalizer(points: NDArray[np.float64]) -> NDArray[np.float64] | None:
    """The similarity (3, 3) that gives the points (N, 2) mean 0 and mean distance sqrt(2); None for one point."""
    mean = points.mean(axis=0)
    distance = np.linalg.norm(points - mean, axis=1).mean()
    if not distance > 1e-9 * max(1.0, np.abs(mean).max()):
        return None
    scale = np.sqrt(2) / distance
    return np.array([[scale, 0, -scale * mean[0]], [0, scale, -scale * mean[1]], [0, 0, 1]])
