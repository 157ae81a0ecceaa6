"""From similarities to matches: double softmax, mutual check, threshold (paper, section 3.2).

`log_assignment` and `mutual_matches` are the definition. `blocked_matches` gives the same matches some rows at a time:
each block stays in the cache, and the (M, N) matrix, which at 20,000 x 20,000 keypoints would take 1.6 GB, and several
times that on the way, is held only where it is small.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from lightglue.errors import InputError
from lightglue.support.products import similarities
from lightglue.types import Assigned

__all__ = [
    "PADDED",
    "Assignment",
    "blocked_matches",
    "collate",
    "filter_matches",
    "log_assignment",
    "mutual_matches",
    "row_blocks",
    "sigmoid_log_double_softmax",
    "unmatched",
]

# Elements of the (M, N) matrix that are worked on at once, and the fewest rows: a product of fewer is slow.
CPU_BLOCK, CPU_ROWS = 1 << 20, 128  # 4 MB, in the cache
BLOCK = 1 << 24
PADDED = -1e4  # log of the probability that padding is matched: no less, so that float16 holds it, too
KEEP_LIMIT = 1 << 24  # elements of a matrix of similarities that is kept rather than computed twice


class Assignment(NamedTuple):
    """Matches of one pair, seen from both images."""

    matches0: Tensor  # (M,) int64, index into image 1 or -1
    matches1: Tensor  # (N,) int64, index into image 0 or -1
    scores0: Tensor  # (M,) float32 in [0, 1], 0 where the best partner does not agree
    scores1: Tensor  # (N,) float32


def log_assignment(
    similarity: Tensor,  # (..., M, N)
    z0: Tensor,  # (..., M, 1) matchability logits
    z1: Tensor,  # (..., N, 1)
    mask0: Tensor | None = None,  # (..., M) bool, True where the row is a keypoint and not padding; both or none
    mask1: Tensor | None = None,  # (..., N) bool
) -> Tensor:
    """Log of the soft assignment (..., M + 1, N + 1): both softmaxes and both matchabilities, multiplied.

    The last column and row hold the log probability that a keypoint is unmatched, their corner 0. What belongs to
    padding is `PADDED`.
    """
    z1 = z1.transpose(-1, -2)
    padding: Tensor | None = None
    if mask0 is not None and mask1 is not None:
        real0, real1 = (F.pad(mask, (0, 1), value=True) for mask in (mask0, mask1))
        padding = ~(real0[..., :, None] & real1[..., None, :])
        similarity = similarity.masked_fill(padding[..., :-1, :-1], PADDED)
    matched = similarity.log_softmax(-1) + similarity.log_softmax(-2) + F.logsigmoid(z0) + F.logsigmoid(z1)
    rows = torch.cat((matched, F.logsigmoid(-z0)), -1)
    scores = torch.cat((rows, F.pad(F.logsigmoid(-z1), (0, 1))), -2)
    return scores if padding is None else scores.masked_fill(padding, PADDED)


def sigmoid_log_double_softmax(sim: Tensor, z0: Tensor, z1: Tensor) -> Tensor:
    """`log_assignment` under its published name."""
    return log_assignment(sim, z0, z1)


def filter_matches(scores: Tensor, th: float | None) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Matches and scores of both images from a log assignment (B, M + 1, N + 1), as in the published code.

    Returns matches0 (B, M), matches1 (B, N) int64, -1 where there is none, and the scores (B, M), (B, N), which are 0
    where two keypoints are not each other's best. th: smallest score of a match; None for 0.
    """
    threshold = -1.0 if th is None else th
    found = [mutual_matches(each[:-1, :-1], threshold) for each in scores]
    matches0, matches1, scores0, scores1 = (torch.stack(column) for column in zip(*found, strict=True))
    return matches0, matches1, scores0, scores1


def mutual_matches(scores: Tensor, threshold: float) -> Assignment:
    """Matches whose keypoints are each other's best and whose score exceeds `threshold`.

    scores: (M, N) log assignment. Of equal scores the first position wins.
    """
    if scores.numel() == 0:
        return unmatched(scores.shape[0], scores.shape[1], scores)
    best0, partner0 = scores.max(1)
    return _keep_mutual(best0, partner0, scores.max(0).indices, threshold)


def blocked_matches(
    a: Tensor,  # (M, d) descriptors of image 0 whose products with b are the similarities
    b: Tensor,  # (N, d)
    z0: Tensor,  # (M,) matchability logits
    z1: Tensor,  # (N,)
    threshold: float,
) -> Assignment:
    """`mutual_matches` of `log_assignment(a @ b.T, ...)` without its last row and column, some rows at a time.

    The rows are gone through twice, since a score depends on its whole row and its whole column: first for both
    softmaxes' denominators, then for the maxima. M and N are at least 1.
    """
    blocks = row_blocks(len(a), len(b), a.device)
    kept: list[Tensor] = []
    row_sum = torch.empty_like(z0)
    column_sum = torch.full_like(z1, -torch.inf)
    for rows in blocks:
        similarity = similarities(a[rows], b)
        row_sum[rows] = _logsumexp(similarity, 1)
        column_sum = torch.logaddexp(column_sum, _logsumexp(similarity, 0))
        if len(a) * len(b) <= KEEP_LIMIT:
            kept.append(similarity)

    best0, partner0 = torch.empty_like(z0), torch.empty_like(z0, dtype=torch.int64)
    best1, partner1 = torch.full_like(z1, -torch.inf), torch.zeros_like(z1, dtype=torch.int64)
    row_term, column_term = F.logsigmoid(z0) - row_sum, F.logsigmoid(z1) - column_sum
    for k, rows in enumerate(blocks):
        similarity = kept[k] if kept else similarities(a[rows], b)
        scores = similarity.mul_(2).add_(row_term[rows, None]).add_(column_term)
        best0[rows], partner0[rows] = scores.max(1)
        best, row = scores.max(0)
        better = best > best1  # of equal scores the first position wins
        best1 = torch.where(better, best, best1)
        partner1 = torch.where(better, row + rows.start, partner1)
    return _keep_mutual(best0, partner0, partner1, threshold)


def row_blocks(m: int, n: int, device: torch.device) -> list[slice]:
    """Runs of rows of an (m, n) matrix, n at least 1, so many at once as are fast on the device."""
    step = max(CPU_ROWS, CPU_BLOCK // n) if device.type == "cpu" else max(1, BLOCK // n)
    return [slice(start, start + step) for start in range(0, m, step)]


def _logsumexp(x: Tensor, dim: int) -> Tensor:
    """`x.logsumexp(dim)` of finite values, in a fifth of the time: torch's makes several masks of infinities."""
    greatest = x.amax(dim, keepdim=True)
    return (x - greatest).exp_().sum(dim).log_().add_(greatest.squeeze(dim))


def _keep_mutual(best0: Tensor, partner0: Tensor, partner1: Tensor, threshold: float) -> Assignment:
    """The pairs of keypoints that are each other's partners.

    best0: (M,) log score of each keypoint of image 0 with its partner; partner0: (M,) and partner1: (N,) int64.
    """
    rows = torch.arange(len(partner0), device=partner0.device)
    i = rows[partner1[partner0] == rows]
    j = partner0[i]
    score = best0[i].exp()
    chosen = score > threshold
    matches0, matches1 = torch.full_like(partner0, -1), torch.full_like(partner1, -1)
    matches0[i[chosen]], matches1[j[chosen]] = j[chosen], i[chosen]
    scores0, scores1 = best0.new_zeros(len(partner0)), best0.new_zeros(len(partner1))
    scores0[i] = scores1[j] = score
    return Assignment(matches0, matches1, scores0, scores1)


def unmatched(m: int, n: int, like: Tensor) -> Assignment:
    """No match for any of m and n keypoints; scores in the dtype and on the device of `like`."""
    nowhere0, nowhere1 = (torch.full((size,), -1, device=like.device) for size in (m, n))
    return Assignment(nowhere0, nowhere1, like.new_zeros(m), like.new_zeros(n))


def collate(assignments: Sequence[Assignment]) -> Assigned:
    """The published entries for pairs with equal numbers of keypoints. Raises InputError where a score is NaN."""
    if not all(found.scores0.isfinite().all() for found in assignments):
        raise InputError("the descriptors are so large that their products overflow; give L2-normalised ones")
    matches, scores = [], []
    for found in assignments:
        rows = (found.matches0 >= 0).nonzero().squeeze(1)
        matches.append(torch.stack((rows, found.matches0[rows]), -1))
        scores.append(found.scores0[rows])
    return {
        "matches0": torch.stack([found.matches0 for found in assignments]),
        "matches1": torch.stack([found.matches1 for found in assignments]),
        "matching_scores0": torch.stack([found.scores0 for found in assignments]),
        "matching_scores1": torch.stack([found.scores1 for found in assignments]),
        "matches": matches,
        "scores": scores,
    }
