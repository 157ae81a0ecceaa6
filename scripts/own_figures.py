"""The figures of docs/evaluation.md: every method on every set, ours beside the published ones.

    python scripts/own_figures.py run DATA OUT [--group published mp defaults choices grid refine] [--method ...]
    python scripts/own_figures.py tables DATA OUT

DATA holds the manifests, `published.json` and `published_pairs/`; OUT gets a run of `lightglue eval` for each group,
method and set, OUT/GROUP/METHOD/SET. A run that is complete is not done again.
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from lightglue.benchmark.machine import describe_machine
from lightglue.evaluation.compare import Difference, compare, compare_values
from lightglue.evaluation.datasets.manifest import load_manifest
from lightglue.evaluation.pair import Benchmark
from lightglue.evaluation.records import Run, read_run
from lightglue.evaluation.run import Job, evaluate
from lightglue.evaluation.summary import summarize
from lightglue.models.choice import Models

SETS = ("planar15", "synth16", "tum18", "strecha_dev", "strecha_wide_dev", "temple18", "kusvod2")
FULL = {"depth_confidence": -1, "width_confidence": -1}
BEST = {"detection_threshold": 0}  # ALIKED: the best keypoints by score
# The published figures' name of each metric, and ours.
PUBLISHED = {
    "H_magsac": "corner_error/opencv@0.5",
    "H_dlt": "corner_error/dlt",
    "prec@1": "precision@1",
    "prec@3": "precision@3",
    "prec@5": "precision@5",
    "pose_poselib": "pose_error/poselib@1",
    "pose_magsac": "pose_error/opencv@0.5",
    "epi@1e-4": "epipolar@0.0001",
    "epi@5e-4": "epipolar@0.0005",
    "epi@1e-3": "epipolar@0.001",
    "epi@5e-3": "epipolar@0.005",
    "mAA": "mAA/opencv@0.5",
    "rec@5": "recall@5/opencv@0.5",
}
HEADLINE = {
    "planar15": ("corner_error/opencv@0.5", 3.0),
    "synth16": ("corner_error/opencv@0.5", 3.0),
    "kusvod2": ("mAA/opencv@0.5", None),
}  # all others: pose AUC at 5 degrees


@dataclass(frozen=True)
class Method:
    """An extractor with a matcher. Options that are not here are those of the commands."""

    features: str
    matcher: str = "lightglue"
    thresholds: Mapping[str, Any] = field(default_factory=dict)
    extractor: Mapping[str, Any] = field(default_factory=dict)
    max_keypoints: int | None = None  # None: the manifest's
    mp: bool | None = False
    extract: Mapping[str, Any] = field(default_factory=dict)
    refine: bool = False

    def run(self, benchmark: Benchmark, folder: Path, seen: dict[Path, Any] | None = None) -> Run:
        """The run in `folder`, done as far as it is not."""
        count = self.max_keypoints or benchmark.protocol.max_keypoints
        benchmark = replace(benchmark, protocol=replace(benchmark.protocol, max_keypoints=count))
        models = Models(
            self.features, count, "cpu", self.mp, False, dict(self.thresholds), self.matcher, dict(self.extractor)
        )
        job = Job(models, dict(self.extract), self.refine)
        return evaluate(benchmark, job, folder, about={"machine": describe_machine()}, seen=seen)

    @property
    def features_key(self) -> str:
        """What decides the features of an image."""
        return repr((self.features, self.extractor, self.max_keypoints, self.mp, self.extract))


def published() -> dict[str, Method]:
    """The configurations that there are published figures of."""
    as_published = {"pruning": "published"}
    lg = {
        "aliked": Method("aliked", thresholds=as_published, extractor=BEST),
        "disk": Method("disk", thresholds=as_published),
        "xfeat": Method("xfeat", thresholds=as_published),
    }
    found = {f"{name}-lg": method for name, method in lg.items()}
    for name in ("aliked", "disk"):
        found[f"{name}-lgfull"] = replace(lg[name], thresholds={**as_published, **FULL})
        found[f"{name}-nn"] = replace(lg[name], matcher="nearest", thresholds={})
    # OpenCV's three layers an octave, every orientation.
    plain = {"nms_radius": None, "num_octaves": 3, "detection_threshold": 0.01}
    found["sift-nn"] = Method("sift", "nearest", {"ratio_threshold": 0.8, "ratio_both": False}, plain)
    return found


def defaults() -> dict[str, Method]:
    """What `lightglue match` does where the user says nothing, and the same in full float32."""
    found = {}
    for name in ("aliked", "disk", "xfeat"):
        usual = Method(name, max_keypoints=2048, mp=None, extract={"resize": 1024})
        found[f"{name}-default"] = usual
        found[f"{name}-exact"] = replace(usual, mp=False, thresholds=FULL)
    return found


def grid() -> dict[str, Method]:
    """Keypoints, precision, depth; at the size of the files."""
    found = {}
    for count in (2048, 1024, 512):
        for name in ("aliked", "disk", "xfeat"):
            for mp in (False, True):
                for depth, thresholds in (("adaptive", {}), ("full", FULL)):
                    method = Method(name, max_keypoints=count, mp=mp, thresholds=thresholds)
                    found[f"{name}-lg-{depth}-{'mp' if mp else 'float32'}-{count}"] = method
            found[f"{name}-nn-float32-{count}"] = Method(name, "nearest", max_keypoints=count)
        for name in ("aliked-n16rot", "aliked-n32"):
            found[f"{name}-lg-adaptive-float32-{count}"] = Method(name, max_keypoints=count)
        tiny = {"model_name": "aliked-t16"}  # its descriptors are too short for the published matcher
        found[f"aliked-t16-nn-float32-{count}"] = Method("aliked", "nearest", extractor=tiny, max_keypoints=count)
        found[f"sift-nn-float32-{count}"] = Method("sift", "nearest", {"ratio_threshold": 0.8}, max_keypoints=count)
    return found


def choices() -> dict[str, Method]:
    """What the defaults of `lightglue match` were chosen among, one at a time: resize and filter_threshold."""
    found = {}
    for name, sizes in (("aliked", (640, 800, 1600, None)), ("disk", (640, None)), ("xfeat", (640, 1600, None))):
        for size in sizes:
            found[f"{name}-resize-{size}"] = Method(name, max_keypoints=2048, mp=None, extract={"resize": size})
    for name in ("aliked", "xfeat"):
        for threshold in (0.0, 0.05, 0.2, 0.3):
            usual = Method(name, max_keypoints=2048, mp=None, extract={"resize": 1024})
            found[f"{name}-filter-{threshold:g}"] = replace(usual, thresholds={"filter_threshold": threshold})
    return found


def groups() -> dict[str, dict[str, Method]]:
    """Everything that can be run."""
    usual = published()
    with_network = {name: usual[name] for name in ("aliked-lg", "disk-lg", "xfeat-lg", "aliked-lgfull", "disk-lgfull")}
    return {
        "published": usual,
        "mp": {name: replace(method, mp=True) for name, method in with_network.items()},
        "refine": {name: replace(method, refine=True) for name, method in usual.items() if name[-3:] in ("-lg", "-nn")},
        "defaults": defaults(),
        "choices": choices(),
        "grid": grid(),
    }


def run(data: Path, out: Path, wanted: list[str], methods: list[str] | None) -> None:
    """Do all runs that are not done."""
    torch.set_num_threads(1)
    for group in wanted:
        chosen = {name: m for name, m in groups()[group].items() if not methods or name in methods}
        for key in dict.fromkeys(method.features_key for method in chosen.values()):
            for each in SETS:
                seen: dict[Path, Any] = {}  # an image is looked at once for all matchers of its features
                for name, method in chosen.items():
                    if method.features_key == key:
                        done = method.run(load_manifest(data / f"{each}.json"), out / group / name / each, seen)
                        print(group, name, each, f"{headline(done):.2f}", flush=True)


def headline(run: Run) -> float:
    """The one figure of a set, in percent."""
    metric, threshold = HEADLINE.get(run.benchmark, ("pose_error/poselib@1", 5.0))
    how = "mean" if threshold is None else f"auc@{threshold:g}"
    return next(each.value for each in summarize(run).figures if each.name == f"{metric} {how}")


def runs_of(out: Path, group: str) -> Iterator[tuple[str, str, Run]]:
    """Method, set and run of everything that was done in a group."""
    for name in groups()[group]:
        for each in SETS:
            if (out / group / name / each / "run.json").exists():
                yield name, each, read_run(out / group / name / each)


def against_published(data: Path, run: Run, method: str) -> list[Difference] | None:
    """Our figures less the published ones, pair by pair; None where there are none."""
    path = data / "published_pairs" / f"{run.benchmark}__{method}.json"
    if not path.exists():
        return None
    theirs = json.loads(path.read_text())
    found = []
    for name, ours in PUBLISHED.items():
        metric = next((metric for metric in run.metrics if metric.name == ours), None)
        if metric is None or name not in theirs[0]:
            continue
        values = [float(pair[name]) if pair[name] is not None else math.inf for pair in theirs]
        found += compare_values(values, run.values(ours), metric)
    return found


def tables(data: Path, out: Path) -> None:
    """Print the tables in Markdown."""
    print("## Ours (published)\n")
    _print_published(data, out, "published")
    usual = {name: name for name in published()}
    _print_changes("mp less float32", out, "mp", "published", usual)
    exact = {name: name.replace("default", "exact") for name in defaults() if name.endswith("default")}
    _print_changes("command-line defaults less full float32", out, "defaults", "defaults", exact)
    _print_changes("refined less as matched", out, "refine", "published", usual)
    _print_fine(out)
    for group in ("published", "mp", "defaults", "choices", "grid"):
        _print_headlines(out, group)


def _print_published(data: Path, out: Path, group: str) -> None:
    """Headlines of ours with the published ones in brackets, and every figure that is worse."""
    ours, theirs, worse = [], [], []
    cells: dict[str, dict[str, str]] = {}
    for name, each, done in runs_of(out, group):
        for d in against_published(data, done, name) or []:
            if _is_headline(each, d):
                ours.append(d.b)
                theirs.append(d.a)
                cells.setdefault(name, {})[each] = f"{d.b:.1f} ({d.a:.1f})"
            if d.verdict == "worse":
                worse.append(f"| {name} | {each} | {_row(d)} |")
    _print_matrix(cells)
    if ours:
        print(f"\nMean: ours {np.mean(ours):.2f}, published {np.mean(theirs):.2f}")
    print("\n| method | set | figure | published | ours | difference | 95 % | verdict |")
    print("|---|---|---|---:|---:|---:|---|---|")
    print("\n".join(worse))


def _print_changes(title: str, out: Path, group: str, other: str, partner: Mapping[str, str]) -> None:
    """Differences of headlines, those that are no noise in bold, and what is worse."""
    before, after, worse = [], [], []
    cells: dict[str, dict[str, str]] = {}
    for name, each, done in runs_of(out, group):
        folder = out / other / partner.get(name, "") / each
        if name not in partner or not (folder / "run.json").exists():
            continue
        for d in compare(read_run(folder), done).differences:
            if _is_headline(each, d):
                before.append(d.a)
                after.append(d.b)
                sure = "**" if d.verdict in ("better", "worse") else ""
                cells.setdefault(name, {})[each] = f"{sure}{d.difference:+.1f}{sure}"
            if d.verdict == "worse":
                worse.append(f"| {name} | {each} | {_row(d)} |")
    if before:
        print(f"\n## {title}\n")
        _print_matrix(cells)
        print(f"\nMean of the headlines: {np.mean(before):.2f} before, {np.mean(after):.2f} after\n")
        print("| method | set | figure | before | after | difference | 95 % | verdict |")
        print("|---|---|---|---:|---:|---:|---|---|")
        print("\n".join(worse))


def _print_fine(out: Path) -> None:
    """What refinement does to the finest figure of each set."""
    print("\n## as matched -> refined: AUC@1 px (planar15, synth16), matches within 1e-4 of their epipolar line\n")
    cells: dict[str, dict[str, str]] = {}
    for name, each, done in runs_of(out, "refine"):
        fine = "corner_error/opencv@0.5 auc@1" if each in ("planar15", "synth16") else "epipolar@0.0001 mean"
        plain = out / "published" / name / each
        if each != "kusvod2" and (plain / "run.json").exists():
            values = [
                next(figure.value for figure in summarize(run).figures if figure.name == fine)
                for run in (read_run(plain), done)
            ]
            cells.setdefault(name, {})[each] = " -> ".join(f"{value:.1f}" for value in values)
    _print_matrix(cells)


def _print_matrix(cells: Mapping[str, Mapping[str, str]]) -> None:
    print(f"| method | {' | '.join(SETS)} |\n|---|" + "---:|" * len(SETS))
    for name, row in cells.items():
        print(f"| {name} | {' | '.join(row.get(each, '') for each in SETS)} |")


def _is_headline(each: str, difference: Difference) -> bool:
    metric, threshold = HEADLINE.get(each, ("pose_error/poselib@1", 5.0))
    return difference.statistic.name == f"{metric} {'mean' if threshold is None else f'auc@{threshold:g}'}"


def _row(d: Difference) -> str:
    low, high = d.interval
    return f"{d.statistic.name} | {d.a:.2f} | {d.b:.2f} | {d.difference:+.2f} | {low:+.2f} to {high:+.2f} | {d.verdict}"


def _print_headlines(out: Path, group: str) -> None:
    """The headline of every set, their mean, and milliseconds a pair."""
    found: dict[str, dict[str, Run]] = {}
    for name, each, done in runs_of(out, group):
        found.setdefault(name, {})[each] = done
    if not found:
        return
    print(f"\n## {group}: AUC@3 px (planar15, synth16), AUC@5 degrees, mAA (kusvod2), percent; ms a pair\n")
    print(f"| method | {' | '.join(SETS)} | mean | extract | match |")
    print("|---|" + "---:|" * (len(SETS) + 3))
    for name, runs in found.items():
        values = {each: headline(done) for each, done in runs.items()}
        cells = [f"{values[each]:.1f}" if each in values else "" for each in SETS]
        seconds = [summarize(done).seconds for done in runs.values()]
        times = [f"{1000 * np.mean([s.get(stage, 0) for s in seconds]):.0f}" for stage in ("extract", "match")]
        mean = f"{np.mean(list(values.values())):.1f}" if len(values) == len(SETS) else ""
        print(f"| {name} | {' | '.join(cells)} | {mean} | {' | '.join(times)} |")


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=("run", "tables"))
    parser.add_argument("data", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--group", nargs="+", default=["published", "mp", "defaults", "choices", "refine", "grid"])
    parser.add_argument("--method", nargs="+")
    args = parser.parse_args()
    if args.what == "run":
        run(args.data, args.out, args.group, args.method)
    else:
        tables(args.data, args.out)


if __name__ == "__main__":
    main()
