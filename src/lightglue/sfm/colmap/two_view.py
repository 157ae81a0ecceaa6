"""COLMAP's verification of two views, told by a quicker estimator how long to look.

Nearly all the time of COLMAP's RANSAC goes into pairs without a geometry, for which it draws up to the last of its
samples. PoseLib answers in a fraction of that time how many matches agree with any one geometry. Where these are too
few COLMAP is not asked; elsewhere it looks no longer than it takes to find as many. docs/decisions/034 has the figures.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from lightglue.errors import InputError, LightGlueError
from lightglue.geometry.cameras import as_camera
from lightglue.geometry.intrinsics import from_colmap
from lightglue.geometry.options import EstimatorOptions
from lightglue.sfm.colmap.with_pycolmap import pycolmap, set_option

try:
    from lightglue.geometry.with_poselib import most_inliers
except LightGlueError:  # no wheel for this machine: COLMAP does it alone, with the same result and more slowly
    most_inliers = None  # type: ignore[assignment]

__all__ = ["two_view_geometry"]

Floats: TypeAlias = NDArray[np.float64]

_SHARE = 0.9  # of PoseLib's inliers that COLMAP, which refines less, is to find
# Up to this ratio RANSAC draws the hundred samples that are its least in any case, of 7, 5 or 4 matches: pairs that
# have more inliers than that get the same geometry to the last bit.
_MAX_RATIO = 0.65
_SOME = 200  # matches that tell whether a pair has so many inliers
_CLEAR = 0.75  # share of them


def two_view_geometry(
    cameras: tuple[Any, Any],
    keypoints: tuple[Floats, Floats],
    matches: NDArray[np.uint32],
    options: Mapping[str, float],
    seed: int,
) -> Any:
    """COLMAP's geometry of two images, a `pycolmap.TwoViewGeometry`.

    Calibrated where both focal lengths are known, and the same in every thread. keypoints: px as COLMAP has them.
    options: names of `TwoViewGeometryOptions`, with `ransac.` before those of its RANSAC.
    """
    first, second = (np.ascontiguousarray(points) for points in keypoints)
    ratio = _expected_ratio(cameras, (first[matches[:, 0]], second[matches[:, 1]]), options, seed)
    if ratio is None:
        none = pycolmap.TwoViewGeometry()
        none.config = int(pycolmap.TwoViewGeometryConfiguration.DEGENERATE)
        return none
    made = pycolmap.TwoViewGeometryOptions()
    for name, value in {**options, "ransac.min_inlier_ratio": ratio}.items():
        set_option(made, name, value)
    if hasattr(made.ransac, "random_seed"):
        made.ransac.random_seed = seed
    else:
        pycolmap.set_random_seed(seed)  # of this thread
    return pycolmap.estimate_two_view_geometry(cameras[0], first, cameras[1], second, matches, made)


def _expected_ratio(
    cameras: tuple[Any, Any], points: tuple[Floats, Floats], options: Mapping[str, float], seed: int
) -> float | None:
    """The share of inliers that RANSAC may expect, by which it knows when it has looked long enough; None: too few."""
    count, fewest = len(points[0]), int(options["min_num_inliers"])
    if count < fewest:
        return None
    enough: float = fewest
    straight = None if most_inliers is None else _straightened(cameras, points)
    if straight is not None:
        estimate = EstimatorOptions(
            threshold=float(options["ransac.max_error"]),
            max_iterations=int(options["ransac.max_num_trials"]),
            confidence=float(options["ransac.confidence"]),
            seed=seed,
        )
        first, second = (each[:: -(-count // _SOME)] for each in straight)
        agree: float = count * most_inliers(first, second, estimate) / len(first)
        if agree < _CLEAR * count and len(first) < count:
            agree = most_inliers(*straight, estimate)
        if agree < fewest:
            return None
        enough = max(enough, _SHARE * agree)
    return max(float(options["ransac.min_inlier_ratio"]), min(_MAX_RATIO, enough / count))


def _straightened(cameras: tuple[Any, Any], points: tuple[Floats, Floats]) -> tuple[Floats, Floats] | None:
    """Points that one fundamental matrix relates wherever COLMAP finds a geometry; None where there is no image plane.

    With both focal lengths known COLMAP looks at the rays, otherwise at the pixels.
    """
    try:
        known = as_camera(cameras[0]), as_camera(cameras[1])
    except InputError:  # a panorama
        return None
    if not all(camera.has_prior_focal_length for camera in cameras):
        return points
    first, second = (camera.undistort(from_colmap(each)) for camera, each in zip(known, points, strict=True))
    return (first, second) if np.isfinite(first).all() and np.isfinite(second).all() else None
