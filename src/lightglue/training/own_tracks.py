"""Own tracks of a model: its images matched by a teacher, verified by their poses and triangulated with these."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from lightglue.errors import InputError
from lightglue.geometry.cameras import Camera, as_camera
from lightglue.geometry.errors import epipolar_error, fundamental_from_pose
from lightglue.models.choice import Models
from lightglue.models.registry import feature_type
from lightglue.sfm.options import MatchOptions
from lightglue.sfm.stages.match import match
from lightglue.stores import ImageFeatures, MatchStore
from lightglue.support.caches import BoundedCache
from lightglue.support.files import write_json
from lightglue.support.progress import StageProgress
from lightglue.training.data_options import DataOptions, FeatureOptions
from lightglue.training.journal import View
from lightglue.training.pool import Pool
from lightglue.training.sources.options import SourceOptions
from lightglue.training.sources.record import ScenePairs
from lightglue.training.sources.triangulation import Tracks, join, triangulate
from lightglue.training.truth.distances import between, epipolar_distances
from lightglue.training.truth.options import TruthOptions
from lightglue.workers.engine import ProcessEngine

__all__ = ["camera_of", "guided_matches", "make_tracks", "teacher_of"]

REVISION = 1  # raised when the same matches give other tracks
NEIGHBOURS = 20  # of each image that it is matched with: those that it overlaps with most
MEMORY = 512_000_000  # bytes of features that are kept for further pairs
RATIO = 0.9  # of the distance of descriptors to the best and the second-best near the epipolar line
_APART = 3.0  # px between these two, for keypoints of one place may be several

Integers = NDArray[np.int64]
Floats = NDArray[np.float64]
Pair = tuple[int, int]


def camera_of(view: View) -> Camera:
    """The camera of a view: that of its image, in the view's size. Raises InputError for a view without."""
    if view.posed is None or view.posed.camera.size is None:
        raise InputError(f"The view {view.name} has no camera.")
    width, height = view.posed.camera.size
    return as_camera(view.posed.camera).scaled((view.size[0] / width, view.size[1] / height))


def teacher_of(source: SourceOptions, features: FeatureOptions) -> str:
    """Who matches the images of a model: "lightglue", or "nearest" with the poses' help. Raises InputError."""
    knows = not features.is_own and feature_type(features.type).matcher is not None
    if source.teacher == "lightglue" and not knows:
        raise InputError(f"LightGlue has no weights for features {features.type!r}; choose the teacher 'nearest'.")
    return ("lightglue" if knows else "nearest") if source.teacher == "auto" else source.teacher


def make_tracks(
    pool: Pool,
    key: str,
    source: SourceOptions,
    data: DataOptions,
    features: FeatureOptions,
    *,
    workers: int | None = None,
    progress: StageProgress = lambda stage, done, total: None,
) -> None:
    """Write the tracks of all scenes of a source, those that are not there yet, into a pool.

    Raises InputError where the teacher does not know the features; StoreError where the pool cannot be written.
    """
    teacher = teacher_of(source, features)
    scenes: dict[str, list[View]] = {}
    for view in pool.views.values():
        if view.source == key and view.posed is not None and view.posed.depth is None:
            scenes.setdefault(view.scene, []).append(view)
    for scene, views in sorted(scenes.items()):
        pairs = pool.scene_pairs(key, scene)
        if pairs is None:
            continue
        record = pool.tracks_path(key, scene)
        inputs = _inputs(views, pairs, teacher, data)
        if pool.tracks_record(key, scene).get("inputs") == inputs:
            continue
        work = _Scene(pool, views, _chosen(views, pairs), data.truth)
        title = f"tracks {scene}".strip()
        if teacher == "lightglue":
            matches = work.taught(record.with_suffix(".db"), features, workers, title, progress)
        else:
            matches = work.guided(title, progress)
        tracks = work.tracks(matches)
        for view, numbers in zip(views, tracks.numbers, strict=True):
            places, is_tracked = np.full((len(numbers), 3), np.nan), numbers >= 0
            places[is_tracked] = tracks.places[numbers[is_tracked]]
            pool.put_facts(view.name, {"tracks": numbers.astype(np.int32), "places": places})
        write_json(record, {"inputs": inputs, "tracks": len(tracks.places)})


def _inputs(views: Sequence[View], pairs: ScenePairs, teacher: str, data: DataOptions) -> str:
    """A digest of all that decides the tracks of a scene."""
    digest = sha256(
        json.dumps([REVISION, NEIGHBOURS, RATIO, teacher, data.truth.track, data.truth.track_views]).encode()
    )
    for view in views:
        assert view.posed is not None
        digest.update(json.dumps([view.name, view.digest, view.size, view.posed.as_json()]).encode())
    for array in (pairs.first, pairs.second, pairs.overlap):
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()


def _chosen(views: Sequence[View], pairs: ScenePairs) -> list[Pair]:
    """The pairs that are matched: each image with those that it overlaps with most."""
    row = {view.image: at for at, view in enumerate(views)}
    at = np.array([row.get(name, -1) for name in pairs.names], np.int64)
    both = np.sort(np.stack([at[pairs.first], at[pairs.second]], 1), 1)
    usable = both[:, 0] >= 0
    both, overlap = both[usable], pairs.overlap[usable]
    chosen: set[Pair] = set()
    order = np.argsort(-overlap, kind="stable")
    taken = np.zeros(len(views), np.int64)
    for a, b in both[order].tolist():
        if min(taken[a], taken[b]) < NEIGHBOURS:
            chosen.add((a, b))
            taken[[a, b]] += 1
    return sorted(chosen)


@dataclass(eq=False)
class _Scene:
    """The views of a scene, and the pairs of them that are matched."""

    pool: Pool
    views: Sequence[View]
    pairs: Sequence[Pair]
    truth: TruthOptions

    def __post_init__(self) -> None:
        self.cameras = [camera_of(view) for view in self.views]
        self.poses = np.stack([view.posed.T for view in self.views if view.posed is not None])
        self._straight: BoundedCache[int, tuple[ImageFeatures, Floats]] = BoundedCache(
            MEMORY, lambda each: each[0].nbytes, keep=2
        )

    def taught(
        self, out: Path, features: FeatureOptions, workers: int | None, title: str, progress: StageProgress
    ) -> Iterator[tuple[int, int, Integers, Floats]]:
        """Matches of LightGlue, as far as the poses bear them out; they are kept in the pool."""
        names = [view.name for view in self.views]
        models = Models(features.type, features.keypoints, features.device, extractor=features.extractor)
        wanted = [(names[a], names[b]) for a, b in self.pairs]
        store = self.pool.folder / "features"
        options = MatchOptions(models=models)
        out.parent.mkdir(parents=True, exist_ok=True)
        engine = ProcessEngine(workers)
        match(store, wanted, out, options, engine=engine, progress=lambda done, total: progress(title, done, total))
        found = MatchStore.open(out, read_only=True, features=self.pool.store)
        for (a, b), pair in zip(self.pairs, (found.get(*names) for names in wanted), strict=True):
            if pair is None:
                continue
            rows = pair.matches.astype(np.int64)
            points = self._points(a)[1][rows[:, 0]], self._points(b)[1][rows[:, 1]]
            good = self._off_lines(a, b, points) <= self.truth.track
            yield a, b, rows[good], pair.scores[good].astype(np.float64)

    def guided(self, title: str, progress: StageProgress) -> Iterator[tuple[int, int, Integers, Floats]]:
        """Nearest neighbours near their epipolar lines."""
        for done, (a, b) in enumerate(self.pairs):
            progress(title, done, len(self.pairs))
            (features0, points0), (features1, points1) = self._points(a), self._points(b)
            distances = epipolar_distances(points0, points1, self.cameras[a], self.cameras[b], self._between(a, b))
            near = distances <= self.truth.track
            yield a, b, *guided_matches(features0, features1, near)
        progress(title, len(self.pairs), len(self.pairs))

    def tracks(self, matches: Iterator[tuple[int, int, Integers, Floats]]) -> Tracks:
        """The tracks of these matches."""
        numbers = join([view.num_keypoints for view in self.views], matches)
        rays = [
            camera.normalize(self._points(at)[0].keypoints.astype(np.float64)) for at, camera in enumerate(self.cameras)
        ]
        focals = np.array([camera.focal for camera in self.cameras])
        return triangulate(numbers, rays, self.poses, focals, self.truth.track, self.truth.track_views)

    def _points(self, at: int) -> tuple[ImageFeatures, Floats]:
        """The features of a view, and its keypoints as a pinhole sees them."""

        def read() -> tuple[ImageFeatures, Floats]:
            features = self.pool.store.get(self.views[at].name)
            return features, self.cameras[at].undistort(features.keypoints.astype(np.float64))

        return self._straight.get(at, read)

    def _between(self, a: int, b: int) -> Floats:
        return np.asarray(self.poses[b] @ np.linalg.inv(self.poses[a]))

    def _off_lines(self, a: int, b: int, points: tuple[Floats, Floats]) -> Floats:
        return epipolar_error(fundamental_from_pose(self._between(a, b), self.cameras[a], self.cameras[b]), *points)


def guided_matches(
    features0: ImageFeatures, features1: ImageFeatures, near: NDArray[np.bool_]
) -> tuple[Integers, Floats]:
    """(K, 2) rows of keypoints whose descriptors are each other's nearest among those that are `near`, and scores (K,).

    near: (M, N), which may match at all. Where the second-best of these, elsewhere, is nearly as good there is none.
    """
    if not near.any():
        return np.zeros((0, 2), np.int64), np.zeros(0)
    a, b = (_normalized(each.descriptors) for each in (features0, features1))
    distances = np.sqrt(np.maximum(2 - 2 * (a @ b.T), 0))
    distances[~near] = np.inf
    rows = np.arange(len(distances))
    there, here = distances.argmin(1), distances.argmin(0)
    best = distances[rows, there]
    kept = (here[there] == rows) & np.isfinite(best)
    kept &= _is_clear(distances, there, features1.keypoints)
    kept &= _is_clear(distances.T, here, features0.keypoints)[there]
    matches = np.stack([rows[kept], there[kept]], 1)
    return matches, 1 - best[kept] / 2


def _is_clear(distances: NDArray[np.float32], chosen: Integers, points: NDArray[np.float32]) -> NDArray[np.bool_]:
    """Of each row, whether the chosen column is much nearer than any whose keypoint (N, 2) is elsewhere."""
    beside = between(points.astype(np.float64), points.astype(np.float64)) < _APART
    second = np.where(beside[chosen], np.inf, distances).min(1)
    return np.asarray(distances[np.arange(len(distances)), chosen] < RATIO * second)


def _normalized(descriptors: NDArray[np.floating]) -> NDArray[np.float32]:
    found = descriptors.astype(np.float32)
    lengths: NDArray[np.float32] = np.linalg.norm(found, axis=1, keepdims=True)
    return np.asarray(found / np.maximum(lengths, 1e-12), np.float32)
