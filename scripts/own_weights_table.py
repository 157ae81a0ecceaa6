"""Own SIFT + LightGlue beside SIFT with the ratio test and ALIKED + LightGlue, on every set: for docs/weights.md.

    python scripts/own_weights_table.py DATA OUT --weights RUN/best/weights.safetensors [--sets tum18 ...]
        [--json figures.json]

DATA holds the manifests. OUT gets a run of `lightglue eval` for each method and set; what is complete is not done
again, and what was cut off goes on. Figures: AUC at 3 px of homographies, at 5 degrees of poses (PoseLib, 1 px), mAA of
points, in percent. The ratio test: nearest neighbours that are each other's, ratio 0.8 in both images, the same
keypoints as LightGlue gets; `opencv` is OpenCV's SIFT as the published baseline has it, its ratio in one image alone.
Differences of own weights from both, with 95 % intervals by the paired bootstrap over pairs; `--json` is what
`ship_weights.py --figures` takes.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import torch

from lightglue.benchmark.machine import describe_machine
from lightglue.evaluation.compare import Difference, compare
from lightglue.evaluation.datasets.manifest import load_manifest
from lightglue.evaluation.records import Run
from lightglue.evaluation.run import Job, evaluate
from lightglue.models.choice import Models

SETS = ("strecha_dev", "strecha_wide_dev", "tum18", "temple18", "planar15", "synth16", "kusvod2")
FIGURES = {
    "homography": "corner_error/opencv@0.5 auc@3",
    "pose": "pose_error/poselib@1 auc@5",
    "points": "mAA/opencv@0.5 mean",
}
PLAIN = {"nms_radius": None, "num_octaves": 3, "detection_threshold": 0.01}  # OpenCV's SIFT, all orientations
BASELINES = ("ratio", "opencv")


def methods(weights: str, keypoints: int) -> dict[str, Models]:
    """What is compared. Those that follow each other with the same extractor share its features."""
    common: dict[str, Any] = {"max_keypoints": keypoints, "device": "cpu", "mp": False}
    one_way = {"ratio_threshold": 0.8, "ratio_both": False}
    return {
        "ratio": Models("sift", matcher="nearest", thresholds={"ratio_threshold": 0.8}, **common),
        "own": Models("sift", weights=weights, **common),
        "opencv": Models("sift", matcher="nearest", thresholds=one_way, extractor=PLAIN, **common),
        "aliked": Models("aliked", **common),
    }


def runs_of(data: Path, out: Path, each: str, weights: str, keypoints: int | None) -> dict[str, Run]:
    """All methods on a set."""
    benchmark = load_manifest(data / f"{each}.json")
    found: dict[str, Run] = {}
    seen: dict[str, dict[Path, Any]] = {}
    for name, models in methods(weights, keypoints or benchmark.protocol.max_keypoints).items():
        folder = out / (name if name != "own" else f"own-{models.own.sha256[:8]}") / each  # type: ignore[union-attr]
        features = seen.setdefault(f"{models.features} {dict(models.extractor)}", {})
        found[name] = evaluate(benchmark, Job(models), folder, about={"machine": describe_machine()}, seen=features)
    return found


def difference(runs: dict[str, Run], baseline: str, method: str = "own") -> Difference:
    """Of the figure that counts for the set."""
    wanted = FIGURES[runs[method].kind]
    return next(each for each in compare(runs[baseline], runs[method]).differences if each.statistic.name == wanted)


def with_interval(found: Difference) -> str:
    """A difference as the table has it; bold where it is beyond chance."""
    low, high = found.interval
    text = f"{found.difference:+.1f} ({low:+.1f} to {high:+.1f})"
    return f"**{text}**" if found.verdict in ("better", "worse") else text


def main() -> None:
    """Run what is missing, print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--weights", default="sift_lightglue_own", help="a file, or a name")
    parser.add_argument("--sets", nargs="+", default=SETS, choices=SETS)
    parser.add_argument("--keypoints", type=int, help="of each image; by default the manifest's")
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    torch.set_num_threads(1)
    heads = ("ratio test", "OpenCV's, ratio test", "own LightGlue", "over the ratio test", "over OpenCV's")
    lines = [f"| set | pairs | {' | '.join(heads)} | ALIKED + LightGlue |", "|---|---:|---:|---:|---:|---|---|---:|"]
    figures = {}
    for each in given.sets:
        runs = runs_of(given.data, given.out, each, given.weights, given.keypoints)
        over, over_opencv = (difference(runs, name) for name in BASELINES)
        aliked = difference(runs, "own", "aliked")
        lines.append(
            f"| {each} | {len(runs['own'].pairs)} | {over.a:.1f} | {over_opencv.a:.1f} | {over.b:.1f} | "
            f"{with_interval(over)} | {with_interval(over_opencv)} | {aliked.b:.1f} |"
        )
        print(lines[-1], flush=True)
        figures[each] = {
            "figure": over.statistic.full_title, "own": round(over.b, 2), "ratio test": round(over.a, 2),
            "difference": round(over.difference, 2), "interval": [round(value, 2) for value in over.interval],
            "OpenCV's, ratio test": round(over_opencv.a, 2), "ALIKED + LightGlue": round(aliked.b, 2),
        }  # fmt: skip
    if given.json:
        given.json.write_text(json.dumps(figures, indent=1))
    print("", *lines, sep="\n")


if __name__ == "__main__":
    main()
