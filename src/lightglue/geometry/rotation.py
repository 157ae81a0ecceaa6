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


def explained_by_rotation(
    points0: Floats, points1: Floats, focals: tuple[float, float], max_error: float
) -> NDArray[np.bool_]:
    """Which matches (N,) the best rotation explains.

    points0, points1: (N, 2) px from the principal point, without distortion. focals: px. max_error: px, at the middle
    of the image. The same input gives the same result.
    """
    if len(points0) < 2:
        return np.ones(len(points0), np.bool_)
    rays0, rays1 = (_rays(points, focal) for points, focal in zip((points0, points1), focals, strict=True))
    limit = max_error / max(focals)
    trials = np.random.default_rng(0).integers(0, len(rays0), (_TRIALS, 2))
    rotations = np.swapaxes(_frames(rays1[trials]), 1, 2) @ _frames(rays0[trials])
    far = np.linalg.norm(rays0 @ np.swapaxes(rotations, 1, 2) - rays1, axis=2)  # (trials, N)
    inliers: NDArray[np.bool_] = far[np.argmax((far <= limit).sum(axis=1))] <= limit
    for _ in range(_ROUNDS):
        if inliers.sum() < 2:
            break
        R = _aligned(rays0[inliers], rays1[inliers])
        better = np.linalg.norm(rays0 @ R.T - rays1, axis=1) <= limit
        if better.sum() < inliers.sum():
            break
        inliers = better
    return inliers


def _rays(points: Floats, focal: float) -> Floats:
    """(N, 3) of length 1."""
    rays = np.concatenate((points / focal, np.ones((len(points), 1))), axis=1)
    unit: Floats = rays / np.linalg.norm(rays, axis=1, keepdims=True)
    return unit


def _frames(two: Floats) -> Floats:
    """(T, 3, 3): rows are axes that two rays (T, 2, 3) span; anything where they are the same."""
    across = np.cross(two[:, 0], two[:, 1])
    across /= np.maximum(np.linalg.norm(across, axis=1, keepdims=True), 1e-12)
    middle = two[:, 0] + two[:, 1]
    middle /= np.maximum(np.linalg.norm(middle, axis=1, keepdims=True), 1e-12)
    frames: Floats = np.stack((middle, across, np.cross(middle, across)), axis=1)
    return frames


def _aligned(rays0: Floats, rays1: Floats) -> Floats:
    """The rotation (3, 3) from rays0 to rays1, least squares (Kabsch, Acta Cryst. 1976)."""
    left, _, right = np.linalg.svd(rays1.T @ rays0)
    R: Floats = left @ np.diag([1, 1, np.sign(np.linalg.det(left @ right))]) @ right
    return R
