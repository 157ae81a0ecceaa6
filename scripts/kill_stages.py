"""Kill each stage of a map at random moments, run it again, and compare with a run that nobody disturbed.

    python scripts/kill_stages.py PHOTOGRAPHS [--kills 10] [--seed 0] [--images 6]

Each kill is a trial of its own: the stage begins with what the stages before it left, is ended by SIGKILL after a
random share of the time that it takes undisturbed, and is run again until it says that it is done. `sfm` is all stages
as one. Compared are arrays, rows of databases and files of models, each to the last bit; "left over" counts files that
the undisturbed run does not have. Exit code 1 where anything differs.
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import signal
import sqlite3
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from lightglue.models.choice import Models
from lightglue.sfm.colmap import with_pycolmap  # noqa: F401  # not in the time below
from lightglue.sfm.folder import MapFolder
from lightglue.sfm.pipeline import STAGES, SfmOptions, build_map, run_stage
from lightglue.sfm.report import document as report  # noqa: F401  # not in the time below
from lightglue.sfm.retrieval import index as retrieval  # noqa: F401  # not in the time below
from lightglue.sfm.stages import (
    match,  # noqa: F401  # not in the time below
    reconstruct,  # noqa: F401  # not in the time below
    verify,  # noqa: F401  # not in the time below
)
from lightglue.sfm.stages.extract import ExtractOptions
from lightglue.sfm.stages.match import MatchOptions
from lightglue.sfm.stages.pairs import PairOptions
from lightglue.sfm.stages.reconstruct import ReconstructOptions
from lightglue.sfm.stages.refine import TrackOptions
from lightglue.stores import FeatureStore, MatchStore

WHOLE = "sfm"
TRIES = 5


@dataclass(frozen=True)
class Trial:
    """What came of one kill."""

    moment: float  # s
    was_killed: bool  # else it was done before
    runs: int  # until it was done
    differences: tuple[str, ...]
    left_over: tuple[str, ...]


def options() -> SfmOptions:
    """Small ones, that make the same model each time."""
    models = Models("aliked", 512, "cpu", False)
    return SfmOptions(
        models,
        ExtractOptions(models, {"resize": 640}),
        MatchOptions(models),
        PairOptions(("exhaustive", "retrieval"), retrieved=3),
        refine=TrackOptions(),
        reconstruct=ReconstructOptions(threads=1),
    )


def begin(stage: str, images: Path, out: Path) -> int:
    """Start a stage in a process of its own; its number. Exit code 0: done."""
    pid = os.fork()  # what takes long to import is there already
    if pid:
        return pid
    try:
        if stage == WHOLE:
            build_map(images, out, options())
        else:
            run_stage(stage, out, options(), images=images)
        os._exit(0)
    except BaseException as error:
        print(f"{stage}: {error!r}", file=sys.stderr, flush=True)
        os._exit(1)


def finish(pid: int) -> int:
    """Wait for a process; its exit code, negative for a signal."""
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def trial(stage: str, images: Path, before: Path, after: Path, moment: float) -> Trial:
    """Kill a stage at a moment, and run it again until it is done."""
    with tempfile.TemporaryDirectory(dir=before.parent) as folder:
        out = Path(folder) / "map"
        shutil.copytree(before, out)
        pid = begin(stage, images, out)
        time.sleep(moment)
        os.kill(pid, signal.SIGKILL)  # it has not been waited for: the number is still its own
        was_killed = finish(pid) == -signal.SIGKILL
        runs = 1
        while finish(begin(stage, images, out)) and runs < 5:
            runs += 1
        extra = sorted(set(_files(out)) - set(_files(after)))
        return Trial(moment, was_killed, runs, tuple(_differences(stage, after, out)), tuple(extra))


def _files(out: Path) -> list[str]:
    return [str(path.relative_to(out)) for path in out.rglob("*") if not path.name.endswith(("-wal", "-shm"))]


def _differences(stage: str, one: Path, other: Path) -> Iterator[str]:
    """What differs between what a stage left in two folders."""
    wanted = CONTENT if stage == WHOLE else {stage: CONTENT[stage]}
    for name, content in wanted.items():
        try:
            first, second = content(MapFolder(one)), content(MapFolder(other))
        except Exception as error:  # what cannot be read is no result either
            yield f"{name}: {error!r}"
            continue
        yield from (f"{name}: {key}" for key in sorted({*first, *second}) if first.get(key) != second.get(key))


def _features(place: MapFolder) -> dict[str, Any]:
    store = FeatureStore.open(place.features, read_only=True)
    found = {name: store.get(name) for name in store.names()}
    arrays = {
        name: [getattr(each, key) for key in ("keypoints", "descriptors", "scores")] for name, each in found.items()
    }
    return {name: ([(a.dtype, a.shape, a.tobytes()) for a in each], store.head(name)) for name, each in arrays.items()}


def _pairs(place: MapFolder) -> dict[str, Any]:
    with np.load(place.retrieval, allow_pickle=False) as data:
        return {"pairs.txt": place.pairs.read_bytes(), **{key: data[key].tobytes() for key in data}}


def _matches(place: MapFolder) -> dict[str, Any]:
    return {
        f"{pair.name0}, {pair.name1}": (
            pair.matches.tobytes(), pair.scores.tobytes(), pair.overlap, pair.note, pair.digests
        )
        for pair in MatchStore.open(place.matches, read_only=True).read()
    }  # fmt: skip


def _tree(folder: Path) -> dict[str, Any]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def _refined(place: MapFolder) -> dict[str, Any]:
    with closing(sqlite3.connect(place.refined / "measured.db")) as connection, connection:
        rows = {f"measured {row[0]!r}": row for row in _sorted_rows(connection, "measured")}
    return rows | {name: each for name, each in _tree(place.refined).items() if not name.startswith("measured.db")}


def _database(place: MapFolder) -> dict[str, Any]:
    with closing(sqlite3.connect(place.database)) as connection, connection:
        names = [name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        return {f"{name} {i}": row for name in names for i, row in enumerate(_sorted_rows(connection, name))}


def _sorted_rows(connection: sqlite3.Connection, table: str) -> list[Any]:
    """The rows of a table in an order that does not depend on how they were written."""
    return sorted(connection.execute(f"SELECT * FROM {table}").fetchall(), key=repr)


def _models(place: MapFolder) -> dict[str, Any]:
    files = {**_tree(place.models), **{f"model/{name}": each for name, each in _tree(place.model).items()}}
    return {name: each for name, each in files.items() if not name.endswith(".json")}  # which tells the time, too


CONTENT: dict[str, Callable[[MapFolder], dict[str, Any]]] = {
    "extract": _features,
    "pairs": _pairs,
    "match": _matches,
    "refine": _refined,
    "verify": _database,
    "reconstruct": _models,
}


def _undisturbed(stage: str, images: Path, out: Path) -> float:
    """Run a stage; the seconds it took."""
    since = time.perf_counter()
    if finish(begin(stage, images, out)):
        sys.exit(f"{stage} fails undisturbed.")
    return time.perf_counter() - since


def _stage(stage: str, images: Path, before: Path, kills: int, chance: random.Random) -> bool:
    """Print a row of the table; whether all is the same. `before` goes on to the next stage."""
    after = before.with_name("after")
    shutil.copytree(before, after)
    seconds = told = _undisturbed(stage, images, after)
    # One in each tenth of the run, so that none of it is missed.
    trials = []
    for i in range(kills):
        for _ in range(TRIES):
            trials.append(trial(stage, images, before, after, seconds * (i + chance.random()) / kills))
            if trials[-1].was_killed:
                break
            seconds *= 0.9  # it is quicker than it was undisturbed
    killed = [each for each in trials if each.was_killed]
    same = [each for each in killed if not each.differences]
    left = sum(bool(each.left_over) for each in killed)
    more = max((each.runs for each in trials), default=0)
    print(
        f"| {stage} | {told:.1f} | {len(killed)} of {kills} | {len(same)} of {len(killed)} | {more} | {left} |",
        flush=True,
    )
    for each in trials:
        for difference in (*each.differences, *(f"left over: {name}" for name in each.left_over)):
            print(f"{stage} after {each.moment:.2f} s: {difference}", file=sys.stderr, flush=True)
    shutil.rmtree(before)
    after.rename(before)
    return len(same) == len(killed)


def main() -> None:
    """Print a table, a row a stage."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("photographs", type=Path)
    parser.add_argument("--kills", type=int, default=10, help="of each stage")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--images", type=int, default=6, help="the first so many")
    parser.add_argument("--stages", nargs="+", default=[*CONTENT, WHOLE], choices=[*CONTENT, WHOLE])
    asked = parser.parse_args()
    chance, all_same = random.Random(asked.seed), True
    with tempfile.TemporaryDirectory() as folder:
        images, before = Path(folder) / "photographs", Path(folder) / "map"
        images.mkdir()
        for path in sorted(path for path in asked.photographs.iterdir() if path.is_file())[: asked.images]:
            shutil.copy2(path, images)
        print("| stage | s | killed | same | runs after | left over |\n|---|---|---|---|---|---|", flush=True)
        empty = Path(folder) / "whole" / "map"
        for place in (before, empty):
            place.mkdir(parents=True)
        for stage in STAGES[: STAGES.index("report")]:
            if stage in asked.stages:
                all_same &= _stage(stage, images, before, asked.kills, chance)
            else:
                _undisturbed(stage, images, before)
        if WHOLE in asked.stages:
            all_same &= _stage(WHOLE, images, empty, asked.kills, chance)
    sys.exit(0 if all_same else 1)


if __name__ == "__main__":
    main()
