"""Add images to a map, and take some out, without making it again.

Each step looks at what is there and does what is missing, so that a run that was killed is finished by running it
again. The model is replaced by renaming: after a kill between, the old one is put back by the next run.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np

from lightglue.errors import InputError, LightGlueError, StoreError
from lightglue.images.mask_files import MaskFolder
from lightglue.matching.effort import Effort
from lightglue.models.choice import Models
from lightglue.sfm.colmap.colours import colour_points, uncoloured
from lightglue.sfm.colmap.database import DatabaseResult, Keypoints, create_database
from lightglue.sfm.colmap.database_file import Database
from lightglue.sfm.colmap.image_lists import with_listed
from lightglue.sfm.colmap.mappers import run_mapper
from lightglue.sfm.colmap.model_files import SUMMARY
from lightglue.sfm.colmap.models import deregister, open_model, registered, write_model
from lightglue.sfm.colmap.renumber import renumber
from lightglue.sfm.colmap.state import DatabaseState, read_state
from lightglue.sfm.folder import MapFolder, StageRecord
from lightglue.sfm.localization.added import unsure_images
from lightglue.sfm.options import CameraOptions, ExtractOptions, MatchOptions, ReconstructOptions, VerifyOptions
from lightglue.sfm.report.document import write_report
from lightglue.sfm.retrieval.index import RetrievalIndex, build_index
from lightglue.sfm.skipped import Skipped, no_keypoints, told_once
from lightglue.sfm.stages.consistency import check_models
from lightglue.sfm.stages.dataset import DatasetResult, write_dataset
from lightglue.sfm.stages.extract import ExtractResult, extract
from lightglue.sfm.stages.given import change_list
from lightglue.sfm.stages.incoming import Incoming, misfits
from lightglue.sfm.stages.judge import JudgeResult, judge_pairs
from lightglue.sfm.stages.match import NO_OVERLAP, match
from lightglue.sfm.stages.pairs import named_pairs, read_pairs, write_pairs
from lightglue.sfm.stages.reconstruct import (
    ModelSummary,
    ReconstructResult,
    is_described,
    known_summary,
    summarize,
    write_summary,
)
from lightglue.sfm.stages.refine import read_refined
from lightglue.sfm.stages.verify import VerifyResult, verify
from lightglue.stores import FeatureStore, MatchStore
from lightglue.support.files import writing
from lightglue.support.progress import Progress, StageProgress
from lightglue.workers.work import Engine

__all__ = ["ChangeResult", "accept_model", "add_images", "remove_images"]

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
    dataset: DatasetResult | None = None  # for other programs
    doubt: str | None = None  # why the model may be wrong now


def options_of(models: Models, settings: Mapping[str, Any]) -> MatchOptions:
    """The options that a store of matches was made with, by its settings."""
    return MatchOptions(
        models, settings.get("min_overlap"), max_seconds=settings.get("max_seconds", MatchOptions.max_seconds)
    )


def add_images(
    map_folder: str | os.PathLike[str],
    images: Iterable[str | os.PathLike[str]],
    *,
    masks: str | os.PathLike[str] | None = None,
    engine: Engine | None = None,
    effort: Effort | None = None,
    progress: StageProgress = lambda stage, done, total: None,
) -> ChangeResult:
    """Add images to a map: register them in its model and adjust it.

    Args:
        images: files, or folders of them. Those under the map's image folder stay there; others are copied
            right into it, under their own names. One whose name another image has already is skipped: nothing
            is ever written over.
        masks: a folder with masks of these images, which are copied into that of the map's masks; a map that was made
            without any takes none. By default they lie there already.
        engine: who extracts and matches; this process by default.
        effort: with which the new pairs are matched; None: that of the map. The map's own pairs stay as they are.

    Where the map's keypoints were refined, new images keep theirs where they were found, until the stage `refine` and
    those after it are run again. Intrinsics that were known stay as they are.

    Raises InputError where there is no map; StoreError where it is damaged or cannot be written.
    """
    begin = perf_counter()
    change = _Change(MapFolder(Path(map_folder)))
    paths, record = change.paths, change.record
    matching = options_of(record.models, MatchStore.open(paths.matches, read_only=True).settings)
    if effort is not None:
        replace(record.models, effort=effort)  # raises where it makes no sense, before anything is copied
    change.check_masks(masks)
    with paths.bringing(record.images) as part:
        incoming = Incoming.bring(record.images, [Path(image) for image in images], part)
    extracted = _extracted(change, incoming, masks, engine, partial(progress, "extract"))
    names, skipped = sorted(incoming.names), incoming.skipped
    change_list(paths, added=names)
    there = {*change.held, *names}
    held = sorted(there)
    pairs = _pairs(paths, change.store, names, held, record.images)
    known = set(read_pairs(paths.pairs)) if paths.pairs.exists() else set()
    _write_pairs(paths, sorted(known | set(pairs)))
    # Of the pairs that were there, those that were damaged are missing now.
    pairs = sorted({*pairs, *(pair for pair in known if there.issuperset(pair))})
    how: dict[str, Any] = {"engine": engine, "effort": effort, "progress": partial(progress, "match")}
    how |= {"images": record.images, "masks": change.masks}
    matched = match(paths.features, pairs, paths.matches, matching, **how)
    made = change.renew_database(held, progress=partial(progress, "verify"))
    doubted = tuple(each for each in made.skipped if each.name in names)
    progress("reconstruct", 0, 1)
    change.renew_model(names)
    told = {"extract": (*skipped, *extracted.skipped), "match": matched.skipped, "verify": doubted}
    change.finish(names, told)
    progress("reconstruct", 1, 1)
    missing = [Skipped(name, change.why_missing(name)) for name in names if name not in change.registered]
    left_out = (*skipped, *extracted.skipped, *matched.skipped, *doubted, *missing)
    seconds = perf_counter() - begin
    return ChangeResult(
        tuple(names), tuple(change.registered), seconds, told_once(left_out), change.dataset, change.doubt
    )


def remove_images(map_folder: str | os.PathLike[str], names: Sequence[str]) -> ChangeResult:
    """Take images out of a map's model, database, matches and features. The files stay where they are.

    Points that fewer than two images are left to see go too. Names that are not in the map are in `skipped`.

    Raises InputError where there is no map, or fewer than two images would have a pose; StoreError where it is damaged
    or cannot be written.
    """
    begin = perf_counter()
    change = _Change(MapFolder(Path(map_folder)))
    paths, store = change.paths, change.store
    there = {*change.held, *(name for name in names if name in store)}
    going = sorted(set(names) & there)
    if len(set(change.registered) - set(going)) < 2:
        raise InputError(f"Without these images {paths.folder} has no model; to be rid of the map, remove its folder.")
    change.renew_database(sorted(there - set(going)))
    change.renew_model(())
    if paths.pairs.exists():
        _write_pairs(paths, [pair for pair in read_pairs(paths.pairs) if not set(pair) & set(going)])
    if paths.retrieval.exists():
        index = RetrievalIndex.open(paths.retrieval)
        index.update(store, there - set(going), change.record.images).save(paths.retrieval)
    MatchStore.open(paths.matches).remove_images(going)
    for name in going:  # last: a run after a kill finds by them what was to go
        store.remove(name)
    change_list(paths, removed=going)
    change.finish(going, {})
    skipped = tuple(Skipped(name, "it is not in the map") for name in names if name not in there)
    seconds = perf_counter() - begin
    return ChangeResult(tuple(going), tuple(change.registered), seconds, skipped, change.dataset, change.doubt)


def accept_model(map_folder: str | os.PathLike[str]) -> ModelSummary:
    """Take the model in a map's folder as it is for the map's, after another program has changed it.

    Until then its checksums differ, and whatever opens it takes it for damaged. Returns the model's new figures. The
    stage `reconstruct` leaves it as it is until the database or its own options change.

    Raises InputError where there is no map, StoreError where the model cannot be read.
    """
    paths = MapFolder(Path(map_folder))
    change = _Change(paths, is_accepted=True)
    if not paths.model.is_symlink():  # a copy of the largest, where there are no links
        with writing(paths.largest):
            shutil.copytree(paths.model, paths.largest, dirs_exist_ok=True)
    state, summary = change.summary()
    names = state.names
    known = known_summary(paths.models)
    others = known[1].models[1:] if known else ()
    result = ReconstructResult(
        paths.folder, (summary, *others), len(names), summary.missing_of(names), None, known[1].seconds if known else 0
    )
    write_summary(paths.models, result, known[0] if known else "")
    change.finish((), {})
    return summary


# --- the images and their pairs -----------------------------------------------------------------------------------


def _extracted(
    change: _Change,
    incoming: Incoming,
    masks: str | os.PathLike[str] | None,
    engine: Engine | None,
    progress: Progress,
) -> ExtractResult:
    """Extract the features of images that are to come in; those that cannot be used are taken back."""
    images, store, made = change.record.images, change.store, change.store.settings
    options = ExtractOptions(
        change.record.models,
        made.get("extract", {}),
        made.get("descriptor_dtype", "float16"),
        masks=change.masks,
        stretch=store.stretch,
    )
    # Those of the map that are damaged are extracted again, or the images would leave it.
    damaged = store.damaged(read_state(change.paths.database).names)
    names = sorted({*incoming.names, *damaged})
    paths = change.paths
    try:
        if masks is not None and change.masks is not None:
            with paths.bringing(Path(change.masks)) as part:
                incoming.bring_masks(Path(masks), Path(change.masks), part)
        # masks_must_fit: there may be nothing to exclude in the few that come.
        result = extract(
            images, paths.features, options, names=names, masks_must_fit=False, engine=engine, progress=progress
        )
        if lost := [name for name in damaged if name not in store]:
            raise StoreError(f"The features of {lost[0]!r} are damaged, and the image cannot be extracted again.")
    except LightGlueError:  # nothing of the map has changed yet
        incoming.take_back({*incoming.copied, *incoming.masks})
        raise
    incoming.take_back([name for name in incoming.names if name not in store])
    held = {*change.held, *incoming.names}
    sizes = {name: head.image_size for name in held if (head := store.head(name)) is not None}
    unfit = misfits(sizes, incoming.names - set(change.held), change.cameras)
    for each in unfit:
        store.remove(each.name)
    incoming.take_back(each.name for each in unfit)
    return replace(result, skipped=(*result.skipped, *unfit))


def _write_pairs(paths: MapFolder, pairs: list[tuple[str, str]]) -> None:
    """Write pairs.txt, and that it is now as it should be: a kill between must not make it look damaged."""
    paths.expect_pairs(False)
    write_pairs(paths.pairs, pairs)
    paths.expect_pairs()


def _pairs(
    paths: MapFolder, store: FeatureStore, names: list[str], held: list[str], images: Path
) -> list[tuple[str, str]]:
    """Each new image with those of the map that it is to be matched with. An index learns of the new images before."""
    if not paths.retrieval.exists() and len(held) <= _EXHAUSTIVE:
        return sorted({(min(a, b), max(a, b)) for a in names for b in held if a != b})
    if paths.retrieval.exists():
        index = RetrievalIndex.open(paths.retrieval).update(store, held, images)
        index.save(paths.retrieval)
    else:
        index = build_index(store, paths.retrieval, names=held, images=images)
    known = set(index.names)  # one whose file is gone meanwhile has no descriptor
    found = index.nearest([name for name in names if name in known], _PAIRED)
    return sorted({(min(name, other), max(name, other)) for name, alike in found for other, _ in alike})


# --- the database and the model ----------------------------------------------------------------------------------


class _Change:
    """A map that is being changed."""

    def __init__(self, paths: MapFolder, is_accepted: bool = False) -> None:
        self.paths, self.record = paths, paths.read()
        paths.remove_part()
        paths.check_pairs()
        _recover(paths)
        self.store = FeatureStore.open(paths.features)
        self.model: Any = open_model(paths.model, is_accepted)
        self.verified: VerifyResult | None = None
        self.judged: JudgeResult | None = None
        self.dataset: DatasetResult | None = None
        self.doubt: str | None = None  # why the model may be wrong, once it is finished
        self.unsure: dict[str, str] = {}  # images that were not registered, for they fit two places

    @property
    def registered(self) -> list[str]:
        """The images that have a pose, sorted."""
        return [str(image.name) for image in registered(self.model)]

    @property
    def held(self) -> list[str]:
        """The images of the map. Features stay in the store of images that were taken out of the folder.

        Raises StoreError where the features of one are damaged: it must not leave the map for that.
        """
        names = read_state(self.paths.database).names
        there = [name for name in names if name in self.store]
        if damaged := self.store.damaged(set(names).difference(there)):
            raise StoreError(
                f"The features of {', '.join(map(repr, sorted(damaged)))} in {self.store.folder} are damaged; "
                "`lightglue sfm` extracts them again."
            )
        return there

    @property
    def cameras(self) -> CameraOptions:
        """How images get their cameras."""
        return with_listed(CameraOptions(**self.settings("verify").get("cameras", {})), self.paths.listed)

    @property
    def masks(self) -> str | None:
        """The folder of the masks that the map was made with. Raises InputError where the map does not say."""
        if self.store.settings.get("masks") is None:
            return None
        folder = self.settings("extract").get("masks")
        if not isinstance(folder, str):
            raise InputError(f"{self.paths.record} does not say where the masks are; run `sfm` with --masks again.")
        return folder

    def check_masks(self, masks: str | os.PathLike[str] | None) -> None:
        """Raises InputError for masks in a map that was made without, or where those of the map are gone."""
        if masks is not None and self.masks is None:
            raise InputError(f"{self.paths.folder} was made without masks; make it again with --masks, or add without.")
        for folder in (masks, self.masks):
            if folder is not None:
                MaskFolder(folder)

    def settings(self, stage: str) -> Mapping[str, Any]:
        """What a stage was run with; empty where the map does not say."""
        found: Mapping[str, Any] = self.record.settings.get(stage) or {}
        return found

    def renew_database(
        self, names: list[str], progress: Callable[[int, int], None] = lambda done, total: None
    ) -> DatabaseResult:
        """Of these images, as the stores have them; geometries that were verified are taken over."""
        options = {name: value for name, value in self.settings("verify").items() if name != "cameras"}
        made = create_database(
            self.paths.database,
            self.store,
            MatchStore.open(self.paths.matches, read_only=True),
            self.record.images,
            cameras=self.cameras,
            names=names,
            pairs=read_pairs(self.paths.pairs) if self.paths.pairs.exists() else None,
            keypoints=self._keypoints(),
        )
        self.verified = verify(self.paths.database, VerifyOptions(**options), progress=progress)
        self.judged = judge_pairs(
            self.paths.database,
            VerifyOptions(**options),
            MatchStore.open(self.paths.matches, read_only=True),
            self.record.images,
            named_pairs(self.settings("pairs")),
        )
        return made

    def _keypoints(self) -> Keypoints | None:
        """Refined keypoints of the images that have them."""
        settings = self.settings("refine")
        if not settings:
            return None

        def found(name: str) -> Any:
            own = self.store.get(name)
            try:
                return read_refined(self.paths.refined, name, own.digest).keypoints
            except InputError:  # it came later, or has changed
                return own.keypoints

        return found

    def renew_model(self, wanted: Collection[str]) -> None:
        """Bring the model into line with the database, and register the `wanted` images that it does not have."""
        state = read_state(self.paths.database, is_complete=True)
        stale = _stale(self.paths, self.model, state)
        if len(self.registered) - len(stale) < 2:
            raise InputError(f"The model in {self.paths.model} is of other keypoints; reconstruct it again.")
        missing = [name for name in wanted if name in state.ids and (name not in self.registered or name in stale)]
        if not missing and not stale and _has_numbers_of(self.model, state):
            return
        deregister(self.model, stale)
        with _scratch(self.paths) as folder:
            self.model = _renumbered(self.model, state, folder)
            if missing:
                before = set(self.registered)
                self.model = self._grown(state, folder, missing)
                self._take_back([name for name in self.registered if name not in before])
            write_model(self.model, folder / "model")
            _put(self.paths, folder / "model")

    def _grown(self, state: DatabaseState, folder: Path, wanted: Collection[str]) -> Any:
        """The model that the mapper makes of the one in folder/start, with the wanted images where they fit."""
        options = ReconstructOptions(**self.settings("reconstruct"))
        if options.mapper != "incremental":  # which alone goes on with a model
            options = replace(options, mapper="incremental", colmap={})
        (folder / "work").mkdir()
        models = run_mapper(
            self.paths.database, self.record.images, folder / "work", state, options, start=folder / "start"
        )
        grown = models[0] if models else self.model
        if options.extract_colors:  # of the points that are new, most of which the new images see
            colour_points(grown, self.record.images, uncoloured(grown), wanted, self.store.stretch)
            colour_points(grown, self.record.images, uncoloured(grown), None, self.store.stretch)
        return grown

    def _take_back(self, names: Collection[str]) -> None:
        """Take the poses of those images out again that fit another place of the map as well."""
        matches = MatchStore.open(self.paths.matches, read_only=True)
        others = (open_model(each) for each in self.paths.other_models())
        self.unsure = unsure_images(self.model, names, matches, self.paths.database, others)
        deregister(self.model, self.unsure)

    def why_missing(self, name: str) -> str:
        """Why an image has no pose."""
        if name in self.unsure:
            return self.unsure[name]
        head = self.store.head(name)
        return _NOT_REGISTERED if head is None or head.num_keypoints else no_keypoints(head.note)

    def _describe(self) -> None:
        """Write the summary of the models. The stage `reconstruct` does not take them for its own, and redoes them."""
        if self.paths.models.is_dir() and not is_described(self.paths.models):
            state, summary = self.summary()
            missing = summary.missing_of(state.names)
            result = ReconstructResult(self.paths.folder, (summary,), len(state.names), missing, None, 0.0)
            write_summary(self.paths.models, result, "")

    def summary(self) -> tuple[DatabaseState, ModelSummary]:
        """What the database is made of, and the model in figures."""
        state = read_state(self.paths.database)
        return state, summarize(self.model, check_models(self.paths.database, state, [self.model])[0])

    def finish(self, names: Collection[str], skipped: Mapping[str, tuple[Skipped, ...]]) -> None:
        """Renew what is reported of the map: map.json and the report. skipped: of these names, by stage."""
        self._describe()  # a kill may have come before it
        state, summary = self.summary()
        self.doubt = summary.doubt
        missing = tuple(Skipped(name, self.why_missing(name)) for name in summary.missing_of(state.names))
        mode = self.record.settings.get("dataset", "auto")
        self.dataset = write_dataset(self.paths, self.record.images, mode)
        skipped = {**skipped, "reconstruct": (*missing, *summary.noted(), *self.dataset.skipped)}
        stages = dict(self.record.stages)
        for stage, counts in self._counts(state, summary).items():
            if stage in stages:
                kept = () if stage == "reconstruct" else stages[stage].skipped
                left_out = tuple(each for each in kept if each.name not in names) + tuple(skipped.get(stage, ()))
                stages[stage] = StageRecord(stages[stage].seconds, {**stages[stage].counts, **counts}, left_out)
        self.paths.write(replace(self.paths.read(), stages=stages))
        if self.paths.report.exists():
            write_report(self.paths.folder)

    def _counts(self, state: DatabaseState, summary: ModelSummary) -> dict[str, dict[str, float]]:
        """What has changed of each stage's figures."""
        heads = [head for name in state.names if (head := self.store.head(name)) is not None]
        matches = list(MatchStore.open(self.paths.matches, read_only=True).pairs())
        images = {"images": len(heads)}
        counts: dict[str, dict[str, float]] = {
            "extract": {**images, "keypoints": sum(head.num_keypoints for head in heads)},
            "pairs": {**images},
            "match": {
                "pairs": len(matches),
                "without_overlap": sum((pair.note or "").startswith(NO_OVERLAP) for pair in matches),
            },
            "reconstruct": {**images, **summary.counts()},
        }
        if self.paths.pairs.exists():
            counts["pairs"]["pairs"] = len(read_pairs(self.paths.pairs))
        if self.verified is not None:
            judged = {} if self.judged is None else self.judged.counts()
            counts["verify"] = {**images, "cameras": len(state.cameras), **self.verified.counts(), **judged}
        return counts


def _is_apart(note: str | None) -> bool:
    """Whether the note of a pair says that its images have nothing in common, whatever it says besides."""
    return note is not None and note.startswith(NO_OVERLAP)


def _stale(paths: MapFolder, model: Any, state: DatabaseState) -> set[str]:
    """Registered images that the database does not have, or has with other keypoints."""

    def is_current(image: Any) -> bool:
        if str(image.name) not in state.ids:
            return False
        points = database.keypoints(state.ids[str(image.name)])
        if len(image.points2D) != len(points):
            return False
        some = np.linspace(0, len(points) - 1, min(len(points), 32)).astype(int)
        positions = np.array([image.points2D[row].xy for row in some.tolist()]).reshape(-1, 2)
        return bool(np.abs(points[some] - positions).max(initial=0) <= _SAME)

    with Database(paths.database) as database:
        return {str(image.name) for image in registered(model) if not is_current(image)}


def _has_numbers_of(model: Any, state: DatabaseState) -> bool:
    """Whether the images and cameras of a model have the database's numbers."""
    cameras = state.camera_ids
    return all(
        (image.image_id, image.camera_id) == (state.ids[str(image.name)], cameras[str(image.name)])
        for image in registered(model)
    )


def _renumbered(model: Any, state: DatabaseState, folder: Path) -> Any:
    """The model with the database's numbers, which is in folder/start then."""
    write_model(model, folder / "old")
    num_params = {number: len(camera.params) for number, camera in model.cameras.items()}
    renumber(folder / "old", folder / "start", state.ids, state.camera_ids, num_params)
    return open_model(folder / "start")


# --- the files of the model --------------------------------------------------------------------------------------


@contextmanager
def _scratch(paths: MapFolder) -> Iterator[Path]:
    """A folder in that of the map, for a while. Raises StoreError for what the operating system says of it."""
    folder = paths.folder / ".change.part"
    with writing(paths.model):
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)
            _recover(paths)


def _put(paths: MapFolder, model: Path) -> None:
    """Replace the largest model by a finished one."""
    old = paths.folder / ".model.old"
    shutil.rmtree(old, ignore_errors=True)
    paths.models.mkdir(exist_ok=True)
    (paths.models / SUMMARY).unlink(missing_ok=True)  # first: a kill must not leave it beside other files
    if paths.largest.exists():
        paths.largest.replace(old)
    model.replace(paths.largest)
    paths.link_model()


def _recover(paths: MapFolder) -> None:
    """Put the old model back where a kill came between; forget it where the new one is there."""
    old = paths.folder / ".model.old"
    if old.exists() and not paths.largest.exists():
        old.replace(paths.largest)
    if not paths.model.exists():
        paths.link_model()
    for folder in (old, paths.folder / ".change.part"):
        shutil.rmtree(folder, ignore_errors=True)
