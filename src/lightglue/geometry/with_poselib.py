"""PoseLib's estimators (Larsson 2020): LO-RANSAC with a truncated loss, and non-linear refinement at the end."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from lightglue.errors import LightGlueError
from lightglue.geometry.cameras import Camera
from lightglue.geometry.options import EstimatorOptions
from lightglue.geometry.results import Found, unit_motion

try:
    import poselib
except ImportError as error:
    raise LightGlueError(
        "PoseLib is not installed; run `pip install poselib`, or choose the method opencv or pycolmap."
    ) from error

__all__ = ["fundamental", "homography", "most_inliers", "relative_pose"]

Floats = NDArray[np.float64]


def homography(points0: Floats, points1: Floats, options: EstimatorOptions) -> Found | None:
    """H (3, 3)."""
    H, info = poselib.estimate_homography(points0, points1, _ransac(options, "max_reproj_error"), {})
    return _found(np.array(H), info)


def fundamental(points0: Floats, points1: Floats, options: EstimatorOptions) -> Found | None:
    """F (3, 3)."""
    F, info = poselib.estimate_fundamental(points0, points1, _ransac(options, "max_epipolar_error"), {})
    return _found(np.array(F), info)


def relative_pose(
    points0: Floats, points1: Floats, camera0: Camera, camera1: Camera, options: EstimatorOptions
) -> Found | None:
    """T (4, 4) from points without distortion."""
    cameras = [
        {"model": "PINHOLE", "width": 0, "height": 0, "params": list(camera.pinhole)} for camera in (camera0, camera1)
    ]
    ransac = _ransac(options, "max_epipolar_error")
    if camera0.K[0, 1] or camera1.K[0, 1]:  # PoseLib knows no skew
        points0, points1 = Camera(camera0.K).unskewed(points0), Camera(camera1.K).unskewed(points1)
    pose, info = poselib.estimate_relative_pose(points0, points1, *cameras, ransac, {})
    T = unit_motion(pose.R, pose.t)
    return None if T is None else _found(T, info)


def most_inliers(points0: Floats, points1: Floats, options: EstimatorOptions) -> int:
    """How many matches the best fundamental matrix or homography has, whichever has more, within `options.pixels`.

    A quick answer, for those who ask whether an estimate is worth its time: it stops as soon as `options.confidence`
    allows.
    """
    found = 0
    for solve, threshold in (
        (poselib.estimate_fundamental, "max_epipolar_error"),
        (poselib.estimate_homography, "max_reproj_error"),
    ):
        ransac = {**_ransac(options, threshold), "min_iterations": min(20, options.max_iterations)}
        found = max(found, int(solve(points0, points1, ransac, {})[1]["num_inliers"]))
    return found


def _ransac(options: EstimatorOptions, threshold: str) -> dict[str, Any]:
    """Its options; its own least number of iterations stays, as in the published evaluations."""
    return {
        threshold: options.pixels,
        "max_iterations": options.max_iterations,
        "min_iterations": min(1000, options.max_iterations),
        "success_prob": options.confidence,
        "seed": options.seed,
    }


def _found(model: Floats, info: dict[str, Any]) -> Found | None:
    if not info["num_inliers"]:
        return None
    return Found(model, np.array(info["inliers"], dtype=np.bool_), int(info["iterations"]))
