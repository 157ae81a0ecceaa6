"""The verified pairs of a database as a graph: a relative pose for each, and what speaks for it."""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lightglue.geometry.cameras import Camera, as_camera
from lightglue.geometry.intrinsics import Intrinsics, from_colmap
from lightglue.geometry.options import EstimatorOptions
from lightglue.geometry.with_poselib import relative_pose
from lightglue.sfm.colmap.database_file import Database
from lightglue.sfm.colmap.pair_ids import pair_of
from lightglue.sfm.colmap.state import DatabaseState
from lightglue.sfm.look_alikes.focal import focal_factor
from lightglue.stores import MatchStore
from lightglue_runtime.limits import usable_cores

__all__ = ["PairGeometry", "ViewGraph", "read_view_graph"]

Array = NDArray[np.float64]

_ESTIMATE = EstimatorOptions("poselib", threshold=2.0, max_iterations=100)
_EDGE = 1024  # px of the longer edge that thresholds are given for
_FEWEST = 8  # matches that tell a relative pose from chance


@dataclass(frozen=True, eq=False)
class PairGeometry:
    """Two images whose matches agree with one geometry."""

    number: int  # COLMAP's, of the pair
    first: int  # rows of the images
    second: int
    rotation: Array  # (3, 3), from the first camera to the second
    translation: Array  # (3,), of length 1
    matches: NDArray[np.int32]  # (K, 2) rows of keypoints: the inliers of the verification
    depths: NDArray[np.float32]  # (K, 2) along the axes of the two cameras, in units of the baseline; NaN where behind
    parallax: NDArray[np.float32]  # (K,) degrees between the two rays
    num_inliers: int  # of the relative pose
    num_matches: int  # raw
    score: float  # mean of the inliers'; NaN where the matcher gives no probabilities
    overlap: float  # NaN where it is not known


@dataclass(frozen=True, eq=False)
class ViewGraph:
    """Images, and the pairs of them that were verified."""

    names: tuple[str, ...]
    rays: tuple[Array, ...]  # (N, 2) x/z, y/z of the keypoints of each image
    cameras: tuple[Camera, ...]  # of each image, with the focal length that the pairs agree with
    sizes: tuple[tuple[int, int], ...]  # px
    pairs: tuple[PairGeometry, ...]

    @property
    def edges(self) -> NDArray[np.int64]:
        """(E, 2) rows of the images of each pair."""
        return np.array([(pair.first, pair.second) for pair in self.pairs], np.int64).reshape(-1, 2)

    @property
    def rotations(self) -> Array:
        """(E, 3, 3) of each pair."""
        return np.array([pair.rotation for pair in self.pairs], np.float64).reshape(-1, 3, 3)


@dataclass(frozen=True, eq=False)
class _Verified:
    """A pair as the database has it."""

    number: int
    matches: NDArray[np.int32]
    F: Array | None


def read_view_graph(path: Path, state: DatabaseState, numbers: list[int], store: MatchStore | None) -> ViewGraph:
    """The graph of some pairs of a database, by their numbers.

    store: of the raw matches, for their scores and overlaps. Pairs without a geometry are left out, and those of
    panoramas, which have no image plane.
    """
    flat = [not state.cameras[number].is_panorama for number in state.camera_of]
    verified, keypoints = _read(path, [each for each in numbers if all(flat[number - 1] for number in pair_of(each))])
    cameras = _cameras(state, verified)
    of_image = [cameras[number] for number in state.camera_of]
    sizes = tuple(_size(state.cameras[number]) for number in state.camera_of)
    rays = tuple(camera.normalize(from_colmap(keypoints[row + 1])) for row, camera in enumerate(of_image))
    known = _scores(store, state.names, verified)

    def pose(each: _Verified) -> PairGeometry | None:
        return _pair(each, rays, of_image, sizes, *known.get(each.number, _NOTHING))

    with ThreadPoolExecutor(usable_cores()) as pool:  # PoseLib lets go of Python meanwhile
        pairs = list(pool.map(pose, verified))
    return ViewGraph(state.names, rays, tuple(of_image), sizes, tuple(pair for pair in pairs if pair is not None))


def _read(path: Path, numbers: list[int]) -> tuple[list[_Verified], dict[int, Array]]:
    """Geometries, and the keypoints of all images by number, px as COLMAP has them."""
    verified = []
    with Database(path) as database:
        for number in numbers:
            found = database.geometry(*pair_of(number))
            matches = np.asarray(found.inlier_matches, np.int64).astype(np.int32).reshape(-1, 2)
            if len(matches):
                verified.append(_Verified(number, matches, _fundamental(found)))
        keypoints = {number: database.keypoints(number) for number in database.cameras()}
    return verified, keypoints


def _fundamental(geometry: Any) -> Array | None:
    """F (3, 3) of a pair whose geometry was estimated without cameras."""
    if geometry.F is None or int(geometry.config) != _UNCALIBRATED:
        return None
    F = np.asarray(geometry.F, np.float64)
    return F if np.isfinite(F).all() and F.any() else None


_UNCALIBRATED = 3  # COLMAP's number


def _size(camera: Intrinsics) -> tuple[int, int]:
    width, height = camera.size or (0, 0)
    return int(width), int(height)


def _cameras(state: DatabaseState, verified: list[_Verified]) -> list[Camera]:
    """Of each of the database's cameras; guessed focal lengths become what the pairs of the camera agree with.

    A camera with too few pairs of its own takes what the pairs of all such cameras agree with.
    """
    cameras = [_camera(camera) for camera in state.cameras]
    free = {row for row, camera in enumerate(state.cameras) if not camera.is_fixed and not camera.has_prior_focal}
    estimates: dict[tuple[int, int], list[tuple[Array, int]]] = {}
    for each in verified:
        first, second = (state.camera_of[number - 1] for number in pair_of(each.number))
        if each.F is not None and free >= {first, second}:
            # COLMAP's F is of its own pixels, half a pixel off: nothing at this precision.
            E = cameras[second].K.T @ each.F @ cameras[first].K
            estimates.setdefault((first, second), []).append((E, len(each.matches)))
    own = {row: factor for row in free if (factor := focal_factor(estimates.get((row, row), []))) is not None}
    others = [some for (first, second), some in estimates.items() if first not in own and second not in own]
    common = focal_factor([estimate for some in others for estimate in some]) or 1.0
    return [
        _camera(_zoomed(state.cameras[row], own.get(row, common))) if row in free else camera
        for row, camera in enumerate(cameras)
    ]


def _camera(camera: Intrinsics) -> Camera:
    """Any for a panorama, whose pairs are left out."""
    return Camera(np.eye(3)) if camera.is_panorama else as_camera(camera)


def _zoomed(camera: Intrinsics, factor: float) -> Intrinsics:
    """A camera with another focal length; a guessed one's other parameters are those of its lens."""
    params = {name: value * factor if name in ("f", "fx", "fy") else value for name, value in camera.named.items()}
    return replace(camera, params=tuple(params.values()))


_NOTHING = (0, np.nan, np.nan)


def _scores(
    store: MatchStore | None, names: tuple[str, ...], verified: list[_Verified]
) -> Mapping[int, tuple[int, float, float]]:
    """Of each pair: raw matches, mean score of the inliers, overlap."""
    if store is None:
        return {}
    has_scores = store.settings.get("matcher", "lightglue") == "lightglue"  # probabilities
    both = {tuple(names[number - 1] for number in pair_of(each.number)): each for each in verified}
    found: dict[int, tuple[int, float, float]] = {}
    for pair in store.read(list(both)):  # type: ignore[arg-type]
        each = both[pair.name0, pair.name1]
        score = _mean_score(pair.matches, pair.scores, each.matches) if has_scores else np.nan
        found[each.number] = (len(pair.matches), score, np.nan if pair.overlap is None else pair.overlap)
    return found


def _mean_score(matches: NDArray[np.int32], scores: NDArray[np.float32], inliers: NDArray[np.int32]) -> float:
    """The mean score of those matches that are inliers; a keypoint of the first image has one match."""
    of_keypoint = np.full(int(matches[:, 0].max(initial=-1)) + 1, np.nan)
    of_keypoint[matches[:, 0]] = scores
    rows = inliers[inliers[:, 0] < len(of_keypoint), 0]
    known = of_keypoint[rows]
    known = known[np.isfinite(known)]
    return float(known.mean()) if len(known) else np.nan


def _pair(
    verified: _Verified,
    rays: tuple[Array, ...],
    cameras: list[Camera],
    sizes: tuple[tuple[int, int], ...],
    num_matches: int,
    score: float,
    overlap: float,
) -> PairGeometry | None:
    """The relative pose of a pair, and where its matches lie in space. None where there is no pose."""
    first, second = (number - 1 for number in pair_of(verified.number))
    rays0, rays1 = rays[first][verified.matches[:, 0]], rays[second][verified.matches[:, 1]]
    pinholes = [Camera(np.diag((cameras[row].focal, cameras[row].focal, 1.0))) for row in (first, second)]
    points = [seen * camera.focal for seen, camera in zip((rays0, rays1), pinholes, strict=True)]
    scale = max(1.0, max(*sizes[first], *sizes[second]) / _EDGE)
    options = replace(_ESTIMATE, threshold=_ESTIMATE.pixels * scale)
    has_rays = np.isfinite(np.hstack(points)).all(axis=1)  # a lens may see none at a keypoint, or one from the side
    if has_rays.sum() < _FEWEST:
        return None
    found = relative_pose(points[0][has_rays], points[1][has_rays], pinholes[0], pinholes[1], options)
    if found is None or found.inliers is None or not np.isfinite(found.model).all():
        return None
    R, t = found.model[:3, :3], found.model[:3, 3]
    depths, parallax = triangulated(R, t, rays0, rays1)
    return PairGeometry(
        verified.number,
        first,
        second,
        R,
        t,
        verified.matches,
        depths,
        parallax,
        int(found.inliers.sum()),
        max(num_matches, len(verified.matches)),
        score,
        overlap,
    )


def triangulated(R: Array, t: Array, rays0: Array, rays1: Array) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Depths (K, 2) in both cameras, NaN where behind one, and degrees (K,) between the rays, by least squares."""
    ones = np.ones((len(rays0), 1))
    A, B = np.hstack((rays0, ones)) @ R.T, np.hstack((rays1, ones))
    aa, bb, ab = (A * A).sum(1), (B * B).sum(1), (A * B).sum(1)
    at, bt = A @ t, B @ t
    determinant = np.maximum(aa * bb - ab**2, 1e-12)
    depths = np.stack(((bt * ab - at * bb) / determinant, (bt * aa - at * ab) / determinant), axis=1)
    depths[(depths <= 0).any(axis=1)] = np.nan
    parallax = np.degrees(np.arccos(np.clip(ab / np.sqrt(aa * bb), -1, 1)))
    return depths.astype(np.float32), parallax.astype(np.float32)
