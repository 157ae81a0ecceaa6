"""Add photographs to a map, and take some out, without making it anew.

Each step looks at what is there and does what is missing, so that a run that was killed is finished by running it
again. The model is replaced by renaming: after a kill between, the old one is put back by the next run.
"""

from __future__ import annotations

import filecmp
import os
import shutil
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np

from lightglue.errors import ImageError, InputError
from lightglue.images import read_image
from lightglue.sfm.colmap.database import DatabaseState, Keypoints, create_database, read_state
from lightglue.sfm.engines.engine import Engine
from lightglue.sfm.folder import MapFolder, StageRecord
from lightglue.sfm.options import CameraOptions, ExtractOptions, MatchOptions, ReconstructOptions, VerifyOptions
from lightglue.sfm.report.document import write_report
from lightglue.sfm.retrieval.index import RetrievalIndex, build_index
from lightglue.sfm.skipped import Skipped
from lightglue.sfm.stages.extract import extract
from lightglue.sfm.stages.images import SUFFIXES, list_images
from lightglue.sfm.stages.match import NO_OVERLAP, match
from lightglue.sfm.stages.pairs import read_pairs, write_pairs
from lightglue.sfm.stages.reconstruct import (
    ModelSummary,
    ReconstructResult,
    summarize,
    write_summary,
)
from lightglue.sfm.stages.refine import read_refined
from lightglue.sfm.stages.verify import VerifyResult, verify
from lightglue.stores import FeatureStore, MatchStore
from lightglue.support.files import write_whole, writing
from lightglue.support.progress import StageProgress

__all__ = ["ChangeResult", "add_images", "remove_images"]

_PAIRED = 20  # images of the map that a new one is matched with, where there are many
_EXHAUSTIVE = 60  # images up to which a new one is matched with all where there is no retrieval index
_SAME = 0.01  # px: keypoints that have moved by less are the same
_NOT_REGISTERED = "it could not be registered in the model: too few of its matches agree with it"


@dataclass(frozen=True)
class ChangeResult:
    """What became of the map."""

    names: tuple[str, ...]  # that were added, or taken out
    registered: tuple[str, ...]  # all that have a pose now
    seconds: float
    skipped: tuple[Skipped, ...] = ()


def add_images(
    map_folder: str | os.PathLike[str],
    images: Iterable[str | os.PathLike[str]],
    *,
    engine: Engine | None = None,
    progress: StageProgress = lambda stage, done, total: None,
) -> ChangeResult:
    """Add photographs to a map: register them in its model and adjust it.

    Args:
        images: files, or folders of them. Those under the map's image folder keep their place; others are copied
            right into it, under their own names. One whose name another photograph has already is skipped: nothing
            is ever written over.
        engine: who extracts and matches; this process by default.

    Where the map's keypoints were refined, new images keep theirs where they were found, until the stage `refine` and
    those after it are run again. Intrinsics that were known stay as they are.

    Raises InputError where there is no map; StoreError where it is damaged or cannot be written.
    """
    begin = perf_counter()
    change = _Change(MapFolder(Path(map_folder)))
    place, record = change.place, change.record
    names, skipped = _brought(record.images, [Path(image) for image in images])
    made = change.store.settings
    options = ExtractOptions(record.models, made.get("extract", {}), made.get("descriptor_dtype", "float16"))
    told = [_of_stage(progress, stage) for stage in ("extract", "match", "verify")]
    extracted = extract(record.images, place.features, options, names=names, engine=engine, progress=told[0])
    names = sorted(name for name in names if name in change.store)
    held = sorted({*change.held, *names})
    pairs = _pairs(place, change.store, names, held, record.images)
    known = set(read_pairs(place.pairs)) if place.pairs.exists() else set()
    write_pairs(place.pairs, sorted(known | set(pairs)))
    matching = MatchOptions(record.models, MatchStore.open(place.matches, read_only=True).settings.get("min_overlap"))
    matched = match(place.features, pairs, place.matches, matching, engine=engine, progress=told[1])
    change.renew_database(held, progress=told[2])
    progress("reconstruct", 0, 1)
    change.renew_model(names)
    change.finish(names, {"extract": (*skipped, *extracted.skipped), "match": matched.skipped})
    progress("reconstruct", 1, 1)
    missing = [Skipped(name, _NOT_REGISTERED) for name in names if name not in change.registered]
    left_out = (*skipped, *extracted.skipped, *matched.skipped, *missing)
    return ChangeResult(tuple(names), tuple(change.registered), perf_counter() - begin, left_out)


def remove_images(map_folder: str | os.PathLike[str], names: Sequence[str]) -> ChangeResult:
    """Take images out of a map's model, database, matches and features. The photographs stay where they are.

    Points that fewer than two images are left to see go too. Names that are not in the map are in `skipped`.

    Raises InputError where there is no map, or fewer than two images would have a pose; StoreError where it is damaged
    or cannot be written.
    """
    begin = perf_counter()
    change = _Change(MapFolder(Path(map_folder)))
    place, store = change.place, change.store
    there = {*change.held, *(name for name in names if name in store)}
    going = sorted(set(names) & there)
    if len(set(change.registered) - set(going)) < 2:
        raise InputError(f"Without these images {place.folder} has no model; to be rid of the map, remove its folder.")
    change.renew_database(sorted(there - set(going)))
    change.renew_model(())
    if place.pairs.exists():
        write_pairs(place.pairs, [pair for pair in read_pairs(place.pairs) if not set(pair) & set(going)])
    if place.retrieval.exists():
        index = RetrievalIndex.open(place.retrieval)
        index.update(store, there - set(going), change.record.images).save(place.retrieval)
    MatchStore.open(place.matches).remove_images(going)
    for name in going:  # last: a run after a kill finds by them what was to go
        store.remove(name)
    change.finish(going, {})
    skipped = tuple(Skipped(name, "it is not in the map") for name in names if name not in there)
    return ChangeResult(tuple(going), tuple(change.registered), perf_counter() - begin, skipped)


def _of_stage(progress: StageProgress, stage: str) -> Callable[[int, int], None]:
    return lambda done, total: progress(stage, done, total)


# --- the photographs and their pairs -----------------------------------------------------------------------------


def _brought(folder: Path, images: list[Path]) -> tuple[list[str], tuple[Skipped, ...]]:
    """The names of photographs, which lie under the map's folder then."""
    if not folder.is_dir():
        raise InputError(f"The map's folder of images {folder} does not exist; put it back where it was.")
    names: set[str] = set()
    skipped: list[Skipped] = []
    for image in images:
        found = [image]
        if image.is_dir():
            inside, left_out = list_images(image)
            found = [image / name for name in inside]
            skipped += left_out
        for each in found:
            name = _inside(folder, each) or _copied(folder, each)
            if isinstance(name, Skipped):
                skipped.append(name)
            else:
                names.add(name)
    return sorted(names), tuple(skipped)


def _inside(folder: Path, image: Path) -> str | None:
    """The name of an image that lies under the folder; None for one that does not."""
    for path, root in ((image.absolute(), folder.absolute()), (image.resolve(), folder.resolve())):
        if ".." not in path.parts and path.is_relative_to(root):
            return path.relative_to(root).as_posix()
    return None


def _copied(folder: Path, image: Path) -> str | Skipped:
    """The name of an image that was copied into the folder."""
    if not image.name.lower().endswith(SUFFIXES):
        return Skipped(str(image), f"its name does not end as those of images do ({' '.join(SUFFIXES)}); rename it")
    try:
        content = image.read_bytes()
        read_image(image)  # before anything is copied: a file that is no image does not belong among the photographs
    except ImageError as error:
        return Skipped(str(image), " ".join(str(error).split()))
    except OSError as error:
        return Skipped(str(image), f"it cannot be read ({error.strerror}); check the path")
    target = folder / image.name
    if not target.exists():
        write_whole(target, content)
    elif target.read_bytes() != content:
        return Skipped(str(image), f"another image is called {image.name!r} in {folder}; rename it")
    return image.name


def _pairs(
    place: MapFolder, store: FeatureStore, names: list[str], held: list[str], images: Path
) -> list[tuple[str, str]]:
    """Each new image with those of the map that it is to be matched with. An index learns of the new images before."""
    if not place.retrieval.exists() and len(held) <= _EXHAUSTIVE:
        return sorted({(min(a, b), max(a, b)) for a in names for b in held if a != b})
    if place.retrieval.exists():
        index = RetrievalIndex.open(place.retrieval).update(store, held, images)
        index.save(place.retrieval)
    else:
        index = build_index(store, place.retrieval, names=held, images=images)
    found = index.nearest(names, _PAIRED)
    return sorted({(min(name, other), max(name, other)) for name, alike in found for other, _ in alike})


# --- the database and the model ----------------------------------------------------------------------------------


class _Change:
    """A map that is being changed."""

    def __init__(self, place: MapFolder) -> None:
        from lightglue.sfm import colmap

        self.place, self.record = place, place.read()
        _recover(place)
        self.store = FeatureStore.open(place.features)
        self.model: Any = colmap.read_model(place.model)
        self.verified: VerifyResult | None = None

    @property
    def registered(self) -> list[str]:
        """The images that have a pose, sorted."""
        from lightglue.sfm import colmap

        return [str(image.name) for image in colmap.registered(self.model)]

    @property
    def held(self) -> list[str]:
        """The images of the map. Features stay in the store of images that were taken out of the folder."""
        return [name for name in read_state(self.place.database).names if name in self.store]

    def settings(self, stage: str) -> Mapping[str, Any]:
        """What a stage was run with; empty where the map does not say."""
        found: Mapping[str, Any] = self.record.settings.get(stage) or {}
        return found

    def renew_database(self, names: list[str], progress: Callable[[int, int], None] = lambda done, total: None) -> None:
        """Of these images, as the stores have them; geometries that were verified are taken over."""
        options = dict(self.settings("verify"))
        create_database(
            self.place.database,
            self.store,
            MatchStore.open(self.place.matches, read_only=True),
            self.record.images,
            cameras=CameraOptions(**options.pop("cameras", {})),
            names=names,
            pairs=read_pairs(self.place.pairs) if self.place.pairs.exists() else None,
            keypoints=self._keypoints(),
        )
        self.verified = verify(self.place.database, VerifyOptions(**options), progress=progress)

    def _keypoints(self) -> Keypoints | None:
        """Refined keypoints of the images that have them."""
        settings = self.settings("refine")
        if not settings:
            return None

        def found(name: str) -> Any:
            own = self.store.get(name)
            try:
                return read_refined(self.place.refined, name, own.digest).keypoints
            except InputError:  # it came later, or has changed
                return own.keypoints

        return found

    def renew_model(self, wanted: Collection[str]) -> None:
        """Bring the model into line with the database, and register the `wanted` images that it does not have."""
        from lightglue.sfm import colmap

        state = read_state(self.place.database, is_complete=True)
        stale = _stale(self.place, self.model, state)
        if len(self.registered) - len(stale) < 2:
            raise InputError(f"The model in {self.place.model} is of other keypoints; reconstruct it anew.")
        missing = [name for name in wanted if name in state.ids and (name not in self.registered or name in stale)]
        if not missing and not stale and _has_numbers_of(self.model, state):
            return
        colmap.deregister(self.model, stale)
        with _workplace(self.place) as folder:
            self.model = _renumbered(self.model, state, folder)
            if missing:
                self.model = self._grown(state, folder)
            self.model.write(str(_made(folder / "model")))
            _put(self.place, folder / "model")

    def _grown(self, state: DatabaseState, folder: Path) -> Any:
        """The model that the mapper makes of the one in folder/start."""
        from lightglue.sfm import colmap

        options = ReconstructOptions(**self.settings("reconstruct"))
        fixed = tuple(number for number, camera in enumerate(state.cameras, 1) if camera.is_fixed)
        models = colmap.run_mapper(
            "incremental",
            self.place.database,
            self.record.images,
            _made(folder / "work"),
            seed=options.seed,
            threads=options.threads or os.cpu_count() or 1,
            min_model_size=options.min_model_size,
            extract_colors=options.extract_colors,
            fixed=fixed,
            all_fixed=len(fixed) == len(state.cameras),
            max_error=None,
            more=options.colmap if options.mapper == "incremental" else {},
            start=folder / "start",
        )
        return models[0] if models else self.model

    def finish(self, names: Collection[str], skipped: Mapping[str, tuple[Skipped, ...]]) -> None:
        """What tells of the map: models/0, map.json and the report. skipped: of these names, by stage."""
        state, summary = read_state(self.place.database), summarize(self.model)
        missing = tuple(name for name in state.names if name not in set(summary.images))
        _mirror(self.place, summary, missing, len(state.names))
        skipped = {**skipped, "reconstruct": tuple(Skipped(name, _NOT_REGISTERED) for name in missing)}
        stages = dict(self.record.stages)
        for stage, counts in self._counts(summary, len(state.cameras)).items():
            if stage in stages:
                kept = () if stage == "reconstruct" else stages[stage].skipped
                told = tuple(each for each in kept if each.name not in names) + tuple(skipped.get(stage, ()))
                stages[stage] = StageRecord(stages[stage].seconds, {**stages[stage].counts, **counts}, told)
        self.place.write(replace(self.record, stages=stages))
        if self.place.report.exists():
            write_report(self.place.folder)

    def _counts(self, summary: ModelSummary, cameras: int) -> dict[str, dict[str, float]]:
        """What has changed of each stage's figures."""
        heads = [head for name in read_state(self.place.database).names if (head := self.store.head(name)) is not None]
        matches = list(MatchStore.open(self.place.matches, read_only=True).pairs())
        counts: dict[str, dict[str, float]] = {
            "extract": {"images": len(heads), "keypoints": sum(head.num_keypoints for head in heads)},
            "pairs": {"images": len(heads)},
            "match": {"pairs": len(matches), "without_overlap": sum(pair.note == NO_OVERLAP for pair in matches)},
            "reconstruct": {
                "images": len(heads),
                "registered": summary.num_images,
                "points": summary.num_points,
                "mean_reprojection_error": round(summary.mean_reprojection_error, 4),
                "mean_track_length": round(summary.mean_track_length, 3),
            },
        }
        if self.place.pairs.exists():
            counts["pairs"]["pairs"] = len(read_pairs(self.place.pairs))
        if (done := self.verified) is not None:
            counts["verify"] = {
                "images": len(heads),
                "cameras": cameras,
                "pairs": done.num_pairs,
                "too_few_matches": done.num_too_few,
                "verified": done.num_verified,
                "inliers": done.num_inliers,
            }
        return counts


def _moved(points0: Any, points1: Any) -> float:
    """The largest distance of points (N, 2) along an axis, px."""
    return float(np.abs(points0 - points1).max(initial=0))


def _stale(place: MapFolder, model: Any, state: DatabaseState) -> set[str]:
    """Registered images that the database does not have, or has with other keypoints."""
    from lightglue.sfm import colmap

    stale = set()
    with colmap.Database(place.database) as database:
        for image in colmap.registered(model):
            name = str(image.name)
            if name not in state.ids:
                stale.add(name)
                continue
            points = database.keypoints(state.ids[name])
            some = np.linspace(0, len(points) - 1, min(len(points), 32)).astype(int)
            if len(image.points2D) != len(points) or (
                len(some) and _moved(points[some], np.array([image.points2D[row].xy for row in some.tolist()])) > _SAME
            ):
                stale.add(name)
    return stale


def _cameras_of(state: DatabaseState) -> dict[str, int]:
    return {name: number + 1 for name, number in zip(state.names, state.camera_of, strict=True)}


def _has_numbers_of(model: Any, state: DatabaseState) -> bool:
    """Whether the images and cameras of a model have the database's numbers."""
    from lightglue.sfm import colmap

    cameras = _cameras_of(state)
    return all(
        (image.image_id, image.camera_id) == (state.ids[str(image.name)], cameras[str(image.name)])
        for image in colmap.registered(model)
    )


def _renumbered(model: Any, state: DatabaseState, folder: Path) -> Any:
    """The model with the database's numbers, which is in folder/start then."""
    from lightglue.sfm import colmap
    from lightglue.sfm.colmap.renumber import renumber

    model.write(str(_made(folder / "old")))
    num_params = {number: len(camera.params) for number, camera in model.cameras.items()}
    renumber(folder / "old", folder / "start", state.ids, _cameras_of(state), num_params)
    return colmap.read_model(folder / "start")


# --- the files of the model --------------------------------------------------------------------------------------


def _made(folder: Path) -> Path:
    folder.mkdir(parents=True)
    return folder


@contextmanager
def _workplace(place: MapFolder) -> Iterator[Path]:
    """A folder in that of the map, for a while. Raises StoreError for what the operating system says of it."""
    folder = place.folder / ".change.part"
    with writing(place.model):
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)
            _recover(place)


def _put(place: MapFolder, model: Path) -> None:
    """Put a finished model in the place of the one that was there."""
    old = place.folder / ".model.old"
    shutil.rmtree(old, ignore_errors=True)
    place.model.replace(old)
    model.replace(place.model)


def _recover(place: MapFolder) -> None:
    """Put the old model back where a kill came between; forget it where the new one is there."""
    old = place.folder / ".model.old"
    if old.exists() and not place.model.exists():
        old.replace(place.model)
    for folder in (old, place.folder / ".change.part"):
        shutil.rmtree(folder, ignore_errors=True)


def _mirror(place: MapFolder, summary: ModelSummary, missing: tuple[str, ...], num_images: int) -> None:
    """Make models/0 what the model is. The stage `reconstruct` does not take it for its own work, and would redo it."""
    first, part = place.models / "0", place.models / ".0.part"
    files = sorted(path.name for path in place.model.iterdir())
    with writing(place.models):
        if not place.models.is_dir():
            return
        if first.is_dir() and not any(filecmp.cmpfiles(place.model, first, files, shallow=False)[1:]):
            return
        shutil.rmtree(part, ignore_errors=True)
        shutil.copytree(place.model, part)
        shutil.rmtree(first, ignore_errors=True)
        part.replace(first)
        write_summary(place.models, ReconstructResult(place.folder, (summary,), num_images, missing, None, 0.0), "")
