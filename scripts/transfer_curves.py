"""What starting from published weights gains over starting from nothing: curves of both, same images, steps and seeds.

    python scripts/transfer_curves.py PHOTOS OUT --seeds 0 1 2 [--steps 150] [--images 250] [--judge SET.json]

SIFT, 256 keypoints, views of 480 x 360; validated by pairs of other images at every fifth of the steps, which no run
learns from. Runs that OUT holds are not made again. With `--judge`, the last weights are judged by a manifest, too.
"""

from __future__ import annotations

import argparse
import json
import random
from pathlib import Path
from statistics import mean
from typing import Any

import torch

from lightglue.training import read_log, train
from lightglue.training.options import TrainingOptions, from_tables

ARMS = {"transfer": "aliked_lightglue", "scratch": None}


def some_images(source: Path, folder: Path, count: int) -> Path:
    """A folder of links to `count` images of `source`: the same each time."""
    if not folder.exists():
        folder.mkdir(parents=True)
        names = sorted(path for path in source.iterdir() if path.suffix.lower() in (".jpg", ".jpeg", ".png"))
        for path in random.Random(0).sample(names, min(count, len(names))):
            (folder / path.name).symlink_to(path.resolve())
    return folder


def options_of(arm: str, seed: int, images: Path, args: argparse.Namespace) -> TrainingOptions:
    """An arm's configuration. From nothing, all learns at the rate that suited it in a trial."""
    # From nothing no part is new more than another: one rate, the one of the notes' trial that did best there.
    rates = {} if arm == "transfer" else {"optimiser": {"lr": 2e-4, "lr_of": {}}}
    tables: dict[str, Any] = {
        "version": 1,
        "preset": "cpu",
        "data": {"sources": [{"path": str(images)}], "pool": str(args.out / "pool"), "views": 4, "validation": 0.1},
        "features": {"type": "sift", "keypoints": 256},
        "network": {"init_from": ARMS[arm] or "none"},
        "judge": {"manifests": [str(args.judge)] if args.judge else [], "fit": False},
        "run": {
            "steps": args.steps, "seed": seed, "validate_every": max(1, args.steps // 5), "validation_pairs": 60,
            "checkpoint_every": args.steps, "keep": 1, "device": "cpu",
        },
        **rates,
    }  # fmt: skip
    return from_tables(tables)


def curve(run: Path) -> list[dict[str, float]]:
    """The validations of a run: step, likelihood of the last layer, precision (0: no matches) and recall."""
    lines = [line for line in read_log(run / "log.jsonl") if line["kind"] == "validation"]
    return [
        {"step": line["step"], "nll": line["nll"][-1], "precision": line["precision"] or 0, "recall": line["recall"]}
        for line in lines
    ]


def judged(run: Path) -> float | None:
    """The last judgement of a run."""
    values = [line["value"] for line in read_log(run / "log.jsonl") if line["kind"] == "judgement"]
    return values[-1] if values else None


def main() -> None:
    """Run what is missing, print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("photos", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--steps", type=int, default=150)
    parser.add_argument("--images", type=int, default=250)
    parser.add_argument("--judge", type=Path)
    args = parser.parse_args()
    torch.set_num_threads(1)
    images = some_images(args.photos, args.out / "images", args.images)
    rows: dict[str, list[list[dict[str, float]]]] = {arm: [] for arm in ARMS}
    for seed in args.seeds:
        for arm in ARMS:
            run = args.out / f"{arm}-{seed}"
            if not (run / "best").exists():
                options = options_of(arm, seed, images, args)
                train(options, run, resume=(run / "log.jsonl").exists())
            rows[arm].append(curve(run))
            print(json.dumps({"run": run.name, "judged": judged(run), "curve": rows[arm][-1]}), flush=True)
    print("\n| start | steps | negative log likelihood | precision | recall |\n|---|---|---|---|---|")
    for arm, curves in rows.items():
        for point in zip(*curves, strict=True):
            each = [[found[key] for found in point] for key in ("nll", "precision", "recall")]
            told = [f"{mean(values):.3f} ({min(values):.3f} to {max(values):.3f})" for values in each]
            print(f"| {arm} | {point[0]['step']} | {' | '.join(told)} |")


if __name__ == "__main__":
    main()
