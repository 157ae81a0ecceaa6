"""A COLMAP database from features and matches.

What the database was made of stands in it (`lightglue.sfm.colmap.state`). With the same images, only pairs that are
new, gone or changed are written. With others a new database is made beside, into which geometries that still hold are
carried over, and renamed.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lightglue.errors import InputError, StoreError
from lightglue.sfm.colmap.cameras import assign_cameras
from lightglue.sfm.colmap.database_file import Database
from lightglue.sfm.colmap.database_rows import Damage, damage_of, remove_rows, seal_images, seal_pairs
from lightglue.sfm.colmap.judged import restore
from lightglue.sfm.colmap.pair_ids import pair_id, pair_of
from lightglue.sfm.colmap.state import (
    DatabaseState,
    digest_of,
    pair_states,
    read_state,
    set_complete,
    write_state,
)
from lightglue.sfm.options import CameraOptions
from lightglue.sfm.skipped import Skipped
from lightglue.stores import FeatureStore, Head, MatchStore, PairMatches
from lightglue.support.batches import batched
from lightglue.support.files import whole, writing
from lightglue.support.progress import Progress
from lightglue.support.sqlite import connected

__all__ = ["DatabaseResult", "Keypoints", "create_database"]

PAIRS = 500  # that are written before our table says so
IMAGES = 200  # whose keypoints are read before they are written

Keypoints = Callable[[str], NDArray[Any]]  # of an image by name, (N, 2) px
# Of a pair by its names and what its matches are made of: its geometry and what that is made of, where there is one.
Geometry = Callable[[str, str, str], tuple[Any, str | None]]


@dataclass(frozen=True)
class DatabaseResult:
    """What the stage wrote."""

    path: Path
    num_images: int
    num_cameras: int
    num_pairs: int  # with matches
    num_written: int  # of these pairs; the others were there
    seconds: float
    skipped: tuple[Skipped, ...] = ()


@dataclass(frozen=True)
class _Plan:
    """What the database is to hold."""

    state: DatabaseState
    pairs: dict[int, str]  # what each pair's matches are made of, by its number
    keypoints: Keypoints
    counts: Mapping[str, int]  # keypoints of each image
    matches: MatchStore


def create_database(
    path: str | os.PathLike[str],
    features: FeatureStore,
    matches: MatchStore,
    images: str | os.PathLike[str] | None = None,
    *,
    cameras: CameraOptions | None = None,
    names: Iterable[str] | None = None,
    pairs: Iterable[tuple[str, str]] | None = None,
    keypoints: Keypoints | None = None,
    progress: Progress = lambda done, total: None,
) -> DatabaseResult:
    """Write cameras, images, keypoints and raw matches, or what of them is missing or has changed.

    Args:
        path: where; what is there must be a database of ours, or nothing.
        images: the folder of the images, for their EXIF. None: focal lengths are guessed.
        names: only these images. None: all that have features.
        pairs: only these, the smaller name first. None: all that have matches.
        keypoints: refined keypoints of an image, (N, 2) px, in the rows of the store's. None: the store's.
        progress: called with how many pairs are there, of how many.

    Images without keypoints have no matches and are in it all the same. Image numbers follow the sorted names, from 1.

    Raises InputError for a database that is not ours, for cameras that do not fit; StoreError for files that are
    damaged or cannot be written.
    """
    begin = perf_counter()
    path = Path(path)
    names = None if names is None else list(names)
    heads = _heads(features, names)
    skipped = [Skipped(name, "it has no features; extract them") for name in sorted(set(names or ()) - set(heads))]
    wanted = None if pairs is None else set(pairs)
    folder = None if images is None else Path(images)
    plan = _plan(features, matches, heads, wanted, folder, cameras, keypoints, skipped)
    there = read_state(path) if path.exists() else None
    damage = Damage() if there is None else damage_of(path)  # before COLMAP opens it
    if damage and not damage.is_broken:
        remove_rows(path, damage.pairs)
        restore(path)
    if there == plan.state and not damage.is_broken and not damage.images:
        written = _sync(path, plan, None, progress)
    else:
        written = _renew(path, plan, None if damage.is_broken else there, progress)
    state = plan.state
    seconds = perf_counter() - begin
    return DatabaseResult(path, len(state.names), len(state.cameras), len(plan.pairs), written, seconds, tuple(skipped))


# --- what it is to hold ------------------------------------------------------------------------------------------


def _heads(features: FeatureStore, names: Iterable[str] | None) -> dict[str, Head]:
    if names is None:
        heads = {head.name: head for head in features.heads()}
    else:
        heads = {name: head for name in names if (head := features.head(name)) is not None}
    return dict(sorted(heads.items()))


def _plan(
    features: FeatureStore,
    matches: MatchStore,
    heads: dict[str, Head],
    wanted: Collection[tuple[str, str]] | None,
    images: Path | None,
    cameras: CameraOptions | None,
    keypoints: Keypoints | None,
    skipped: list[Skipped],
) -> _Plan:
    _check_names(heads, skipped)
    assigned = assign_cameras({name: head.image_size for name, head in heads.items()}, images, cameras)
    skipped += assigned.faults
    if keypoints is None:
        digests = {name: head.digest for name, head in heads.items()}
        found: Keypoints = lambda name: features.get(name).keypoints  # noqa: E731
    else:
        found = _checked(keypoints, heads)
        digests = {name: digest_of(found(name).tobytes()) for name in heads}
    settings = {"features": dict(features.settings), "matches": dict(matches.settings)}
    state = DatabaseState(
        tuple(heads),
        tuple(digests[name] for name in heads),
        tuple(assigned.of_image[name] for name in heads),
        assigned.cameras,
        settings,
    )
    counts = {name: head.num_keypoints for name, head in heads.items()}
    return _Plan(state, _pairs(matches, heads, wanted, state.ids, skipped), found, counts, matches)


def _check_names(heads: dict[str, Head], skipped: list[Skipped]) -> None:
    """Leave out images whose names COLMAP cannot hold."""
    for name in list(heads):
        try:
            name.encode()
        except UnicodeEncodeError:
            del heads[name]
            skipped.append(Skipped(name, "its name is not UTF-8, as COLMAP's names must be; rename the file"))


def _checked(keypoints: Keypoints, heads: Mapping[str, Head]) -> Keypoints:
    """The keypoints of the caller, as float32 (N, 2) px. They raise InputError where they are not the image's."""

    def found(name: str) -> NDArray[np.float32]:
        points = np.ascontiguousarray(keypoints(name), dtype=np.float32)
        if points.shape != (heads[name].num_keypoints, 2) or not np.isfinite(points).all():
            raise InputError(
                f"The refined keypoints of {name!r} have the shape {points.shape}; give finite ones, "
                f"({heads[name].num_keypoints}, 2), in the rows of the features."
            )
        return points

    return found


def _pairs(
    matches: MatchStore,
    heads: Mapping[str, Head],
    wanted: Collection[tuple[str, str]] | None,
    ids: Mapping[str, int],
    skipped: list[Skipped],
) -> dict[int, str]:
    """What each pair with matches is made of. wanted: None for all. Adds to `skipped` what is left out."""
    common = json.dumps(dict(matches.settings), sort_keys=True)
    pairs: dict[int, str] = {}
    missing: dict[str, int] = {}
    for pair in matches.iter_pairs():
        if wanted is not None and (pair.name0, pair.name1) not in wanted:
            continue
        absent = [name for name in (pair.name0, pair.name1) if name not in heads]
        for name in absent:
            missing[name] = missing.get(name, 0) + 1
        if absent or not pair.num_matches:
            continue
        digests = (heads[pair.name0].digest, heads[pair.name1].digest)
        if any(pair.digests) and pair.digests != digests:
            both = f"{pair.name0}, {pair.name1}"
            skipped.append(Skipped(both, "they were matched with other features; match them again"))
            continue
        made_of = digest_of(repr((common, digests, pair.num_matches)).encode())
        pairs[pair_id(ids[pair.name0], ids[pair.name1])] = made_of
    named = {each.name for each in skipped}
    for name, count in sorted(missing.items()):
        if name not in named:
            skipped.append(Skipped(name, f"it has matches with {count} images but no features; extract them"))
    return pairs


# --- writing -----------------------------------------------------------------------------------------------------


def _renew(path: Path, plan: _Plan, there: DatabaseState | None, progress: Progress) -> int:
    """Make the database beside and rename it, taking over the geometries that hold."""
    part = path.with_name(f".{path.name}.part")
    with writing(path):
        for each in _files(part):  # what a kill left
            each.unlink(missing_ok=True)
    try:
        with whole(path, part):
            _write_images(part, plan)
            written = _sync(part, plan, None if there is None else (path, there), progress)
            _end_logs(part, path)
    finally:
        with suppress(OSError):
            for each in _files(part):
                each.unlink(missing_ok=True)
    return written


def _files(path: Path) -> list[Path]:
    """A database and what SQLite keeps beside it while it is open, or after a kill."""
    return [path.with_name(path.name + suffix) for suffix in ("-wal", "-shm", "-journal", "")]


def _end_logs(part: Path, path: Path) -> None:
    """Make a finished database one file, and remove what stands beside the old one: its log is not the new one's."""
    for each in (path, part):
        if each.exists():
            with connected(each) as connection:
                connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    with part.open("rb+") as file:
        os.fsync(file.fileno())
    for each in _files(path)[:-1]:
        each.unlink(missing_ok=True)


def _write_images(part: Path, plan: _Plan) -> None:
    """Cameras, images and keypoints, in a new database."""
    state = plan.state
    with Database(part) as database:
        with database.writing():
            for number, camera in enumerate(state.cameras, 1):
                database.add_camera(number, camera)
        for chunk in batched(state.ids.items(), IMAGES):
            points = [plan.keypoints(name) for name, _ in chunk]
            with database.writing():
                for (name, number), keypoints in zip(chunk, points, strict=True):
                    database.add_image(number, name, state.camera_of[number - 1] + 1, keypoints)
    write_state(part, state)
    seal_images(part)


def _sync(path: Path, plan: _Plan, old: tuple[Path, DatabaseState] | None, progress: Progress) -> int:
    """Write the pairs that are missing or have changed, and take out those that are gone; how many were written.

    A pair's row in our table is written after its matches: what a kill leaves without one is written again.
    """
    there = {number: made_of for number, (made_of, _) in pair_states(path).items()}
    gone = sorted(number for number, made_of in there.items() if plan.pairs.get(number) != made_of)
    wanted = sorted(number for number, made_of in plan.pairs.items() if there.get(number) != made_of)
    progress(len(plan.pairs) - len(wanted), len(plan.pairs))
    if not gone and not wanted:
        set_complete(path, True)
        return 0
    set_complete(path, False)
    restore(path)  # pairs that were dropped may be changed, and are judged anew
    with _carried_over(old, plan) as carried:
        for chunk in batched(gone, PAIRS):
            _remove(path, chunk)
        done = len(plan.pairs) - len(wanted)
        for chunk in batched(wanted, PAIRS):
            with Database(path) as database:
                rows = _write(database, plan, chunk, carried)
            seal_pairs(path, rows)
            done += len(chunk)
            progress(done, len(plan.pairs))
    set_complete(path, True)
    return len(wanted)


def _remove(path: Path, numbers: list[int]) -> None:
    """Take pairs out: their rows first, so that none is believed to be there that is not."""
    with connected(path) as connection:
        connection.executemany("DELETE FROM lightglue_pairs WHERE pair_id = ?", [(number,) for number in numbers])
    with Database(path) as database, database.writing():
        for number in numbers:
            database.remove_pair(*pair_of(number))


def _write(database: Database, plan: _Plan, numbers: list[int], carried: Geometry) -> list[tuple[int, str, str | None]]:
    """Write the matches of some pairs; their rows in our table."""
    names = plan.state.names
    both = [pair_of(number) for number in numbers]
    found = list(plan.matches.read([(names[first - 1], names[second - 1]) for first, second in both]))
    if len(found) != len(numbers):
        raise StoreError(f"{plan.matches.path} has changed while it was read; make the database again.")
    rows: list[tuple[int, str, str | None]] = []
    with database.writing():
        for number, (first, second), pair in zip(numbers, both, found, strict=True):
            _check_indices(pair, plan.counts)
            database.put_matches(first, second, pair.matches)
            geometry, verified = carried(pair.name0, pair.name1, plan.pairs[number])
            if geometry is not None:
                database.put_geometry(first, second, geometry)
            rows.append((number, plan.pairs[number], verified))
    return rows


def _check_indices(pair: PairMatches, counts: Mapping[str, int]) -> None:
    """Raises StoreError for matches of keypoints that there are not: COLMAP would read beyond its memory."""
    for name, last in zip((pair.name0, pair.name1), pair.matches.max(axis=0, initial=-1).tolist(), strict=True):
        if last >= counts[name]:
            raise StoreError(
                f"A match of {pair.name0!r} and {pair.name1!r} is of keypoint {last} of {name!r}, which has "
                f"{counts[name]}; match them again."
            )


@contextmanager
def _carried_over(old: tuple[Path, DatabaseState] | None, plan: _Plan) -> Iterator[Geometry]:
    """The geometries of an old database that hold in a new one: of the same keypoints, cameras and matches."""
    if old is None:
        yield lambda name0, name1, made_of: (None, None)
        return
    path, before = old
    restore(path)
    pairs = pair_states(path)
    with Database(path) as database:

        def geometry(name0: str, name1: str, made_of: str) -> tuple[Any, str | None]:
            if any(name not in before.ids or before.image(name) != plan.state.image(name) for name in (name0, name1)):
                return None, None
            first, second = before.ids[name0], before.ids[name1]
            was_made_of, verified = pairs.get(pair_id(first, second), ("", None))
            if was_made_of != made_of or verified is None:
                return None, None
            return database.geometry(first, second), verified

        yield geometry
