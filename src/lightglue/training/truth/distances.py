"""Distances between all keypoints of two images, and which of them decide what."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from lightglue.errors import InputError
from lightglue.geometry.errors import fundamental_from_pose
from lightglue.training.contract import IGNORED, UNMATCHABLE, Truth

__all__ = ["Distances", "as_points", "assign", "between", "epipolar_distances", "mutual_nearest"]

Floats = NDArray[np.float64]
Distances = NDArray[np.float32]  # (M, N); float32: 2,048 x 2,048 keypoints are 16 MB
Rows = NDArray[np.bool_]


def as_points(name: str, points: Any) -> Floats:
    """`points` as (N, 2) float64. Raises InputError for anything else, and for what is not finite."""
    found = np.asarray(points, np.float64)
    if found.ndim != 2 or found.shape[1] != 2 or not np.isfinite(found).all():
        raise InputError(f"{name} is {found.shape}; give finite keypoints (N, 2), px.")
    return found


def between(one: Floats, other: Floats) -> Distances:
    """(M, N) distance of each position (M, 2) from each position (N, 2); infinite where one is."""
    a, b = one.astype(np.float32), other.astype(np.float32)
    found: Distances = a[:, None, 0] - b[None, :, 0]
    np.square(found, out=found)
    across = a[:, None, 1] - b[None, :, 1]
    found += np.square(across, out=across)
    return np.sqrt(found, out=found)


def epipolar_distances(points0: Floats, points1: Floats, camera0: Any, camera1: Any, T_0to1: Any) -> Distances:
    """(M, N) mean of the distances of j from the epipolar line of i and of i from that of j, px.

    0 where any position is possible: at an epipole, where the camera did not move, and for what has no position.

    points: as the pinholes of the cameras see them, without distortion.
    """
    F = fundamental_from_pose(T_0to1, camera0, camera1)
    x0, x1 = (np.concatenate([points, np.ones((len(points), 1))], 1) for points in (points0, points1))
    lines1, lines0 = x0 @ F.T, x1 @ F
    norms1, norms0 = (np.hypot(lines[:, 0], lines[:, 1]) for lines in (lines1, lines0))
    with np.errstate(divide="ignore", invalid="ignore"):
        # Lines of unit normals first: their distances are exact enough in 32 bits, products of px are not.
        found: Distances = (lines1 / norms1[:, None]).astype(np.float32) @ x1.T.astype(np.float32)
        np.abs(found, out=found)
        found *= np.float32(0.5) + norms1.astype(np.float32)[:, None] * (0.5 / norms0).astype(np.float32)[None]
    unknown0, unknown1 = ~(norms1 > 0), ~(norms0 > 0)  # NaN, too
    found[unknown0] = 0
    found[:, unknown1] = 0
    return found


def mutual_nearest(distances: Distances, limit: float) -> NDArray[np.int64]:
    """(K, 2) rows and columns that are each other's nearest, nearer than `limit`; of equal ones the first."""
    if not distances.size:
        return np.zeros((0, 2), np.int64)
    rows = np.arange(len(distances))
    there = distances.argmin(1)
    kept = (distances.argmin(0)[there] == rows) & (distances[rows, there] < limit)
    return np.stack([rows[kept], there[kept]], 1)


def assign(pairs: NDArray[np.int64], negative0: Rows, negative1: Rows) -> Truth:
    """Matches (K, 2), then what has no partner; all else is not known."""
    matches0, matches1 = (
        np.where(negative, UNMATCHABLE, IGNORED).astype(np.int64) for negative in (negative0, negative1)
    )
    matches0[pairs[:, 0]], matches1[pairs[:, 1]] = pairs[:, 1], pairs[:, 0]
    return Truth(matches0, matches1)
