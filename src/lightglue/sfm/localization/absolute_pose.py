"""Where a camera stood, from points of its image and the map's points that they show: P3P in LO-RANSAC, refined.

Estimated by COLMAP (Schönberger and Frahm, "Structure-from-Motion Revisited", CVPR 2016), through pycolmap. Points here
have (0, 0) at the centre of the top-left pixel.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lightglue.errors import InputError
from lightglue.geometry.cameras import Camera, as_camera
from lightglue.geometry.colmap_cameras import camera_to_colmap
from lightglue.geometry.intrinsics import Intrinsics
from lightglue.geometry.points import as_points, extent
from lightglue.sfm.colmap.absolute_pose import absolute_pose
from lightglue.sfm.options import FEWEST_POINTS, PoseOptions

__all__ = ["Pose", "PoseOptions", "QueryCamera", "agreeing", "estimate_pose"]

Floats = NDArray[np.float64]

_REFERENCE_EDGE = 1024  # px: the long side of the image that `pixels` is given for
_FOCAL_RANGE = (0.2, 10.0)  # of the image's long side: fisheye to telephoto
_DEPTH = 1e-9


@dataclass(frozen=True, eq=False)
class QueryCamera:
    """What is known of the camera of an image whose pose is looked for."""

    camera: Camera
    image_size: tuple[int, int]  # width, height, px
    knows_focal: bool  # it is calibrated: nothing of it is estimated
    guessed: bool = False  # not even the image's file says what the focal length is about


@dataclass(frozen=True, eq=False)
class Pose:
    """The pose of a camera, or why none was found."""

    cam_from_world: Floats | None  # (4, 4)
    camera: Camera | None  # with the focal length that was estimated, where it was
    inliers: NDArray[np.bool_]  # (N,)
    failure: str | None


def estimate_pose(
    points2D: Any, points3D: Any, query: QueryCamera, options: PoseOptions | None = None, loss: float | None = None
) -> Pose:
    """The pose of a camera that sees each of `points3D` at the same row of `points2D`, as far as they agree.

    Args:
        points2D: (N, 2) px of the image, (0, 0) being the centre of its first pixel.
        points3D: (N, 3) in the unit of the map.
        query: its focal length is estimated too where it is not known.
        loss: for points that are refined, px of an image whose long side has 1,024: scale of the residuals.

    A pose that too few agree with is a failure. Raises InputError for points that are none.
    """
    options = options or PoseOptions()
    points2D, points3D = as_points("points2D", points2D), as_points("points3D", points3D, width=3)
    if len(points2D) != len(points3D):
        raise InputError(f"There are {len(points2D)} points2D and {len(points3D)} points3D; give one for each.")
    nothing = np.zeros(len(points2D), np.bool_)
    distinct = min(len(np.unique(points, axis=0)) for points in (points2D, points3D)) if len(points2D) else 0
    if distinct < max(FEWEST_POINTS, options.min_inliers):
        return Pose(None, None, nothing, f"too few matches: {distinct} with points of the map")
    found = _solve(points2D, points3D, query, options, loss)
    if found is None:
        return Pose(None, None, nothing, f"no pose agrees with the {len(points2D)} matches with points of the map")
    pose, failure = found, _failure(found, points2D, points3D, query, options)
    return Pose(None, None, pose.inliers, failure) if failure else pose


def agreeing(pose: Pose, points2D: Floats, points3D: Floats, query: QueryCamera, options: PoseOptions) -> Any:
    """Which (N,) of these points agree with a pose that was found."""
    assert pose.cam_from_world is not None
    assert pose.camera is not None
    seen = points3D @ pose.cam_from_world[:3, :3].T + pose.cam_from_world[:3, 3]
    ahead = seen[:, 2] > _DEPTH
    projected = pose.camera.project(seen[:, :2] / np.where(ahead, seen[:, 2], 1.0)[:, None])
    return ahead & (np.linalg.norm(projected - points2D, axis=1) <= _pixels(query, options))


def _failure(pose: Pose, points2D: Floats, points3D: Floats, query: QueryCamera, options: PoseOptions) -> str | None:
    """Why a pose is not to be believed."""
    assert pose.camera is not None
    count = int(pose.inliers.sum())
    if count < options.min_inliers or count < options.min_inlier_ratio * len(points2D):
        needed = max(options.min_inliers, math.ceil(options.min_inlier_ratio * len(points2D)))
        return f"too few inliers: {count} of {len(points2D)} matches agree on a pose, and it takes {needed}"
    pixels = _pixels(query, options)
    if any(extent(points[pose.inliers]) < least for points, least in ((points2D, pixels), (points3D, _DEPTH))):
        return f"degenerate: the {count} points that agree lie on a line"
    low, high = (edge * max(query.image_size) for edge in _FOCAL_RANGE)
    if not query.knows_focal and not low <= pose.camera.focal <= high:
        return f"degenerate: the focal length comes out as {pose.camera.focal:.0f} px; give the camera"
    return None


def _solve(
    points2D: Floats, points3D: Floats, query: QueryCamera, options: PoseOptions, loss: float | None
) -> Pose | None:
    camera, points = _colmap_camera(query, points2D)
    seen = np.isfinite(points).all(axis=1)
    found = absolute_pose(
        camera,
        points[seen],
        points3D[seen],
        _pixels(query, options),
        options,
        estimate_focal=query.guessed,
        refine_focal=not query.knows_focal,
        loss=None if loss is None else _in_pixels(loss, query),
    )
    if found is None or not np.isfinite(found[0]).all() or not np.isfinite(camera.params).all():
        return None
    inliers = np.zeros(len(points2D), np.bool_)
    inliers[seen] = found[1]
    return Pose(found[0], query.camera if query.knows_focal else as_camera(camera), inliers, None)


def _colmap_camera(query: QueryCamera, points2D: Floats) -> tuple[Any, Floats]:
    """COLMAP's camera, a copy that it may change, and the points as it sees them."""
    lens, K = query.camera.colmap, query.camera.K
    if lens is not None:
        return type(lens)(lens.todict()), points2D
    if not query.knows_focal:  # one focal length, the mean of the two
        params = (float(K[0, 0] + K[1, 1]) / 2, float(K[0, 2]), float(K[1, 2]))
        return camera_to_colmap(Intrinsics("SIMPLE_PINHOLE", query.image_size, params)), points2D
    pinhole = Intrinsics("PINHOLE", query.image_size, query.camera.pinhole)
    return camera_to_colmap(pinhole), query.camera.unskewed(points2D)


def _pixels(query: QueryCamera, options: PoseOptions) -> float:
    """The threshold in px of this image: keypoints of a larger one, found after it was made smaller, lie coarser."""
    return _in_pixels(options.pixels, query)


def _in_pixels(length: float, query: QueryCamera) -> float:
    return length * max(query.image_size) / _REFERENCE_EDGE
