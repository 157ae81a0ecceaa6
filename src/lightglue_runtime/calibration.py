"""What the scores of matches say: the probability that a match is right, as fitted on pairs with ground truth."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lightglue_runtime.checks import check_real

__all__ = ["Calibration", "log_odds"]

_LEAST = 1e-7  # a score is taken to lie between this and 1 minus this


@dataclass(frozen=True)
class Calibration:
    """Scores to probabilities: a line through their log odds (Platt, 1999).

    It rises, so it changes no order and no choice of matches: `matching_scores`, and with them `filter_threshold`, the
    overlap and the weights of estimators, stay what they are. docs/decisions/039-trained-weights.md says why.

    Raises InputError for a line that does not rise.
    """

    offset: float
    slope: float  # above 0

    def __post_init__(self) -> None:
        check_real("calibration: offset", self.offset, "a finite number")
        check_real("calibration: slope", self.slope, "a number above 0", math.ulp(0))

    def probability(self, scores: NDArray[np.floating]) -> NDArray[np.float64]:
        """The probability that each match is right, of its score in [0, 1]; any shape."""
        odds = self.offset + self.slope * log_odds(scores)
        return np.asarray(np.exp(-np.logaddexp(0, -odds)))

    def threshold(self, probability: float) -> float:
        """The score above which a match is at least this probable: a `filter_threshold`. probability: in (0, 1)."""
        check_real("probability", probability, "a number between 0 and 1", math.ulp(0), 1 - math.ulp(0.5))
        odds = (math.log(probability / (1 - probability)) - self.offset) / self.slope
        return float(np.exp(-np.logaddexp(0, -odds)))


def log_odds(scores: NDArray[np.floating]) -> NDArray[np.float64]:
    """Of scores in [0, 1]; finite."""
    p = np.clip(np.asarray(scores, np.float64), _LEAST, 1 - _LEAST)
    return np.asarray(np.log(p) - np.log1p(-p))
