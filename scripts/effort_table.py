"""Speed and accuracy of effort "fast" against "normal", on sets of pairs with ground truth, as one table.

    python scripts/effort_table.py ../shared/data/strecha_dev.json ../shared/data/tum18.json [--features aliked]
        [--keypoints 2048] [--threads 1] [--mp] [--pairs N] [--output table.json]

Each manifest is gone through once: features are extracted first, untimed; then each pair is matched with both efforts,
one right after the other, so that a busy machine slows down both. Times are CPU seconds of this process. Poses are
estimated by PoseLib at 1 px and judged by their AUC, homographies likewise at 2 px by their corner error, pairs with
marked points by the epipolar error of these. The intervals are those of a paired bootstrap over the pairs.

`hopeless` in the place of a manifest: as many pairs of images of different scenes of the manifests before it; counted
is what is left of their matches within 1 px of the epipolar geometry that most of them agree with.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from lightglue.evaluation.bootstrap import Statistic, cleaned, figure, figures, resamplings
from lightglue.evaluation.datasets.manifest import load_manifest
from lightglue.evaluation.pair import Benchmark, Correspondences, Homography, Pair, RelativePose
from lightglue.evaluation.records import Metric
from lightglue.geometry import (
    corner_error,
    epipolar_error,
    estimate_fundamental,
    estimate_homography,
    estimate_relative_pose,
    normalized_epipolar_error,
    pose_error,
    symmetric_transfer_error,
)
from lightglue.matching.coarse_to_fine import CoarseToFine
from lightglue.models.choice import Models
from lightglue.utils import load_image

EFFORTS = ("normal", "fast")


@dataclass
class Rows:
    """What one effort gave for a set."""

    seconds: list[float] = field(default_factory=list)
    errors: list[float] = field(default_factory=list)
    matches: list[int] = field(default_factory=list)
    right: list[int] = field(default_factory=list)
    escalated: int = 0
    rejected: int = 0


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sets", nargs="+")
    parser.add_argument("--features", default="aliked")
    parser.add_argument("--keypoints", type=int, default=2048)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--mp", action="store_true", help="in reduced precision, where the CPU is fast at it")
    parser.add_argument("--pairs", type=int, default=None, help="of each set, the first N")
    parser.add_argument("--output", type=Path, default=None)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.set_grad_enabled(False)
    models = Models(options.features, options.keypoints, "cpu", mp=options.mp)
    extractor, matcher = models.load()
    matchers = {"normal": matcher, "fast": CoarseToFine(matcher)}
    features: dict[Path, Any] = {}
    precision = "reduced precision" if options.mp else "float32"
    print(f"{options.features}, {options.keypoints} keypoints, {precision}, {options.threads} thread(s), CPU seconds")
    print("set            pairs  normal    fast  ratio | AUC normal -> fast, change [95 % of resamples]")
    table, scenes = [], {}
    for name in options.sets:
        if name == "hopeless":
            pairs = _hopeless(scenes, sum(len(rows["pairs"]) for rows in table))
            benchmark = None
        else:
            benchmark = load_manifest(name)
            pairs = list(benchmark.pairs)[: options.pairs]
        for path in {path for pair in pairs for path in (pair.image0, pair.image1)}:
            if path not in features:
                features[path] = extractor.extract(load_image(path), resize=None)
        scenes |= {path: f"{Path(name).stem}/{pair.scene}" for pair in pairs for path in (pair.image0, pair.image1)}
        found = {effort: Rows() for effort in EFFORTS}
        for pair in pairs:
            for effort in EFFORTS:
                _one(pair, features, matchers[effort], found[effort])
        told = _told(name, benchmark, found)
        print(told, flush=True)
        table.append({"set": name, "pairs": [pair.name for pair in pairs], **{e: vars(found[e]) for e in EFFORTS}})
    if options.output:
        options.output.write_text(json.dumps(table))


def _one(pair: Pair, features: dict[Path, Any], matcher: Any, rows: Rows) -> None:
    both = features[pair.image0], features[pair.image1]
    begin = time.process_time()
    result = matcher.match([both])[0]
    rows.seconds.append(time.process_time() - begin)
    ij = result["matches"][0]
    points = [each["keypoints"][0][ij[:, side]].double().numpy() for side, each in enumerate(both)]
    error, right = _judge(pair.truth, *points, tuple(int(v) for v in both[0]["image_size"][0]))
    rows.errors.append(error)
    rows.matches.append(len(ij))
    rows.right.append(right)
    record = result.get("effort")
    rows.escalated += record is not None and record.escalated is not None
    rows.rejected += record is not None and record.rejected is not None


def _judge(truth: Any, points0: Any, points1: Any, size: tuple[int, ...]) -> tuple[float, int]:
    """The error of the model that the matches give, and the number of right matches."""
    if isinstance(truth, RelativePose):
        cameras = truth.camera0, truth.camera1
        found = estimate_relative_pose(points0, points1, *cameras)
        errors = normalized_epipolar_error(truth.T_0to1, *cameras, points0, points1)
        return pose_error(found.model, truth.T_0to1), int((errors < 1e-3).sum())
    if isinstance(truth, Homography):
        found = estimate_homography(points0, points1)
        errors = symmetric_transfer_error(truth.H, points0, points1)
        return corner_error(found.model, truth.H, (size[0], size[1])), int((errors < 3).sum())
    found = estimate_fundamental(points0, points1)
    if isinstance(truth, Correspondences):
        if found.model is None:
            return float("inf"), 0
        return float(np.median(epipolar_error(found.model, truth.points0, truth.points1))), int(found.inliers.sum())
    return 0.0, int(found.inliers.sum())  # of a hopeless pair: how many wrong ones stay


def _hopeless(scenes: dict[Path, str], count: int) -> list[Pair]:
    """Pairs of images of different scenes, always the same ones."""
    paths = sorted(scenes)
    if len(set(scenes.values())) < 2:
        raise SystemExit("hopeless pairs are of different scenes; give two sets before it, or one of several scenes.")
    rng = np.random.default_rng(0)
    found: dict[str, Pair] = {}
    while len(found) < count:
        first, second = (paths[i] for i in rng.integers(len(paths), size=2))
        if scenes[first] != scenes[second]:
            name = f"{first.name} {second.name}"
            found[name] = Pair(name, "", first, second, None)
    return list(found.values())


def _told(name: str, benchmark: Benchmark | None, found: dict[str, Rows]) -> str:
    normal, fast = (found[effort] for effort in EFFORTS)
    seconds = [float(np.mean(rows.seconds)) for rows in (normal, fast)]
    count = len(normal.errors)
    line = f"{Path(name).stem:14} {count:5}  {seconds[0]:.3f} s {seconds[1]:.3f} s  {seconds[0] / seconds[1]:.2f} | "
    if benchmark is not None:
        for threshold in (5.0, 10.0, 20.0) if benchmark.kind == "pose" else (3.0, 5.0, 10.0):
            numbers = _auc(benchmark.kind, threshold, normal.errors, fast.errors)
            line += "@{:g} {:.1f} -> {:.1f}, {:+.1f} [{:+.1f}, {:+.1f}]; ".format(threshold, *numbers)
    for effort, rows in found.items():
        share = 100 * sum(rows.right) / max(1, sum(rows.matches))
        line += f"{effort}: {np.mean(rows.matches):.0f} matches, {np.mean(rows.right):.0f} right ({share:.0f} %); "
    return line + f"escalated {fast.escalated}, rejected {fast.rejected}"


def _auc(kind: str, threshold: float, normal: Sequence[float], fast: Sequence[float]) -> list[float]:
    """The AUC of both, the change, and between what 95 % of the changes of resampled pairs lie."""
    statistic = Statistic(Metric(kind, "error", kind), "auc", threshold)
    values = [cleaned(statistic.metric, each) for each in (normal, fast)]
    before, after = (figure(statistic, each) for each in values)
    changes = [
        figures(statistic, values[1], counts) - figures(statistic, values[0], counts)
        for counts in resamplings(len(normal), 10_000, seed=0)
    ]
    low, high = np.quantile(np.concatenate(changes), [0.025, 0.975])
    return [before, after, after - before, float(low), float(high)]


if __name__ == "__main__":
    main()
