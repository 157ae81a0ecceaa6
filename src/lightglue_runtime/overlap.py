"""Whether two images see the same thing: a probability from what the matcher found of a pair.

Logistic regression on the scores of all mutual partners, those below `filter_threshold` too. Each counts with the
fourth power of its score: a few sure matches say more than many doubtful ones. docs/decisions/009-overlap.md has the
pairs that it was fitted on and how right it is; scripts/fit_overlap makes the coefficients.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["COEFFICIENTS", "Coefficients", "overlap_probability"]


@dataclass(frozen=True)
class Coefficients:
    """Of the logarithm of the odds."""

    constant: float
    amount: float
    share: float

    def odds(self, amount: Any, share: Any) -> Any:
        """Their logarithm, of what `evidence` gives: numbers or tensors."""
        return self.constant + self.amount * amount + self.share * share


# Feature type -> what was fitted with its published matcher.
COEFFICIENTS: Mapping[str, Coefficients] = MappingProxyType(
    {
        "aliked": Coefficients(-2.4716, 2.2158, 0.4557),
        "disk": Coefficients(-1.7641, 1.2206, 0.5561),
        "xfeat": Coefficients(0.4517, 1.1157, 0.6709),
    }
)


def overlap_probability(scores: NDArray[np.float32], count0: int, count1: int, fitted: Coefficients) -> float:
    """The probability that two images overlap; 0 where an image has no keypoints.

    Args:
        scores: (M,) the score of each keypoint of one image with its mutual partner; those without one may be left out
            or 0.
        count0, count1: the numbers of keypoints, of which the smaller one makes the share of good matches.
        fitted: for the type of features.
    """
    fewest = min(count0, count1)
    if fewest == 0:
        return 0.0
    good = float((scores.astype(np.float64) ** 4).sum())
    odds = fitted.odds(math.log1p(good), math.log((good + 0.5) / fewest))
    return float(1 / (1 + math.exp(-odds)))
