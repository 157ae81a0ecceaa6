"""Models from matches: homography, fundamental and essential matrix, relative pose.

Options in; model, inliers and statistics out. Which library computes is an option, not another function:

    estimate = estimate_relative_pose(points0, points1, K0, K1, EstimatorOptions(threshold=1.0))
    estimate.model  # (4, 4), or None

Too few matches, or degenerate ones, give an estimate without a model and say why; only arguments that have no meaning
are an error.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from time import perf_counter
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lightglue.errors import InputError
from lightglue.geometry import errors
from lightglue.geometry.cameras import Camera, as_camera
from lightglue.geometry.dlt import fit_homography
from lightglue.geometry.options import (
    CALIBRATED,
    GEOMETRIES,
    THRESHOLD,
    THRESHOLD_OF_HOMOGRAPHIES,
    EstimatorOptions,
    Geometry,
)
from lightglue.geometry.points import as_matches, extent
from lightglue.geometry.results import Estimate, Found, Library, Statistics
from lightglue.support.checks import check_choice

__all__ = [
    "check_geometry",
    "estimate",
    "estimate_essential",
    "estimate_fundamental",
    "estimate_homography",
    "estimate_relative_pose",
]

Floats = NDArray[np.float64]
_FEWEST: dict[Geometry, int] = {"homography": 4, "fundamental": 7, "relative_pose": 5}  # matches


def estimate(
    geometry: str,
    points0: Any,
    points1: Any,
    options: EstimatorOptions | None = None,
    *,
    camera0: Any = None,
    camera1: Any = None,
    weights: Any = None,
) -> Estimate:
    """The model that `geometry`, one of GEOMETRIES, names; arguments as in `estimate_NAME`. Raises InputError."""
    check_geometry(geometry, camera0, camera1)
    if geometry == "homography":
        return estimate_homography(points0, points1, options, weights=weights)
    if geometry == "fundamental":
        return estimate_fundamental(points0, points1, options)
    calibrated = estimate_essential if geometry == "essential" else estimate_relative_pose
    return calibrated(points0, points1, camera0, camera1, options)


def check_geometry(geometry: Any, camera0: Any, camera1: Any) -> None:
    """InputError where there is no such geometry, or it needs cameras and they are missing or wrong."""
    check_choice("geometry", geometry, GEOMETRIES)
    if geometry in CALIBRATED and (camera0 is None or camera1 is None):
        raise InputError(f"{geometry} needs camera0 and camera1: K (3, 3) or a pycolmap.Camera of each image.")
    for camera in (camera0, camera1):
        if camera is not None:
            as_camera(camera)


def estimate_homography(
    points0: Any, points1: Any, options: EstimatorOptions | None = None, *, weights: Any = None
) -> Estimate:
    """The homography H (3, 3), H x0 = x1, that most matches agree with; its last entry is 1.

    Args:
        points0, points1: (K, 2) px, row i of both being one match.
        options: None for PoseLib at 2 px.
        weights: (K,), for the method "dlt" only, such as the scores of the matches.

    Raises InputError.
    """
    options = (options or EstimatorOptions()).settled(THRESHOLD_OF_HOMOGRAPHIES)
    first, second = as_matches(points0, points1)

    def solve() -> Found | None:
        if options.method == "dlt":
            H = fit_homography(first, second, weights)
            return None if H is None else Found(_usual(H), np.ones(len(first), dtype=np.bool_))
        found = _library(options).homography(first, second, options)
        return found and found._replace(model=_usual(found.model))

    def inliers(H: Floats) -> NDArray[np.bool_]:
        return np.asarray(errors.transfer_error(H, first, second) < options.pixels)

    return _run(solve, inliers, first, second, options, "homography")


def estimate_fundamental(points0: Any, points1: Any, options: EstimatorOptions | None = None) -> Estimate:
    """The fundamental matrix F (3, 3), x1' F x0 = 0, for cameras without distortion that are not known.

    Arguments as in `estimate_homography`, but for the usual threshold of 1 px. Raises InputError.
    """
    options = _robust(options)
    first, second = as_matches(points0, points1)

    def inliers(F: Floats) -> NDArray[np.bool_]:
        return np.asarray(errors.epipolar_error(F, first, second) < options.pixels)

    def solve() -> Found | None:
        return _library(options).fundamental(first, second, options)

    return _run(solve, inliers, first, second, options, "fundamental")


def estimate_essential(
    points0: Any, points1: Any, camera0: Any, camera1: Any, options: EstimatorOptions | None = None
) -> Estimate:
    """The essential matrix E (3, 3), rays r1' E r0 = 0, of two calibrated cameras: that of their relative pose.

    Arguments as in `estimate_relative_pose`. Raises InputError.
    """
    estimate = estimate_relative_pose(points0, points1, camera0, camera1, options)
    model = None if estimate.model is None else errors.essential_from_pose(estimate.model)
    return replace(estimate, model=model, geometry="essential")


def estimate_relative_pose(
    points0: Any, points1: Any, camera0: Any, camera1: Any, options: EstimatorOptions | None = None
) -> Estimate:
    """The motion T (4, 4) from camera 0 to camera 1, whose translation has length 1: its true length is not known.

    Args:
        points0, points1: (K, 2) px, row i of both being one match.
        camera0, camera1: K (3, 3), or a `pycolmap.Camera` of any model, whose distortion is undone first.
        options: None for PoseLib at 1 px. The threshold is an epipolar distance in px of the mean of both cameras.

    Raises InputError.
    """
    options = _robust(options)
    first, second = as_matches(points0, points1)
    cameras = as_camera(camera0), as_camera(camera1)
    undistorted = cameras[0].undistort(first), cameras[1].undistort(second)
    seen: Any = np.isfinite(undistorted[0]).all(axis=1) & np.isfinite(undistorted[1]).all(axis=1)
    straight0, straight1 = (points[seen] for points in undistorted)

    def solve() -> Found | None:
        if _distinct(straight0, straight1) < 5:  # the lenses see no ray at the others
            return None
        found = _library(options).relative_pose(straight0, straight1, *cameras, options)
        if found is None or found.inliers is None:
            return found
        inliers = np.zeros(len(first), dtype=np.bool_)
        inliers[seen] = found.inliers
        return found._replace(inliers=inliers)

    def inliers(T: Floats) -> NDArray[np.bool_]:
        F = errors.fundamental_from_pose(T, *(Camera(camera.K) for camera in cameras))
        known = [np.where(seen[:, None], points, 0) for points in undistorted]
        return np.asarray(seen & (errors.epipolar_error(F, *known) < options.pixels))

    return _run(solve, inliers, first, second, options, "relative_pose")


def _robust(options: EstimatorOptions | None) -> EstimatorOptions:
    options = (options or EstimatorOptions()).settled(THRESHOLD)
    if options.method == "dlt":
        raise InputError("The method 'dlt' fits homographies only; choose poselib, opencv or pycolmap.")
    return options


def _library(options: EstimatorOptions) -> Library:
    """The module that computes; each imports its library at its top, which may be missing: LightGlueError."""
    if options.method == "opencv":
        from lightglue.geometry import with_opencv

        return with_opencv
    if options.method == "pycolmap":
        from lightglue.geometry import with_pycolmap

        return with_pycolmap
    from lightglue.geometry import with_poselib

    return with_poselib


def _run(
    solve: Callable[[], Found | None],
    inliers_of: Callable[[Floats], NDArray[np.bool_]],
    points0: Floats,
    points1: Floats,
    options: EstimatorOptions,
    geometry: Geometry,
) -> Estimate:
    """Estimate, check what came out, count."""
    begin, fewest = perf_counter(), _FEWEST[geometry]
    count, found, failure = len(points0), None, None
    distinct = _distinct(points0, points1)
    if distinct < fewest:
        failure = f"{distinct} different matches, and it takes {fewest}"
    else:
        found = solve()
        if found is None or not np.isfinite(found.model).all() or not np.abs(found.model).max() > 0:
            found, failure = None, "no model agrees with the matches"
    inliers = np.zeros(count, dtype=np.bool_)
    if found is not None:
        inliers = inliers_of(found.model) if found.inliers is None else found.inliers
        if inliers.sum() < fewest:
            found, failure = None, f"only {inliers.sum()} matches agree, and it takes {fewest}"
        elif any(extent(points[inliers]) < options.pixels for points in (points0, points1)):
            found, failure = None, "the matches that agree lie on a line"
    if found is None:
        inliers = np.zeros(count, dtype=np.bool_)
    seconds = perf_counter() - begin
    iterations = None if found is None else found.iterations
    statistics = Statistics(count, int(inliers.sum()), iterations, seconds, options, failure)
    return Estimate(None if found is None else found.model, inliers, statistics, geometry)


def _distinct(points0: Floats, points1: Floats) -> int:
    """The number of matches; several of the same two points are one to the solvers."""
    return len(np.unique(np.concatenate([points0, points1], axis=1), axis=0))


def _usual(H: Floats) -> Floats:
    """H with 1 as its last entry, unless the top-left pixel is sent to infinity."""
    return H / H[2, 2] if abs(H[2, 2]) > 1e-9 * np.abs(H).max() else H
