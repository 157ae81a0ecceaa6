"""Mapping until the model explains what was verified, and how far it does."""

from __future__ import annotations

import math
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from lightglue.errors import LightGlueError
from lightglue.geometry.cameras import as_camera
from lightglue.geometry.intrinsics import from_colmap
from lightglue.sfm.colmap.database_file import Database
from lightglue.sfm.colmap.judged import Judgement, drop_only, read_judgements, verified_matches
from lightglue.sfm.colmap.mappers import run_mapper
from lightglue.sfm.colmap.models import cam_from_world, image_camera, registered
from lightglue.sfm.colmap.pair_ids import pair_of
from lightglue.sfm.colmap.state import DatabaseState
from lightglue.sfm.look_alikes.consistency import CONSISTENT, Consistency, PlacedImage, VerifiedPair, check_model
from lightglue.sfm.options import ReconstructOptions

__all__ = ["check_models", "map_consistently"]

_LIKELY = 0.5  # pairs that one more attempt is made with alone


def check_models(database: Path, state: DatabaseState, models: list[Any]) -> list[Consistency]:
    """How consistent each model, a `pycolmap.Reconstruction`, is with the verified pairs of its database."""
    judgements = read_judgements(database)
    with Database(database) as opened:
        keypoints = {name: from_colmap(opened.keypoints(number)) for name, number in state.ids.items()}
    return [check_model(_placed(model, keypoints), _pairs(database, state, judgements)) for model in models]


def map_consistently(
    database: Path,
    images: Path,
    work: Path,
    state: DatabaseState,
    options: ReconstructOptions,
    max_error: float | None,
) -> list[Any]:
    """The models of the attempt that explains most of what was verified.

    The first attempt is the mapper's own. Only where it explains too little, or strong pairs contradict it, others
    follow: with likely pairs alone, from other starting points.
    """
    judgements = read_judgements(database)
    best: list[Any] = []
    most = -math.inf
    for number, (path, asked) in enumerate(_attempts(database, work, options, judgements)):
        folder = work / f"attempt{number}"
        folder.mkdir()
        try:
            models = run_mapper(path, images, folder, state, asked, max_error)
        except LightGlueError:
            if number == 0:
                raise
            continue  # what is there stays
        found = check_models(database, state, models)
        value = sum(each.weight - each.contradicted for each in found)
        if value > most:
            best, most = models, value
        if not any(each.contradicting for each in found) and _explained(found) >= CONSISTENT:
            break
    return best


def _explained(found: list[Consistency]) -> float:
    total = sum(each.weight + each.contradicted for each in found)
    return sum(each.weight for each in found) / total if total else 1.0


def _attempts(
    database: Path, work: Path, options: ReconstructOptions, judgements: Mapping[int, Judgement]
) -> Iterator[tuple[Path, ReconstructOptions]]:
    """A database and options for each attempt, the cheapest first."""
    yield database, options
    likely = work / "likely.db"
    kept = [each for each in judgements.values() if each.reason is None]
    unlikely = [each.number for each in kept if each.probability < _LIKELY]
    some = 0 < len(unlikely) < len(kept)
    if some:
        shutil.copyfile(database, likely)
        drop_only(likely, unlikely)
        yield likely, options
    yield database, replace(options, seed=options.seed + 1)
    if some:
        yield likely, replace(options, seed=options.seed + 1)


def _pairs(database: Path, state: DatabaseState, judgements: Mapping[int, Judgement]) -> Iterator[VerifiedPair]:
    for number, matches in verified_matches(database):
        name0, name1 = (state.names[each - 1] for each in pair_of(number))
        yield VerifiedPair(name0, name1, matches, judgements.get(number))


def _placed(model: Any, keypoints: Mapping[str, Any]) -> dict[str, PlacedImage]:
    placed = {}
    for image in registered(model):
        camera, name = image_camera(model, image), str(image.name)
        if name not in keypoints or camera.is_panorama:  # another program's, or without an image plane
            continue
        width, height = camera.size or (0, 0)
        placed[name] = PlacedImage(cam_from_world(image), as_camera(camera), max(width, height), keypoints[name])
    return placed
