"""Geometry from matches: models with their inliers, errors against the truth, sub-pixel refinement.

    from lightglue.geometry import EstimatorOptions, estimate_relative_pose, pose_error

    estimate = estimate_relative_pose(points0, points1, K0, K1, EstimatorOptions(threshold=1.0))
    estimate.model, estimate.inliers, estimate.statistics

Points are (K, 2) px whose (0, 0) is the centre of the top-left pixel, arrays or tensors.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from lightglue.support.lazy import lazy_names

if TYPE_CHECKING:
    from lightglue.geometry.cameras import Camera, as_camera
    from lightglue.geometry.curves import auc, recall_curve
    from lightglue.geometry.dlt import fit_homography
    from lightglue.geometry.errors import (
        corner_error,
        epipolar_error,
        essential_from_pose,
        fundamental_from_pose,
        normalized_epipolar_error,
        pose_error,
        rotation_error,
        symmetric_transfer_error,
        transfer_error,
        translation_error,
    )
    from lightglue.geometry.estimation import (
        estimate,
        estimate_essential,
        estimate_fundamental,
        estimate_homography,
        estimate_relative_pose,
    )
    from lightglue.geometry.options import EstimatorOptions, RefineOptions
    from lightglue.geometry.refine import Refined, refine_matches
    from lightglue.geometry.results import Estimate, Statistics

__all__ = [
    "Camera",
    "Estimate",
    "EstimatorOptions",
    "RefineOptions",
    "Refined",
    "Statistics",
    "as_camera",
    "auc",
    "corner_error",
    "epipolar_error",
    "essential_from_pose",
    "estimate",
    "estimate_essential",
    "estimate_fundamental",
    "estimate_homography",
    "estimate_relative_pose",
    "fit_homography",
    "fundamental_from_pose",
    "normalized_epipolar_error",
    "pose_error",
    "recall_curve",
    "refine_matches",
    "rotation_error",
    "symmetric_transfer_error",
    "transfer_error",
    "translation_error",
]

# Module of this room -> what it offers. Loaded when first used: options are read without NumPy, most without torch.
_OWNERS = {
    "cameras": ("Camera", "as_camera"),
    "curves": ("auc", "recall_curve"),
    "dlt": ("fit_homography",),
    "errors": (
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
    ),
    "estimation": (
        "estimate",
        "estimate_essential",
        "estimate_fundamental",
        "estimate_homography",
        "estimate_relative_pose",
    ),
    "options": ("EstimatorOptions", "RefineOptions"),
    "refine": ("Refined", "refine_matches"),
    "results": ("Estimate", "Statistics"),
}
__getattr__ = lazy_names(__name__, {name: module for module, names in _OWNERS.items() for name in names})
