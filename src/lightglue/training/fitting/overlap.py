"""Whether two images overlap, by what a trained matcher finds of them: see `lightglue.matching.overlap`."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from lightglue.matching.lightglue import LightGlue
from lightglue.matching.overlap import COEFFICIENTS, Coefficients, evidence
from lightglue.stores.features import ImageFeatures
from lightglue.support.progress import Progress
from lightglue.training.fitting import logistic

__all__ = ["OverlapFit", "different", "evidence_of", "fit_overlap"]

# Pairs, towards the published coefficients of the feature type (ALIKED's for others): homographies and different
# photographs are told apart without a fault, and then only this says how steep the curve is.
RIDGE = 5.0
SHARE = 0.4  # of pairs that overlap, as in the fit of the published coefficients
FEWEST = 20  # pairs of either kind, below which nothing is fitted
_USUAL = "aliked"
_SURE = 0.9  # score

Pair = tuple[ImageFeatures, ImageFeatures]


@dataclass(frozen=True)
class OverlapFit:
    """Coefficients, and how right they are on the pairs that they were fitted to."""

    coefficients: Coefficients | None  # None: there are too few pairs
    positives: int
    negatives: int
    auc: float  # area under the ROC curve


@torch.no_grad()
def evidence_of(
    matcher: LightGlue,
    pairs: Iterable[Pair],
    *,
    most: int | None = None,
    progress: Progress = lambda done, total: None,
) -> NDArray[np.float64]:
    """(P, 2) amount and share of good matches of each pair, in logarithms; pairs without keypoints are left out.

    most: pairs with more sure matches than these are left out, too: where none are expected, but not ruled out.
    """
    device = matcher.posenc.Wr.weight.device
    rows = []
    for number, (one, other) in enumerate(pairs):
        if len(one) and len(other):
            found = matcher({"image0": one.torch(device), "image1": other.torch(device)})
            scores = found["matching_scores0"][0]
            if most is None or int((scores > _SURE).sum()) <= most:
                rows.append([float(each) for each in evidence(scores, len(one), len(other))])
        progress(number + 1, 0)
    return np.array(rows).reshape(-1, 2)


def fit_overlap(positive: NDArray[np.float64], negative: NDArray[np.float64], feature_type: str | None) -> OverlapFit:
    """Coefficients from the evidence (P, 2), (N, 2) of pairs that overlap and of pairs that do not."""
    counts = len(positive), len(negative)
    if min(counts) < FEWEST:
        return OverlapFit(None, *counts, float("nan"))
    x, y = np.concatenate((positive, negative)), np.arange(sum(counts)) < counts[0]
    weights = np.where(y, SHARE / counts[0], (1 - SHARE) / counts[1]) * sum(counts)
    usual = COEFFICIENTS.get(feature_type or "", COEFFICIENTS[_USUAL])
    centre = np.array([usual.constant, usual.amount, usual.share])
    fitted = logistic.fit(x, y, RIDGE, centre, weights)
    coefficients = Coefficients(*(round(float(each), 4) for each in fitted))
    return OverlapFit(coefficients, *counts, _auc(logistic.probabilities(fitted, x), y))


def _auc(p: NDArray[np.float64], y: NDArray[np.bool_]) -> float:
    """Area under the ROC curve; ties count half."""
    _, where = np.unique(p, return_inverse=True)
    counts = np.bincount(where)
    rank = (np.cumsum(counts) - (counts - 1) / 2)[where]  # mean rank of equal values, from 1
    positives = int(y.sum())
    return float((rank[y].sum() - positives * (positives + 1) / 2) / (positives * (len(y) - positives)))


def different(items: Sequence[tuple[str, ImageFeatures]], count: int, seed: int) -> list[Pair]:
    """Up to `count` pairs of views of different images, drawn by the seed. items: the image of each, and features."""
    drawn, found = np.random.default_rng(seed), []
    names = {name for name, _ in items}
    if len(names) < 2:
        return []
    for _ in range(4 * count):
        (a, one), (b, other) = (items[int(k)] for k in drawn.integers(len(items), size=2))
        if a != b:
            found.append((one, other))
        if len(found) == count:
            break
    return found
