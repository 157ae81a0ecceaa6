"""The results of a run on disk: one JSON line a pair, in a folder that says how they came about.

    RUN/run.json       what was run, on what, with which figures in each line
    RUN/records.jsonl  a line for each pair that is done, in the order in which they were done
    RUN/matches/       the matches of each pair, 000012.npz for the 12th of the benchmark

A line is written whole and flushed to the disk before the next pair counts as done. A run that was killed leaves at
most half a line at the end, which is dropped when it goes on.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from lightglue.errors import InputError
from lightglue.stores.settings import changes
from lightglue.support.files import write_whole

__all__ = ["Metric", "Record", "RecordWriter", "Run", "matches_path", "read_run", "remove_empty", "start_run"]

FORMAT = 1
_RUN, _RECORDS, _MATCHES = "run.json", "records.jsonl", "matches"
_DECISIVE = ("benchmark", "kind", "pairs", "metrics", "settings")  # fields in which two runs must not differ


@dataclass(frozen=True)
class Metric:
    """A figure that each record has, and how those of all pairs are put together."""

    name: str  # key of Record.values, such as "corner_error/poselib@1"
    kind: Literal["error", "share", "count"]  # error: AUC at each threshold; share: mean, in percent; count: mean
    title: str  # for people: "corner error, PoseLib 1 px"
    unit: str = ""  # of an error: "px", "degrees"
    thresholds: tuple[float, ...] = ()  # of an error's AUC, in its unit


@dataclass(frozen=True)
class Record:
    """What became of one pair. A pair that failed has the worst values, never none."""

    pair: str  # its name
    index: int  # its position in the benchmark
    scene: str
    image0: str
    image1: str
    failure: str | None  # why there is no result
    num_keypoints: tuple[int, int]
    num_matches: int
    values: Mapping[str, float]  # by the name of the metric; an error may be infinite; shares are 0 to 1
    seconds: Mapping[str, float] = field(default_factory=dict)  # extract, match, refine, estimate

    def line(self) -> str:
        """The record as one line of JSON. Infinity is null there."""
        data = asdict(self)
        data["values"] = {name: value if math.isfinite(value) else None for name, value in self.values.items()}
        return json.dumps(data, allow_nan=False)  # ASCII: a file name may hold what UTF-8 cannot

    @classmethod
    def from_line(cls, line: str) -> Record:
        """The record of a line. Raises ValueError, TypeError, KeyError or AttributeError for what is none."""
        data = json.loads(line)
        data["values"] = {name: math.inf if value is None else float(value) for name, value in data["values"].items()}
        data["seconds"] = {name: float(value) for name, value in data["seconds"].items()}
        first, second = map(int, data["num_keypoints"])
        data |= {"num_keypoints": (first, second), "num_matches": int(data["num_matches"])}
        texts = [data[name] for name in ("pair", "scene", "image0", "image1")]
        if not all(isinstance(text, str) for text in texts) or not isinstance(data["failure"], str | None):
            raise ValueError("a text is none")
        return cls(**data)


@dataclass(frozen=True)
class Run:
    """A run as it lies on disk."""

    folder: Path
    benchmark: str
    kind: str
    pairs: tuple[str, ...]  # every pair of the benchmark, in its order, whether or not it is done
    metrics: tuple[Metric, ...]
    settings: Mapping[str, Any]  # what decides the results: models, options, protocol
    about: Mapping[str, Any]  # what does not: machine, versions, source and licence of the data, notes
    records: tuple[Record, ...] = ()  # in the benchmark's order

    @property
    def is_complete(self) -> bool:
        """Whether every pair is done."""
        return len(self.records) == len(self.pairs)

    @property
    def failures(self) -> tuple[Record, ...]:
        """The pairs without a result."""
        return tuple(record for record in self.records if record.failure)

    def values(self, metric: str) -> list[float]:
        """The value of a metric for each pair that is done, in the benchmark's order."""
        return [record.values[metric] for record in self.records]


def start_run(run: Run) -> Run:
    """Begin a run in its folder, or go on with the one that is there.

    Raises InputError where the folder holds another run: results of different settings are never mixed.
    """
    content = {"format": FORMAT} | {name: value for name, value in asdict(run).items() if name in _DECISIVE}
    content = json.loads(json.dumps(content))  # as it will be read
    folder, path = run.folder, run.folder / _RUN
    if path.exists():
        there = _load_json(path)
        different = [name for name, value in content.items() if there.get(name) != value]
        if different:
            raise InputError(
                f"{folder} holds another run: {_differences(there, content, different)}. "
                "Name another folder, or remove this one."
            )
    else:
        try:
            (folder / _MATCHES).mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(f"{folder} cannot be made a folder ({error.strerror}); name another.") from error
        write_whole(path, (json.dumps({**content, "about": dict(run.about)}, indent=1) + "\n").encode())
    return read_run(folder)


def remove_empty(folder: Path) -> None:
    """Remove a run without any record: its options may be at fault, and others must be able to use the folder."""
    records = folder / _RECORDS
    if not records.exists() or not records.stat().st_size:
        (folder / _RUN).unlink(missing_ok=True)


def read_run(folder: Path) -> Run:
    """The run in a folder. Raises InputError where there is none, or it is damaged."""
    path = folder / _RUN
    if not path.exists():
        raise InputError(f"There is no run in {folder} (no {_RUN}); name the folder that `lightglue eval` wrote.")
    content = _load_json(path)
    try:
        if content["format"] != FORMAT:
            raise InputError(f"{path} has format {content['format']}, not {FORMAT}; run it again with this version.")
        metrics = tuple(Metric(**{**each, "thresholds": tuple(each["thresholds"])}) for each in content["metrics"])
        names = tuple(content["pairs"])
        records = _read_records(folder / _RECORDS, names, {metric.name for metric in metrics})
        return Run(
            folder,
            content["benchmark"],
            content["kind"],
            names,
            metrics,
            content["settings"],
            content.get("about", {}),
            records,
        )
    except (KeyError, TypeError, AttributeError) as error:
        raise InputError(f"{path} is damaged ({error!r}); remove the folder and run it again.") from error


def _read_records(path: Path, names: Sequence[str], metrics: set[str]) -> tuple[Record, ...]:
    """The whole lines of the records' file, sorted, the first of each pair."""
    found: dict[int, Record] = {}
    lines = path.read_bytes().split(b"\n") if path.exists() else []
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            record = Record.from_line(line.decode())
            known = 0 <= record.index < len(names) and names[record.index] == record.pair
            if not known or set(record.values) != metrics:
                raise ValueError("it is of another run")
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            if number == len(lines):  # no newline after it: the run was killed while it was written
                continue
            raise InputError(f"{path}, line {number}, is damaged ({error}); remove that line.") from error
        found.setdefault(record.index, record)
    return tuple(found[index] for index in sorted(found))


class RecordWriter:
    """Appends records to a run; each is on the disk when `write` returns."""

    def __init__(self, run: Run) -> None:
        path = run.folder / _RECORDS
        content = path.read_bytes() if path.exists() else b""
        whole = content[: content.rfind(b"\n") + 1]
        self._file = path.open("ab")
        self._file.truncate(len(whole))  # half a line, which a killed run left

    def write(self, record: Record) -> None:
        """Append one record."""
        self._file.write(record.line().encode() + b"\n")
        self._file.flush()
        os.fsync(self._file.fileno())

    def __enter__(self) -> RecordWriter:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()


def matches_path(folder: Path, index: int) -> Path:
    """Where the matches of a pair lie: points0, points1 (K, 2) float32 px, scores (K,), inliers (K,) bool."""
    return folder / _MATCHES / f"{index:06d}.npz"


def _load_json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, OSError) as error:
        raise InputError(f"{path} cannot be read ({error}); remove the folder and run it again.") from error
    if not isinstance(content, dict):
        raise InputError(f"{path} holds no run; remove the folder and run it again.")
    return content


_WORDS = {
    "truth": "what is known of its pairs was something else",
    "images": "some of its image files were others, or missing",
}


def _differences(there: Mapping[str, Any], here: Mapping[str, Any], names: Sequence[str]) -> str:
    """What differs, in short."""
    found = []
    for name in names:
        if isinstance(here[name], list):
            found.append(f"its {name} are others")
        else:
            pairs = changes({name: there.get(name)}, {name: here[name]})
            named = [(path.removeprefix("settings."), before, now) for path, before, now in pairs]
            found += [_WORDS.get(path) or f"{path} is {before!r} there and {now!r} here" for path, before, now in named]
    return "; ".join(found)[:500]
