"""The focal length that uncalibrated pairs agree with."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

__all__ = ["focal_factor"]

_FACTORS = np.geomspace(0.3, 3.0, 140)  # of the guess, which is 1.2 times the longer edge
_SPREAD = 0.05  # relative difference of the two singular values that counts half
_MOST = 200  # inliers beyond which a pair counts no more
_FEWEST = 3  # pairs
_SHARE = 0.25  # of the most that the pairs could agree, without which the guess stays


def focal_factor(estimates: list[tuple[NDArray[np.float64], int]]) -> float | None:
    """What guessed focal lengths are to be multiplied by.

    Args:
        estimates: of each pair K'^T F K (3, 3) with the guessed calibrations, and how many inliers F has.

    With the right focal length that is an essential matrix, with two equal singular values (Hartley and Zisserman,
    2nd edition, 9.6). The factor that most pairs agree with, by a robust sum, is found on a grid: false pairs, whose
    two views are those of one scene too, hardly disturb it. None where the pairs are few or do not agree.
    """
    if len(estimates) < _FEWEST:
        return None
    E = np.array([matrix / np.linalg.norm(matrix) for matrix, _ in estimates])
    weights = np.minimum(np.array([inliers for _, inliers in estimates], np.float64), _MOST)
    sums = []
    for factor in _FACTORS:
        zoom = np.diag((factor, factor, 1.0))
        values = np.linalg.svd(zoom @ E @ zoom, compute_uv=False)
        spread = (values[:, 0] - values[:, 1]) / np.maximum(values[:, 1], 1e-12)
        sums.append(float(np.sum(weights / (1 + np.square(spread / _SPREAD)))))
    best = int(np.argmax(sums))
    return float(_FACTORS[best]) if sums[best] >= _SHARE * weights.sum() else None
