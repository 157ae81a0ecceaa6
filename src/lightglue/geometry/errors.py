"""How far an estimate, or a match, is from the truth.

Points are (K, 2) px, errors float64, infinite where there is none to be had (a point at infinity, no estimate), so
that a failure is never dropped from an average. Definitions: Hartley and Zisserman, Multiple View Geometry, chapters 4
and 11; the corner error as in SuperPoint (DeTone et al. 2018), the pose error as in Yi et al. 2018 and SuperGlue
(Sarlin et al. 2020).
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from lightglue.geometry.cameras import as_camera
from lightglue.geometry.intrinsics import from_colmap
from lightglue.geometry.points import as_matches, as_matrix, homogeneous, transform

__all__ = [
    "corner_error",
    "epipolar_error",
    "essential_from_pose",
    "fundamental_from_pose",
    "normalized_epipolar_error",
    "pose_error",
    "rotation_error",
    "symmetric_transfer_error",
    "transfer_error",
    "translation_error",
]

Floats = NDArray[np.float64]


def transfer_error(H: Any, points0: Any, points1: Any) -> Floats:
    """Distance in image 1 of H x0 from x1, (K,) px."""
    first, second = as_matches(points0, points1)
    return _finite(np.linalg.norm(transform(as_matrix("H", H), first) - second, axis=1))


def symmetric_transfer_error(H: Any, points0: Any, points1: Any) -> Floats:
    """Mean of the transfer errors in image 1 and, with the inverse of H, in image 0, (K,) px."""
    H = as_matrix("H", H)
    try:
        back = np.linalg.inv(H)
    except np.linalg.LinAlgError:
        return np.full(len(as_matches(points0, points1)[0]), np.inf)
    return (transfer_error(H, points0, points1) + transfer_error(back, points1, points0)) / 2


def corner_error(H: Any, truth: Any, size: tuple[int, int]) -> float:
    """Mean distance between where H and the true homography send the corners of image 0, px; infinite without H.

    size: width and height of image 0, px. The corners are the outer ones of its corner pixels, as in glue-factory.
    """
    if H is None:
        return float("inf")
    width, height = size
    corners = homogeneous(from_colmap(np.array([[0, 0], [width, 0], [width, height], [0, height]], np.float64)))
    ours, true = (corners @ as_matrix(name, matrix).T for name, matrix in (("H", H), ("truth", truth)))
    with np.errstate(divide="ignore", invalid="ignore"):  # behind the camera counts as elsewhere, as it is published
        distances = np.linalg.norm(ours[:, :2] / ours[:, 2:] - true[:, :2] / true[:, 2:], axis=1)
    return float(_finite(distances).mean())


def epipolar_error(F: Any, points0: Any, points1: Any) -> Floats:
    """Mean distance of x1 from the line of x0 and of x0 from the line of x1, (K,) px. F is (3, 3), x1' F x0 = 0."""
    first, second = as_matches(points0, points1)
    return np.asarray(_line_distances(as_matrix("F", F), first, second).mean(axis=0))


def normalized_epipolar_error(T_0to1: Any, camera0: Any, camera1: Any, points0: Any, points1: Any) -> Floats:
    """Mean distance of each ray from the other's epipolar line, both at focal length 1, (K,): px over focal length.

    What SuperGlue and glue-factory count as precision at 1e-4, 5e-4, 1e-3.
    """
    first, second = as_matches(points0, points1)
    rays0, rays1 = as_camera(camera0).normalize(first), as_camera(camera1).normalize(second)
    return np.asarray(_line_distances(essential_from_pose(T_0to1), rays0, rays1).mean(axis=0))


def essential_from_pose(T_0to1: Any) -> Floats:
    """E (3, 3) of a relative pose (4, 4): cross matrix of the unit translation times the rotation."""
    T = as_matrix("T_0to1", T_0to1, (4, 4))
    x, y, z = T[:3, 3] / (np.linalg.norm(T[:3, 3]) or 1.0)
    return np.asarray(np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]]) @ T[:3, :3])


def fundamental_from_pose(T_0to1: Any, camera0: Any, camera1: Any) -> Floats:
    """F (3, 3) of a relative pose and two cameras, for points without distortion, px."""
    inverse0, inverse1 = (np.linalg.inv(as_camera(camera).K) for camera in (camera0, camera1))
    return np.asarray(inverse1.T @ essential_from_pose(T_0to1) @ inverse0)


def rotation_error(R: Any, truth: Any) -> float:
    """Angle of the rotation between two rotations (3, 3), degrees."""
    between = as_matrix("R", R).T @ as_matrix("truth", truth)
    # Of the chord and not of the trace, whose arc cosine loses half the digits at small angles.
    chord = np.linalg.norm(between - np.eye(3)) / np.sqrt(8)
    return float(np.degrees(2 * np.arcsin(np.clip(chord, 0, 1))))


def translation_error(t: Any, truth: Any) -> float:
    """Angle between two translations (3,), degrees, 0 to 180; 0 where the truth does not move."""
    a, b = (np.asarray(v, dtype=np.float64).reshape(3) for v in (t, truth))
    if not np.linalg.norm(b):
        return 0.0
    return float(np.degrees(np.arctan2(np.linalg.norm(np.cross(a, b)), a @ b))) if np.linalg.norm(a) else 180.0


def pose_error(T_0to1: Any, truth: Any, *, is_directed: bool = False) -> float:
    """The larger of rotation and translation angle, degrees; infinite without a pose.

    is_directed: distinguish a translation from its opposite. The published figures do not: they take the smaller angle.
    """
    if T_0to1 is None:
        return float("inf")
    T, truth = as_matrix("T_0to1", T_0to1, (4, 4)), as_matrix("truth", truth, (4, 4))
    angle = translation_error(T[:3, 3], truth[:3, 3])
    return max(rotation_error(T[:3, :3], truth[:3, :3]), angle if is_directed else min(angle, 180 - angle))


def _line_distances(F: Floats, points0: Floats, points1: Floats) -> Floats:
    """Distances of x1 from F x0 and of x0 from F' x1, (2, K); infinite at an epipole."""
    x0, x1 = homogeneous(points0), homogeneous(points1)
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):  # points of 1e308 px
        lines1, lines0 = x0 @ F.T, x1 @ F
        product = np.abs(np.sum(lines1 * x1, axis=1))
        norms = np.stack([np.linalg.norm(lines[:, :2], axis=1) for lines in (lines1, lines0)])
        return _finite(product / norms)


def _finite(errors: Floats) -> Floats:
    """NaN, which comes of infinity, as infinity."""
    return np.where(np.isnan(errors), np.inf, errors)
