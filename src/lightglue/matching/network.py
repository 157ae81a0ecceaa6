"""The LightGlue network: tensors in, tensors out. No dictionaries, no downloads, no early exit.

Paper: Lindenberger, Sarlin, Pollefeys, "LightGlue: Local Feature Matching at Light Speed", ICCV 2023, section 3.
Classes and parameters are named, and called, as in the published code (cvg/LightGlue), so that its checkpoints load
strictly and code that calls single layers goes on working.

`LightGlueNetwork.forward` is the readable, differentiable network, for pairs and for padded batches: what training and
exports use. The packed path (`packing.py`, `engine.py`) shares its row-wise parts and is tested against it.

Shapes: M and N keypoints in image 0 and 1, T in either; d width of the transformer, h heads of width e = d / h. An
encoding is a (2, ..., 1, T, e) tensor of cosines and sines, each twice.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lightglue.errors import InputError
from lightglue.matching import adaptive
from lightglue.matching.assignment import Assignment, blocked_matches, log_assignment
from lightglue.matching.config import LightGlueConfig
from lightglue.support.products import linear

__all__ = [
    "Attention",
    "CrossBlock",
    "LayerOutput",
    "LearnableFourierPositionalEncoding",
    "LightGlueNetwork",
    "MatchAssignment",
    "SelfBlock",
    "TokenConfidence",
    "TransformerLayer",
    "apply_cached_rotary_emb",
    "rotate_half",
]


def rotate_half(x: Tensor) -> Tensor:
    """Each pair of neighbouring channels (a, b) as (-b, a)."""
    return torch.stack((-x[..., 1::2], x[..., ::2]), -1).flatten(-2)


def apply_cached_rotary_emb(freqs: Tensor, t: Tensor) -> Tensor:
    """Rotate each pair of neighbouring channels of t (..., h, T, e) by its angle, of which freqs is the encoding."""
    return t * freqs[0] + rotate_half(t) * freqs[1]


def feed_forward(d: int) -> nn.Sequential:
    """The update of a token from (token, message): (..., 2 d) -> (..., d)."""
    return nn.Sequential(nn.Linear(2 * d, 2 * d), nn.LayerNorm(2 * d), nn.GELU(), nn.Linear(2 * d, d))


class LearnableFourierPositionalEncoding(nn.Module):
    """Learned Fourier frequencies of normalised positions (paper, section 3.1)."""

    def __init__(self, M: int, dim: int, F_dim: int | None = None, gamma: float = 1.0) -> None:
        super().__init__()
        self.Wr = nn.Linear(M, (F_dim or dim) // 2, bias=False)
        nn.init.normal_(self.Wr.weight, std=gamma**-2)

    def forward(self, x: Tensor) -> Tensor:
        """(..., T, 2 or 4) -> (2, ..., 1, T, e): cosines and sines, each twice."""
        angles = self.Wr(x)
        return torch.stack((angles.cos(), angles.sin())).unsqueeze(-3).repeat_interleave(2, -1)


class Attention(nn.Module):
    """Softmax attention through torch's kernel for the device.

    allow_flash: on CUDA in float16, as FlashAttention takes nothing longer; not where gradients are recorded.
    """

    def __init__(self, allow_flash: bool = False) -> None:
        super().__init__()
        self.enable_flash = allow_flash

    def forward(self, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None) -> Tensor:
        """(..., h, M, e), (..., h, N, e), (..., h, N, e) -> (..., h, M, e).

        mask: (..., M or 1, N) bool, True where a query may attend to a key. One that may attend to none gets zeros.
        """
        dtype = q.dtype
        if self.enable_flash and q.is_cuda and not torch.is_grad_enabled():
            q, k, v = q.half(), k.half(), v.half()
        if mask is None:
            return F.scaled_dot_product_attention(q, k, v).to(dtype)
        mask = mask.unsqueeze(-3)
        nothing = ~mask.any(-1, keepdim=True)
        return F.scaled_dot_product_attention(q, k, v, mask | nothing).to(dtype).masked_fill(nothing, 0.0)


class SelfBlock(nn.Module):
    """Attention among the keypoints of one image, with rotary positions."""

    def __init__(self, embed_dim: int, num_heads: int, flash: bool = False) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.Wqkv = nn.Linear(embed_dim, 3 * embed_dim)
        self.inner_attn = Attention(flash)
        self.out_proj = nn.Linear(embed_dim, embed_dim)
        self.ffn = feed_forward(embed_dim)

    def forward(self, x: Tensor, encoding: Tensor | None = None, mask: Tensor | None = None) -> Tensor:
        """(..., T, d) tokens, their encoding, (..., T or 1, T) mask as in `Attention` -> (..., T, d)."""
        # The checkpoint interleaves the three: output channel (head, channel, q|k|v).
        q, k, v = self.Wqkv(x).unflatten(-1, (self.num_heads, -1, 3)).transpose(-4, -3).unbind(-1)
        if encoding is not None:
            q, k = apply_cached_rotary_emb(encoding, q), apply_cached_rotary_emb(encoding, k)
        message = self.out_proj(self.inner_attn(q, k, v, mask).transpose(-3, -2).flatten(-2))
        updated: Tensor = x + self.ffn(torch.cat((x, message), -1))
        return updated


class CrossBlock(nn.Module):
    """Attention from each image to the other. Queries and keys share one projection; there are no positions."""

    def __init__(self, embed_dim: int, num_heads: int, flash: bool = False) -> None:
        super().__init__()
        self.heads = num_heads
        self.to_qk = nn.Linear(embed_dim, embed_dim)
        self.to_v = nn.Linear(embed_dim, embed_dim)
        self.attend = Attention(flash)
        self.to_out = nn.Linear(embed_dim, embed_dim)
        self.ffn = feed_forward(embed_dim)

    def forward(self, x0: Tensor, x1: Tensor, mask: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """(..., M, d), (..., N, d) tokens, (..., M, N) mask of the pairs that may see each other -> the tokens."""
        (qk0, v0), (qk1, v1) = (
            [p(x).unflatten(-1, (self.heads, -1)).transpose(-3, -2) for p in (self.to_qk, self.to_v)] for x in (x0, x1)
        )
        context0 = self.attend(qk0, qk1, v1, mask)
        context1 = self.attend(qk1, qk0, v0, None if mask is None else mask.transpose(-2, -1))
        return self._update(x0, context0), self._update(x1, context1)

    def _update(self, x: Tensor, context: Tensor) -> Tensor:
        message = self.to_out(context.transpose(-3, -2).flatten(-2))
        updated: Tensor = x + self.ffn(torch.cat((x, message), -1))
        return updated


class TransformerLayer(nn.Module):
    """Self-attention in both images, then cross-attention between them."""

    def __init__(self, embed_dim: int, num_heads: int, flash: bool = False) -> None:
        super().__init__()
        self.self_attn = SelfBlock(embed_dim, num_heads, flash)
        self.cross_attn = CrossBlock(embed_dim, num_heads, flash)

    def forward(
        self,
        desc0: Tensor,  # (..., M, d)
        desc1: Tensor,  # (..., N, d)
        encoding0: Tensor,  # (2, ..., 1, M, e)
        encoding1: Tensor,  # (2, ..., 1, N, e)
        mask0: Tensor | None = None,  # (..., M) or (..., M, 1) bool, True where the row is a keypoint
        mask1: Tensor | None = None,  # (..., N) or (..., N, 1) bool; given where mask0 is
    ) -> tuple[Tensor, Tensor]:
        """One layer over the two images of a pair. Padded rows are never attended to; their output means nothing."""
        if mask0 is None or mask1 is None:
            return self.cross_attn(self.self_attn(desc0, encoding0), self.self_attn(desc1, encoding1))  # type: ignore[no-any-return]
        return self.masked_forward(desc0, desc1, encoding0, encoding1, mask0, mask1)

    def masked_forward(
        self, desc0: Tensor, desc1: Tensor, encoding0: Tensor, encoding1: Tensor, mask0: Tensor, mask1: Tensor
    ) -> tuple[Tensor, Tensor]:
        """`forward` with both masks."""
        mask0, mask1 = (m.squeeze(-1) if m.ndim == d.ndim else m for m, d in ((mask0, desc0), (mask1, desc1)))
        desc0 = self.self_attn(desc0, encoding0, mask0[..., None, :])
        desc1 = self.self_attn(desc1, encoding1, mask1[..., None, :])
        return self.cross_attn(desc0, desc1, mask0[..., :, None] & mask1[..., None, :])  # type: ignore[no-any-return]


class RowScore(nn.Linear):
    """One number a row: (..., d) -> (..., 1).

    A sum of products rather than a matrix-vector product: the latter rounds differently with the number of rows,
    and then a pair's stopping and pruning would depend on its batch-mates.
    """

    def __init__(self, d: int) -> None:
        super().__init__(d, 1)

    def forward(self, x: Tensor) -> Tensor:
        """(..., d) -> (..., 1) logits, in the parameters' precision."""
        return (x.to(self.weight) * self.weight[0]).sum(-1, keepdim=True) + self.bias


class MatchAssignment(nn.Module):
    """Projects tokens for comparison and says which can be matched at all (paper, section 3.2)."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.matchability = RowScore(dim)
        self.final_proj = nn.Linear(dim, dim)

    def compared(self, x: Tensor) -> Tensor:
        """(..., d) tokens -> (..., d) descriptors whose products are the similarities."""
        projected: Tensor = self.final_proj(x) * x.shape[-1] ** -0.25
        return projected

    def forward(
        self,
        desc0: Tensor,  # (..., M, d)
        desc1: Tensor,  # (..., N, d)
        mask0: Tensor | None = None,  # (..., M) bool, True where the row is a keypoint
        mask1: Tensor | None = None,  # (..., N) bool
    ) -> tuple[Tensor, Tensor]:
        """The log assignment (..., M + 1, N + 1), see `log_assignment`, and the similarity (..., M, N)."""
        similarity = self.compared(desc0) @ self.compared(desc1).transpose(-1, -2)
        scores = log_assignment(similarity, self.matchability(desc0), self.matchability(desc1), mask0, mask1)
        return scores, similarity

    def get_matchability(self, desc: Tensor) -> Tensor:
        """(..., d) tokens -> (...,) how surely each can be matched, in [0, 1]."""
        logits: Tensor = self.matchability(desc)
        return logits.sigmoid().squeeze(-1)

    def matches(self, x0: Tensor, x1: Tensor, threshold: float) -> Assignment:
        """The matches of (M, d) and (N, d) tokens, M and N at least 1, without gradients."""
        z0, z1 = (self.matchability(x).squeeze(-1) for x in (x0, x1))
        a, b = (linear(x, self.final_proj.weight, self.final_proj.bias) * x.shape[-1] ** -0.25 for x in (x0, x1))
        return blocked_matches(a, b, z0, z1, threshold)


class TokenConfidence(nn.Module):
    """How sure a token is that its match will not change in later layers (paper, section 3.3)."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.token = nn.Sequential(RowScore(dim), nn.Sigmoid())

    def forward(self, desc0: Tensor, desc1: Tensor) -> tuple[Tensor, Tensor]:
        """(..., M, d), (..., N, d) -> (..., M), (..., N) in [0, 1]. Passes no gradients to the tokens."""
        return self.of(desc0), self.of(desc1)

    def of(self, x: Tensor) -> Tensor:
        """(..., d) -> (...,) in [0, 1]. The logits, for a loss, are `token[0](x.detach())`, (..., 1)."""
        confidence: Tensor = self.token(x.detach())
        return confidence.squeeze(-1)


class LayerOutput(NamedTuple):
    """What one layer makes of a pair or a batch of pairs. Rows that are padding: see `LightGlueNetwork.forward`."""

    x0: Tensor  # (..., M, d) tokens
    x1: Tensor  # (..., N, d)
    log_assignment: Tensor  # (..., M + 1, N + 1), the last column and row for being unmatched, 0 in the corner
    confidence0: Tensor | None  # (..., M) in [0, 1], without gradients to the tokens; None after the last layer
    confidence1: Tensor | None  # (..., N)


class LightGlueNetwork(nn.Module):
    """All parameters of LightGlue, and its plain forward pass over a pair or a batch."""

    confidence_thresholds: Tensor  # (n_layers,) float32

    def __init__(self, config: LightGlueConfig) -> None:
        super().__init__()
        d, h, n = config.descriptor_dim, config.num_heads, config.n_layers
        same = config.input_dim == d
        self.input_proj: nn.Module = nn.Identity() if same else nn.Linear(config.input_dim, d)
        self.posenc = LearnableFourierPositionalEncoding(4 if config.add_scale_ori else 2, d // h)
        self.transformers = nn.ModuleList(TransformerLayer(d, h, config.flash) for _ in range(n))
        self.log_assignment = nn.ModuleList(MatchAssignment(d) for _ in range(n))
        self.token_confidence = nn.ModuleList(TokenConfidence(d) for _ in range(n - 1))
        thresholds = [adaptive.confidence_threshold(i, n) for i in range(n)]
        self.register_buffer("confidence_thresholds", torch.tensor(thresholds, dtype=torch.float32))

    def forward(
        self,
        positions0: Tensor,  # (..., M, 2 or 4) normalised
        positions1: Tensor,  # (..., N, 2 or 4)
        descriptors0: Tensor,  # (..., M, input_dim)
        descriptors1: Tensor,  # (..., N, input_dim)
        mask0: Tensor | None = None,  # (..., M) bool, True where the row is a keypoint and not padding
        mask1: Tensor | None = None,  # (..., N) bool; both masks or none
    ) -> list[LayerOutput]:
        """What every layer makes of the pair, each with its own heads; no early stop, no pruning.

        What stands in padded rows has no influence on the others and gets no gradient, not even where it is NaN or an
        image is all padding. Of these rows tokens and confidences are 0, and the log assignment is
        `assignment.PADDED`: no probability, and still a number whose product with 0 is 0.
        """
        _check_masks(mask0, mask1)
        x0, encoding0 = self._embed(positions0, descriptors0, mask0)
        x1, encoding1 = self._embed(positions1, descriptors1, mask1)
        outputs: list[LayerOutput] = []
        for i, layer in enumerate(self.transformers):
            x0, x1 = layer(x0, x1, encoding0, encoding1, mask0, mask1)
            x0, x1 = _zeroed(x0, mask0), _zeroed(x1, mask1)
            scores, _ = self.log_assignment[i](x0, x1, mask0, mask1)
            confidence0: Tensor | None = None
            confidence1: Tensor | None = None
            if i < len(self.token_confidence):
                sure0, sure1 = self.token_confidence[i](x0, x1)
                confidence0 = sure0 if mask0 is None else sure0.masked_fill(~mask0, 0.0)
                confidence1 = sure1 if mask1 is None else sure1.masked_fill(~mask1, 0.0)
            outputs.append(LayerOutput(x0, x1, scores, confidence0, confidence1))
        return outputs

    def _embed(self, positions: Tensor, descriptors: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor]:
        """Tokens and encoding of an image."""
        return self.input_proj(_zeroed(descriptors, mask)), self.posenc(_zeroed(positions, mask))

    def reference(self, positions0: Tensor, positions1: Tensor, descriptors0: Tensor, descriptors1: Tensor) -> Tensor:
        """(..., M, N) log assignment scores after the last layer; arguments as for `forward`."""
        outputs = self(positions0, positions1, descriptors0, descriptors1)
        scores: Tensor = outputs[-1].log_assignment[..., :-1, :-1]
        return scores


def _check_masks(mask0: Tensor | None, mask1: Tensor | None) -> None:
    """InputError where one is given without the other, which nothing would heed, or is not bool."""
    given = [mask for mask in (mask0, mask1) if mask is not None]
    if len(given) == 1 or any(mask.dtype != torch.bool for mask in given):
        kinds = [None if mask is None else mask.dtype for mask in (mask0, mask1)]
        raise InputError(f"mask0 and mask1 are {kinds}; give both or none, bool, True where the row is a keypoint")


def _zeroed(x: Tensor, mask: Tensor | None) -> Tensor:
    """x (..., T, d) with its padded rows zero, whatever they held."""
    return x if mask is None else x.masked_fill(~mask[..., None], 0.0)
