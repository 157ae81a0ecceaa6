"""What the scores of matches are worth: fitted to matches whose truth is known."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from lightglue.matching.calibration import Calibration, log_odds
from lightglue.matching.lightglue import LightGlue
from lightglue.support.progress import Progress
from lightglue.training.contract import IGNORED, Sample, Truth
from lightglue.training.fitting import logistic

__all__ = ["Bin", "Scored", "calibration_error", "fit_calibration", "judged_matches", "reliability", "scored_matches"]

RIDGE = 1.0  # rows, towards scores that are probabilities
BINS = 10


@dataclass(frozen=True, eq=False)
class Scored:
    """Matches of which it is known whether they are right."""

    scores: NDArray[np.float32]  # (K,)
    correct: NDArray[np.bool_]  # (K,)
    pair: NDArray[np.int64]  # (K,) number of the pair


@dataclass(frozen=True)
class Bin:
    """Matches of about the same probability."""

    count: int
    predicted: float  # mean probability
    found: float  # share that is right


def scored_matches(
    matcher: LightGlue, samples: Sequence[Sample], *, progress: Progress = lambda done, total: None
) -> Scored:
    """Every mutual partner that `matcher` finds in the pairs, however low its score, and whether it is right."""
    found = [(np.zeros(0, np.float32), np.zeros(0, bool), np.zeros(0, np.int64))]
    for number, (ij, scores) in enumerate(_matches(matcher, samples)):
        correct, known = judged_matches(ij, samples[number].truth)
        found.append((scores[known], correct[known], np.full(int(known.sum()), number, np.int64)))
        progress(number + 1, len(samples))
    columns = [np.concatenate(column) for column in zip(*found, strict=True)]
    return Scored(*columns)


def judged_matches(ij: NDArray[np.int64], truth: Truth) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """(K,) which of the matches (K, 2) are right, and of which it is known: not where both keypoints are ignored."""
    true0, true1 = truth.matches0[ij[:, 0]], truth.matches1[ij[:, 1]]
    return true0 == ij[:, 1], (true0 != IGNORED) | (true1 != IGNORED)


@torch.no_grad()
def _matches(matcher: LightGlue, samples: Sequence[Sample]) -> Iterator[tuple[NDArray[np.int64], NDArray[np.float32]]]:
    usual, device = matcher.conf.filter_threshold, matcher.posenc.Wr.weight.device
    for sample in samples:
        matcher.conf.filter_threshold = 0.0
        try:
            found = matcher({"image0": sample.features0.torch(device), "image1": sample.features1.torch(device)})
        finally:
            matcher.conf.filter_threshold = usual
        yield found["matches"][0].cpu().numpy(), found["scores"][0].float().cpu().numpy()


def fit_calibration(scored: Scored) -> Calibration | None:
    """The line from the log odds of scores to those of being right; None where it would not rise."""
    if not len(scored.scores):
        return None
    as_they_are = np.array([0.0, 1.0])
    offset, slope = logistic.fit(log_odds(scored.scores)[:, None], scored.correct, RIDGE, as_they_are)
    return Calibration(float(offset), float(slope)) if slope > 0 else None


def reliability(probabilities: NDArray[np.floating], correct: NDArray[np.bool_]) -> list[Bin]:
    """What is found for each tenth of probabilities that any match has."""
    place = np.minimum((probabilities * BINS).astype(int), BINS - 1)
    chosen = [place == k for k in range(BINS) if (place == k).any()]
    return [Bin(int(own.sum()), float(probabilities[own].mean()), float(correct[own].mean())) for own in chosen]


def calibration_error(probabilities: NDArray[np.floating], correct: NDArray[np.bool_]) -> float:
    """The mean gap between probability and share found, over matches; NaN for none."""
    bins = reliability(probabilities, correct)
    return sum(each.count * abs(each.predicted - each.found) for each in bins) / len(correct) if bins else float("nan")
