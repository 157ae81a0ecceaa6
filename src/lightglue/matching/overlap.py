"""Whether two images see the same thing: a probability from what the matcher found of a pair.

Logistic regression on the scores of all mutual partners, those below `filter_threshold` too. Each counts with the
fourth power of its score: a few sure matches say more than many doubtful ones. docs/decisions/009-overlap.md has the
pairs that it was fitted on and how right it is; scripts/fit_overlap makes the coefficients.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

import torch
from torch import Tensor

__all__ = ["COEFFICIENTS", "Coefficients", "evidence", "overlap_probability"]


@dataclass(frozen=True)
class Coefficients:
    """Of the logarithm of the odds."""

    constant: float
    amount: float
    share: float


# Feature type -> what was fitted with its published matcher.
COEFFICIENTS: Mapping[str, Coefficients] = MappingProxyType(
    {
        "aliked": Coefficients(-2.4716, 2.2158, 0.4557),
        "disk": Coefficients(-1.7641, 1.2206, 0.5561),
        "xfeat": Coefficients(0.4517, 1.1157, 0.6709),
    }
)


def evidence(scores: Tensor, count0: int, count1: int) -> tuple[Tensor, Tensor]:
    """What the probability depends on: the amount and the share of good matches, in logarithms, () float32 each.

    Args:
        scores: (M,) the score of each keypoint of one image with its mutual partner; those without one may be left out.
        count0, count1: the numbers of keypoints, of which the smaller one, but at least 1, makes the share.
    """
    good = scores.float().pow(4).sum()
    return good.log1p(), ((good + 0.5) / max(1, min(count0, count1))).log()


def overlap_probability(scores: Tensor, count0: int, count1: int, fitted: Coefficients) -> Tensor:
    """The probability, () float32, that two images overlap; arguments as for `evidence`.

    0 where an image has no keypoints. It stays on the scores' device, so that nothing waits for it.
    """
    if min(count0, count1) == 0:
        return scores.new_zeros((), dtype=torch.float32)
    amount, share = evidence(scores, count0, count1)
    return (fitted.constant + fitted.amount * amount + fitted.share * share).sigmoid()
