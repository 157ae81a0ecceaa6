"""Pairs by where the images were taken: neighbours in space, found with OpenCV's exact k-d tree.

Neither time nor memory grow with the square of the number of images.
"""

from __future__ import annotations

from collections.abc import Mapping

import cv2
import numpy as np
from numpy.typing import NDArray

from lightglue.errors import InputError

__all__ = ["earth_centred", "near", "near_and_alike", "near_distance", "poses_of"]

Indices = NDArray[np.int64]
Floats = NDArray[np.float64]

_KD_TREE_SINGLE = 4  # FLANN's exact index
_ALL_CHECKS = {"checks": -1}  # visit every leaf that may hold a nearer point
_FLATTENING, _EQUATOR = 1 / 298.257223563, 6378137.0  # of WGS 84; m
_MOST = 1024  # neighbours that are looked through for those that look the same way


def near(positions: Floats, k: int, radius: float) -> Indices:
    """Each position (N, 3) with its at most `k` nearest within `radius`, in the same unit: (P, 2)."""
    rows, others, _ = _nearest(positions, np.arange(len(positions)), k, radius)
    return np.stack([rows, others], axis=1)


def near_distance(positions: Floats, k: int) -> Floats:
    """(N,) distance of each position (N, 3) to its k-th nearest; there are more than `k`."""
    distances = _nearest(positions, np.arange(len(positions)), k, np.inf)[2]
    return distances.reshape(len(positions), k)[:, -1]


def near_and_alike(poses: Floats, k: int, max_angle: float, radius: float) -> Indices:
    """Each camera with its at most `k` nearest that look its way: (P, 2).

    poses: (N, 4, 4), world to camera. max_angle: degrees between the optical axes. radius: in the unit of the poses.
    Of each camera's neighbours the nearest 1,024 are looked through.
    """
    centres = -np.einsum("nji,nj->ni", poses[:, :3, :3], poses[:, :3, 3])
    axes = poses[:, 2, :3]
    least = np.cos(np.radians(max_angle)) - 1e-12
    found: list[Indices] = []
    pending, searched = np.arange(len(poses)), 4 * k
    while len(pending):
        rows, others, _ = _nearest(centres, pending, searched, radius)
        alike = np.einsum("ni,ni->n", axes[rows], axes[others]) >= least
        rank = _rank(rows[alike])
        chosen = np.stack([rows[alike], others[alike]], axis=1)[rank < k]
        # Done are those that have all they may have, or that have seen all there is.
        have, seen = (np.bincount(r, minlength=len(poses)) for r in (chosen[:, 0], rows))
        done = (have >= k) | (seen < min(searched, len(poses) - 1)) | (searched >= min(_MOST, len(poses) - 1))
        found.append(chosen[done[chosen[:, 0]]])
        pending, searched = pending[~done[pending]], 4 * searched
    return np.concatenate(found) if found else np.empty((0, 2), np.int64)


def _nearest(positions: Floats, rows: Indices, k: int, radius: float) -> tuple[Indices, Indices, Floats]:
    """The rows, the indices of their at most `k` nearest within `radius`, and the distances; nearest first."""
    if len(positions) < 2:
        return np.empty(0, np.int64), np.empty(0, np.int64), np.empty(0)
    # Single precision, in which the tree has them, is fine around the middle; distances are those of the doubles.
    points = np.ascontiguousarray(positions - np.median(positions, axis=0), np.float32)
    tree = cv2.flann.Index(points, {"algorithm": _KD_TREE_SINGLE, "leaf_max_size": 16})
    wanted = min(k + 1, len(points))  # one of them is the point itself
    block = max(1, 4_000_000 // wanted)
    parts = [(np.empty(0, np.int64), np.empty(0, np.int64), np.empty(0))]
    for start in range(0, len(rows), block):
        some = rows[start : start + block]
        others = tree.knnSearch(points[some], wanted, params=_ALL_CHECKS)[0].astype(np.int64)  # type: ignore[arg-type]
        distances = np.linalg.norm(positions[some, None] - positions[others], axis=2)
        distances[others == some[:, None]] = np.inf
        order = np.lexsort((others, distances))[:, :k]
        others, distances = (np.take_along_axis(a, order, axis=1) for a in (others, distances))
        within = (distances <= radius) & np.isfinite(distances)
        parts.append((np.repeat(some, within.sum(axis=1)), others[within], distances[within]))
    r, o, d = (np.concatenate(column) for column in zip(*parts, strict=True))
    return r, o, d


def _rank(rows: Indices) -> Indices:
    """The rank of each entry among those of its row; equal rows stand together."""
    starts = np.flatnonzero(np.r_[True, rows[1:] != rows[:-1]]) if len(rows) else np.empty(0, np.int64)
    return np.arange(len(rows)) - np.repeat(starts, np.diff(np.r_[starts, len(rows)]))


def earth_centred(latitude: Floats, longitude: Floats, altitude: Floats) -> Floats:
    """Geodetic WGS 84 coordinates (degrees, degrees, m; (N,) each) as (N, 3) m from the centre of the earth.

    Distances are those through the ground, which for neighbours is no matter.
    """
    phi, lam = np.radians(latitude), np.radians(longitude)
    e2 = _FLATTENING * (2 - _FLATTENING)
    normal = _EQUATOR / np.sqrt(1 - e2 * np.sin(phi) ** 2)
    across = (normal + altitude) * np.cos(phi)
    return np.stack([across * np.cos(lam), across * np.sin(lam), (normal * (1 - e2) + altitude) * np.sin(phi)], axis=1)


def poses_of(poses: Mapping[str, object]) -> tuple[list[str], Floats]:
    """Names, sorted, and their poses (N, 4, 4). Raises InputError for what is no pose."""
    names = sorted(poses)
    found = np.empty((len(names), 4, 4))
    for index, name in enumerate(names):
        try:
            pose = np.asarray(poses[name], np.float64)
            found[index] = (0, 0, 0, 1)
            found[index, :3] = pose.reshape(-1, 4)[:3]
            fault = pose.shape not in ((4, 4), (3, 4)) or not _is_rotation(found[index, :3, :3])
        except (TypeError, ValueError):
            fault = True
        if fault or not np.isfinite(found[index]).all():
            raise InputError(f"The pose of {name!r} is no rigid motion; give T (4, 4), world to camera.")
    return names, found


def _is_rotation(R: Floats) -> bool:
    return bool(np.isfinite(R).all() and np.allclose(R @ R.T, np.eye(3), atol=1e-3) and np.linalg.det(R) > 0)
