"""Whether two images see the same thing: `lightglue_runtime.overlap` on tensors, so that no GPU is waited for."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from lightglue_runtime.overlap import COEFFICIENTS, Coefficients

__all__ = ["COEFFICIENTS", "Coefficients", "coefficients_of", "evidence", "overlap_probability"]


def coefficients_of(matcher: Any) -> Coefficients | None:
    """What a matcher makes its overlaps with: its own, or of another's matcher those of its feature type, if any."""
    usual = COEFFICIENTS.get(getattr(matcher, "feature_type", None) or "")
    own = getattr(matcher, "overlap", usual)
    return own if own is None or isinstance(own, Coefficients) else usual


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
    odds: Tensor = fitted.odds(amount, share)
    return odds.sigmoid()
