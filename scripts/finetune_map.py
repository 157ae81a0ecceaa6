"""What fine-tuning on the map of one place gains there, and what it forgets elsewhere, with and without homographies.

    lightglue sfm DATA/strecha1024/fountain-P11 -o MAP --max-keypoints 1024
    python scripts/finetune_map.py MAP DATA OUT --photos PHOTOS [--steps 70] [--photo-count 60]

MAP is of the images of DATA/loc_fountain.json, whose cameras are the truth. A quarter is held out. Two arms learn from
the same start with the same options: from the map alone, and half of the time from homographies of PHOTOS. Both are
judged, beside the weights there were, by

    fountain, seen      pairs of images that were learnt from
    fountain, new       pairs with one that was held out
    herzjesu            all pairs of DATA/loc_herzjesu.json, a place of the same kind
    and the other sets of DATA

by the paired bootstrap over pairs. Runs that OUT holds are not made again, and one that was cut off goes on.
"""

from __future__ import annotations

import argparse
import itertools
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from transfer_curves import some_images

from lightglue import LightGlue
from lightglue.evaluation.compare import compare
from lightglue.evaluation.records import Run, read_run
from lightglue.training import train
from lightglue.training.judge_options import JudgeOptions
from lightglue.training.judging import BenchmarkJudge, make_judge
from lightglue.training.options import TrainingOptions, from_tables
from lightglue.training.samples import PoolSamples, open_samples

SETS = ("tum18", "temple18", "planar15", "synth16", "kusvod2")
ARMS = {"map": False, "map and homographies": True}
WIDEST = 7  # images apart: further ones hardly see the same
HELD_OUT = 0.25


def options_of(mixed: bool, args: argparse.Namespace) -> TrainingOptions:
    """An arm's configuration."""
    sources = [{"kind": "model", "path": str(args.map), "name": "map"}]
    if mixed:
        photos = some_images(args.photos, args.out / "photos", args.photo_count)
        sources.append({"kind": "images", "path": str(photos), "name": "homographies"})
    tables: dict[str, Any] = {
        "version": 1,
        "preset": "finetune",
        "data": {"sources": sources, "views": 4, "validation": HELD_OUT},
        "features": {"type": "aliked", "keypoints": args.keypoints},
        "network": {"init_from": "aliked_lightglue"},
        "optimiser": {"lr": args.lr, "warmup": 10, "ema": 0.9},
        "judge": {"fit": False},
        "run": {
            "steps": args.steps, "batch": args.batch, "seed": args.seed, "validate_every": 20, "validation_pairs": 20,
            "checkpoint_every": 5, "keep": 1, "device": "cpu",
        },
    }  # fmt: skip
    return from_tables(tables)


def held_out_images(samples: PoolSamples) -> set[str]:
    """Names of the images of the map that are not learnt from."""
    views = [samples.pool.views[samples.names[row]] for row in samples.validation.reshape(-1)]
    return {view.image.rpartition("/")[2] for view in views if view.posed is not None}


def pairs_of(localization: Path, chosen: str, new: set[str] | None = None) -> list[dict[str, Any]]:
    """Pairs of a localization manifest; those without, or with, an image of `new`."""
    images = json.loads(localization.read_text())["images"]
    found = []
    for (i, a), (j, b) in itertools.combinations(enumerate(images), 2):
        names = {Path(a["image"]).name, Path(b["image"]).name}
        if j - i > WIDEST or (new is not None and bool(names & new) != (chosen == "new")):
            continue
        T = np.array(b["T_w2c"]) @ np.linalg.inv(np.array(a["T_w2c"]))
        found.append({
            "scene": localization.stem, "image0": str((localization.parent / a["image"]).resolve()),
            "image1": str((localization.parent / b["image"]).resolve()), "K0": a["K"], "K1": b["K"],
            "T_0to1": T.tolist(),
        })  # fmt: skip
    return found


def write_manifests(args: argparse.Namespace, new: set[str]) -> list[Path]:
    """What both arms are judged by."""
    folder = args.out / "judges"
    folder.mkdir(exist_ok=True)
    fountain, other = args.data / "loc_fountain.json", args.data / "loc_herzjesu.json"
    made = {
        "fountain, seen": pairs_of(fountain, "seen", new),
        "fountain, new": pairs_of(fountain, "new", new),
        "herzjesu": pairs_of(other, "all"),
    }
    for name, pairs in made.items():
        (folder / f"{name}.json").write_text(json.dumps({"name": name, "kind": "pose", "pairs": pairs}))
    return [*(folder / f"{name}.json" for name in made), *(args.data / f"{name}.json" for name in SETS)]


def judged(judge: BenchmarkJudge, weights: Path, name: str) -> Run:
    """The evaluation of a weights file on the judge's only set, or the one that is there."""
    (key,) = judge.benchmarks
    folder = judge.folder / name / key
    done = folder / "done"
    if not done.exists():
        judge.runs(weights, name)
        done.touch()
    return read_run(folder)


def row(before: Run, after: Run, judge: BenchmarkJudge) -> str:
    """A difference with its interval: of the figure that decides, as `lightglue finetune` has it."""
    decides = judge.decisive(after)
    found = next(each for each in compare(before, after).differences if each.statistic == decides)
    low, high = found.interval
    verdict = {"better": "better", "worse": "worse"}.get(found.verdict, "no difference")
    return f"{found.b:.1f} | {found.difference:+.1f} ({low:+.1f} to {high:+.1f}) | {verdict}"


def main() -> None:
    """Train what is missing, judge, print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("map", type=Path)
    parser.add_argument("data", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--photos", type=Path, required=True)
    parser.add_argument("--photo-count", type=int, default=60)
    parser.add_argument("--steps", type=int, default=70)
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--keypoints", type=int, default=512)
    parser.add_argument("--judged-keypoints", type=int, default=1024)
    parser.add_argument("--lr", type=float, default=5e-5)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    torch.set_num_threads(1)
    args.out.mkdir(parents=True, exist_ok=True)
    before = args.out / "before.safetensors"
    if not before.exists():
        LightGlue(features="aliked").save(before)
    weights, new = train_arms(args)
    print("held out:", *sorted(new))
    report(args, write_manifests(args, new), {"before": before, **weights})


def train_arms(args: argparse.Namespace) -> tuple[dict[str, Path], set[str]]:
    """Weights of each arm, and the images that none learnt from."""
    found: dict[str, Path] = {}
    held: list[set[str]] = []
    for arm, mixed in ARMS.items():
        folder, options = args.out / arm, options_of(mixed, args)
        samples = cast(PoolSamples, open_samples(options.data, options.features, folder / "pool", args.seed))
        held.append(held_out_images(samples))
        if not (folder / "report.html").exists():
            is_begun = any((folder / "checkpoints").glob("[0-9]*"))
            train(options, folder, resume=is_begun, samples=samples, say=lambda text: print(text, flush=True))
        found[arm] = folder / "best" / "weights.safetensors"
    if held[0] != held[1]:
        raise SystemExit(f"the arms hold out different images: {held[0]} and {held[1]}")
    return found, held[0]


def report(args: argparse.Namespace, manifests: Sequence[Path], weights: dict[str, Path]) -> None:
    """Judge what is not judged, set by set, and print a table of it."""
    features = options_of(False, args).features
    lines = [
        "| set | pairs | figure | before | arm | after | difference (95 %) | verdict |",
        "|---|---:|---|---:|---|---:|---|---|",
    ]
    for manifest in manifests:
        judge = make_judge(JudgeOptions((str(manifest),), keypoints=args.judged_keypoints), features, args.out, "cpu")
        assert judge is not None
        (benchmark,) = judge.benchmarks.values()
        runs = {name: judged(judge, path, name) for name, path in weights.items()}
        start = runs["before"]
        for arm in ARMS:
            title, figure = judge.decisive(start).full_title, judge.figure(start)
            cells = row(start, runs[arm], judge)
            lines.append(f"| {manifest.stem} | {len(benchmark.pairs)} | {title} | {figure:.1f} | {arm} | {cells} |")
            print(lines[-1], flush=True)
    print("", *lines, sep="\n")


if __name__ == "__main__":
    main()
