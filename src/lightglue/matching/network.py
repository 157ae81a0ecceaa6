"""The LightGlue network: tensors in, tensors out. No dictionaries, no downloads, no early exit.

Paper: Lindenberger, Sarlin, Pollefeys, "LightGlue: Local Feature Matching at Light Speed", ICCV 2023, section 3.
Parameter names are those of the published checkpoints (cvg/LightGlue), so that these load strictly.

`LightGlueNetwork.reference` is the readable float32 network of one pair, with attention written out. The packed
path (`packing.py`, `engine.py`) shares its row-wise parts and is tested against it.

Shapes: T rows (keypoints), d width of the transformer, h heads of width e = d / h. A rotation is a (2, T, e / 2)
tensor of cosines and sines.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lightglue.errors import InputError
from lightglue.matching import adaptive
from lightglue.matching.assignment import Assignment, blocked_matches, log_assignment
from lightglue.matching.config import LightGlueConfig

__all__ = ["Attend", "LightGlueNetwork", "TransformerLayer", "plain_attention"]

# (..., h, M, e) queries, (..., h, N, e) keys and values, (..., N) mask of real keys -> (..., h, M, e)
Attend = Callable[[Tensor, Tensor, Tensor, Tensor | None], Tensor]


def plain_attention(q: Tensor, k: Tensor, v: Tensor, key_mask: Tensor | None = None) -> Tensor:
    """Softmax attention, written out: (..., M, e), (..., N, e), (..., N, e) -> (..., M, e)."""
    similarity = q @ k.transpose(-1, -2) / q.shape[-1] ** 0.5
    if key_mask is not None:
        similarity = similarity.masked_fill(~key_mask[..., None, None, :], float("-inf"))
    context: Tensor = similarity.softmax(-1) @ v
    return context


def rotate(x: Tensor, rotation: Tensor) -> Tensor:
    """Turn each pair of neighbouring channels by its angle. x: (..., T, h, e), rotation: (2, ..., T, e / 2)."""
    cos, sin = rotation.unsqueeze(-2)
    a, b = x[..., 0::2], x[..., 1::2]
    return torch.stack((a * cos - b * sin, b * cos + a * sin), -1).flatten(-2)


def feed_forward(d: int) -> nn.Sequential:
    """The update of a token from (token, message): (..., 2 d) -> (..., d)."""
    return nn.Sequential(nn.Linear(2 * d, 2 * d), nn.LayerNorm(2 * d), nn.GELU(), nn.Linear(2 * d, d))


class PositionalEncoding(nn.Module):
    """Learned Fourier frequencies: the rotation of a keypoint at a normalised position (paper, section 3.1)."""

    def __init__(self, position_dim: int, head_dim: int) -> None:
        super().__init__()
        self.Wr = nn.Linear(position_dim, head_dim // 2, bias=False)

    def forward(self, positions: Tensor) -> Tensor:
        """(..., T, 2 or 4) -> (2, ..., T, e / 2): cosines and sines."""
        angles = self.Wr(positions)
        return torch.stack((angles.cos(), angles.sin()))


class SelfAttention(nn.Module):
    """Attention among the keypoints of one image, with rotary positions."""

    def __init__(self, d: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.Wqkv = nn.Linear(d, 3 * d)
        self.out_proj = nn.Linear(d, d)
        self.ffn = feed_forward(d)

    def project(self, x: Tensor, rotation: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """(..., T, d) -> rotated queries and keys, values; (..., T, h, e) each."""
        # The checkpoint interleaves the three: output channel (head, channel, q|k|v).
        qkv: Tensor = self.Wqkv(x)
        q, k, v = qkv.view(*x.shape[:-1], self.heads, -1, 3).unbind(-1)
        return rotate(q, rotation), rotate(k, rotation), v

    def update(self, x: Tensor, context: Tensor) -> Tensor:
        """Residual update of (..., T, d) tokens by their attended (..., T, h, e) values."""
        message = self.out_proj(context.flatten(-2))
        updated: Tensor = x + self.ffn(torch.cat((x, message), -1))
        return updated


class CrossAttention(nn.Module):
    """Attention from each image to the other. Queries and keys share one projection; there are no positions."""

    def __init__(self, d: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.to_qk = nn.Linear(d, d)
        self.to_v = nn.Linear(d, d)
        self.to_out = nn.Linear(d, d)
        self.ffn = feed_forward(d)

    def project(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """(..., T, d) -> queries that serve as keys too, values; (..., T, h, e) each."""
        shape = (*x.shape[:-1], self.heads, -1)
        return self.to_qk(x).view(shape), self.to_v(x).view(shape)

    def update(self, x: Tensor, context: Tensor) -> Tensor:
        """Residual update of (..., T, d) tokens by their attended (..., T, h, e) values."""
        message = self.to_out(context.flatten(-2))
        updated: Tensor = x + self.ffn(torch.cat((x, message), -1))
        return updated


class TransformerLayer(nn.Module):
    """Self-attention in both images, then cross-attention between them."""

    def __init__(self, d: int, heads: int) -> None:
        super().__init__()
        self.self_attn = SelfAttention(d, heads)
        self.cross_attn = CrossAttention(d, heads)

    def forward(
        self,
        x0: Tensor,  # (..., M, d)
        x1: Tensor,  # (..., N, d)
        rotation0: Tensor,  # (2, ..., M, e / 2)
        rotation1: Tensor,  # (2, ..., N, e / 2)
        mask0: Tensor | None = None,  # (..., M) bool, True where the row is a keypoint and not padding
        mask1: Tensor | None = None,  # (..., N) bool
        attend: Attend = plain_attention,
    ) -> tuple[Tensor, Tensor]:
        """One layer over the two images of a pair. Masked rows are never attended to; their output is arbitrary."""

        def attended(q: Tensor, k: Tensor, v: Tensor, key_mask: Tensor | None) -> Tensor:
            q, k, v = (t.transpose(-3, -2) for t in (q, k, v))
            return attend(q, k, v, key_mask).transpose(-3, -2)

        x0 = self.self_attn.update(x0, attended(*self.self_attn.project(x0, rotation0), mask0))
        x1 = self.self_attn.update(x1, attended(*self.self_attn.project(x1, rotation1), mask1))
        qk0, v0 = self.cross_attn.project(x0)
        qk1, v1 = self.cross_attn.project(x1)
        context0, context1 = attended(qk0, qk1, v1, mask1), attended(qk1, qk0, v0, mask0)
        return self.cross_attn.update(x0, context0), self.cross_attn.update(x1, context1)


class RowScore(nn.Linear):
    """One number a row: (..., d) -> (...,).

    A sum of products rather than a matrix-vector product: the latter rounds differently with the number of rows,
    and then a pair's stopping and pruning would depend on its batch-mates.
    """

    def __init__(self, d: int) -> None:
        super().__init__(d, 1)

    def forward(self, x: Tensor) -> Tensor:
        """(..., d) -> (...,) logits, in the parameters' precision."""
        return (x.to(self.weight) * self.weight[0]).sum(-1) + self.bias


class MatchAssignment(nn.Module):
    """Projects tokens for comparison and tells which can be matched at all (paper, section 3.2)."""

    def __init__(self, d: int) -> None:
        super().__init__()
        self.matchability = RowScore(d)
        self.final_proj = nn.Linear(d, d)

    def compared(self, x: Tensor) -> Tensor:
        """(..., d) tokens -> (..., d) descriptors whose products are the similarities."""
        projected: Tensor = self.final_proj(x) * x.shape[-1] ** -0.25
        return projected

    def forward(self, x0: Tensor, x1: Tensor) -> Tensor:
        """(..., M, d), (..., N, d) -> (..., M, N) log assignment scores."""
        similarity = self.compared(x0) @ self.compared(x1).transpose(-1, -2)
        return log_assignment(similarity, self.matchability(x0), self.matchability(x1))

    def matches(self, x0: Tensor, x1: Tensor, threshold: float) -> Assignment:
        """The matches of (M, d) and (N, d) tokens, M and N at least 1."""
        z0, z1 = self.matchability(x0), self.matchability(x1)
        return blocked_matches(self.compared(x0), self.compared(x1), z0, z1, threshold)


class TokenConfidence(nn.Module):
    """How sure a token is that its match will not change in later layers (paper, section 3.3)."""

    def __init__(self, d: int) -> None:
        super().__init__()
        self.token = nn.Sequential(RowScore(d))

    def forward(self, x: Tensor) -> Tensor:
        """(..., d) -> (...,) in [0, 1]. Does not pass gradients to the tokens."""
        score: Tensor = self.token(x.detach())
        return score.sigmoid()


class LightGlueNetwork(nn.Module):
    """All parameters of LightGlue, and its plain forward pass over one pair or a batch of equal sizes."""

    input_proj: nn.Module
    confidence_thresholds: Tensor  # (n_layers,) float32

    def __init__(self, config: LightGlueConfig) -> None:
        super().__init__()
        d, n = config.descriptor_dim, config.n_layers
        same = config.input_dim == d
        self.input_proj = nn.Identity() if same else nn.Linear(config.input_dim, d)
        self.posenc = PositionalEncoding(4 if config.add_scale_ori else 2, d // config.num_heads)
        self.transformers = nn.ModuleList(TransformerLayer(d, config.num_heads) for _ in range(n))
        self.log_assignment = nn.ModuleList(MatchAssignment(d) for _ in range(n))
        self.token_confidence = nn.ModuleList(TokenConfidence(d) for _ in range(n - 1))
        thresholds = [adaptive.confidence_threshold(i, n) for i in range(n)]
        self.register_buffer("confidence_thresholds", torch.tensor(thresholds, dtype=torch.float32))

    def layers(self) -> list[TransformerLayer]:
        """The transformer layers. Raises InputError where one has been replaced by something else."""
        layers: list[TransformerLayer] = []
        for index, layer in enumerate(self.transformers):
            if not isinstance(layer, TransformerLayer):
                raise InputError(f"LightGlue: transformers[{index}] has become a {type(layer).__name__}; put it back")
            layers.append(layer)
        return layers

    def assignment(self, index: int) -> MatchAssignment:
        """The head that assigns matches after the layer at `index`."""
        head = self.log_assignment[index]
        assert isinstance(head, MatchAssignment)
        return head

    def reference(
        self,
        positions0: Tensor,  # (..., M, 2 or 4) normalised
        positions1: Tensor,  # (..., N, 2 or 4)
        descriptors0: Tensor,  # (..., M, input_dim)
        descriptors1: Tensor,  # (..., N, input_dim)
    ) -> Tensor:
        """Every layer, no early stop, no pruning: (..., M, N) log assignment scores after the last layer."""
        x0, x1 = self.input_proj(descriptors0), self.input_proj(descriptors1)
        rotation0, rotation1 = self.posenc(positions0), self.posenc(positions1)
        for layer in self.transformers:
            x0, x1 = layer(x0, x1, rotation0, rotation1)
        scores: Tensor = self.log_assignment[-1](x0, x1)
        return scores


def fused_attention(q: Tensor, k: Tensor, v: Tensor, key_mask: Tensor | None = None) -> Tensor:
    """`plain_attention` through the device's fused kernel."""
    mask = None if key_mask is None else key_mask[..., None, None, :]
    return F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
