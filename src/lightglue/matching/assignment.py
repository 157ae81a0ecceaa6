"""From similarities to matches: double softmax, mutual check, threshold (paper, section 3.2)."""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["Assignment", "log_assignment", "mutual_matches"]


class Assignment(NamedTuple):
    """Matches of one pair, seen from both images."""

    matches0: Tensor  # (M,) int64, index into image 1 or -1
    matches1: Tensor  # (N,) int64, index into image 0 or -1
    scores0: Tensor  # (M,) float32 in [0, 1], 0 where the best partner does not agree
    scores1: Tensor  # (N,) float32


def log_assignment(similarity: Tensor, z0: Tensor, z1: Tensor) -> Tensor:
    """Log of the soft assignment: both softmaxes and both matchabilities, multiplied.

    similarity: (..., M, N); z0: (..., M) and z1: (..., N) matchability logits. Returns (..., M, N).
    The published code also appends a row and a column of unmatchability, which nothing reads.
    """
    both = similarity.log_softmax(-1) + similarity.log_softmax(-2)
    return both + F.logsigmoid(z0)[..., :, None] + F.logsigmoid(z1)[..., None, :]


def mutual_matches(scores: Tensor, threshold: float) -> Assignment:
    """Matches whose keypoints are each other's best and whose score exceeds `threshold`.

    scores: (M, N) log assignment, M and N at least 1. Of equal scores the first position wins.
    """
    best0, partner0 = scores.max(1)
    partner1 = scores.max(0).indices
    rows = torch.arange(len(partner0), device=scores.device)
    columns = torch.arange(len(partner1), device=scores.device)
    mutual0 = partner1[partner0] == rows
    mutual1 = partner0[partner1] == columns
    scores0 = best0.exp() * mutual0
    scores1 = scores0[partner1] * mutual1
    valid0 = mutual0 & (scores0 > threshold)
    valid1 = mutual1 & valid0[partner1]
    return Assignment(torch.where(valid0, partner0, -1), torch.where(valid1, partner1, -1), scores0, scores1)
