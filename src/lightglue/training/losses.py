"""What is minimised: the log likelihood of the true assignment after every layer, and that of the confidences.

Paper: Lindenberger, Sarlin, Pollefeys, "LightGlue: Local Feature Matching at Light Speed", ICCV 2023, sections 3.3 and
3.4; normalisation and balance as in cvg/glue-factory.

A layer's matrices (P, M, N) are made, judged and dropped at once: what is kept for the backward pass are gradients of
the tokens' projections, (P, M, d), not of assignments. So depth costs no memory. `matching.assignment.log_assignment`
is the readable definition, and the tests hold the two equal.

Shapes: P pairs of M and N keypoints, padded where masks are given. Matches are as in `contract.Truth`, with
IGNORED in padding.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from lightglue.training.contract import UNMATCHABLE

__all__ = ["Agreement", "Judged", "agreement", "assignment_nll", "confidence_loss", "layer_weights"]

PADDING = -1e30  # similarity of what is padding: no part of any softmax


class Judged(NamedTuple):
    """What is true of one layer's assignment of P pairs."""

    nll: Tensor  # (P,) balanced negative log likelihood, with gradients
    choice0: Tensor  # (P, M) int64: the likeliest partner, UNMATCHABLE for none
    choice1: Tensor  # (P, N)


class Agreement(NamedTuple):
    """How matches fit the truth, summed over keypoints of image 0; one number a pair, (P,) float32."""

    predicted: Tensor  # matches of keypoints whose truth is known
    correct: Tensor  # those that are right
    positives: Tensor  # true matches


def assignment_nll(
    a: Tensor,  # (P, M, d) projections whose products are the similarities
    b: Tensor,  # (P, N, d)
    z0: Tensor,  # (P, M) matchability logits
    z1: Tensor,  # (P, N)
    matches0: Tensor,  # (P, M) int64
    matches1: Tensor,  # (P, N) int64
    mask0: Tensor | None = None,  # (P, M) bool, True where the row is a keypoint; both or none
    mask1: Tensor | None = None,  # (P, N) bool
    positive: float = 0.5,
) -> Judged:
    """The balanced negative log likelihood of each pair, and what the assignment would choose.

    positive: weight of the mean over matches; that of the mean over unmatchable keypoints of both images is 1 less it.
    A pair without either has 0 there. In the dtype of the arguments, which ought to be float32 at least.
    """
    nll, choice0, choice1 = _AssignmentNll.apply(a, b, z0, z1, matches0, matches1, mask0, mask1, positive)  # type: ignore[no-untyped-call]
    return Judged(nll, choice0, choice1)


class _AssignmentNll(torch.autograd.Function):
    """`assignment_nll`: gradients are made in the forward pass, while the matrices are there."""

    @staticmethod
    def forward(ctx: Any, a: Tensor, b: Tensor, z0: Tensor, z1: Tensor, *others: Any) -> tuple[Tensor, Tensor, Tensor]:
        matches0, matches1, mask0, mask1, positive = others
        similarity = a @ b.mT
        if mask0 is not None and mask1 is not None:
            similarity.masked_fill_(~(mask0[:, :, None] & mask1[:, None, :]), PADDING)
        sum0, sum1 = similarity.logsumexp(2), similarity.logsumexp(1)  # (P, M), (P, N)
        is0, is1 = matches0 >= 0, matches1 >= 0
        no0, no1 = matches0 == UNMATCHABLE, matches1 == UNMATCHABLE
        partner = matches0.clamp(min=0)
        matched = 2 * similarity.gather(2, partner[..., None]).squeeze(2) - sum0 + F.logsigmoid(z0)
        matched = matched + (F.logsigmoid(z1) - sum1).gather(1, partner)
        weight = positive / is0.sum(1).clamp(min=1).to(a)  # (P,) of each match
        rest = (1 - positive) / (no0.sum(1) + no1.sum(1)).clamp(min=1).to(a)  # of each unmatchable keypoint
        unmatched = F.logsigmoid(-z0).mul(no0).sum(1) + F.logsigmoid(-z1).mul(no1).sum(1)
        nll = -weight * torch.where(is0, matched, 0).sum(1) - rest * unmatched
        choices = _choices(similarity, sum0, sum1, z0, z1)
        if any(ctx.needs_input_grad[:4]):
            # d/ds of -(2 s_ij - log sum_row - log sum_column) over all matches, in the place of the similarities.
            wanted0, wanted1 = weight[:, None] * is0, weight[:, None] * is1
            slope = (similarity - sum0[..., None]).exp_().mul_(wanted0[..., None])
            slope += similarity.sub_(sum1[:, None]).exp_().mul_(wanted1[:, None])
            slope.scatter_add_(2, partner[..., None], -2 * wanted0[..., None])
            grad_z0 = rest[:, None] * no0 * z0.sigmoid() - wanted0 * (-z0).sigmoid()
            grad_z1 = rest[:, None] * no1 * z1.sigmoid() - wanted1 * (-z1).sigmoid()
            ctx.save_for_backward(slope @ b, slope.mT @ a, grad_z0, grad_z1)
        ctx.mark_non_differentiable(*choices)
        return nll, *choices

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:
        of_a, of_b, of_z0, of_z1 = ctx.saved_tensors
        rows = grads[0][:, None]
        return of_a * rows[..., None], of_b * rows[..., None], of_z0 * rows, of_z1 * rows, *[None] * 5


def _choices(similarity: Tensor, sum0: Tensor, sum1: Tensor, z0: Tensor, z1: Tensor) -> tuple[Tensor, Tensor]:
    """(P, M), (P, N): the greatest entry of each row and column of the log assignment, the unmatched one included."""
    own0, own1 = F.logsigmoid(z0) - sum0, F.logsigmoid(z1) - sum1
    doubled = 2 * similarity
    best0, choice0 = (doubled + own1[:, None]).max(2)
    best1, choice1 = doubled.add_(own0[..., None]).max(1)
    # Of equal ones the match wins, as its column comes first.
    choice0 = choice0.masked_fill_(best0 + own0 < F.logsigmoid(-z0), UNMATCHABLE)
    choice1 = choice1.masked_fill_(best1 + own1 < F.logsigmoid(-z1), UNMATCHABLE)
    return choice0, choice1


def confidence_loss(
    logits: list[Tensor],  # of each layer but the last (P, T), of detached tokens of one image
    choices: list[Tensor],  # of every layer (P, T)
    mask: Tensor | None = None,  # (P, T) bool
) -> Tensor:
    """(P,): how badly each layer's confidences say whether its choices are the last layer's, mean over T and layers.

    Binary cross entropy. 0 where there is one layer, or no keypoint.
    """
    last = choices[-1]
    total = last.new_zeros(last.shape[0], dtype=logits[0].dtype if logits else torch.float32)
    for logit, choice in zip(logits, choices[:-1], strict=True):
        each = F.binary_cross_entropy_with_logits(logit, (choice == last).to(logit), reduction="none")
        if mask is None:
            total = total + each.sum(1) / max(each.shape[1], 1)
        else:
            total = total + each.mul(mask).sum(1) / mask.sum(1).clamp(min=1)
    return total / max(len(logits), 1)


def layer_weights(n_layers: int, gamma: float) -> list[float]:
    """The weight of each layer's likelihood, gamma^(N - i) for the i-th of N; their sum is 1."""
    weights = [gamma ** (n_layers - 1 - i) for i in range(n_layers)]
    return [weight / sum(weights) for weight in weights]


@torch.no_grad()
def agreement(
    a: Tensor,
    b: Tensor,
    z0: Tensor,
    z1: Tensor,
    matches0: Tensor,
    mask0: Tensor | None = None,
    mask1: Tensor | None = None,
    threshold: float = 0.1,
) -> Agreement:
    """What a matcher of this threshold would find. Arguments as of `assignment_nll`."""
    similarity = a @ b.mT
    if mask0 is not None and mask1 is not None:
        similarity.masked_fill_(~(mask0[:, :, None] & mask1[:, None, :]), PADDING)
    own0 = F.logsigmoid(z0) - similarity.logsumexp(2)
    own1 = F.logsigmoid(z1) - similarity.logsumexp(1)
    scores = similarity.mul_(2).add_(own0[..., None]).add_(own1[:, None])
    best, partner = scores.max(2)
    mutual = scores.argmax(1).gather(1, partner) == torch.arange(a.shape[1], device=a.device)
    found = mutual & (best.exp() > threshold)
    if mask0 is not None:
        found &= mask0
    known = found & (matches0 >= UNMATCHABLE)
    correct = known & (partner == matches0)
    counts = (known.sum(1), correct.sum(1), (matches0 >= 0).sum(1))
    return Agreement(*(count.to(torch.float32) for count in counts))
