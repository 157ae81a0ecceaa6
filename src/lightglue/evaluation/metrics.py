"""From the matches of one pair and the truth about it to figures.

Which figures there are depends on the kind of truth alone; a pair that failed has the worst of each.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lightglue.evaluation.pair import Correspondences, Homography, Kind, Protocol, RelativePose, Truth
from lightglue.evaluation.records import Metric
from lightglue.geometry import errors
from lightglue.geometry.estimation import estimate_fundamental, estimate_homography, estimate_relative_pose
from lightglue.geometry.options import EstimatorOptions
from lightglue.geometry.results import Estimate

__all__ = ["Judged", "Matched", "judge", "metrics_of", "worst"]

PRECISIONS = (1.0, 3.0, 5.0)  # px of symmetric transfer error
EPIPOLAR = (1e-4, 5e-4, 1e-3, 5e-3)  # of the normalised epipolar error
RECALL = 5.0  # px of epipolar error at the points that a person marked


@dataclass(frozen=True, eq=False)
class Matched:
    """The matches of a pair, in px of the images as they are judged."""

    points0: NDArray[np.float64]  # (K, 2)
    points1: NDArray[np.float64]  # (K, 2)
    scores: NDArray[np.float64]  # (K,)
    size0: tuple[int, int]  # width and height of image 0, px


@dataclass(frozen=True, eq=False)
class Judged:
    """The figures of a pair."""

    values: dict[str, float]  # by the name of the metric
    inliers: NDArray[np.bool_]  # (K,) of the first estimator
    correct: NDArray[np.bool_] | None  # (K,), where the truth tells: within 3 px, or epipolar within 5e-4
    failure: str | None


def metrics_of(kind: Kind, protocol: Protocol) -> tuple[Metric, ...]:
    """The figures that each pair of a benchmark has; the first is the headline."""
    counts = [Metric("num_matches", "count", "matches")]
    labels = [options.label for options in protocol.estimators]
    if kind != "points":
        what, unit = ("corner", "px") if kind == "homography" else ("pose", "degrees")
        found = [
            Metric(f"{what}_error/{label}", "error", f"{what} error, {label}", unit, protocol.thresholds)
            for label in labels
        ]
        if kind == "homography":
            shares = [Metric(f"precision@{t:g}", "share", f"matches within {t:g} px") for t in PRECISIONS]
        else:
            near = "matches within {:g} of their epipolar line"
            shares = [Metric(f"epipolar@{t:g}", "share", near.format(t)) for t in EPIPOLAR]
        return (*found, *shares, *counts)
    within = f"{min(protocol.thresholds):g} to {max(protocol.thresholds):g} px"
    accuracies = [Metric(f"mAA/{label}", "share", f"mean accuracy, {within}, {label}") for label in labels]
    near = f"recall@{RECALL:g}"
    recalls = [Metric(f"{near}/{label}", "share", f"points within {RECALL:g} px, {label}") for label in labels]
    return (*accuracies, *recalls, *counts)


def worst(metrics: tuple[Metric, ...]) -> dict[str, float]:
    """The values of a pair that failed."""
    return {metric.name: math.inf if metric.kind == "error" else 0.0 for metric in metrics}


def judge(matched: Matched, truth: Truth, protocol: Protocol) -> Judged:
    """The figures of a pair. An estimator that finds nothing gives an infinite error; the first one's is a failure."""
    if isinstance(truth, Homography):
        values, estimates, correct = _homography(matched, truth, protocol)
    elif isinstance(truth, RelativePose):
        values, estimates, correct = _pose(matched, truth, protocol)
    else:
        values, estimates, correct = _points(matched, truth, protocol)
    values["num_matches"] = float(len(matched.points0))
    first = estimates[0]
    reason = first.statistics.failure
    failure = f"{first.statistics.options.label}: {reason}" if reason else None
    return Judged(values, first.inliers, correct, failure)


_Figures = tuple[dict[str, float], list[Estimate], NDArray[np.bool_] | None]


def _homography(matched: Matched, truth: Homography, protocol: Protocol) -> _Figures:
    ends = matched.points0, matched.points1
    estimates = _all(protocol, lambda options: estimate_homography(*ends, options, weights=matched.scores))
    values = {
        f"corner_error/{label}": errors.corner_error(estimate.model, truth.H, matched.size0)
        for label, estimate in estimates.items()
    }
    distances = errors.symmetric_transfer_error(truth.H, *ends)
    values |= {f"precision@{t:g}": _share(distances < t) for t in PRECISIONS}
    return values, list(estimates.values()), distances < PRECISIONS[1]


def _pose(matched: Matched, truth: RelativePose, protocol: Protocol) -> _Figures:
    ends, cameras = (matched.points0, matched.points1), (truth.camera0, truth.camera1)
    estimates = _all(protocol, lambda options: estimate_relative_pose(*ends, *cameras, options))
    values = {
        f"pose_error/{label}": errors.pose_error(estimate.model, truth.T_0to1) for label, estimate in estimates.items()
    }
    distances = errors.normalized_epipolar_error(truth.T_0to1, *cameras, *ends)
    values |= {f"epipolar@{t:g}": _share(distances < t) for t in EPIPOLAR}
    return values, list(estimates.values()), distances < EPIPOLAR[1]


def _points(matched: Matched, truth: Correspondences, protocol: Protocol) -> _Figures:
    estimates = _all(protocol, lambda options: estimate_fundamental(matched.points0, matched.points1, options))
    values = {}
    for label, estimate in estimates.items():
        distances = np.full(len(truth.points0), np.inf)
        if estimate.model is not None:
            distances = errors.epipolar_error(estimate.model, truth.points0, truth.points1)
        values[f"mAA/{label}"] = float(np.mean([_share(distances < t) for t in protocol.thresholds]))
        values[f"recall@{RECALL:g}/{label}"] = _share(distances < RECALL)
    return values, list(estimates.values()), None


def _all(protocol: Protocol, estimate: Callable[[EstimatorOptions], Estimate]) -> Mapping[str, Estimate]:
    return {options.label: estimate(options) for options in protocol.estimators}


def _share(is_so: NDArray[Any]) -> float:
    return float(is_so.mean()) if len(is_so) else 0.0
