"""From matches and the truth to figures: by hand, and as published for the same matches."""

from __future__ import annotations

import json
from dataclasses import replace

import cv2
import numpy as np
import pytest

from lightglue.evaluation.datasets.manifest import PROTOCOLS, load_manifest
from lightglue.evaluation.metrics import Matched, judge, metrics_of, worst
from lightglue.evaluation.pair import Correspondences, Homography, RelativePose
from lightglue.evaluation.run import Job, evaluate
from lightglue.geometry import as_camera
from lightglue.models.choice import Models
from support import NEEDS_SHARED, SHARED

SIZE = (100, 80)
SHIFT = np.array([[1.0, 0, 4], [0, 1, 0], [0, 0, 1]])


def matched(points1_off: np.ndarray, H: np.ndarray = SHIFT) -> Matched:
    """A grid of matches of H that are off by so much, (K, 2) px."""
    count = len(points1_off)
    grid = np.stack(np.meshgrid(np.linspace(5, 90, 10), np.linspace(5, 70, 10)), axis=-1).reshape(-1, 2)[:count]
    return Matched(grid, grid + H[:2, 2] + points1_off, np.ones(count), SIZE)


@pytest.mark.parametrize("kind", ["homography", "pose", "points"])
def test_every_kind_has_its_figures_and_a_worst_of_each(kind):
    metrics = metrics_of(kind, PROTOCOLS[kind])
    assert metrics[0].kind == ("share" if kind == "points" else "error")
    assert len({metric.name for metric in metrics}) == len(metrics)
    for metric in metrics:
        assert worst(metrics)[metric.name] == (np.inf if metric.kind == "error" else 0)
        assert bool(metric.thresholds) == (metric.kind == "error")


def test_a_homography_is_judged_by_corners_and_by_matches():
    off = np.zeros((100, 2))
    off[:20, 0] = np.tile([2.5, -2.5], 10)  # px, both ways: within 3 and not within 1
    off[20:30, 1] = 30
    opencv, poselib, dlt = PROTOCOLS["homography"].estimators
    judged = judge(matched(off), Homography(SHIFT), replace(PROTOCOLS["homography"], estimators=(poselib, opencv, dlt)))
    assert judged.failure is None
    assert judged.values["precision@1"] == pytest.approx(0.7)
    assert judged.values["precision@3"] == pytest.approx(0.9)
    assert judged.values["corner_error/poselib@2"] < 0.5
    assert judged.values["corner_error/dlt"] > 1  # which is not robust
    assert judged.values["num_matches"] == 100
    assert judged.correct.sum() == 90
    assert judged.inliers[30:].all()


def test_dlt_is_weighted_by_the_scores():
    off = np.zeros((100, 2))
    off[:30] = (9, -25)
    found = replace(matched(off), scores=np.where(np.arange(100) < 30, 0.0, 1.0))
    assert judge(found, Homography(SHIFT), PROTOCOLS["homography"]).values["corner_error/dlt"] < 1e-6


def test_marked_points_are_judged_by_their_epipolar_lines():
    """Rectified images: F keeps rows, so that a mark's error is its vertical distance."""
    rng = np.random.default_rng(0)
    points0 = rng.uniform((0, 0), SIZE, (80, 2))
    points1 = points0 + np.stack([rng.uniform(5, 40, 80), np.zeros(80)], axis=1)
    marks0 = rng.uniform((0, 0), SIZE, (4, 2))
    marks1 = marks0 + np.array([[10, 0], [10, 2.5], [10, 10.5], [10, 50]])
    judged = judge(Matched(points0, points1, np.ones(80), SIZE), Correspondences(marks0, marks1), PROTOCOLS["points"])
    # Of the thresholds 1 to 20 px the marks are within 20, 18, 10 and none.
    assert judged.values["mAA/opencv@0.5"] == pytest.approx((20 + 18 + 10 + 0) / 80)
    assert judged.values["recall@5/opencv@0.5"] == pytest.approx(0.5)
    assert judged.correct is None


def test_a_pose_is_judged_by_its_angle_and_by_epipolar_distances():
    camera = as_camera([[100.0, 0, 50], [0, 100, 40], [0, 0, 1]])
    T = np.eye(4)
    T[:3, :3], T[:3, 3] = cv2.Rodrigues(np.array([0, 0.1, 0]))[0], (1, 0.1, 0)
    rng = np.random.default_rng(0)
    X0 = rng.uniform((-2, -2, 3), (2, 2, 8), (200, 3))
    X1 = X0 @ T[:3, :3].T + T[:3, 3]
    ends = [camera.project(X[:, :2] / X[:, 2:]) for X in (X0, X1)]
    judged = judge(Matched(*ends, np.ones(200), SIZE), RelativePose(camera, camera, T), PROTOCOLS["pose"])
    assert judged.values["pose_error/poselib@1"] < 1e-4
    assert judged.values["epipolar@0.0001"] == 1
    assert judged.correct.all()


@pytest.mark.parametrize("count", [0, 3])
@pytest.mark.parametrize(
    "truth",
    [
        Homography(SHIFT),
        RelativePose(as_camera(np.diag([9.0, 9, 1])), as_camera(np.diag([9.0, 9, 1])), np.eye(4) + np.eye(4, k=3)),
        Correspondences([[1.0, 2]], [[3.0, 4]]),
    ],
    ids=["homography", "pose", "points"],
)
def test_too_few_matches_are_a_failure_with_the_worst_of_each_estimate(truth, count):
    kind = {"Homography": "homography", "RelativePose": "pose", "Correspondences": "points"}[type(truth).__name__]
    judged = judge(matched(np.zeros((count, 2))), truth, PROTOCOLS[kind])
    assert judged.failure.startswith(PROTOCOLS[kind].estimators[0].label)
    assert set(judged.values) == {metric.name for metric in metrics_of(kind, PROTOCOLS[kind])}
    lowest = worst(metrics_of(kind, PROTOCOLS[kind]))
    for name in judged.values:
        if "/" in name:
            assert judged.values[name] == lowest[name]


PUBLISHED = {
    "synth16": {"prec@1": "precision@1", "prec@3": "precision@3", "H_magsac": "corner_error/opencv@0.5"},
    "tum18": {"epi@1e-4": "epipolar@0.0001", "epi@1e-3": "epipolar@0.001", "pose_poselib": "pose_error/poselib@1"},
    "kusvod2": {"mAA": "mAA/opencv@0.5", "rec@5": "recall@5/opencv@0.5"},
}


@pytest.mark.skipif(not SHARED.exists(), reason=NEEDS_SHARED)
@pytest.mark.parametrize("name", PUBLISHED)
def test_figures_are_the_published_ones_pair_by_pair(name, tmp_path):
    """The first two pairs of a set, ALIKED with LightGlue: same matches, same definitions."""
    benchmark = load_manifest(SHARED / "data" / f"{name}.json")
    theirs = json.loads((SHARED / "data" / "published_pairs" / f"{name}__aliked-lg.json").read_text())
    models = Models(
        "aliked",
        benchmark.protocol.max_keypoints,
        "cpu",
        False,
        thresholds={"pruning": "published"},
        extractor={"detection_threshold": 0},
    )
    run = evaluate(replace(benchmark, pairs=benchmark.pairs[:2]), Job(models), tmp_path)
    for record, published in zip(run.records, theirs, strict=False):
        assert abs(record.num_matches - published["num"]) <= 1
        for theirs_name, ours in PUBLISHED[name].items():
            assert record.values[ours] == pytest.approx(published[theirs_name], rel=2e-3, abs=2e-3)
