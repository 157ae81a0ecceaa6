"""How true labels from own tracks are, against depths of a model's own points; what a pool takes, and how fast it is.

    python scripts/label_quality.py SCENES -o FOLDER --features sift aliked --only sceaux et

SCENES holds folders with images/ and a COLMAP model in sparse/. Tracks are made as `lightglue train` makes them, of
keypoints of each feature type matched by its teacher. The reference knows nothing of descriptors: a keypoint's depth is
that of the points of the model around it, where several agree; truth is `from_depth` with the model's poses.

    precision   of positives whose place is known to the reference, how many it sees within 5 px
    recall      of positives of the reference, how many are positive, at the same place
    negatives   of negatives that the reference knows: how many it has as a match, which is wrong
    foreign     positives a pair if the model's own tracks were taken, a keypoint within 1 px of their observations
"""

from __future__ import annotations

import argparse
import json
import os
import time
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lightglue.sfm.colmap.model import read_model
from lightglue.training.data_options import DataOptions, FeatureOptions
from lightglue.training.own_tracks import camera_of
from lightglue.training.samples import PoolSamples, open_samples
from lightglue.training.sources.options import SourceOptions
from lightglue.training.truth.posed import from_depth

REACH = 12.0  # px around a keypoint whose depths must agree
AGREE = 0.03  # of the depth
FEWEST = 3  # points that agree
WITHIN = 5.0  # px: where the reference sees a match

Floats = NDArray[np.float64]


def main() -> None:
    """Measure, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("scenes", type=Path)
    parser.add_argument("-o", "--output", type=Path, required=True, help="folder of the pools and of result.json")
    parser.add_argument("--features", nargs="+", default=["sift"])
    parser.add_argument("--teacher", default="auto", help="auto, lightglue or nearest")
    parser.add_argument("--keypoints", type=int, default=512)
    parser.add_argument("--only", nargs="+", help="names of scenes; by default all")
    parser.add_argument("--workers", type=int)
    given = parser.parse_args()
    names = given.only or sorted(path.name for path in given.scenes.iterdir() if path.is_dir())
    results = []
    print(
        f"{'scene':16}{'features':10}{'pairs':>6}{'positives':>10}{'precision':>10}{'recall':>8}{'wrong neg.':>11}",
        end="",
    )
    print(f"{'negatives':>10}{'ignored':>9}{'foreign':>9}{'CPU s':>8}{'pairs/s':>9}{'kB/view':>9}")
    for features in given.features:
        for name in names:
            result = measure(given.scenes / name, features, given)
            results.append(result)
            print(
                f"{name:16}{features:10}{result['pairs']:6}{result['positives']:10.1f}{result['precision']:10.3f}"
                f"{result['recall']:8.3f}{result['wrong_negatives']:11.4f}{result['negatives']:10.1f}"
                f"{result['ignored']:9.1f}{result['foreign']:9.1f}{result['cpu_s']:8.1f}{result['pairs_a_second']:9.0f}"
                f"{result['bytes_a_view'] / 1e3:9.1f}",
                flush=True,
            )
    (given.output / "result.json").write_text(json.dumps(results, indent=1))


def measure(scene: Path, features: str, given: argparse.Namespace) -> dict[str, Any]:
    """The figures of one scene."""
    source = SourceOptions("model", str(scene), teacher=given.teacher)
    data = DataOptions(sources=(source,), posed_size=640, validation=0, pairs_per_scene=300)
    pool = given.output / f"{scene.name}-{features}-{given.teacher}"
    begin = sum(os.times()[:4])
    kind = FeatureOptions(features, given.keypoints, device="cpu")
    samples = open_samples(data, kind, pool, 0, workers=given.workers)
    cpu = sum(os.times()[:4]) - begin
    assert isinstance(samples, PoolSamples)
    counts = judge(samples, Reference(scene))
    start = time.process_time()
    for k in range(min(200, samples.epoch)):
        samples.sample(k)
    rate = min(200, samples.epoch) / (time.process_time() - start)
    size = sum(path.stat().st_size for path in pool.rglob("*") if path.is_file())
    return {
        "scene": scene.name,
        "features": features,
        "teacher": given.teacher,
        "pairs": samples.epoch,
        **counts,
        "cpu_s": cpu,
        "pairs_a_second": rate,
        "bytes_a_view": size / len(samples.names),
    }


class Reference:
    """Depths and tracks of the points of a model."""

    def __init__(self, scene: Path) -> None:
        self.model = read_model(scene / "sparse")
        self.images = {image.name: image for image in self.model.images}

    def seen(self, samples: PoolSamples, view: str) -> tuple[Floats, Floats, NDArray[np.int64]]:
        """Where a view shows points of the model: px (P, 2), depths (P,), and which they are."""
        known = samples.pool.views[view]
        image, camera = self.images[known.image], camera_of(known)
        inside = self.model.points[image.points] @ image.rotation.T + image.translation
        ahead = inside[:, 2] > 0
        inside = inside[ahead]
        return camera.project(inside[:, :2] / inside[:, 2:]), inside[:, 2], image.points[ahead]

    def depths(self, samples: PoolSamples, view: str, keypoints: Floats) -> Floats:
        """(N,) of keypoints; NaN where no points around agree."""
        px, depth, _ = self.seen(samples, view)
        found = np.full(len(keypoints), np.nan)
        for at, point in enumerate(keypoints):
            near = np.flatnonzero(np.linalg.norm(px - point, axis=1) < REACH)
            if len(near) < FEWEST:
                continue
            middle = np.median(depth[near])
            if np.abs(depth[near] - middle).max() <= AGREE * middle:
                weight = 1 / (1 + np.linalg.norm(px[near] - point, axis=1))
                found[at] = (weight * depth[near]).sum() / weight.sum()
        return found

    def own(self, samples: PoolSamples, view: str, keypoints: Floats) -> dict[int, int]:
        """Point of the model -> the keypoint that is within 1 px of where it is seen."""
        px, _, numbers = self.seen(samples, view)
        if not len(px) or not len(keypoints):
            return {}
        distances = np.linalg.norm(px[:, None] - keypoints[None], axis=2)
        rows = np.flatnonzero(distances.min(1) < 1)
        return {int(numbers[row]): int(distances[row].argmin()) for row in rows}


def judge(samples: PoolSamples, reference: Reference) -> dict[str, float]:
    """The labels of an epoch against the reference."""
    total: dict[str, int] = dict.fromkeys(
        ("positives", "negatives", "ignored", "checked", "right", "findable", "found", "sure", "wrong", "foreign"), 0
    )
    depths: dict[str, Floats] = {}
    own: dict[str, dict[int, int]] = {}
    for k in range(samples.epoch):
        sample = samples.sample(k)
        points = [each.keypoints.astype(np.float64) for each in (sample.features0, sample.features1)]
        for view, each in zip(sample.views, points, strict=True):
            if view not in depths:
                depths[view] = reference.depths(samples, view, each)
                own[view] = reference.own(samples, view, each)
        first, second = (samples.pool.views[view] for view in sample.views)
        assert first.posed is not None
        assert second.posed is not None
        T = second.posed.T @ np.linalg.inv(first.posed.T)
        known = [depths[view] for view in sample.views]
        truth = from_depth(*points, *known, camera_of(first), camera_of(second), T, samples.data.truth)
        _count(
            total,
            sample.truth.matches0,
            truth.matches0,
            points,
            known[0],
            _moved(first, second, points[0], known[0], T),
        )
        total["foreign"] += len(own[sample.views[0]].keys() & own[sample.views[1]].keys())
    pairs = samples.epoch
    return {
        **{name: total[name] / pairs for name in ("positives", "negatives", "ignored", "foreign")},
        "precision": total["right"] / max(1, total["checked"]),
        "recall": total["found"] / max(1, total["findable"]),
        "wrong_negatives": total["wrong"] / max(1, total["sure"]),
        "checked": total["checked"],
        "findable": total["findable"],
    }


def _moved(first: Any, second: Any, points: Floats, depth: Floats, T: Floats) -> Floats:
    """Where the reference sees the keypoints of image 0 in image 1; NaN where it does not know."""
    rays = np.concatenate([camera_of(first).normalize(points), np.ones((len(points), 1))], 1) * depth[:, None]
    inside = rays @ T[:3, :3].T + T[:3, 3]
    found = np.full((len(points), 2), np.nan)
    ahead = np.isfinite(inside).all(1) & (inside[:, 2] > 0)
    if ahead.any():
        found[ahead] = camera_of(second).project(inside[ahead, :2] / inside[ahead, 2:])
    return found


def _count(total: dict[str, int], ours: Any, theirs: Any, points: list[Floats], depth: Floats, moved: Floats) -> None:
    positive, negative = ours >= 0, ours == -1
    total["positives"] += int(positive.sum())
    total["negatives"] += int(negative.sum())
    total["ignored"] += int((ours == -2).sum())
    checked = positive & np.isfinite(moved).all(1)
    off = np.linalg.norm(points[1][ours] - moved, axis=1)
    total["checked"] += int(checked.sum())
    total["right"] += int((checked & (off < WITHIN)).sum())
    findable = theirs >= 0
    beside = np.linalg.norm(points[1][theirs] - points[1][ours], axis=1) < WITHIN
    total["findable"] += int(findable.sum())
    total["found"] += int((findable & positive & beside).sum())
    sure = negative & np.isfinite(depth)
    total["sure"] += int(sure.sum())
    total["wrong"] += int((sure & findable).sum())


if __name__ == "__main__":
    main()
