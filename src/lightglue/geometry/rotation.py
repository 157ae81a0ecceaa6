"""Whether a rotation of the camera alone explains the matches of two views: then nothing is known of depth.

Where the camera only turned, x1 ~ K1 R K0^-1 x0 for all that it saw, whatever the depth (Hartley and Zisserman,
"Multiple View Geometry", 8.4).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

__all__ = ["explained_by_rotation"]

Floats = NDArray[np.float64]

_TRIALS = 32  # of two matches each: with a third of outliers all fail once in 10^8
_ROUNDS = 3  # of least squares, each with the inliers of the one before


def explained_by_rotation(points0: Floats, points1: Floats, focals: Floats, max_error: float) -> NDArray[np.bool_]:
    """Which matches the best rotation explains, with each of F pairs of focal lengths: (F, N).

    points0, points1: (N, 2) px from the principal point, without distortion. focals: (F, 2) px. max_error: px, at the
    middle of the image. The same input gives the same result.
    """
    if len(points0) < 2:
        return np.ones((len(focals), len(points0)), np.bool_)
    rays0, rays1 = _rays(points0, focals[:, 0]), _rays(points1, focals[:, 1])
    # Of unit rays, |R x0 - x1|^2 = 2 - 2 x1' R x0, which is linear in R: a product with what each match makes of them.
    matches = (rays1[..., :, None] * rays0[..., None, :]).reshape(*rays0.shape[:2], 9)
    least = (1 - (max_error / focals.max(axis=1)) ** 2 / 2)[:, None, None]

    def near(rotations: Floats) -> NDArray[np.bool_]:
        """(F, T, N) of (F, T, 3, 3)."""
        found: NDArray[np.bool_] = rotations.reshape(*rotations.shape[:2], 9) @ np.swapaxes(matches, 1, 2) >= least
        return found

    trials = np.random.default_rng(0).integers(0, len(points0), (_TRIALS, 2))
    tried = near(np.swapaxes(_frames(rays1[:, trials]), 2, 3) @ _frames(rays0[:, trials]))
    inliers: NDArray[np.bool_] = tried[np.arange(len(focals)), np.argmax(tried.sum(axis=2), axis=1)]
    for _ in range(_ROUNDS):
        sums = inliers[:, None, :].astype(np.float64) @ matches
        better = near(_aligned(sums.reshape(-1, 1, 3, 3)))[:, 0]
        more = (better.sum(axis=1) >= inliers.sum(axis=1)) & (inliers.sum(axis=1) >= 2)
        inliers = np.where(more[:, None], better, inliers)
    return inliers


def _rays(points: Floats, focals: Floats) -> Floats:
    """(F, N, 3) of length 1."""
    rays = np.ones((len(focals), len(points), 3))
    rays[..., :2] = points / focals[:, None, None]
    return _unit(rays)


def _unit(vectors: Floats) -> Floats:
    """(..., 3) of length 1, where they have any."""
    lengths = np.sqrt((vectors**2).sum(axis=-1, keepdims=True))
    unit: Floats = vectors / np.maximum(lengths, 1e-12)
    return unit


def _frames(two: Floats) -> Floats:
    """(..., 3, 3): rows are axes that two rays (..., 2, 3) span; anything where they are the same."""
    across, middle = _unit(np.cross(two[..., 0, :], two[..., 1, :])), _unit(two[..., 0, :] + two[..., 1, :])
    frames: Floats = np.stack((middle, across, np.cross(middle, across)), axis=-2)
    return frames


def _aligned(products: Floats) -> Floats:
    """The rotations (..., 3, 3) best for sums of rays1 rays0', least squares (Kabsch, Acta Cryst. 1976)."""
    left, _, right = np.linalg.svd(products)
    signs = np.ones(products.shape[:-1])
    signs[..., 2] = np.sign(np.linalg.det(left @ right))
    R: Floats = (left * signs[..., None, :]) @ right
    return R
