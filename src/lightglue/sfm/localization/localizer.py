"""The pose of an image in a map that is kept in memory.

The query's features are matched with images of the map that look like it; the keypoints that these matched were made
into points of the map, so each match may say where in the world the query's keypoint lies. A pose that enough of them
agree with is the answer, and anything else is a failure with its reason: also where the query fits another place of the
map as well, which only looks the same.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from time import perf_counter
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lightglue.errors import ImageError, InputError, StoreError
from lightglue.extractors.no_keypoints import likely_cause
from lightglue.geometry.cameras import Camera, as_camera
from lightglue.geometry.intrinsics import Intrinsics, from_colmap
from lightglue.geometry.orientation import fitted
from lightglue.images import as_tensor, load_image
from lightglue.images.focal import StatedFocal
from lightglue.images.rotation import Rotation
from lightglue.matching.effort import Effort
from lightglue.models.choice import Models
from lightglue.pairs.hard.options import check_max_seconds
from lightglue.pairs.record import matches_of
from lightglue.sfm.colmap.cameras import exif_focal
from lightglue.sfm.colmap.models import open_model, point_ids, registered
from lightglue.sfm.colmap.shape import shape_of
from lightglue.sfm.folder import MapFolder
from lightglue.sfm.hard import HardSearch, View
from lightglue.sfm.localization.absolute_pose import Pose, QueryCamera, estimate_pose
from lightglue.sfm.localization.look_alikes import read_look_alikes, twins_of
from lightglue.sfm.localization.places import Places, points_of
from lightglue.sfm.localization.refine import References, check_folder
from lightglue.sfm.options import FEWEST_POINTS, LocalizeOptions, PoseOptions
from lightglue.stores import FeatureStore, ImageFeatures
from lightglue.support.caches import BoundedCache
from lightglue.timing import span
from lightglue.types import Features
from lightglue_runtime.images.exif import orientation_of

__all__ = ["Localization", "LocalizeOptions", "Localizer"]

_FAR_MORE = 1.1  # times as many inliers: a camera does not fit, if another has so many more
_MOVED = 0.005  # of the longer edge: more than a keypoint is moved when it is refined
_SEARCHED = 3  # images of the map that are searched for a query, at the most
_SMALLER = 0.75  # of the size of the map's images: "fast" looks at a query so first
_SMALLEST = 640  # px of the longer edge: no query is looked at smaller for that
_MANY_KEYPOINTS = 4  # times as many as are enough: with fewer a smaller query would rarely do
_FILES = (str, os.PathLike, bytes, bytearray, memoryview)  # by path or content
_WITHOUT_INDEX = 60  # images of a map up to which it is searched without a retrieval index


@dataclass(frozen=True, eq=False)
class Localization:
    """The pose of an image, or why it is not known."""

    success: bool
    failure: str | None
    cam_from_world: NDArray[np.float64] | None  # (4, 4), from the map's world to the camera
    camera: Camera | None  # that the pose goes with; its focal length was estimated where it was not given
    num_matches: int  # keypoints of the query that were matched with points of the map
    num_inliers: int
    points: NDArray[np.float64]  # (I, 2) px of the query: the inliers; (0, 0) is the centre of its first pixel
    point_ids: NDArray[np.int64]  # (I,) of the model
    images: tuple[str, ...]  # of the map that the query was matched with, in this order
    seconds: Mapping[str, float]  # of each step
    fault: str | None = None  # why the focal length that the query's file states is not taken
    num_refined: int = 0  # of the inliers, those that were moved to a fraction of a pixel

    @property
    def R(self) -> NDArray[np.float64]:  # noqa: N802
        """(3, 3), from the world to the camera. Raises InputError where there is no pose."""
        return self._pose()[:3, :3]

    @property
    def t(self) -> NDArray[np.float64]:
        """(3,), from the world to the camera, in the unit of the map. Raises InputError where there is no pose."""
        return self._pose()[:3, 3]

    @property
    def centre(self) -> NDArray[np.float64]:
        """(3,), where the camera stood. Raises InputError where there is no pose."""
        return np.asarray(-self.R.T @ self.t)

    def _pose(self) -> NDArray[np.float64]:
        if self.cam_from_world is None:
            raise InputError(f"There is no pose: {self.failure}.")
        return self.cam_from_world


@dataclass(frozen=True, eq=False)
class _MapImage:
    """What is needed of an image of the map to match a query with it."""

    features: Features
    point_ids: NDArray[np.int64]  # (N,) of each keypoint; -1 where it is of no point

    @property
    def bytes(self) -> int:
        arrays = [value for value in self.features.values() if isinstance(value, Tensor)]
        return sum(array.nbytes for array in arrays) + self.point_ids.nbytes


class Localizer:
    """A map in memory. `Localizer.open` makes one; it is for one thread."""

    def __init__(
        self,
        model: Any,
        store: FeatureStore,
        index: Any,
        models: tuple[Any, Any],
        device: Any,
        options: LocalizeOptions,
        camera: tuple[QueryCamera, float | None] | None = None,  # of all images, and its focal length by EXIF, px
        look_alikes: Mapping[str, tuple[str, ...]] | None = None,  # of each image, those of places that look the same
        others: Sequence[Any] = (),  # models of the map, which are not joined with this one
        references: References | None = None,  # the map's images, where points of a query are to be refined
        effort: Effort = "normal",
        images: Path | None = None,  # the folder of the map's images, which "hard" looks at
    ) -> None:
        check_max_seconds(options.max_seconds, effort)
        self.options, self.effort, self._images = options, effort, images
        self._model, self._store, self._index, self._device = model, store, index, device
        self._extractor, self._matcher = models
        self._camera, self._references = camera, references
        self._registered = {str(image.name): image for image in registered(model)}
        self._remarks = shape_of(model).remarks
        self._faults: dict[str, str] = {}  # images of the map that cannot be looked at, and why
        self._look_alikes = look_alikes or {}
        self._elsewhere = {str(image.name): (other, image) for other in others for image in registered(other)}
        self._kept: BoundedCache[str, _MapImage] = BoundedCache(options.memory, lambda image: image.bytes)
        if not self._registered:
            raise StoreError("The map's model has no image with a pose; reconstruct it again.")
        if index is None and len(self._registered) > _WITHOUT_INDEX:
            raise InputError(
                f"The map has {len(self._registered)} images and no retrieval index; "
                "`lightglue map pairs MAP --pairs retrieval` makes one."
            )

    @classmethod
    def open(
        cls,
        folder: str | os.PathLike[str],
        models: Models | None = None,
        options: LocalizeOptions | None = None,
    ) -> Localizer:
        """Load a map and the models that it was made with.

        models: others, for their device or precision; the features must be of the same kind.

        Raises InputError where there is no map, or the models do not go with it; StoreError where it is damaged.
        """
        paths = MapFolder(Path(folder))
        store = FeatureStore.open(paths.features, read_only=True)
        record = paths.read()
        models = record.models if models is None else models
        if store.settings.get("features", models.features) != models.features:
            raise InputError(f"The map's features are {store.settings['features']}; localize with these.")
        index = None
        if paths.retrieval.exists():
            from lightglue.sfm.retrieval.index import RetrievalIndex

            index = RetrievalIndex.open(paths.retrieval)
        model = open_model(paths.model)
        camera = _map_camera(model, record.images)
        look_alikes = read_look_alikes(paths.database)
        others = [open_model(each) for each in paths.other_models()] if look_alikes else []
        loaded, device, options = models.load(), models.found_device(), options or LocalizeOptions()
        references = None
        if options.refine is not None:
            references = References.open(model, record.images, store.stretch, options.refine, device)
        found = loaded, device, options, camera, look_alikes, others, references
        if models.effort == "hard":
            check_folder(record.images, "effort 'hard' looks at the map's images")
        return cls(model, store, index, *found, effort=models.effort, images=record.images)

    @property
    def remarks(self) -> tuple[str, ...]:
        """What poses in this model are to be taken with, in sentences; and what hindered refining them so far."""
        faults = {} if self._references is None else self._references.faults
        told = [f"nothing is refined by {name}: {fault}" for name, fault in sorted(faults.items())]
        told += [f"{name} is not searched: {fault}" for name, fault in sorted(self._faults.items())]
        return (*self._remarks, *told)

    @property
    def names(self) -> list[str]:
        """The images of the map that have a pose, sorted."""
        return list(self._registered)

    def localize(self, image: Any, camera: Any = None) -> Localization:
        """The pose of an image in the map.

        Args:
            image: the path of an image file or its content as bytes, a tensor (3, H, W) in [0, 1], or an array
                (H, W, 3) uint8.
            camera: K (3, 3) px, `Intrinsics`, a `pycolmap.Camera`, or a `lightglue.geometry.Camera`. None: the
                focal length is what the file's EXIF says, or a guess, and is estimated with the pose; the lens is taken
                to have no distortion and its axis to go through the image's middle. If one camera took all images of
                the map and the query has their size and EXIF, it is tried too, and taken unless far fewer points agree
                with it.

        Raises ImageError for a file that is no image, InputError for an image or a camera that makes no sense.
        """
        known = None if camera is None else as_camera(camera)
        clock = _Clock()
        with clock.step("read"):
            pixels = _pixels(image, self._store.stretch)
        size = (pixels.shape[-1], pixels.shape[-2])
        if isinstance(camera, Intrinsics) and camera.size is not None and (orientation := orientation_of(image)) != 1:
            camera = fitted("The camera", camera, size, orientation)
            known = as_camera(camera)
        if isinstance(camera, Intrinsics) and camera.size not in (None, size):
            raise InputError(
                f"The camera's image has {camera.width} x {camera.height} px and the query {size[0]} x {size[1]} px; "
                "give the camera of this very image."
            )
        with clock.step("camera"):
            is_file = known is None and isinstance(image, _FILES)
            focal, fault = exif_focal(image, size) if is_file else StatedFocal()
            cameras = self._cameras(size, known, focal)
        edge = self._smaller_edge(pixels)
        found = None if edge is None else _Search(self, pixels, cameras, clock, edge).at_once()
        return replace(found or _Search(self, pixels, cameras, clock).run(), fault=fault)

    def _cameras(self, size: tuple[int, int], known: Camera | None, focal: float | None) -> list[QueryCamera]:
        """What may have taken the query, the likeliest first. focal: by its file, px."""
        if known is not None:
            return [QueryCamera(known, size, knows_focal=True)]
        likely = as_camera(Intrinsics.guessed(size, focal))
        guessed = QueryCamera(likely, size, knows_focal=False, guessed=focal is None)
        if self._camera is not None and self.options.map_camera:
            own, own_focal = self._camera
            if (own.image_size, own_focal) == (size, focal):
                return [own, guessed]
        return [guessed]

    def _smaller_edge(self, pixels: Tensor) -> int | None:
        """px of a query's longer edge with which it is looked at first; None: only as the map's images were.

        Extraction is most of the time of a query that is found at once, and three quarters of the size have half of
        the pixels. Chosen on five queries, whose poses are about as exact: docs/effort.md.
        """
        settings = self._store.settings
        options = dict(settings.get("extract", {}))
        usual = options.get("resize", getattr(self._extractor, "preprocess_conf", {}).get("resize"))
        whole = max(pixels.shape[-2:]) if usual is None else usual
        has_many = int(settings.get("max_keypoints") or 0) >= _MANY_KEYPOINTS * self.options.enough
        is_plain = isinstance(whole, int) and not options.keys() & {"side", "tile", "pyramid"}
        if self.effort != "fast" or not has_many or not is_plain or _SMALLER * whole < _SMALLEST:
            return None
        return round(_SMALLER * whole)

    @torch.inference_mode()
    def _extract(self, pixels: Tensor, edge: int | None = None) -> Features:
        options = {**self._store.settings.get("extract", {}), **({} if edge is None else {"resize": edge})}
        found: Features = self._extractor.extract(pixels.to(self._device), **options)
        return found

    def _ranked(self, features: Features, pixels: Tensor) -> list[str]:
        """Images of the map, those first that look most like a query."""
        if self._index is None:
            return sorted(self._registered, key=lambda name: -int(self._registered[name].num_points3D))
        query = ImageFeatures.from_torch(features, str(self._store.settings.get("features", "")))
        found = [name for name, _ in self._index.query(query, 4 * self.options.candidates, pixels)]
        return [name for name in found if name in self._registered]

    def _map_image(self, name: str) -> _MapImage:
        """An image of the map, from memory or the disk."""
        return self._kept.get(name, lambda: self._load_map_image(name))

    def _load_map_image(self, name: str) -> _MapImage:
        features, image = self._store.get(name), self._registered.get(name) or self._elsewhere[name][1]
        ids = point_ids(image)
        if len(ids) not in (0, len(features)):
            raise StoreError(
                f"{name!r} has {len(features)} keypoints and {len(ids)} in the model; reconstruct it again."
            )
        keypoints = from_colmap(np.array([p.xy for p in image.points2D], np.float64).reshape(-1, 2))
        if len(ids) and not _agree(keypoints, features):
            raise StoreError(f"{name!r} has other keypoints than in the model; reconstruct the map again.")
        ids = ids if len(ids) else np.full(len(features), -1, np.int64)
        return _MapImage(features.torch(self._device, as_extracted=True), ids)

    def _pixels_of(self, name: str) -> Tensor | None:
        """(3, H, W), an image of the map as it was extracted; None where its file cannot be used."""
        assert self._images is not None
        try:
            pixels = load_image(self._images / name, stretch=self._store.stretch)
        except ImageError as error:
            self._faults[name] = str(error)
            return None
        features = self._store.get(name)
        size = features.image_size
        if (pixels.shape[-1], pixels.shape[-2]) != size:
            was = f"{size[0]} x {size[1]} px"
            self._faults[name] = f"It is {pixels.shape[-1]} x {pixels.shape[-2]} px, and was {was}."
            return None
        return Rotation(features.rotation, *size).apply(pixels) if features.rotation else pixels

    def _twins(self, names: Sequence[str]) -> list[str]:
        """Images of the map that look like these and show another place."""
        found = twins_of(names, self._look_alikes)
        return [name for name in found if name in self._registered or name in self._elsewhere]

    def _model_of(self, name: str) -> Any:
        """The model that an image has its pose in."""
        return self._model if name in self._registered else self._elsewhere[name][0]

    def _covisible(self, ids: NDArray[np.int64]) -> list[str]:
        """Images of the map that see these points, those first that see most."""
        counts: Counter[int] = Counter()
        for number in ids.tolist():
            counts.update({each.image_id for each in self._model.points3D[number].track.elements})
        names = [(str(self._model.images[number].name), count) for number, count in counts.items()]
        return [name for name, _ in sorted(names, key=lambda item: (-item[1], item[0]))]


class _Search:
    """For the pose of one query."""

    def __init__(
        self,
        localizer: Localizer,
        pixels: Tensor,
        cameras: list[QueryCamera],
        clock: _Clock,
        edge: int | None = None,  # px that it is shrunk to; None: as the map's images were
    ) -> None:
        self.localizer, self.pixels, self.cameras, self.clock = localizer, pixels, cameras, clock
        with clock.step("extract"):
            self.features = localizer._extract(pixels, edge)
        self.keypoints = self.features["keypoints"][0].detach().cpu().numpy().astype(np.float64)
        self.places = Places(self.keypoints, cameras[0], localizer.options.pose, localizer._model)
        self.rows = self.ids = np.empty(0, np.int64)
        self.num_refined = 0

    def at_once(self) -> Localization | None:
        """What is found in the likeliest image of the map, where that is enough."""
        if not len(self.keypoints):
            return None
        pose = self._round(self._ranked()[:1])
        return self._checked(pose) if self._is_enough(pose) else None

    def run(self) -> Localization:
        """What is found, in as many images of the map as it takes."""
        options = self.localizer.options
        if not len(self.keypoints):
            cause = likely_cause(self.pixels, None, self.localizer._extractor)
            return self._answer(None, f"the image has no keypoints: {cause}")
        ranked = self._ranked()
        first = ranked[: min(options.first, options.candidates)]
        # A pose that so many points agree with is one, however many images they were found in.
        alone = 1 if self.localizer.effort == "fast" else len(first)
        pose = self._round(first[:alone])
        if alone < len(first) and not self._is_enough(pose):
            pose = self._round(first[alone:])
        if not self._is_enough(pose):
            near = [] if pose.failure else self.localizer._covisible(self.ids[pose.inliers])
            rest = [name for name in dict.fromkeys([*near, *ranked]) if name not in self.places.found]
            if more := rest[: options.candidates - len(self.places.found)]:
                pose = self._round(more)
        if pose.failure and self.localizer.effort == "hard":
            pose = self._searched(pose, ranked)
        return self._checked(pose)

    def _ranked(self) -> list[str]:
        """Images of the map, those first that look most like the query."""
        with self.clock.step("retrieve"):
            return self.localizer._ranked(self.features, self.pixels)

    def _checked(self, pose: Pose) -> Localization:
        """The answer, once the pose was compared with those at places that look alike, and refined."""
        failure = pose.failure
        if failure and not len(self.ids):
            failure = f"no overlap found: no point of the map in the {len(self.places.found)} images looked at"
        if failure is None:
            pose, failure = self._compared(pose)
        if failure is None and self.localizer._references is not None:
            with self.clock.step("refine"):
                pose = self._refined(pose, self.localizer._references)
        return self._answer(pose, failure)

    def _is_enough(self, pose: Pose) -> bool:
        return pose.failure is None and int(pose.inliers.sum()) >= self.localizer.options.enough

    def _round(self, names: list[str]) -> Pose:
        """Match the query with more images of the map, and estimate from all matches so far."""
        self._match(names)
        return self._best()

    def _best(self) -> Pose:
        """The pose that most of all matches so far agree with."""
        with self.clock.step("pose"):
            self.rows, self.ids = self.places.matched(self.localizer._model)
            return self._estimated(self.localizer.options.pose)

    def _estimated(self, options: PoseOptions, loss: float | None = None) -> Pose:
        """The pose that the matched points agree with, whichever of the cameras took them."""
        points, keypoints = points_of(self.localizer._model, self.ids), self.keypoints[self.rows]
        return best_pose([estimate_pose(keypoints, points, camera, options, loss) for camera in self.cameras])

    def _match(self, names: list[str]) -> None:
        """Match the query with more images of the map."""
        with self.clock.step("load"):
            images = [self.localizer._map_image(name) for name in names]
        with self.clock.step("match"):
            results = self.localizer._matcher.match([(self.features, image.features) for image in images])
        for name, image, result in zip(names, images, results, strict=True):
            found = matches_of(result)
            matches = found["matches"].numpy().astype(np.int64)
            scores = found["scores"].float().numpy().astype(np.float64)
            ids = image.point_ids[matches[:, 1]]
            self.places.add(name, self.localizer._model_of(name), matches[:, 0], ids, scores)

    def _searched(self, pose: Pose, ranked: Sequence[str]) -> Pose:
        """The pose with what simulated views find of the query in the images of the map that look most like it."""
        localizer, options = self.localizer, self.localizer.options
        search = HardSearch(
            localizer._extractor,
            localizer._matcher,
            dict(localizer._store.settings.get("extract", {})),
            options.max_seconds,
        )
        query = View(self.pixels, self.features)
        for name in list(dict.fromkeys(ranked))[:_SEARCHED]:
            other = localizer._map_image(name)
            rows = (other.point_ids >= 0).nonzero()[0]
            pixels = localizer._pixels_of(name) if len(rows) >= FEWEST_POINTS else None
            if pixels is None:
                continue
            with self.clock.step("search"):
                found = search.between(query, View(pixels, other.features))
            if found is None:
                continue
            points, seen, scores = found.of_points(query, View(pixels, other.features), rows)
            first = len(self.keypoints)
            self.keypoints = self.places.keypoints = np.concatenate([self.keypoints, points])
            own = first + np.arange(len(points))
            self.places.add(name, localizer._model_of(name), own, other.point_ids[seen], scores)
            pose = self._best()
            if pose.failure is None:
                break
        return pose

    def _compared(self, pose: Pose) -> tuple[Pose, str | None]:
        """The pose, or a likelier one at another place; and why it is a failure, where both are as likely."""
        first = self.localizer.options.first
        twins = self.localizer._twins(self.places.near(pose)[:first])[:first]
        self._match([name for name in twins if name not in self.places.found])
        with self.clock.step("pose"):
            likelier, failure = self.places.compare(pose)
            if likelier is not pose:
                own = self.places.agreeing(pose, self.localizer._model)
                self.rows, self.ids = self.places.matched(self.localizer._model, own)
        return likelier, failure

    def _refined(self, pose: Pose, references: References) -> Pose:
        """The pose again, from the points that agree with it and could be refined; as it is where these are too few."""
        rows, ids = self.rows[pose.inliers], self.ids[pose.inliers]
        found = references.refine(self.pixels, self.keypoints[rows], ids)
        before = self.keypoints, self.rows, self.ids
        self.keypoints = self.keypoints.copy()
        self.keypoints[rows] = found.points
        self.rows, self.ids = rows[found.moved], ids[found.moved]
        how, usual = references.options, self.localizer.options.pose
        again = self._estimated(replace(usual, pixels=min(usual.pixels, how.pixels)), how.loss)
        if again.failure is None:
            self.num_refined = int(again.inliers.sum())
            return again
        self.keypoints, self.rows, self.ids = before
        return pose

    def _answer(self, pose: Pose | None, failure: str | None) -> Localization:
        inliers = np.zeros(len(self.ids), np.bool_) if pose is None else pose.inliers
        good = failure is None and pose is not None
        return Localization(
            good,
            failure,
            pose.cam_from_world if good and pose else None,
            pose.camera if good and pose else None,
            len(self.ids),
            int(inliers.sum()),
            self.keypoints[self.rows[inliers]],
            self.ids[inliers],
            tuple(self.places.found),
            dict(self.clock.seconds),
            num_refined=self.num_refined,
        )


def _agree(keypoints: NDArray[np.float64], features: ImageFeatures) -> bool:
    """Whether (N, 2) px are the keypoints of these features, which refinement may have moved a little."""
    off = np.linalg.norm(keypoints - features.keypoints, axis=1)
    return bool(np.median(off) <= _MOVED * max(features.image_size))


class _Clock:
    """The seconds that each step took."""

    def __init__(self) -> None:
        self.seconds: Counter[str] = Counter()

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        begin = perf_counter()
        with span(name):
            yield
        self.seconds[name] += perf_counter() - begin  # type: ignore[assignment]


def _pixels(image: Any, stretch: bool) -> Tensor:
    """(3, H, W) float32 in [0, 1]."""
    if isinstance(image, _FILES):
        return load_image(image, stretch=stretch)
    if isinstance(image, np.ndarray):
        return cast(Tensor, as_tensor(image, stretch))
    if isinstance(image, Tensor) and image.ndim == 3 and image.is_floating_point() and image.numel():
        return image
    shape = tuple(getattr(image, "shape", ())) or type(image).__name__
    raise InputError(
        f"The image is {shape}; give a path, a file's content, a tensor (3, H, W) in [0, 1] or an array "
        "(H, W, 3) uint8."
    )


def best_pose(poses: Sequence[Pose]) -> Pose:
    """Of poses with several cameras, the likeliest first: the first, unless far more points agree with another.

    A camera with more that is free fits a few more points in any case.
    """
    best = poses[0]
    for pose in poses[1:]:
        is_better = pose.inliers.sum() > _FAR_MORE * best.inliers.sum()
        if (pose.failure is None, bool(is_better)) > (best.failure is None, False):
            best = pose
    return best


def _map_camera(model: Any, images: Path) -> tuple[QueryCamera, float | None] | None:
    """The camera that took all images of a map and its focal length by EXIF, px; None where there are several."""
    posed = registered(model)
    if len({image.camera_id for image in posed}) != 1:
        return None
    camera = model.camera(posed[0].camera_id)
    known = QueryCamera(as_camera(camera), (int(camera.width), int(camera.height)), knows_focal=True)
    return known, exif_focal(images / str(posed[0].name), known.image_size).px
