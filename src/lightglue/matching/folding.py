"""Transformer layers rearranged for speed, once, from the parameters of the network. The results stay the same.

Four things are folded (none changes the checkpoint's format):

- The projection after attention is linear and so is the first layer of the MLP that follows; their product is taken
  once, in float64, and the MLP reads the attended values directly.
- The outputs of the projection before attention are reordered: queries, keys and values each in one piece, head by
  head. A rotated pair of channels stays side by side, as the real and the imaginary part of a number.
- In cross-attention, both projections become one.
- A bias is a column of its matrix, for rows that begin with a 1: torch writes a bias into the result before it
  multiplies, which takes a tenth of the product's time on a CPU.

Shapes: d width of the transformer, h heads of width e, R rows.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lightglue.matching.network import (
    Attention,
    CrossBlock,
    LearnableFourierPositionalEncoding,
    LightGlueNetwork,
    MatchAssignment,
    RowScore,
    SelfBlock,
    TokenConfidence,
    TransformerLayer,
)
from lightglue.support import products

__all__ = ["PLAIN_MODULES", "Affine", "FoldedBlock", "FoldedLayer", "fold_layer", "fold_layers"]

# Modules whose parameters say all that they do.
PLAIN_MODULES = (
    nn.Linear, nn.LayerNorm, nn.GELU, nn.Sequential, RowScore, TransformerLayer, SelfBlock, CrossBlock, Attention,
    MatchAssignment, TokenConfidence, nn.Sigmoid, nn.ModuleList, nn.Identity, LearnableFourierPositionalEncoding,
    LightGlueNetwork,
)  # fmt: skip


@dataclass(frozen=True)
class Affine:
    """A matrix with its bias, for rows that begin with a 1."""

    weight: Tensor  # (out, in), in the dtype of the products
    bias: Tensor  # (out,)
    both: Tensor | None  # (out, 1 + in): bias and matrix, which are views of it; None where they are multiplied apart

    def into(self, rows: Tensor, out: Tensor) -> Tensor:
        """(R, 1 + in) rows, a 1 and the inputs -> `out`, (R, out)."""
        if self.both is None:
            return torch.addmm(self.bias, rows[:, 1:], self.weight.T, out=out)
        return torch.mm(rows, self.both.T, out=out)


@dataclass(frozen=True)
class FoldedBlock:
    """One attention block with its MLP. Matrices are (out, in), in the dtype of the products."""

    heads: int
    project: Affine  # d -> k d: queries, keys and values, or shared queries and values
    first: Affine  # 2 d -> 2 d: first MLP layer, from the token and the attended values
    norm_weight: Tensor  # (2 d,)
    norm_bias: Tensor  # (2 d,)
    norm_eps: float
    last: Tensor  # (d, 2 d) last MLP layer
    last_bias: Tensor  # (d,)

    def projections(self, token: Tensor, out: Tensor) -> Tensor:
        """(R, 1 + d), a 1 and the token, in the products' dtype -> (R, k, h, e), which is a view of `out`, (R, k d)."""
        self.project.into(token, out)
        return out.view(len(out), -1, self.heads, self.last.shape[0] // self.heads)

    def update(self, x: Tensor, joined: Tensor, hidden: Tensor) -> None:
        """Add the MLP's output to the residual stream `x` (R, d), in place.

        joined: (R, 1 + 2 d) a 1, token and attended values, in the products' dtype; hidden: memory, (R, 2 d).
        """
        self.first.into(joined, hidden)
        normed = F.layer_norm(hidden, self.norm_weight.shape, self.norm_weight, self.norm_bias, self.norm_eps)
        torch.ops.aten.gelu_(normed)
        if x.dtype == normed.dtype:
            x.add_(self.last_bias).addmm_(normed, self.last.T)
        else:
            x.add_(F.linear(normed, self.last, self.last_bias))


@dataclass(frozen=True)
class FoldedLayer:
    """Self-attention in each image, then cross-attention between the two of a pair."""

    self_attn: FoldedBlock
    cross_attn: FoldedBlock


def fold_layer(layer: TransformerLayer, dtype: torch.dtype) -> FoldedLayer:
    """The layer with its matrices folded and cast to `dtype`."""
    own, cross = layer.self_attn, layer.cross_attn
    order = _split_order(own.Wqkv.weight.shape[1], own.num_heads).to(own.Wqkv.weight.device)
    return FoldedLayer(
        _fold(own.num_heads, own.ffn, own.out_proj, own.Wqkv.weight[order], own.Wqkv.bias[order], dtype),
        _fold(
            cross.heads,
            cross.ffn,
            cross.to_out,
            torch.cat((cross.to_qk.weight, cross.to_v.weight)),
            torch.cat((cross.to_qk.bias, cross.to_v.bias)),
            dtype,
        ),
    )


def _split_order(d: int, heads: int) -> Tensor:
    """(3 d,) where each output of the folded projection stands in the checkpoint's Wqkv."""
    places = torch.arange(3 * d).view(heads, -1, 3)  # the checkpoint's order is (head, channel, q|k|v)
    return places.permute(2, 0, 1).flatten()


def _fold(
    heads: int, ffn: nn.Sequential, out_proj: nn.Linear, project: Tensor, bias: Tensor, dtype: torch.dtype
) -> FoldedBlock:
    first, norm, _, last = ffn
    assert isinstance(first, nn.Linear)
    assert isinstance(last, nn.Linear)
    assert isinstance(norm, nn.LayerNorm)
    from_token, from_message = first.weight.double().tensor_split(2, 1)
    from_context = from_message @ out_proj.weight.double()
    first_bias = first.bias.double() + from_message @ out_proj.bias.double()

    def cast(parameter: Tensor) -> Tensor:
        return parameter.detach().to(dtype).contiguous()

    return FoldedBlock(
        heads=heads,
        project=_affine(cast(project), cast(bias)),
        first=_affine(cast(torch.cat((from_token, from_context), 1)), cast(first_bias)),
        norm_weight=cast(norm.weight),
        norm_bias=cast(norm.bias),
        norm_eps=norm.eps,
        last=cast(last.weight),
        last_bias=cast(last.bias),
    )


def _affine(weight: Tensor, bias: Tensor) -> Affine:
    """Joined where products take rows of any length: at full precision on a CPU. Others want them aligned.

    oneDNN adds the bias to what it writes.
    """
    exact = (torch.float64,) if products.onednn_is_faster() else (torch.float32, torch.float64)
    if weight.is_cpu and weight.dtype in exact:
        both = torch.cat((bias[:, None], weight), 1)
        return Affine(both[:, 1:], both[:, 0], both)
    return Affine(weight, bias, None)


def fold_layers(network: LightGlueNetwork, dtype: torch.dtype) -> list[FoldedLayer]:
    """Every layer folded, of a network that `is_plain`."""
    return [fold_layer(layer, dtype) for layer in network.transformers if isinstance(layer, TransformerLayer)]
