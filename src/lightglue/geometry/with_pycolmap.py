"""COLMAP through pycolmap: its estimators, LO-RANSAC."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from lightglue.errors import LightGlueError
from lightglue.geometry.cameras import Camera
from lightglue.geometry.colmap_cameras import camera_to_colmap
from lightglue.geometry.intrinsics import Intrinsics
from lightglue.geometry.options import EstimatorOptions
from lightglue.geometry.results import Found, unit_motion

try:
    import pycolmap
except ImportError as error:
    raise LightGlueError(
        "pycolmap is not installed; run `pip install pycolmap`, or choose the method poselib or opencv."
    ) from error

__all__ = ["fundamental", "homography", "relative_pose"]

Floats = NDArray[np.float64]


def homography(points0: Floats, points1: Floats, options: EstimatorOptions) -> Found | None:
    """H (3, 3)."""
    return _found("H", pycolmap.estimate_homography_matrix(points0, points1, _ransac(options)))


def fundamental(points0: Floats, points1: Floats, options: EstimatorOptions) -> Found | None:
    """F (3, 3)."""
    return _found("F", pycolmap.estimate_fundamental_matrix(points0, points1, _ransac(options)))


def relative_pose(
    points0: Floats, points1: Floats, camera0: Camera, camera1: Camera, options: EstimatorOptions
) -> Found | None:
    """T (4, 4) from points without distortion: the essential matrix, and the pose refined over its inliers."""
    cameras: list[Any] = [
        camera_to_colmap(Intrinsics("PINHOLE", None, camera.pinhole)) for camera in (camera0, camera1)
    ]
    rays = [Camera(camera.K).normalize(points) for camera, points in ((camera0, points0), (camera1, points1))]
    # Without skew, which COLMAP's pinhole does not have.
    points: list[Any] = [ray * camera.params[:2] + camera.params[2:] for ray, camera in zip(rays, cameras, strict=True)]
    result = pycolmap.estimate_essential_matrix(points[0], points[1], cameras[0], cameras[1], _ransac(options))
    if result is None:
        return None
    inliers = np.asarray(result["inlier_mask"], dtype=np.bool_)
    directions: list[Any] = [np.concatenate([ray, np.ones((len(ray), 1))], axis=1) for ray in rays]
    directions = [d / np.linalg.norm(d, axis=1, keepdims=True) for d in directions]
    refined = pycolmap.refine_relative_pose(result["cam2_from_cam1"], directions[0], directions[1], inliers)
    pose = (refined or result)["cam2_from_cam1"].matrix()
    T = unit_motion(pose[:, :3], pose[:, 3])
    return None if T is None else Found(T, inliers)


def _ransac(options: EstimatorOptions) -> Any:
    ransac = pycolmap.RANSACOptions()
    ransac.max_error = options.pixels
    ransac.confidence = options.confidence
    ransac.max_num_trials = options.max_iterations
    ransac.min_num_trials = min(ransac.min_num_trials, options.max_iterations)
    ransac.random_seed = options.seed
    return ransac


def _found(name: str, result: dict[str, Any] | None) -> Found | None:
    if result is None:
        return None
    return Found(np.asarray(result[name], dtype=np.float64), np.asarray(result["inlier_mask"], dtype=np.bool_))
