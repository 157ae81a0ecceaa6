"""Flip one random bit of a map, run the commands that use it, and compare with the map as it was.

    python scripts/flip_bits.py [PHOTOGRAPHS] [--flips 100] [--seed 0] [--json FILE]

Without PHOTOGRAPHS, those of a corner that the tests paper with this package's own (tests/support/corner.py): six make
the map, by SIFT and nearest neighbours, refined. Each flip is a trial of its own. On a fresh copy of the map a file is
drawn, each as likely as the others, and a bit of it, half of the time among its first 512 bytes, where formats keep
what is believed. Then, each on a copy of the damaged map and in a process of its own:

    lightglue localize, lightglue view --png, lightglue map add, lightglue map report, lightglue sfm

and localize and view once more after sfm, unless the map is the undamaged one again, file by file. The report is drawn
by its own command only, which saves half of the time. A command may give what it gives of the undamaged map, to the
last bit ("harmless", or "repaired" where sfm changed the file back), or end with exit code 1 and one error ("noticed").
Anything else is printed with its seed: another result, a traceback, a signal, a timeout. Exit code 1 then.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest import mock

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))
from lightglue.cli import main as command
from lightglue.matching.nearest import NearestNeighbor
from lightglue.models.choice import Models
from lightglue.sfm import (
    change,  # noqa: F401  # imported once, before the forks
    pipeline,
)
from lightglue.sfm.colmap import with_pycolmap  # noqa: F401
from lightglue.sfm.folder import MapFolder
from lightglue.sfm.report import document  # noqa: F401
from lightglue.support.files import read_json, write_json
from support.corner import take_photographs

PATIENCE_S = 120
COMMON = ("--features", "sift", "--max-keypoints", "300", "--device", "cpu", "--no-mp", "--threads", "1", "--refine")
COMMANDS = {
    "localize": ("localize", "map", "queries", "-o", "poses"),
    "view": ("view", "map", "--png", "view.png"),
    "add": ("map", "add", "map", "queries/5.png"),
    "report": ("map", "report", "map"),
    "sfm": ("sfm", "photographs", "-o", "map", "--pairs", "exhaustive,retrieval", *COMMON),
}


NEAREST = NearestNeighbor(ratio_threshold=0.8)
REPORTS = ("report.html", "report.png")


@dataclass(frozen=True)
class Ended:
    """How a command ended."""

    code: int  # negative for a signal
    err: str
    result: Any  # what it is to be judged by


@dataclass
class Trial:
    """What came of one flip."""

    file: str
    bit: int
    outcomes: dict[str, str] = field(default_factory=dict)  # of each command: harmless, noticed, repaired
    faults: list[str] = field(default_factory=list)


def run(place: Path, name: str) -> Ended:
    """A command in the folder of a map, in a process of its own, as a user would run it."""
    log = place / f"{name}.log"
    pid = os.fork()  # what takes long to import is there already
    if not pid:
        _become(place, log, COMMANDS[name])
    since, status = time.monotonic(), None
    while status is None:
        done, found = os.waitpid(pid, os.WNOHANG)
        if done:
            status = os.waitstatus_to_exitcode(found)
        elif time.monotonic() - since > PATIENCE_S:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            status = -signal.SIGALRM
        else:
            time.sleep(0.01)
    return Ended(status, log.read_text(errors="replace"), result_of(place, name))


def _become(place: Path, log: Path, words: tuple[str, ...]) -> None:
    """The command, with its output in a file; does not return."""
    try:
        os.chdir(place)
        os.dup2(os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), 1)
        os.dup2(1, 2)
        sys.argv = ["lightglue", *words]
        with ExitStack() as stack:
            stack.enter_context(mock.patch.object(Models, "load_matcher", return_value=NEAREST))
            if words[:2] != COMMANDS["report"][:2]:
                stack.enter_context(mock.patch("lightglue.sfm.report.document.write_report"))
                stack.enter_context(mock.patch("lightglue.sfm.change.write_report"))
            command()
    except SystemExit as ended:
        sys.stdout.flush()
        os._exit(int(ended.code or 0))
    except BaseException:
        import traceback

        traceback.print_exc()
        sys.stderr.flush()
        os._exit(99)


def result_of(place: Path, name: str) -> Any:
    """What a command made."""
    if name == "localize":
        return [(place / "poses" / each).read_bytes() for each in ("poses.txt", "failures.txt") if _there(place, each)]
    if name == "view":
        return (place / "view.png").read_bytes() if (place / "view.png").exists() else None
    if name == "report":
        return (place / "map/report.html").read_bytes(), _bytes(place / "map/report.png")
    models = {
        str(path.relative_to(place)): path.read_bytes() for path in sorted((place / "map/models").glob("*/*.bin"))
    }
    counts = {}
    try:
        counts = {key: dict(each.counts) for key, each in MapFolder(place / "map").read().stages.items()}
    except Exception as error:
        counts = {"unreadable": str(error)}
    # What a run did, as against what there is, depends on what was damaged.
    for stage in counts.values():
        for key in ("extracted", "kept", "matched", "without_overlap", "seconds") if isinstance(stage, dict) else ():
            stage.pop(key, None)
    return models, counts


def _there(place: Path, name: str) -> bool:
    return (place / "poses" / name).exists()


def _bytes(path: Path) -> bytes | None:
    return path.read_bytes() if path.exists() else None


def make(photographs: Path | None, place: Path) -> None:
    """The map, its photographs and the queries."""
    if photographs is None:
        take_photographs(place / "queries", 7)
    else:
        (place / "queries").mkdir(parents=True)
        for number, path in enumerate(sorted(each for each in photographs.iterdir() if each.is_file())[:7]):
            shutil.copy2(path, place / "queries" / f"{number}{path.suffix}")
    (place / "photographs").mkdir()
    for path in sorted((place / "queries").iterdir())[:5]:
        shutil.move(path, place / "photographs")
    ended = run(place, "sfm")
    run(place, "report")
    if ended.code:
        sys.exit(f"the map cannot be made: {ended.err}")


def copied(source: Path, target: Path) -> Path:
    """A copy of all, whose map knows its own photographs, with the times of the files."""
    shutil.copytree(source, target, symlinks=True)
    return target


def relocated(place: Path) -> None:
    """Let the map remember the photographs beside it."""
    record = place / "map/map.json"
    write_json(record, {**read_json(record), "images": str(place / "photographs")})


def files_of(map_folder: Path) -> list[Path]:
    """All files of a map, without what is reached by links."""
    return sorted(path for path in map_folder.rglob("*") if path.is_file() and not _is_linked(path, map_folder))


def _is_linked(path: Path, root: Path) -> bool:
    return any(each.is_symlink() for each in (path, *path.parents) if each.is_relative_to(root))


def flip(path: Path, bit: int) -> None:
    """Change one bit of a file."""
    content = bytearray(path.read_bytes())
    content[bit // 8] ^= 1 << bit % 8
    path.write_bytes(content)


def trial(whole: Path, expected: dict[str, Ended], file: str, bit: int) -> Trial:
    """Flip a bit, and see what each command makes of it."""
    found = Trial(file, bit)
    place = whole.parent / "trial"  # the same path as when the expected results were made
    for name in COMMANDS:
        shutil.rmtree(place, ignore_errors=True)
        copied(whole, place)
        flip(place / "map" / file, bit)
        before = (place / "map" / file).read_bytes()
        ended = run(place, name)
        found.outcomes[name] = _judged(found, name, ended, expected[name])
        if name != "sfm" or ended.code:
            continue
        if _bytes(place / "map" / file) == _bytes(whole / "map" / file) != before:
            found.outcomes[name] = "repaired"
        if _content(place / "map") == _content(whole / "map"):
            continue
        for after in ("localize", "view"):
            found.outcomes[f"{after} after sfm"] = _judged(
                found, f"{after} after sfm", run(place, after), expected[after]
            )
    shutil.rmtree(place, ignore_errors=True)
    return found


def _content(map_folder: Path) -> dict[str, Any]:
    """What the commands read of a map: not when and how quickly it was made, and no report."""
    found: dict[str, Any] = {
        str(path.relative_to(map_folder)): path.read_bytes()
        for path in files_of(map_folder)
        if path.name not in ("map.json", "reconstruction.json", *REPORTS)
    }
    record = MapFolder(map_folder).read()
    return {**found, "settings": record.settings, "images": record.images, "pairs": record.pairs}


def _judged(found: Trial, name: str, ended: Ended, expected: Ended) -> str:
    if ended.code == 0 and ended.result == expected.result:
        return "harmless"
    errors = [line for line in ended.err.splitlines() if line.startswith("error: ")]
    if ended.code == 1 and len(errors) == 1 and "Traceback" not in ended.err:
        return "noticed"
    if ended.code == 0 and name in ("report", "add", "sfm") and "warning: " in ended.err:
        return "noticed"
    kind = {-signal.SIGALRM: "a timeout"}.get(ended.code, f"code {ended.code}")
    found.faults.append(f"{name}: {kind}, {'another result' if ended.code == 0 else ''} {ended.err[-600:]}")
    return "FAULT"


def flips(map_folder: Path, count: int, seed: int) -> Iterator[tuple[str, int]]:
    """Files, by their paths under the map, and bits."""
    chance = random.Random(seed)
    files = files_of(map_folder)
    for _ in range(count):
        path = chance.choice(files)
        size = path.stat().st_size
        bytes_ = min(size, 512) if chance.random() < 0.5 else size
        yield str(path.relative_to(map_folder)), chance.randrange(8 * bytes_)


def campaign(photographs: Path | None, folder: Path, count: int, seed: int) -> Iterator[Trial]:
    """All trials."""
    # All that takes place does so under one path, which stands in the files.
    place, whole = folder / "trial", folder / "whole"
    make(photographs, place)
    place.rename(whole)
    expected = {}
    for name in COMMANDS:
        shutil.rmtree(place, ignore_errors=True)
        expected[name] = run(copied(whole, place), name)
        if expected[name].code:
            sys.exit(f"{name} fails undisturbed: {expected[name].err}")
    for file, bit in flips(whole / "map", count, seed):
        yield trial(whole, expected, file, bit)


def main() -> None:
    """Print what came of each trial, and a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("photographs", type=Path, nargs="?")
    parser.add_argument("--flips", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path, help="a line for each trial")
    asked = parser.parse_args()
    assert pipeline.STAGES
    table: Counter[tuple[str, str]] = Counter()
    faulty = number = 0
    with tempfile.TemporaryDirectory() as folder:
        for number, each in enumerate(campaign(asked.photographs, Path(folder), asked.flips, asked.seed), 1):
            table.update(each.outcomes.items())
            faulty += bool(each.faults)
            for fault in each.faults:
                print(f"{number}: {each.file} bit {each.bit}: {fault}", flush=True)
            if asked.json:
                with asked.json.open("a") as file:
                    file.write(json.dumps(vars(each)) + "\n")
    kinds = sorted({kind for _, kind in table})
    print("| command | " + " | ".join(kinds) + " |\n|---|" + "---|" * len(kinds))
    for name in dict.fromkeys(name for name, _ in table):
        print(f"| {name} | " + " | ".join(str(table[name, kind]) for kind in kinds) + " |")
    print(f"{number - faulty} of {number}")
    sys.exit(1 if faulty else 0)


if __name__ == "__main__":
    main()
