"""All stages one after another: from a folder of images to a map.

Each is a function of paths that anyone may call alone. What is on the disk is not done again, so that a run that was
killed goes on where it stopped, and new images or other options of a later stage cost only what they change.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from functools import partial
from importlib import import_module
from pathlib import Path
from threading import Thread
from time import perf_counter
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from lightglue.errors import InputError
from lightglue.images.video import is_video
from lightglue.sfm.colmap.image_lists import with_listed
from lightglue.sfm.folder import MapFolder, MapRecord, StageRecord, check_dataset
from lightglue.sfm.options import STAGES, SfmOptions, TrackOptions, on_one_device
from lightglue.sfm.retrieval.index import RetrievalIndex, build_index
from lightglue.sfm.skipped import Skipped, no_keypoints, told_once
from lightglue.sfm.stages.extract import NARROW, ExtractResult, extract
from lightglue.sfm.stages.frames import map_frames
from lightglue.sfm.stages.given import Given, given_images, listed_names, relist
from lightglue.sfm.stages.grow import how_alike, match_growing
from lightglue.sfm.stages.images import list_images
from lightglue.sfm.stages.masks import Masks
from lightglue.sfm.stages.match import MatchResult, match
from lightglue.sfm.stages.pairing.automatic import SMALL
from lightglue.sfm.stages.pairs import Inputs, located, named_pairs, read_pairs, select_pairs, settled, write_pairs
from lightglue.sfm.stages.refine import read_refined, refine_keypoints
from lightglue.stores import FeatureStore, MatchStore
from lightglue.support.progress import StageProgress
from lightglue.workers.engine import standing
from lightglue.workers.local import LocalEngine
from lightglue.workers.work import Engine
from lightglue_runtime.images.sizes import size_in_file

if TYPE_CHECKING:  # what needs pycolmap is loaded by the stages that need it
    from lightglue.sfm.colmap.database import Keypoints
    from lightglue.sfm.stages.dataset import DatasetResult
    from lightglue.sfm.stages.reconstruct import ReconstructResult

__all__ = ["STAGES", "MapResult", "SfmOptions", "build_map", "run_stage"]

OF_THE_MATCHER = (
    "matcher",
    "thresholds",
    "backend",
    "effort",
    "weights",
)  # of the models: what features do not depend on
COMPUTED = STAGES[: STAGES.index("match") + 1]  # stages that an engine computes
DRAWING = "matplotlib.figure", "matplotlib.backends.backend_agg", "matplotlib.backends.backend_svg"
FINAL_TOLERANCE = 1e-6  # at effort "fast": cameras are then within 0.001 % of the map's extent of where they end
# At effort "fast": a second round takes a third of the time; of nine images with a truth (south_building) both had the
# centres within 0.064 % of the scene's extent, and turned by 0.37 and 0.35 degrees.
QUICK_TRACKS = TrackOptions(align=replace(TrackOptions().align, rounds=1))
REFINED_ERROR = 1.25  # px, beyond which an observation by a refined keypoint is a wrong one


@dataclass(frozen=True)
class MapResult:
    """What came of a run."""

    folder: Path
    model: ReconstructResult
    skipped: tuple[Skipped, ...]  # of all stages
    seconds: dict[str, float]  # of each stage in this run
    dataset: DatasetResult | None = None  # for other programs
    pairs: str | None = None  # which "auto" chose, in words


def build_map(
    images: str | os.PathLike[str],
    out: str | os.PathLike[str],
    options: SfmOptions,
    *,
    root: str | os.PathLike[str] | None = None,
    engine: Engine | None = None,
    progress: StageProgress = lambda stage, done, total: None,
) -> MapResult:
    """Make a map of images in the folder `out`, or go on with the one that is there.

    Args:
        images: a folder, with folders in it; or a list of images, which may have their cameras: a text file with a
            name a line as COLMAP has it, or NAME MODEL WIDTH HEIGHT PARAMS... as hloc has it, or a COLMAP model; or a
            video, whose frames are taken (`options.frames`) into OUT/frames and matched in their order.
        root: the folder that the names of a list are relative to; by default the one that the list lies in.

    The largest model is in OUT/model, in COLMAP's binary format, and COLMAP's database in OUT/database.db; a report in
    OUT/report.html and OUT/report.png. No model is a result too: `model.reason` says why there is none.

    Raises InputError for options or folders that make no sense, or where `out` holds features or matches of other
    options; StoreError for files that are damaged or cannot be written.
    """
    paths = MapFolder(Path(out))
    frames = None
    if is_video(images):
        _check_early(options, Given(Path(images).parent, ()))  # before minutes of decoding
        frames = map_frames(Path(images), paths, options.frames, partial(progress, "frames"))
        images, options = paths.frames, _in_order(options)
    given = given_images(Path(images), None if root is None else Path(root))
    _check_early(options, given)
    run = _Run(given, paths, options, engine, progress)
    run.begin()
    if frames is not None:
        run.note("frames", asdict(options.frames), frames, frames.seconds > 0)
    with standing(engine or LocalEngine()) as run.engine:
        for stage in (each for each in STAGES if each in COMPUTED):
            run.stage(stage)
    for stage in (each for each in STAGES if each not in COMPUTED):
        if stage == "reconstruct":  # in which COLMAP has a core for itself, and lets go of Python
            Thread(target=_load_drawing, daemon=True).start()
        run.stage(stage)
    assert run.model is not None
    return MapResult(paths.folder, run.model, told_once(run.skipped), run.seconds, run.dataset, run.why_pairs)


def _load_drawing() -> None:
    """Load what the report is drawn with; where it cannot be, the report says so."""
    with suppress(ImportError):
        for module in DRAWING:
            import_module(module)


def _in_order(options: SfmOptions) -> SfmOptions:
    """For images that follow each other, unless the pairs are chosen otherwise."""
    if options.pairs.sources != ("auto",):
        return options
    return replace(options, pairs=replace(options.pairs, sources=("sequential",)))


def _check_early(options: SfmOptions, given: Given) -> None:
    """Raises InputError for what the last stages would not take, before hours of the first."""
    from lightglue.geometry.colmap_cameras import camera_to_colmap
    from lightglue.sfm.colmap.cameras import check_cameras, guessed_camera, read_table
    from lightglue.sfm.colmap.mappers import check_mapper

    check_mapper(options.reconstruct.mapper)
    masks = Masks.open(options.extract.masks, given.folder)
    cameras, pairs = options.cameras, options.pairs
    if cameras.known is not None:
        camera_to_colmap(cameras.known)
    elif cameras.model is not None:
        guessed_camera(cameras.model, 1.0, (1, 1), False)
    if cameras.table is not None:
        read_table(Path(cameras.table), {})
    if "file" in pairs.sources and pairs.file is not None and not os.path.isfile(pairs.file):
        raise InputError(f"There is no file of pairs at {pairs.file}; check the path.")
    if given.cameras and (cameras.params is not None or cameras.table is not None):
        raise InputError("The list of images has cameras, and others are given as an option; give one of the two.")
    if cameras.params is not None or cameras.table is not None or cameras.mode in ("single", "per_folder"):
        names = list_images(given.folder)[0] if given.names is None else given.names
        found = {name: size_in_file(given.folder / name) for name in names if not masks.lie_at(name)}
        check_cameras({name: size for name, size in found.items() if size is not None}, cameras, given.folder)


def run_stage(
    stage: str,
    out: str | os.PathLike[str],
    options: SfmOptions,
    *,
    images: str | os.PathLike[str] | None = None,
    root: str | os.PathLike[str] | None = None,
    engine: Engine | None = None,
    progress: StageProgress = lambda stage, done, total: None,
) -> StageRecord:
    """Run one stage of a map's folder. images, root: as for `build_map`; None for those that the map remembers.

    Raises as `build_map`; InputError also where a stage before it has not run.
    """
    if stage not in STAGES:
        raise InputError(f"There is no stage {stage!r}; choose one of {', '.join(STAGES)}.")
    paths, frames = MapFolder(Path(out)), None
    if images is None:
        given = Given(paths.read().images, None if (names := listed_names(paths)) is None else tuple(sorted(names)))
    else:
        if is_video(images):
            frames = map_frames(Path(images), paths, options.frames, partial(progress, "frames"))
            images = paths.frames
        given = given_images(Path(images), None if root is None else Path(root))
    run = _Run(given, paths, options, engine, progress)
    run.begin()
    if frames is not None:
        run.note("frames", asdict(options.frames), frames, frames.seconds > 0)
    return run.stage(stage)


class _Run:
    """A run of stages, and what each leaves for the next."""

    def __init__(
        self, given: Given, paths: MapFolder, options: SfmOptions, engine: Engine | None, progress: StageProgress
    ) -> None:
        self.given, self.images = given, given.folder
        self.paths, self.options, self.engine, self.progress = paths, options, engine, progress
        self.skipped: list[Skipped] = []
        self.seconds: dict[str, float] = {}
        self.why_pairs: str | None = None
        self.model: ReconstructResult | None = None
        self.dataset: DatasetResult | None = None
        self.names: list[str] | None = None  # of the images, once they are known
        self.alike: NDArray[np.int64] | None = None  # images, where pairs grow and the stage `pairs` was run just now
        self.listed = None if given.names is None else frozenset(given.names)  # None: all of the folder

    def begin(self) -> None:
        """Write map.json, or see that the one that is there is of the same images."""
        if not self.images.is_dir():
            what = "is a file" if self.images.exists() else "does not exist"
            raise InputError(f"The folder of images {self.images} {what}; name a folder with images.")
        inside = self.paths.folder.absolute()
        if self.images.absolute() == inside or os.path.realpath(self.images) == os.path.realpath(inside):
            raise InputError(f"{self.images} would hold both images and map; name another folder for the map.")
        check_dataset(self.paths, self.images)
        if not self.paths.record.exists():
            self.paths.write(MapRecord(self.images, {"models": self._models()}))
            return
        known = self.paths.read()
        if known.images != self.images.absolute() and os.path.realpath(known.images) != os.path.realpath(self.images):
            raise InputError(
                f"{self.paths.folder} is a map of {known.images}, not of {self.images}; name another folder, or "
                "`lightglue map add` the images."
            )
        self.paths.remove_part()
        self.paths.write(replace(known, images=self.images))

    def stage(self, name: str) -> StageRecord:
        """Run a stage, and remember what came of it."""
        begin = perf_counter()
        run: Mapping[str, Callable[[], tuple[Any, StageRecord, bool]]] = {
            "extract": self._extract,
            "pairs": self._pairs,
            "match": self._match,
            "refine": self._refine,
            "verify": self._verify,
            "reconstruct": self._reconstruct,
            "report": self._report,
        }
        if name == "pairs":
            self.paths.expect_pairs(False)
        options, record, did_something = run[name]()
        seconds = perf_counter() - begin
        return self.note(name, options, StageRecord(seconds, record.counts, record.skipped), did_something)

    def note(self, name: str, options: Any, record: StageRecord, did_something: bool) -> StageRecord:
        """Remember what came of a stage."""
        self.paths.note(name, options, record, did_something)
        if name in ("pairs", "match"):
            self.paths.expect_pairs()
        self.skipped += record.skipped
        self.seconds[name] = record.seconds
        return record

    def _models(self) -> dict[str, Any]:
        return asdict(on_one_device(self.options.models))

    def _note_models(self, but: Collection[str] = ()) -> None:
        """Remember the models of a stage, once it has not refused what is there: what made that must stay known."""
        known = self.paths.read()
        before = known.settings.get("models", {})
        kept = {name: before[name] for name in but if name in before}
        models = {**self._models(), **kept}
        self.paths.write(MapRecord(known.images, {**known.settings, "models": models}, known.stages))

    def _progress(self, stage: str) -> Callable[[int, int], None]:
        return partial(self.progress, stage)

    def _extract(self) -> tuple[Any, StageRecord, bool]:
        self.names = None
        result: ExtractResult = extract(
            self.images,
            self.paths.features,
            self.options.extract,
            names=self.given.names,
            engine=self.engine,
            progress=self._progress("extract"),
        )
        relist(self.paths, self.given)  # only now, as the models: what is refused changes nothing
        self._note_models(but=OF_THE_MATCHER)
        gone = [
            Skipped(name, "it is gone from the folder; its features stay, in case it returns") for name in result.gone
        ]
        counts = {
            "images": result.images,
            "extracted": result.extracted,
            "kept": result.kept,
            "keypoints": sum(head.num_keypoints for head in self._features().heads() if self._is_there(head.name)),
        }
        told = (*self.given.skipped, *result.skipped, *self._still_narrow(result), *gone)
        options = self.options.extract
        masks = None if options.masks is None else os.path.abspath(options.masks)  # for `map add`
        return {**options.settings(), "masks": masks}, StageRecord(0, counts, told), result.extracted > 0

    def _still_narrow(self, result: ExtractResult) -> list[Skipped]:
        """What an earlier run said of the values of images that are kept: they were not read again."""
        stages = self.paths.read().stages
        before = stages["extract"].skipped if "extract" in stages else ()
        kept = [each for each in before if each.name not in result.renewed and self._is_there(each.name)]
        return [each for each in kept if each.reason.startswith(NARROW)]

    def _features(self) -> FeatureStore:
        return FeatureStore.open(self.paths.features, read_only=True)

    def _is_there(self, name: str) -> bool:
        return (self.listed is None or name in self.listed) and os.path.exists(self.images / name)

    def _names(self) -> list[str]:
        """The images of the map, sorted: what was taken out of the folder, or renamed, has features still."""
        if self.names is None:
            self.names = [name for name in self._features().names() if self._is_there(name)]
        return self.names

    def _chosen(self) -> list[tuple[str, str]] | None:
        """The pairs of the map: others may have matches, of an earlier choice. None where no choice was made."""
        self.paths.check_pairs()
        return read_pairs(self.paths.pairs) if self.paths.pairs.exists() else None

    def _pairs(self) -> tuple[Any, StageRecord, bool]:
        options = self.options.pairs
        features, names = self._features(), self._names()
        if len(names) < 2:  # none of the sources has anything to look at
            write_pairs(self.paths.pairs, [])
            return asdict(options), StageRecord(0, {"images": len(names), "pairs": 0}), True
        looks = "gps" in options.sources or ("auto" in options.sources and len(names) > SMALL)
        positions = located(names, self.images) if looks else None
        choice = settled(options, len(names), positions, self.options.models.effort)
        self.why_pairs, sources = choice.why, choice.options.sources
        grows = "growing" in sources
        asks = "retrieval" in sources or ("sequential" in sources and options.loop_every > 0)
        asks |= grows and len(names) > options.auto_exhaustive  # localization finds its way in a large map by it
        retrieval: RetrievalIndex | None = None
        if asks:
            retrieval = build_index(
                features,
                self.paths.retrieval,
                self.options.retrieval,
                names=names,
                images=self.images,
                progress=self._progress("pairs"),
            )
        poses, tracks = self._known_model(sources)
        self.alike = how_alike(features, names, options.max_exhaustive, self._progress("pairs")) if grows else None
        first = None if self.alike is None else self.alike[0]
        found = select_pairs(names, choice.options, Inputs(retrieval, self.images, poses, tracks, positions, first))
        write_pairs(self.paths.pairs, found.pairs)
        self.progress("pairs", len(found.pairs), len(found.pairs))
        counts = {"images": len(names), "pairs": len(found.pairs), **{f"from_{k}": v for k, v in found.counts.items()}}
        file = None if options.file is None else os.path.abspath(options.file)  # for `verify` and `map add`
        remembered = {**asdict(options), "file": file, "grows": grows}
        return remembered, StageRecord(0, counts, found.skipped), True

    def _known_model(self, sources: tuple[str, ...]) -> tuple[Any, Any]:
        """Poses and tracks of the model that is there, for the sources of pairs that look at them."""
        if not {"poses", "covisibility"} & set(sources):
            return None, None
        from lightglue.sfm.colmap.model import read_model

        model = read_model(self.paths.folder)
        poses = {image.name: np.hstack((image.rotation, image.translation[:, None])) for image in model.images}
        if "covisibility" not in sources:
            return poses, None
        tracks: list[list[str]] = [[] for _ in model.points]
        for image in model.images:
            for point in np.unique(image.points).tolist():
                tracks[point].append(image.name)
        return poses, tracks

    def _match(self) -> tuple[Any, StageRecord, bool]:
        self._need(self.paths.pairs, "pairs")
        result = self._matched()
        self._note_models()
        counts = {
            "pairs": result.pairs,
            "matched": result.matched,
            "kept": result.kept,
            "without_overlap": result.without_overlap,
        }
        return self.options.match.settings(), StageRecord(0, counts, result.skipped), result.matched > 0

    def _matched(self) -> MatchResult:
        """Match the pairs that were chosen and, where they grow, those that come of it."""
        known, paths = self.paths.read(), self.paths
        progress = self._progress("match")
        masks = (known.settings.get("extract") or {}).get("masks")
        chosen = known.settings.get("pairs") or {}
        if not chosen.get("grows"):
            return match(
                paths.features,
                paths.pairs,
                paths.matches,
                self.options.match,
                engine=self.engine,
                images=known.images,
                masks=masks,
                progress=progress,
            )
        paths.expect_pairs(False)  # they become more
        result = match_growing(
            paths.features,
            paths.pairs,
            paths.matches,
            self.options.match,
            int(chosen["grown"]),
            self._names(),
            engine=self.engine or LocalEngine(),
            images=known.images,
            masks=masks,
            rotated=(paths.rotated, replace(self.options.extract, masks=masks)),
            alike=self.alike,
            progress=progress,
        )
        if paths.rotated.exists() and paths.retrieval.exists():  # of the images as they were extracted before
            known_index = RetrievalIndex.open(paths.retrieval)
            build_index(self._features(), paths.retrieval, known_index.options, names=self._names(), images=self.images)
        return result

    def _matches(self) -> MatchStore:
        self._need(self.paths.matches, "match")
        return MatchStore.open(self.paths.matches, read_only=True)

    def _refine(self) -> tuple[Any, StageRecord, bool]:
        options = self.options.refine
        if options is None:
            return None, StageRecord(0), True
        if self.options.models.effort == "fast" and options == TrackOptions():
            options = QUICK_TRACKS
        result = refine_keypoints(
            self.images,
            self._features(),
            self._matches(),
            self.paths.refined,
            options,
            names=self._names(),
            pairs=self._chosen(),
            progress=self._progress("refine"),
        )
        counts = {"images": result.images, "keypoints": result.keypoints, "moved": result.moved}
        return asdict(options), StageRecord(0, counts, result.skipped), result.measured > 0

    def _keypoints(self) -> Keypoints | None:
        if self.options.refine is None:
            return None
        features = self._features()

        def refined(name: str) -> NDArray[np.float32]:
            head = features.head(name)
            return read_refined(self.paths.refined, name, None if head is None else head.digest).keypoints

        return refined

    def _verify(self) -> tuple[Any, StageRecord, bool]:
        from lightglue.sfm.colmap.cameras import check_cameras
        from lightglue.sfm.colmap.database import create_database
        from lightglue.sfm.stages.judge import judge_pairs
        from lightglue.sfm.stages.verify import verify

        if self.options.cameras.table is not None:
            heads = (self._features().head(name) for name in self._names())
            check_cameras({head.name: head.image_size for head in heads if head}, self.options.cameras, self.images)
        made = create_database(
            self.paths.database,
            self._features(),
            self._matches(),
            self.images,
            cameras=with_listed(self.options.cameras, self.paths.listed),
            names=self._names(),
            pairs=self._chosen(),
            keypoints=self._keypoints(),
        )
        result = verify(self.paths.database, self.options.verify, progress=self._progress("verify"))
        given = named_pairs(self.paths.read().settings.get("pairs") or {})
        judged = judge_pairs(self.paths.database, self.options.verify, self._matches(), self.images, given)
        counts = {"images": made.num_images, "cameras": made.num_cameras, **result.counts(), **judged.counts()}
        cameras = self.options.cameras
        table = None if cameras.table is None else os.path.abspath(cameras.table)  # for `map add`
        options = {**asdict(self.options.verify), "cameras": {**asdict(cameras), "table": table}}
        did_something = made.num_written > 0 or result.num_done > 0 or not judged.was_there
        return options, StageRecord(0, counts, (*made.skipped, *result.skipped)), did_something

    def _reconstruct(self) -> tuple[Any, StageRecord, bool]:
        from lightglue.sfm.colmap.mappers import seldom_adjusted
        from lightglue.sfm.stages.outcomes import why_not_registered
        from lightglue.sfm.stages.reconstruct import reconstruct

        self._need(self.paths.database, "verify")
        self.progress("reconstruct", 0, 1)
        options = self.options.reconstruct
        if self.options.refine is not None and options.max_error is None:
            options = replace(options, max_error=REFINED_ERROR)
        is_adjusted = options.mapper == "incremental" and options.final_adjustment
        if self.options.models.effort == "fast" and is_adjusted:
            colmap = {**seldom_adjusted(), **options.colmap}
            options = replace(options, colmap=colmap, final_tolerance=options.final_tolerance or FINAL_TOLERANCE)
        result = reconstruct(self.paths.database, self.images, self.paths.folder, options)
        self.model = result
        self.progress("reconstruct", 1, 1)
        counts: dict[str, float] = {"images": result.num_images, "models": len(result.models)}
        if result.models:
            counts |= result.models[0].counts()
        reasons = why_not_registered(self.paths.database, [model.images for model in result.models])
        bare = {head.name: no_keypoints(head.note) for head in self._features().heads() if not head.num_keypoints}
        missing = [
            Skipped(name, bare[name] if name in bare else result.reason or reasons[name])
            for name in result.unregistered
        ]
        if result.models:
            missing += result.models[0].noted()
        missing += self._write_dataset().skipped
        return asdict(options), StageRecord(0, counts, tuple(missing)), not result.was_there

    def _write_dataset(self) -> DatasetResult:
        """Bring the files for other programs into line with the model. What was chosen once stays chosen."""
        from lightglue.sfm.stages.dataset import write_dataset

        known = self.paths.read()
        mode = self.options.dataset
        if mode == "auto":
            mode = known.settings.get("dataset", mode)
        elif known.settings.get("dataset") != mode:
            self.paths.write(replace(known, settings={**known.settings, "dataset": mode}))
        self.dataset = write_dataset(self.paths, self.images, mode)
        return self.dataset

    def _report(self) -> tuple[Any, StageRecord, bool]:
        from lightglue.sfm.report.document import write_report

        write_report(self.paths.folder)
        self.progress("report", 1, 1)
        return {}, StageRecord(0), True

    def _need(self, path: Path, stage: str) -> None:
        if not path.exists():
            raise InputError(f"There is no {path}; run the stage `{stage}` first.")
