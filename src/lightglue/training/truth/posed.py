"""Truth of two images with poses: from depths, or from tracks where there are no depths."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from lightglue.errors import InputError
from lightglue.geometry.cameras import Camera, as_camera
from lightglue.geometry.points import as_matrix
from lightglue.training.contract import Truth
from lightglue.training.truth.distances import as_points, assign, between, epipolar_distances, mutual_nearest
from lightglue.training.truth.options import TruthOptions

__all__ = ["from_depth", "from_tracks", "places_of"]

Floats = NDArray[np.float64]


def from_depth(
    points0: Any,
    points1: Any,
    depth0: Any,
    depth1: Any,
    camera0: Any,
    camera1: Any,
    T_0to1: Any,
    options: TruthOptions | None = None,
) -> Truth:
    """True matches from depths and a relative pose.

    Args:
        points0: (M, 2) keypoints of image 0, px; points1: (N, 2) those of image 1.
        depth0: (M,) their depths along the axis of the camera, in the unit of the pose; NaN or 0 where they are not
            known. depth1: (N,).
        camera0, camera1: whatever `lightglue.geometry.as_camera` takes, of the px of the keypoints.
        T_0to1: (4, 4) pose, from the frame of camera 0 to that of camera 1.
        options: thresholds.

    A match is two keypoints with depths that are each other's nearest, by the larger of both reprojection errors, and
    nearer than `positive`: what is occluded is seen elsewhere from the other side, and is none. A keypoint has no
    partner where none is within `negative_posed` of where its depth says; without a depth, where no undecided one is
    within `epipolar` of its epipolar line. Others are ignored.

    Raises InputError for other shapes, or values that are not finite.
    """
    options = options or TruthOptions()
    first, second = as_points("points0", points0), as_points("points1", points1)
    depths = _as_depths("depth0", depth0, len(first)), _as_depths("depth1", depth1, len(second))
    cameras = as_camera(camera0), as_camera(camera1)
    T = as_matrix("T_0to1", T_0to1, (4, 4))
    known0, known1 = (np.isfinite(depth) for depth in depths)
    there = between(_seen_by(cameras[1], T, places_of(first, depths[0], cameras[0])), second)
    back = np.asarray(np.linalg.inv(T), np.float64)
    here = between(first, _seen_by(cameras[0], back, places_of(second, depths[1], cameras[1])))
    pairs = mutual_nearest(np.maximum(there, here), options.positive)
    far0 = known0 & (there.min(1, initial=np.inf) > options.negative_posed)
    far1 = known1 & (here.min(0, initial=np.inf) > options.negative_posed)
    open0, open1 = ~far0, ~far1
    open0[pairs[:, 0]], open1[pairs[:, 1]] = False, False
    possible = _on_lines(first, second, cameras, T, open0, open1) <= options.epipolar
    far0[open0] |= ~known0[open0] & ~possible.any(1)
    far1[open1] |= ~known1[open1] & ~possible.any(0)
    return assign(pairs, far0, far1)


def from_tracks(
    points0: Any,
    points1: Any,
    tracks0: Any,
    tracks1: Any,
    places0: Any,
    places1: Any,
    camera0: Any,
    camera1: Any,
    T_w2c0: Any,
    T_w2c1: Any,
    options: TruthOptions | None = None,
) -> Truth:
    """True matches from tracks of the keypoints themselves, where there are poses and no depths.

    Args:
        points0: (M, 2) keypoints of image 0, px; points1: (N, 2) those of image 1.
        tracks0: (M,) the number of the track that each is of, -1 for none; at most one of an image in a track.
        places0: (M, 3) where the track is in the world, NaN where that is not known well; places1: (N, 3).
        camera0, camera1: whatever `lightglue.geometry.as_camera` takes, of the px of the keypoints.
        T_w2c0, T_w2c1: (4, 4) poses, from the world to the cameras.
        options: thresholds.

    A match is two keypoints of one track; where its place is known it must be within `positive` of both. What is in no
    common track may still match, for tracks are never complete: a keypoint has no partner only where geometry leaves
    none, that is, where each of the other image is farther than `epipolar` from its epipolar line, or one of both
    places is farther than `negative_posed` from the other keypoint. All others are ignored.

    Raises InputError for other shapes, values that are not finite, or a track that comes twice in an image.
    """
    options = options or TruthOptions()
    first, second = as_points("points0", points0), as_points("points1", points1)
    cameras = as_camera(camera0), as_camera(camera1)
    poses = as_matrix("T_w2c0", T_w2c0, (4, 4)), as_matrix("T_w2c1", T_w2c1, (4, 4))
    ids = _as_tracks("tracks0", tracks0, len(first)), _as_tracks("tracks1", tracks1, len(second))
    known = _as_places("places0", places0, len(first)), _as_places("places1", places1, len(second))
    everywhere = np.ones(len(first), np.bool_), np.ones(len(second), np.bool_)
    T = np.asarray(poses[1] @ np.linalg.inv(poses[0]), np.float64)
    possible = np.asarray(_on_lines(first, second, cameras, T, *everywhere) <= options.epipolar)
    there, here = (
        between(_seen_by(cameras[1], poses[1], known[0]), second),
        between(first, _seen_by(cameras[0], poses[0], known[1])),
    )
    is_placed0, is_placed1 = (np.asarray(np.isfinite(each).all(1)) for each in known)
    possible &= (there <= options.negative_posed) | ~is_placed0[:, None]
    possible &= (here <= options.negative_posed) | ~is_placed1[None]
    _, rows, columns = np.intersect1d(ids[0][ids[0] >= 0], ids[1][ids[1] >= 0], assume_unique=True, return_indices=True)
    pairs = np.stack([np.flatnonzero(ids[0] >= 0)[rows], np.flatnonzero(ids[1] >= 0)[columns]], 1)
    pairs = pairs[np.argsort(pairs[:, 0], kind="stable")].astype(np.int64)
    i, j = pairs.T
    near = ((there[i, j] < options.positive) | ~is_placed0[i]) & ((here[i, j] < options.positive) | ~is_placed1[j])
    possible[i, j] = True  # of one track, if perhaps badly measured: not a reason to have no partner
    nothing = np.asarray(~possible.any(1)), np.asarray(~possible.any(0))
    return assign(pairs[near], *nothing)


def places_of(points: Floats, depth: Floats, camera: Camera) -> Floats:
    """(N, 3) where keypoints (N, 2) of these depths are in the frame of the camera; NaN where these are not known."""
    rays = np.concatenate([camera.normalize(points), np.ones((len(points), 1))], 1)
    return np.asarray(rays * depth[:, None])


def _seen_by(camera: Camera, T: Floats, places: Floats) -> Floats:
    """(N, 2) px of places (N, 3) moved by T into the frame of a camera; not finite for those behind it, or unknown."""
    inside = places @ T[:3, :3].T + T[:3, 3]
    found = np.full((len(places), 2), np.inf)
    ahead = np.isfinite(inside).all(1) & (inside[:, 2] > 0)
    if ahead.any():
        found[ahead] = camera.project(inside[ahead, :2] / inside[ahead, 2:])
    return found


def _on_lines(
    points0: Floats,
    points1: Floats,
    cameras: tuple[Camera, Camera],
    T: Floats,
    some0: NDArray[np.bool_],
    some1: NDArray[np.bool_],
) -> NDArray[np.float32]:
    """Epipolar distances of some keypoints; 0 for what the lens lets see no ray."""
    straight = cameras[0].undistort(points0[some0]), cameras[1].undistort(points1[some1])
    return epipolar_distances(*straight, *cameras, T)


def _as_depths(name: str, depth: Any, count: int) -> Floats:
    found = np.asarray(depth, np.float64)
    if found.shape != (count,):
        raise InputError(f"{name} is {found.shape}; give ({count},), one for each keypoint.")
    return np.where(np.isfinite(found) & (found > 0), found, np.nan)


def _as_tracks(name: str, tracks: Any, count: int) -> NDArray[np.int64]:
    found = np.asarray(tracks)
    if found.shape != (count,) or not np.issubdtype(found.dtype, np.integer):
        raise InputError(f"{name} is {found.dtype} {found.shape}; give integers ({count},), one for each keypoint.")
    given = found[found >= 0]
    if len(np.unique(given)) < len(given):
        raise InputError(f"{name} has a track twice; an image sees a point once.")
    return found.astype(np.int64)


def _as_places(name: str, places: Any, count: int) -> Floats:
    found = np.asarray(places, np.float64)
    if found.shape != (count, 3):
        raise InputError(f"{name} is {found.shape}; give ({count}, 3), one for each keypoint.")
    return found
