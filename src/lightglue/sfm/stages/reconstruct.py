"""From a database of verified pairs to models: COLMAP's mappers."""

from __future__ import annotations

import copy
import hashlib
import json
import math
import os
import shutil
from collections import Counter
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from tempfile import mkdtemp
from time import perf_counter
from typing import Any

from lightglue.drawing.facts import counted
from lightglue.errors import StoreError
from lightglue.sfm.colmap.colours import colour_points
from lightglue.sfm.colmap.database_rows import check_rows
from lightglue.sfm.colmap.judged import judged_of, read_judgements
from lightglue.sfm.colmap.mappers import bundle_adjustment, check_mapper, num_threads
from lightglue.sfm.colmap.model_files import SUMMARY, checksums
from lightglue.sfm.colmap.models import principal_points, registered, write_model
from lightglue.sfm.colmap.motion import motion_of
from lightglue.sfm.colmap.shape import is_of_pairs, shape_of
from lightglue.sfm.colmap.state import DatabaseState, read_state
from lightglue.sfm.colmap.with_pycolmap import VERSION
from lightglue.sfm.folder import MapFolder, remove_tree
from lightglue.sfm.look_alikes.consistency import CONSISTENT, Consistency
from lightglue.sfm.options import Mapper, ReconstructOptions
from lightglue.sfm.skipped import Skipped
from lightglue.sfm.stages.consistency import check_models, map_consistently
from lightglue.sfm.stages.outcomes import believable_models, is_sound, no_model
from lightglue.sfm.stages.verify import num_verified
from lightglue.support.files import read_json, write_json, writing
from lightglue.support.sqlite import connected

__all__ = ["Mapper", "ModelSummary", "ReconstructOptions", "ReconstructResult", "reconstruct"]

_NAMED = 3  # pairs that a sentence names
_EDGE = 1024  # px of the longer edge that errors are given for
_LOSS_SCALE = 0.5  # px: about the error of a keypoint
_PRINCIPAL_POINT_IMAGES = 5  # of a camera, from which its principal point is estimated
_MAX_PRINCIPAL_POINT_SHIFT = 0.03  # of the longer edge


@dataclass(frozen=True)
class ModelSummary:
    """A model in figures."""

    num_images: int  # registered
    num_points: int
    num_observations: int
    mean_reprojection_error: float  # px
    mean_track_length: float
    images: tuple[str, ...]  # the names of those registered
    consistency: float | None = None  # share of what was verified that the model explains, 0 to 1; None: not checked
    contradicting: tuple[tuple[str, str, int], ...] = ()  # strong pairs that it does not explain, and their inliers
    doubtful: tuple[tuple[str, str], ...] = ()  # pairs that alone join parts of it, though they are not likely
    remarks: tuple[str, ...] = ()  # what a user should know of it, in sentences

    @property
    def doubt(self) -> str | None:
        """Why the model may be wrong, in a sentence; None where nothing speaks against it."""
        reasons = []
        if self.contradicting:
            count = counted(len(self.contradicting), "strong pair")
            verb = "contradicts" if len(self.contradicting) == 1 else "contradict"
            reasons.append(f"{count} {verb} it: {_named([each[:2] for each in self.contradicting])}")
        if self.doubtful:
            reasons.append(f"parts of it are joined by unlikely pairs alone: {_named(self.doubtful)}")
        if not reasons and self.consistency is not None and self.consistency < CONSISTENT:
            reasons.append(f"it explains only {self.consistency:.2f} of the matches that were verified")
        return "; ".join(reasons) or None

    def missing_of(self, names: Iterable[str]) -> tuple[str, ...]:
        """Those of these images that are not registered."""
        there = set(self.images)
        return tuple(name for name in names if name not in there)

    def noted(self) -> tuple[Skipped, ...]:
        """What a user should know of it, as stages say it."""
        return tuple(Skipped("model", remark, is_used=True) for remark in self.remarks)

    def counts(self) -> dict[str, float]:
        """The figures that a map remembers."""
        figures: dict[str, float] = {
            "registered": self.num_images,
            "points": self.num_points,
            "mean_reprojection_error": round(self.mean_reprojection_error, 4),
            "mean_track_length": round(self.mean_track_length, 3),
        }
        checked = {} if self.consistency is None else {"consistency": round(self.consistency, 4)}
        return {
            **figures,
            **checked,
            "contradicting_pairs": len(self.contradicting),
            "doubtful_pairs": len(self.doubtful),
        }


@dataclass(frozen=True)
class ReconstructResult:
    """What the stage made."""

    out: Path  # the models are in `models/0`, `models/1`... there, and `model` is a link to the first
    models: tuple[ModelSummary, ...]  # those with most images first
    num_images: int  # in the database
    unregistered: tuple[str, ...]  # images that are not in the largest model
    reason: str | None  # why there is no model
    seconds: float
    was_there: bool = False  # it was made before, of the same database and options


def reconstruct(
    database: str | os.PathLike[str],
    images: str | os.PathLike[str],
    out: str | os.PathLike[str],
    options: ReconstructOptions | None = None,
) -> ReconstructResult:
    """Map the images of a database.

    Args:
        database: that `verify` has gone through.
        images: the folder of the images, for the colours of the points.
        out: the folder that gets `model` and `models`; what was there of them is replaced.

    No model is a result too, with a reason.

    Raises InputError where there is no such database, or this pycolmap does not have the mapper; StoreError where files
    are damaged or cannot be written; LightGlueError for what fails in COLMAP.
    """
    begin = perf_counter()
    database, out, options = Path(database), Path(out), options or ReconstructOptions()
    check_mapper(options.mapper)
    state = read_state(database, is_complete=True)
    made_of = _made_of(database, options)
    if (there := _read_report(out, made_of)) is not None:
        with writing(out):
            MapFolder(out).link_model()  # a kill, or an earlier version, may have left none
        return there
    check_rows(database)  # before COLMAP opens it
    verified = num_verified(database)
    part = out / ".models.part"
    with writing(out):
        shutil.rmtree(part, ignore_errors=True)
        (part / "work").mkdir(parents=True)
    try:
        models = _models(database, Path(images), part / "work", state, options) if verified else []
        found = check_models(database, state, models) if models else []
        summaries = tuple(summarize(model, each) for model, each in zip(models, found, strict=True))
        with writing(out):
            shutil.rmtree(part / "work")
            for number, model in enumerate(models):
                write_model(model, part / str(number))
        missing = summaries[0].missing_of(state.names) if summaries else state.names
        reason = None if models else _reason(state, verified, database)
        result = ReconstructResult(out, summaries, len(state.names), missing, reason, perf_counter() - begin)
        with writing(out):
            write_summary(part, result, made_of)
            _put(part, out)
    finally:
        shutil.rmtree(part, ignore_errors=True)
    return result


def _enlarged(state: DatabaseState) -> float:
    """How many times as large as 1,024 px the largest images are; features are found in images of about that size."""
    return max(1.0, *(max(camera.width, camera.height) / _EDGE for camera in state.cameras))


def _models(database: Path, images: Path, work: Path, state: DatabaseState, options: ReconstructOptions) -> list[Any]:
    """The models that the mapper makes and that are to be believed, adjusted once more where that is asked for."""
    max_error = None if options.max_error is None else options.max_error * _enlarged(state)

    def run(options: ReconstructOptions) -> list[Any]:
        return map_consistently(database, images, Path(mkdtemp(dir=work)), state, options, max_error)

    models = believable_models(run, database, state, options)
    if options.final_adjustment:
        adjusted = (_adjusted(model, state, options) for model in models)
        models = [model for model in adjusted if is_sound(model, state)]
    if options.extract_colors:
        for model in models:
            colour_points(model, images, stretch=bool(state.settings.get("features", {}).get("stretch")))
    return models


def _adjusted(model: Any, state: DatabaseState, options: ReconstructOptions) -> Any:
    """A model adjusted once more, with its principal points where enough images determine them.

    A principal point is hard to distinguish from a rotation of the camera. It is estimated where every camera has many
    images, and left in the middle where it would go farther than it is in cameras that people use.

    What is adjusted to the last digit goes on from where the principal points were in the middle. With a tolerance both
    start from the mapper's model, and the first is left out where the second is taken.
    """
    adjust = partial(
        bundle_adjustment,
        loss_scale=_LOSS_SCALE * _enlarged(state),
        threads=num_threads(options),
        fixed=state.fixed,
        distortion=not is_of_pairs(model),
        tolerance=options.final_tolerance,
    )
    is_exact = options.final_tolerance == 0
    images = Counter(state.camera_of[state.ids[image.name] - 1] for image in registered(model))
    free = [number for number in images if not state.cameras[number].is_fixed]
    is_determined = bool(free) and all(images[number] >= _PRINCIPAL_POINT_IMAGES for number in free)
    if is_exact or not is_determined:
        adjust(model, principal_point=False)
    if not is_determined:
        return model
    trial = copy.deepcopy(model)
    adjust(trial, principal_point=True)
    before, after = principal_points(model), principal_points(trial)
    edges = {number: max(camera.width, camera.height) for number, camera in model.cameras.items()}
    moved = max(math.dist(before[number], after[number]) / edges[number] for number in before)
    if moved <= _MAX_PRINCIPAL_POINT_SHIFT:
        return trial
    if not is_exact:
        adjust(model, principal_point=False)
    return model


def summarize(model: Any, consistency: Consistency) -> ModelSummary:
    """A model in figures."""
    names = tuple(str(image.name) for image in registered(model))
    points = model.num_points3D()
    model.update_point_3d_errors()
    return ModelSummary(
        len(names),
        points,
        model.compute_num_observations(),
        float(model.compute_mean_reprojection_error()) if points else 0.0,
        float(model.compute_mean_track_length()) if points else 0.0,
        names,
        consistency.explained,
        consistency.contradicting,
        consistency.doubtful,
        shape_of(model).remarks,
    )


def _reason(state: DatabaseState, verified: int, database: Path) -> str:
    """Why there is no model."""
    images = len(state.names)
    with connected(database) as connection:
        useful = connection.execute("SELECT count(*) FROM keypoints WHERE rows > 0").fetchone()[0]
    if useful < 2 <= images:
        return (
            f"{'One' if useful else 'None'} of the {images} images has keypoints; a map needs several: see what was "
            "left out."
        )
    if images < 2:
        return f"{'One image has' if images else 'No image has'} features; a map needs several: see what was left out."
    if verified == 0:
        if dropped := [each for each in read_judgements(database).values() if each.reason is not None]:
            return (
                f"All {len(dropped)} verified pairs of the {images} images were dropped, for their places seem only to "
                "look alike. Match more pairs, or images with more overlap; `--all-pairs` keeps these."
            )
        with connected(database) as connection:
            pairs = connection.execute("SELECT count(*) FROM matches").fetchone()[0]
        if pairs == 0:
            return f"No two of the {images} images have matches: they may not overlap, or too few pairs were chosen."
        return (
            f"None of the {pairs} pairs of the {images} images has a verified geometry: they may not overlap, or they "
            "were not verified yet. Match more pairs, or images with more overlap."
        )
    return no_model(motion_of(database, state), images)


def _made_of(database: Path, options: ReconstructOptions) -> str:
    """A digest of all that decides the models, but for what several threads leave to chance."""
    digest = hashlib.blake2b(digest_size=8)
    with connected(database) as connection:
        digest.update(
            connection.execute("SELECT value FROM lightglue_about WHERE key = 'state'").fetchone()[0].encode()
        )
        for row in connection.execute("SELECT pair_id, made_of, verified FROM lightglue_pairs ORDER BY pair_id"):
            digest.update(repr(row).encode())
    digest.update(repr(judged_of(database)).encode())
    decides = {name: value for name, value in asdict(options).items() if name != "final_tolerance" or value}
    digest.update(json.dumps([decides, VERSION], sort_keys=True, default=str).encode())  # as earlier versions say it
    return digest.hexdigest()


def write_summary(folder: Path, result: ReconstructResult, made_of: str) -> None:
    said = {"made_of": made_of, "files": checksums(folder), **asdict(result)}
    del said["out"], said["was_there"]
    said["models"] = [{**asdict(model), "doubt": model.doubt} for model in result.models]  # the report says it
    write_json(folder / SUMMARY, said)


def _read_report(out: Path, made_of: str) -> ReconstructResult | None:
    """The result that is there, if it is of the same database and options and its files are there."""
    known = known_summary(out / "models")
    if known is None or known[0] != made_of or not is_described(out / "models"):
        return None
    return replace(known[1], out=out, was_there=True)


def known_summary(folder: Path) -> tuple[str, ReconstructResult] | None:
    """What the models in a folder were made of, and the result, as the summary there says; None where it is no use."""
    try:
        said = read_json(folder / SUMMARY)
        made_of = str(said.pop("made_of"))
        del said["files"]
        models = tuple(_summary(each) for each in said.pop("models"))
        said["unregistered"] = tuple(said["unregistered"])
        return made_of, ReconstructResult(folder.parent, models, **said)
    except (OSError, StoreError, KeyError, TypeError):
        return None


def _summary(said: dict[str, Any]) -> ModelSummary:
    """From JSON, whose lists were tuples."""
    said = {name: value for name, value in said.items() if name != "doubt"}
    pairs = {name: tuple(tuple(each) for each in said[name]) for name in ("contradicting", "doubtful")}
    return ModelSummary(**{**said, "images": tuple(said["images"]), "remarks": tuple(said["remarks"]), **pairs})


def _named(pairs: Sequence[tuple[str, str]]) -> str:
    """The first of some pairs, by the names of their images."""
    some = ", ".join(f"{name0} - {name1}" for name0, name1 in pairs[:_NAMED])
    return f"{some} and {len(pairs) - _NAMED} more" if len(pairs) > _NAMED else some


def is_described(folder: Path) -> bool:
    """Whether the summary in the folder of the models is of the files that are there."""
    try:
        return bool(read_json(folder / SUMMARY)["files"] == checksums(folder))
    except (OSError, StoreError, KeyError):
        return False


def _put(part: Path, out: Path) -> None:
    """Replace the models by the finished ones. After a kill between, the stage runs again."""
    paths, old = MapFolder(out), out / ".models.old"
    shutil.rmtree(old, ignore_errors=True)
    if not paths.model.is_symlink():  # a folder, of an earlier version: not beside models that it is none of
        remove_tree(paths.model)
    with suppress(FileNotFoundError):
        paths.models.replace(old)
    part.replace(paths.models)
    paths.link_model()
    shutil.rmtree(old, ignore_errors=True)
