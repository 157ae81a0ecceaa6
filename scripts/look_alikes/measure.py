"""Maps of look-alike places beside the truth: old code, new code, and COLMAP's own SIFT pipeline.

    python scripts/look_alikes/measure.py DATA WORK --methods after sift [--sets courtyard cup] [--before SRC]
    python scripts/look_alikes/measure.py DATA WORK --table

Features and matches are made once for a set and a number of keypoints, in WORK/maps/SET-KEYPOINTS; the database of a
subset is cut from them. What is measured is added to WORK/results/METHOD.jsonl, a line a map, and not measured again.
`before` runs the package in the folder SRC, such as the `src` of an older checkout. One thread, so that a line can be
repeated. Sets: those of `scenes.py`, and those that `doubles.py` has put into WORK/doubles.

A map is silently wrong where it is reported as a success, not doubted, and its largest model is wrong (`judge.py`).
"""

from __future__ import annotations

import argparse
import json
import os
import select
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
from judge import judge
from scenes import NAMES, Scene, load, subsets

KEYPOINTS = {"cup": (256, 512, 1024)}
SEEDS = {"courtyard": (0, 1, 2)}
LIMIT_S = 900  # for a map
WORKER = Path(__file__).with_name("worker.py")


@dataclass(frozen=True)
class Job:
    """A map to be made and judged."""

    name: str  # of the set
    subset: str
    keypoints: int  # 0 for SIFT, which has its own
    seed: int
    method: str

    @property
    def key(self) -> tuple[Any, ...]:
        """What a line of the results is known by."""
        return self.name, self.subset, self.keypoints, self.seed, self.method


def jobs(args: argparse.Namespace) -> Iterator[Job]:
    """All maps that are asked for, the first seed of every set before the others."""
    for seed in range(args.seeds):
        for name in args.sets:
            chosen = subsets(load(name, args.data, args.work / "doubles"))
            for method in args.methods:
                counts = args.keypoints or KEYPOINTS.get(name, (512, 1024, 2048))
                for keypoints in (0,) if method == "sift" else counts:
                    if seed in SEEDS.get(name, (0,)):
                        yield from (Job(name, subset, keypoints, seed, method) for subset in chosen)


class Worker:
    """A process that makes maps, started again where COLMAP ended it."""

    def __init__(self, source: Path) -> None:
        self.source = source
        self.process: subprocess.Popen[str] | None = None

    def ask(self, question: dict[str, Any]) -> dict[str, Any]:
        """What the worker answers; its error where it ended or took too long."""
        if self.process is None or self.process.poll() is not None:
            environment = {**os.environ, "PYTHONPATH": str(self.source), "OMP_NUM_THREADS": "1"}
            self.process = subprocess.Popen(
                [sys.executable, str(WORKER)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                text=True,
                env=environment,
            )
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(json.dumps(question) + "\n")
        self.process.stdin.flush()
        line = self.process.stdout.readline() if select.select([self.process.stdout], [], [], LIMIT_S)[0] else ""
        if not line:
            self.close()
            return {"error": "the process ended, or took too long"}
        return dict(json.loads(line))

    def close(self) -> None:
        """End the process."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None


def measure(job: Job, args: argparse.Namespace, worker: Worker) -> dict[str, Any]:
    """The line of a map."""
    scene = load(job.name, args.data, args.work / "doubles")
    scene = scene.subset(subsets(scene)[job.subset])
    begin = perf_counter()
    kind = "sift" if job.method == "sift" else "ours"
    label = "sift" if kind == "sift" else str(job.keypoints)
    answer = worker.ask(
        {
            "kind": kind,
            "full": str(args.work / "maps" / f"{job.name}-{label}"),
            "work": str(args.work / f"one-{job.method}-{os.getpid()}"),
            "images": str(scene.folder),
            "names": scene.names,
            "keypoints": job.keypoints,
            "seed": job.seed,
        }
    )
    line = {**asdict(job), "of": len(scene.names), **lines_of(scene, answer)}
    return {**line, "wall_s": round(perf_counter() - begin, 2)}


def lines_of(scene: Scene, answer: dict[str, Any]) -> dict[str, Any]:
    """A worker's answer, judged."""
    if "error" in answer:
        return {"error": answer["error"], "registered": 0, "models": 0, "success": False, "doubted": False}
    models = answer["models"]  # the largest first
    judged = [
        {"images": len(each["poses"]), **judge(scene, {name: np.array(T) for name, T in each["poses"].items()})}
        for each in models
    ]
    return {
        "registered": judged[0]["images"] if judged else 0,
        "models": len(judged),
        "success": bool(judged),
        "px": models[0]["px"] if models else None,
        "seconds": answer["seconds"],
        **answer["verdict"],
        "largest": judged[0] if judged else None,
        "others": judged[1:],
    }


def read(folder: Path) -> list[dict[str, Any]]:
    """All lines that were written."""
    return [json.loads(line) for path in sorted(folder.glob("*.jsonl")) for line in path.read_text().splitlines()]


# --- the table ---------------------------------------------------------------------------------------------------


def silently_wrong(line: dict[str, Any]) -> bool:
    """A map that is wrong and does not say so."""
    return bool(line["success"] and not line["doubted"] and line["largest"]["wrong"])


def lost(line: dict[str, Any], before: dict[str, Any] | None) -> int:
    """Images that were right in a right map before, and are in none of the right models now."""
    if before is None or not before["success"] or before["largest"]["wrong"]:
        return 0
    now = {
        name
        for model in [line.get("largest"), *line.get("others", [])]
        if model is not None and not model["wrong"]
        for name in model["right"]
    }
    return len(set(before["largest"]["right"]) - now)


def print_table(lines: list[dict[str, Any]]) -> None:
    """A row for each set, number of keypoints and method: sums and medians over subsets and seeds."""
    before = {(*key_of(line)[:4],): line for line in lines if line["method"] == "before"}
    heads = "set|keypoints|method|maps|success|doubted|wrong|silently wrong|registered|median|worst|lost|px|s"
    print("| " + heads.replace("|", " | ") + " |\n" + "|---" * (heads.count("|") + 1) + "|")
    groups: dict[tuple[Any, ...], list[dict[str, Any]]] = {}
    for line in lines:
        groups.setdefault((line["name"], line["keypoints"], line["method"]), []).append(line)
    for group, members in sorted(groups.items()):
        made = [line for line in members if line["success"]]
        largest = [line["largest"] for line in made]
        cells = [
            len(members),
            len(made),
            sum(line["doubted"] for line in members),
            sum(each["wrong"] for each in largest),
            sum(silently_wrong(line) for line in members),
            f"{sum(line['registered'] for line in members)} of {sum(line['of'] for line in members)}",
            *(_middle([each.get(key, each.get("degrees")) for each in largest]) for key in ("median", "worst")),
            sum(lost(line, before.get(key_of(line)[:4])) for line in members) if group[2] == "after" else "",
            _middle([line["px"] for line in made]),
            _middle([line["seconds"] for line in made]),
        ]
        print("| " + " | ".join(str(cell) for cell in (*group, *cells)) + " |")


def key_of(line: dict[str, Any]) -> tuple[Any, ...]:
    """As `Job.key`."""
    return tuple(line[key] for key in ("name", "subset", "keypoints", "seed", "method"))


def _middle(values: list[float | None]) -> str:
    there = [value for value in values if value is not None]
    return f"{np.median(there):.2f}" if there else ""


def main() -> None:
    """Measure what is missing, or print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("work", type=Path)
    parser.add_argument("--sets", nargs="+", default=list(NAMES))
    parser.add_argument("--methods", nargs="+", default=["after"], choices=["before", "after", "sift"])
    parser.add_argument("--keypoints", type=int, nargs="+")
    parser.add_argument("--seeds", type=int, default=3, help="at the most; one where SEEDS does not say otherwise")
    parser.add_argument("--before", type=Path, help="the package's folder for the method `before`")
    parser.add_argument("--after", type=Path, default=Path(__file__).parents[2] / "src", help="and for `after`")
    parser.add_argument("--table", action="store_true")
    args = parser.parse_args()
    results = args.work / "results"
    if args.table:
        print_table([line for line in read(results) if line["name"] in args.sets])
        return
    results.mkdir(parents=True, exist_ok=True)
    workers = {method: Worker(args.before if method == "before" else args.after) for method in args.methods}
    there = {key_of(line) for line in read(results)}
    for job in jobs(args):
        if job.key in there:
            continue
        line = measure(job, args, workers[job.method])
        with (results / f"{job.method}.jsonl").open("a") as file:
            file.write(json.dumps(line) + "\n")
        shown = {key: value for key, value in line.items() if key not in ("largest", "others")}
        figures = {key: value for key, value in (line.get("largest") or {}).items() if key != "right"}
        print(shown, figures, flush=True)
    for worker in workers.values():
        worker.close()


if __name__ == "__main__":
    main()
