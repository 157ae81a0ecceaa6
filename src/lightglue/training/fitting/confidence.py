"""The confidence heads: after which layer a keypoint's match is what the last layer will say (paper, section 3.3).

The published second stage trains them by gradient descent with the tokens detached. As each head is a logistic
regression on its layer's tokens, the same optimum is found here exactly, from forward passes alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lightglue.errors import InputError
from lightglue.matching import adaptive
from lightglue.matching.inputs import read_features
from lightglue.matching.lightglue import LightGlue
from lightglue.matching.network import RowScore, TokenConfidence
from lightglue.support.progress import Progress
from lightglue.training.contract import Sample
from lightglue.training.fitting import logistic

__all__ = ["HeadFit", "TokenRows", "fit_heads", "token_rows"]

ROWS = 65_536  # of a layer, at most: 67 MB at width 256
MOST = 64  # tokens of an image
RIDGE = 3.0  # rows, where a head is fitted from nothing
RIDGE_TO_OLD = 300.0  # ... where it is drawn to what it was
HELD_OUT = 0.2  # share of the pairs, the last ones, that is not fitted to and decides which of the heads is best


@dataclass(frozen=True)
class HeadFit:
    """How the head of a layer does on pairs that it was not fitted to, before and after."""

    layer: int  # from 1
    agree: float  # share of tokens whose match is the last layer's
    before: float  # cross entropy, nats
    after: float
    sure_before: float  # share of tokens above the layer's threshold
    sure_after: float
    right_before: float  # share of these whose match is the last layer's
    right_after: float
    replaced: bool


@dataclass(frozen=True, eq=False)
class TokenRows:
    """Tokens of a layer, and whether the match of each is the last layer's."""

    tokens: NDArray[np.float32]  # (R, d)
    agree: NDArray[np.bool_]  # (R,)
    pair: NDArray[np.int64]  # (R,) number of the pair


def fit_heads(
    matcher: LightGlue, samples: Sequence[Sample], *, seed: int = 0, progress: Progress = lambda done, total: None
) -> list[HeadFit]:
    """Fit each confidence head of `matcher` again, in place, where that is better on pairs held out.

    Raises InputError where no pair has keypoints in both images.
    """
    layers = token_rows(matcher, samples, seed=seed, progress=progress)
    return [_fit_head(matcher, i, rows) for i, rows in enumerate(layers)]


def token_rows(
    matcher: LightGlue, samples: Sequence[Sample], *, seed: int = 0, progress: Progress = lambda done, total: None
) -> list[TokenRows]:
    """Of every layer but the last, some tokens of each pair, drawn by the seed and the pair's number."""
    each = max(1, min(MOST, ROWS // (2 * max(1, len(samples)))))
    kept: list[list[tuple[Tensor, Tensor]]] = [[] for _ in matcher.token_confidence]
    pairs: list[int] = []
    for number, sample in enumerate(samples):
        if len(sample.features0) and len(sample.features1):
            drawn = np.random.default_rng((seed, number))
            found = _tokens_of(matcher, sample, each, drawn)
            for rows, layer in zip(kept, found, strict=True):
                rows.append(layer)
            pairs += [number] * (len(found[0][0]) if found else 0)
        progress(number + 1, len(samples))
    if not pairs and len(matcher.token_confidence):
        raise InputError(f"None of {len(samples)} pairs has keypoints in both images; the confidence needs some.")
    return [
        TokenRows(torch.cat([x for x, _ in rows]).numpy(), torch.cat([y for _, y in rows]).numpy(), np.array(pairs))
        for rows in kept
    ]


@torch.no_grad()
def _tokens_of(
    matcher: LightGlue, sample: Sample, count: int, drawn: np.random.Generator
) -> list[tuple[Tensor, Tensor]]:
    """(R, d) tokens and (R,) agreement of every layer but the last, of up to `count` keypoints of both images."""
    config, like = matcher.checked_conf(), matcher.posenc.Wr.weight
    (one,), (other,) = (
        read_features(features.torch(like.device), name, config, like)
        for features, name in zip((sample.features0, sample.features1), sample.views, strict=True)
    )
    outputs = matcher.network(one.positions, other.positions, one.descriptors, other.descriptors)
    last = outputs[-1].log_assignment
    partners = last[:-1].argmax(1), last[:, :-1].argmax(0)  # being unmatched is a partner, too
    chosen = [torch.from_numpy(np.sort(drawn.permutation(len(each))[:count])).to(like.device) for each in partners]
    found = []
    for output in outputs[:-1]:
        scores = output.log_assignment
        agree0, agree1 = scores[:-1].argmax(1) == partners[0], scores[:, :-1].argmax(0) == partners[1]
        tokens = torch.cat((output.x0[chosen[0]], output.x1[chosen[1]]))
        found.append((tokens.float().cpu(), torch.cat((agree0[chosen[0]], agree1[chosen[1]])).cpu()))
    return found


def _fit_head(matcher: LightGlue, layer: int, rows: TokenRows) -> HeadFit:
    head = cast(TokenConfidence, matcher.token_confidence[layer]).token[0]
    assert isinstance(head, RowScore)
    held_out = rows.pair > (1 - HELD_OUT) * rows.pair.max()
    if held_out.all():  # one pair: every other row
        held_out = np.arange(len(rows.pair)) % 2 == 1
    x, y = rows.tokens[held_out], rows.agree[held_out]
    before = np.r_[head.bias.detach().cpu().numpy(), head.weight[0].detach().cpu().numpy()].astype(np.float64)
    tries = {ridge: (ridge, centre) for ridge, centre in ((RIDGE, None), (RIDGE_TO_OLD, before))}
    fitted = {key: logistic.fit(rows.tokens[~held_out], rows.agree[~held_out], *how) for key, how in tries.items()}
    entropies = {key: logistic.cross_entropy(b, x, y) for key, b in fitted.items()}
    best = min(entropies, key=lambda key: entropies[key])
    as_before, as_after = logistic.cross_entropy(before, x, y), entropies[best]
    if as_after < as_before:
        final = torch.from_numpy(logistic.fit(rows.tokens, rows.agree, *tries[best]))
        with torch.no_grad():
            head.bias.copy_(final[:1])
            head.weight.copy_(final[None, 1:])
    threshold = adaptive.confidence_threshold(layer, matcher.conf.n_layers)
    sure0, sure1 = (logistic.probabilities(b, x) >= threshold for b in (before, fitted[best]))
    return HeadFit(
        layer=layer + 1,
        agree=float(y.mean()),
        before=as_before,
        after=as_after,
        sure_before=float(sure0.mean()),
        sure_after=float(sure1.mean()),
        right_before=_share(y[sure0]),
        right_after=_share(y[sure1]),
        replaced=as_after < as_before,
    )


def _share(correct: NDArray[np.bool_]) -> float:
    return float(correct.mean()) if len(correct) else float("nan")
