"""The coordinator: starts the workers, lets them run in turn, gathers what they say into one record."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import numpy as np

from lightglue import __version__
from lightglue.benchmark.figures import ratios, share_equal, spread
from lightglue.benchmark.image_pairs import enlarge
from lightglue.benchmark.machine import commit_of, describe_machine
from lightglue.benchmark.plan import Contestant, Row, Settings, extractor_request, features_file, plan_rows
from lightglue.benchmark.process import Side, Worker, WorkerDiedError
from lightglue.benchmark.rounds import run_rounds
from lightglue.errors import LightGlueError
from lightglue.support.revision import checkout

__all__ = ["SCHEMA", "run_benchmark"]

SCHEMA = 1  # of the record; a reader refuses what it does not know

Report = Callable[[str], None]
Pairs = Mapping[str, tuple[Path, Path]]


def run_benchmark(
    settings: Settings,
    pairs: Pairs,
    published_python: Path | None = None,  # of the environment that has the published package, with settings.against
    report: Report = lambda message: None,
) -> dict[str, Any]:
    """The record of a benchmark: machine, versions, settings, and for each row the time of every round.

    Raises LightGlueError where a worker fails, dies or hangs.
    """
    python = published_python or Path(sys.executable)
    sides = [Side("ours", python, ours=True)]
    if settings.against:
        sides.append(Side("published", python, ours=False))
    with tempfile.TemporaryDirectory(prefix="lightglue-benchmark-") as scratch, ExitStack() as stack:
        folder = Path(scratch)
        if edge := settings.image_size:
            pairs = {name: (enlarge(a, edge, folder), enlarge(b, edge, folder)) for name, (a, b) in pairs.items()}
        workers = _Sides(settings, sides, stack)
        run = _Run(settings, pairs, folder, workers, report)
        rows = [run.row(row) for row in plan_rows(settings, pairs, folder)]
        return _record(settings, pairs, workers.versions, rows)


class _Sides:
    """One worker for each side, which ends with `stack`, and fresh ones on demand."""

    def __init__(self, settings: Settings, sides: Sequence[Side], stack: ExitStack) -> None:
        self.settings = settings
        self.sides = {side.name: side for side in sides}
        self.running: dict[str, Worker] = {}
        self.versions: dict[str, dict[str, Any]] = {}  # what each said that it runs
        for name, side in self.sides.items():
            try:
                self.running[name] = stack.enter_context(self.start(name))
            except LightGlueError as error:
                raise LightGlueError(f"{side.python} cannot run this benchmark: {error}") from error

    def start(self, name: str) -> Worker:
        """A fresh worker of this side, ready for tasks."""
        side, settings = self.sides[name], self.settings
        worker = Worker(name, side.command(), side.environment(settings.threads), settings.timeout)
        with ExitStack() as opening:
            opening.enter_context(worker)
            # Ours has looked for the device; the other one takes the same.
            device = self.versions["ours"]["device"] if "ours" in self.versions else settings.device
            self.versions[name] = worker.ask(
                "start", threads=settings.threads, matmul_precision=settings.matmul_precision, device=device
            )
            opening.pop_all()
        return worker


@dataclass
class _Runner:
    """A contestant in its worker, as `run_rounds` sees it."""

    label: str
    worker: Worker

    def warm_up(self) -> None:
        self.worker.ask("warm_up", label=self.label)

    def run(self) -> float:
        return float(self.worker.ask("run", label=self.label)["seconds"])


class _Run:
    def __init__(self, settings: Settings, pairs: Pairs, folder: Path, workers: _Sides, report: Report) -> None:
        self.settings, self.pairs, self.folder, self.workers, self.report = settings, pairs, folder, workers, report
        self.counts: dict[Path, list[int]] = {}  # of the features that have been written

    def row(self, row: Row) -> dict[str, Any]:
        """Run one row and describe it."""
        name = " ".join(filter(None, (row.stage, row.pair, str(row.keypoints), row.mode)))
        self.report(f"{name}: {', '.join(each.label for each in row.contestants)}")
        counts = [self.features(pair, row.keypoints) for pair in row.inputs]
        results = self.memory(row) if self.settings.memory else self.times(row)
        return {
            "stage": row.stage,
            "pair": row.pair,
            "keypoints": row.keypoints,
            "counts": counts[0] if len(counts) == 1 else None,
            "mode": row.mode,
            "size": self.settings.batch_size if row.stage == "batch" else 1,  # pairs or images a call
            "results": results,
        }

    def features(self, pair: str, keypoints: int) -> list[int]:
        """Let ours write the features of a pair, once; both sides read them. The numbers of keypoints."""
        path = features_file(self.folder, pair, keypoints)
        if path not in self.counts:
            answer = self.workers.running["ours"].ask(
                "features",
                extractor=extractor_request(self.settings, keypoints),
                images=self.pairs[pair],
                resize=self.settings.resize,
                file=path,
            )
            self.counts[path] = answer["counts"]
        return self.counts[path]

    def times(self, row: Row) -> list[dict[str, Any]]:
        """Every contestant's seconds of each round, and what follows from them."""
        runners, prepared = [], {}
        for each in row.contestants:
            worker = self.workers.running[each.side]
            prepared[each.label] = worker.ask("prepare", label=each.label, **each.request)
            runners.append(_Runner(each.label, worker))
        seconds = run_rounds(runners, repeat=self.settings.repeat, budget=self.settings.budget)
        found = {each.label: self.found(each, self.workers.running[each.side]) for each in row.contestants}
        for worker in self.workers.running.values():
            worker.ask("forget")
        return [
            {
                "label": each.label,
                "side": each.side,
                **prepared[each.label],
                "seconds": seconds[each.label],
                **spread(seconds[each.label]),
                "ratios": {base: spread(ratios(seconds[base], seconds[each.label])) for base in each.bases},
                **_compared(row, each, found),
            }
            for each in row.contestants
        ]

    def memory(self, row: Row) -> list[dict[str, Any]]:
        """Every contestant's bytes, each in a process of its own. One that dies of it does not stop the others."""
        results: dict[str, dict[str, Any]] = {}
        found: dict[str, tuple[dict[str, Any], Any]] = {}
        for each in row.contestants:
            with self.workers.start(each.side) as worker:
                try:
                    prepared = worker.ask("prepare", label=each.label, **each.request)
                    answer = worker.ask("memory", watch=True, label=each.label)
                except WorkerDiedError as error:
                    self.report(str(error))
                    results[each.label] = {**_NOTHING, "peak": error.peak, "failed": str(error)}
                    continue
                found[each.label] = self.found(each, worker)
            over_base = answer["peak"] - answer["base"]
            results[each.label] = {**prepared, **answer, "over_base": over_base, "failed": None}
        return [
            {"label": each.label, "side": each.side, **results[each.label], **_compared(row, each, found)}
            for each in row.contestants
        ]

    def found(self, contestant: Contestant, worker: Worker) -> tuple[dict[str, Any], Any]:
        """What a contestant's last run found: its own words, and the rows."""
        path = self.folder / "result.npy"
        answer = worker.ask("save_result", label=contestant.label, file=path)
        return answer, np.load(path)


# What is known of a contestant that died.
_NOTHING = dict.fromkeys(("mp", "seconds", "base", "over_base", "gpu_base", "gpu_peak"))


def _compared(row: Row, each: Contestant, found: Mapping[str, tuple[dict[str, Any], Any]]) -> dict[str, Any]:
    """How much a contestant found, and how much of it its bases found, too."""
    if each.label not in found:
        return {"count": None, "stop": None, "equal": {}}
    answer, rows = found[each.label]
    bases = [base for base in each.bases if base in found] if each.same_result else []
    equal = {base: share_equal(rows, found[base][1], row.tolerance) for base in bases}
    return {"count": answer["count"], "stop": answer["stop"], "equal": equal}


def _record(
    settings: Settings, pairs: Pairs, versions: Mapping[str, dict[str, Any]], rows: list[dict[str, Any]]
) -> dict[str, Any]:
    root = checkout()
    keys = ("package", "version", "python", "torch")
    ours = versions["ours"]
    return {
        "schema": SCHEMA,
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "commit": None if root is None else commit_of(root),
        "machine": {
            **describe_machine(),
            **{key: ours[key] for key in ("capability", "reduced_precision", "threads", "device", "gpu")},
        },
        "versions": {
            "lightglue": __version__,
            **{side: {key: words[key] for key in keys} for side, words in versions.items()},
        },
        "settings": {key: _plain(value) for key, value in asdict(settings).items()},
        "images": {name: [path.name for path in files] for name, files in pairs.items()},
        "rows": rows,
    }


def _plain(value: Any) -> Any:
    """A value of the settings as JSON holds it."""
    if isinstance(value, tuple):
        return list(value)
    return str(value) if isinstance(value, Path) else value
