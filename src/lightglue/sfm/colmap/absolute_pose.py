"""COLMAP's absolute pose: P3P in LO-RANSAC, refined."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from lightglue.geometry.intrinsics import to_colmap
from lightglue.sfm.colmap.with_pycolmap import pycolmap, quiet
from lightglue.sfm.options import PoseOptions

__all__ = ["absolute_pose"]

_PRECISE = 1e-6  # of the gradient, where it is to end


def absolute_pose(
    camera: Any,
    points2D: NDArray[np.float64],
    points3D: NDArray[np.float64],
    max_error: float,
    options: PoseOptions,
    *,
    estimate_focal: bool,
    refine_focal: bool,
    loss: float | None = None,
) -> tuple[NDArray[np.float64], NDArray[np.bool_]] | None:
    """The pose T (4, 4) from the world to a camera, and which points (N,) agree with it; None where there is none.

    camera: a `pycolmap.Camera` that gets the focal length that is found. points2D: (N, 2) px.
    max_error: px, of an inlier.
    estimate_focal: by RANSAC. refine_focal: with the pose, from what RANSAC found.
    loss: px; refine once more, to the end, with Cauchy's loss of this scale. COLMAP's is 1 px and ends early.
    """
    estimation = pycolmap.AbsolutePoseEstimationOptions()
    estimation.estimate_focal_length = estimate_focal
    ransac: Any = estimation.ransac
    ransac.max_error, ransac.confidence = max_error, options.confidence
    ransac.max_num_trials = options.max_iterations
    ransac.min_num_trials = min(ransac.min_num_trials, options.max_iterations)
    if hasattr(ransac, "random_seed"):  # 3.13
        ransac.random_seed = options.seed
    else:
        pycolmap.set_random_seed(options.seed)
    refinement = pycolmap.AbsolutePoseRefinementOptions()
    refinement.refine_focal_length, refinement.refine_extra_params = refine_focal, False
    with quiet():
        found = pycolmap.estimate_and_refine_absolute_pose(
            to_colmap(points2D), points3D, camera, estimation, refinement
        )
    if found is None:
        return None
    inliers = np.asarray(found["inlier_mask"], np.bool_)
    if loss is not None:
        refinement.loss_function_scale, refinement.gradient_tolerance = loss, _PRECISE
        with quiet():
            found = (
                pycolmap.refine_absolute_pose(
                    found["cam_from_world"], to_colmap(points2D), points3D, inliers, camera, refinement
                )
                or found
            )
    T = np.eye(4)
    T[:3] = found["cam_from_world"].matrix()
    return T, inliers
