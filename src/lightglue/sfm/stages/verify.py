"""Which matches agree with one geometry of two views: COLMAP's verification of each pair of a database."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lightglue.errors import InputError
from lightglue.sfm.colmap.database import DatabaseResult, create_database
from lightglue.sfm.colmap.database_file import Database
from lightglue.sfm.colmap.database_rows import check_rows, seal_pairs
from lightglue.sfm.colmap.judged import kinds_of_verified, restore
from lightglue.sfm.colmap.pair_ids import configuration_name, pair_of
from lightglue.sfm.colmap.state import check_database, digest_of, pair_states, read_state
from lightglue.sfm.colmap.two_view import two_view_geometry
from lightglue.sfm.colmap.with_pycolmap import quiet
from lightglue.sfm.options import CameraOptions, VerifyOptions
from lightglue.sfm.skipped import Skipped
from lightglue.stores import FeatureStore, MatchStore
from lightglue.support.batches import batched
from lightglue.support.caches import BoundedCache
from lightglue.support.progress import Progress
from lightglue.support.sqlite import connected
from lightglue_runtime.limits import usable_cores

__all__ = ["VerifyOptions", "VerifyResult", "export_database", "verify"]

PAIRS = 128  # that are verified before they are written
_KEPT = 256 << 20  # bytes of keypoints that are kept for the next pairs


@dataclass(frozen=True)
class VerifyResult:
    """What became of the pairs of a database."""

    path: Path
    num_pairs: int  # with matches
    num_done: int  # of them, verified in this call; the others were before, or have too few matches
    num_too_few: int  # with fewer than min_matches
    num_verified: int  # that have a geometry
    num_inliers: int  # in all of these
    configurations: Mapping[str, int] = field(default_factory=dict)  # pairs of each kind of geometry
    seconds: float = 0.0
    skipped: tuple[Skipped, ...] = ()

    def counts(self) -> dict[str, float]:
        """The figures that a map remembers."""
        return {
            "pairs": self.num_pairs,
            "too_few_matches": self.num_too_few,
            "verified": self.num_verified,
            "inliers": self.num_inliers,
        }


def verify(
    path: str | os.PathLike[str],
    options: VerifyOptions | None = None,
    *,
    threads: int | None = None,
    progress: Progress = lambda done, total: None,
) -> VerifyResult:
    """Write the two-view geometry of each pair of a database that has none, or one of other options.

    Args:
        path: a database that `create_database` made.
        threads: None for as many as there are cores. The result does not depend on it.
        progress: called with how many pairs are done, of how many.

    Raises InputError where there is no such database; StoreError where it is damaged or cannot be written.
    """
    begin = perf_counter()
    path, options = Path(path), options or VerifyOptions()
    read_state(path, is_complete=True)
    check_rows(path)  # before COLMAP opens it
    decides = {name: value for name, value in asdict(options).items() if name != "drop_look_alikes"}
    made_of = digest_of(json.dumps(decides, sort_keys=True).encode())
    counts = _num_matches(path)
    pairs = pair_states(path)
    few = [number for number in pairs if counts.get(number, 0) < options.min_matches]
    waiting = [
        number for number in pairs if pairs[number][1] != made_of and counts.get(number, 0) >= options.min_matches
    ]
    # Forgotten before anything is written: a kill must not leave new geometries under what the old were made of.
    stale = [number for number in (*few, *waiting) if pairs[number][1] is not None]
    done = len(pairs) - len(waiting)
    progress(done, len(pairs))
    if waiting or stale:
        restore(path)  # what is verified anew must not come back
        with _Verifier(options, threads) as verifier:
            _forget(path, stale)
            for chunk in batched(waiting, PAIRS):
                _verify(path, verifier, chunk, made_of)
                done += len(chunk)
                progress(done, len(pairs))
    kinds, inliers = _configurations(path, options.min_inliers)
    return VerifyResult(
        path,
        len(pairs),
        len(waiting),
        len(few),
        sum(kinds.values()),
        inliers,
        dict(sorted(kinds.items())),
        perf_counter() - begin,
    )


def _verify(path: Path, verifier: _Verifier, numbers: list[int], made_of: str) -> None:
    """The geometries first, then what they are made of: what a kill leaves in between is done again, to the same.

    COLMAP lets go of the file before it is opened otherwise: see `connected`.
    """
    with Database(path) as database:
        geometries = verifier.geometries(database, numbers)
        with database.writing():
            for number, geometry in zip(numbers, geometries, strict=True):
                database.put_geometry(*pair_of(number), geometry)
    pairs = pair_states(path)
    seal_pairs(path, [(number, pairs[number][0], made_of) for number in numbers])


def _forget(path: Path, numbers: list[int]) -> None:
    """Take out geometries that were made with other options."""
    if not numbers:
        return
    pairs = pair_states(path)
    seal_pairs(path, [(number, pairs[number][0], None) for number in numbers])
    with Database(path) as database, database.writing():
        for number in numbers:
            database.remove_geometry(*pair_of(number))


class _Verifier:
    """Verifies pairs in threads, reading keypoints once as far as they fit into a budget."""

    def __init__(self, options: VerifyOptions, threads: int | None) -> None:
        if threads is not None and (not isinstance(threads, int) or threads < 1):
            raise InputError(f"threads is {threads!r}; give a positive integer, or None for all cores.")
        self.options = options
        self.pool = ThreadPoolExecutor(threads or usable_cores())  # pycolmap lets go of Python meanwhile
        self.cameras: dict[int, Any] = {}  # of each image, once they were read
        self.points: BoundedCache[int, NDArray[np.float64]] = BoundedCache(_KEPT, lambda points: points.nbytes)

    def __enter__(self) -> _Verifier:
        return self

    def __exit__(self, *_: object) -> None:
        self.pool.shutdown(cancel_futures=True)

    def geometries(self, database: Database, numbers: list[int]) -> list[Any]:
        """The geometry of each pair."""
        self.cameras = self.cameras or database.cameras()

        def jobs() -> Iterator[Any]:
            for number in numbers:
                first, second = pair_of(number)
                cameras = self.cameras[first], self.cameras[second]
                read = database.keypoints
                points = self.points.get(first, partial(read, first)), self.points.get(second, partial(read, second))
                matches = database.matches(first, second)
                yield self.pool.submit(
                    two_view_geometry, cameras, points, matches, self.options.colmap(), self.options.seed
                )

        with quiet():
            return [job.result() for job in list(jobs())]


def _num_matches(path: Path) -> dict[int, int]:
    """How many matches each pair has, by its number."""
    with connected(path) as connection:
        return dict(connection.execute("SELECT pair_id, rows FROM matches").fetchall())


def _configurations(path: Path, min_inliers: int) -> tuple[Counter[str], int]:
    """How many pairs have a geometry of each kind, and the inliers of all of them: of those dropped later, too."""
    rows = kinds_of_verified(path, min_inliers)
    return Counter(configuration_name(kind) for kind, _ in rows), sum(inliers for _, inliers in rows)


def num_verified(path: Path) -> int:
    """How many pairs of any COLMAP database have a geometry."""
    check_database(path)
    with connected(path) as connection:
        count: int = connection.execute("SELECT count(*) FROM two_view_geometries WHERE rows > 0").fetchone()[0]
    return count


def export_database(
    features: FeatureStore,
    matches: MatchStore,
    path: str | os.PathLike[str],
    images: str | os.PathLike[str] | None = None,
    *,
    cameras: CameraOptions | None = None,
    options: VerifyOptions | None = None,
    verified: bool = True,
    threads: int | None = None,
) -> DatabaseResult:
    """Write a COLMAP database of features, raw matches and, unless `verified` is False, two-view geometries.

    Arguments and errors as in `create_database` and `verify`.
    """
    result = create_database(path, features, matches, images, cameras=cameras)
    if verified:
        verify(path, options, threads=threads)
    return result
