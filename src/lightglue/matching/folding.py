"""Transformer layers rearranged for speed, once, from the parameters of the network. The results stay the same.

Three things are folded (none changes the checkpoint's format):

- The projection after attention is linear and so is the first layer of the MLP that follows; their product is taken
  once, in float64, and the MLP reads the attended values directly.
- The outputs of the projection before attention are reordered: queries, keys and values each in one piece, head by
  head. A rotated pair of channels stays side by side, as the real and the imaginary part of a number.
- In cross-attention, both projections become one.

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

__all__ = ["PLAIN_MODULES", "FoldedBlock", "FoldedLayer", "fold_layer", "fold_layers"]

# Modules whose parameters say all that they do.
PLAIN_MODULES = (
    nn.Linear, nn.LayerNorm, nn.GELU, nn.Sequential, RowScore, TransformerLayer, SelfBlock, CrossBlock, Attention,
    MatchAssignment, TokenConfidence, nn.Sigmoid, nn.ModuleList, nn.Identity, LearnableFourierPositionalEncoding,
    LightGlueNetwork,
)  # fmt: skip


@dataclass(frozen=True)
class FoldedBlock:
    """One attention block with its MLP. Matrices are (out, in), in the dtype of the products."""

    heads: int
    project: Tensor  # (k d, d): queries, keys and values, or shared queries and values
    project_bias: Tensor  # (k d,)
    first: Tensor  # (2 d, 2 d) first MLP layer, from the token and the attended values
    first_bias: Tensor  # (2 d,)
    norm_weight: Tensor  # (2 d,)
    norm_bias: Tensor  # (2 d,)
    norm_eps: float
    last: Tensor  # (d, 2 d) last MLP layer
    last_bias: Tensor  # (d,)

    def projections(self, x: Tensor, out: Tensor) -> Tensor:
        """(R, d) in the products' dtype -> (R, k, h, e), which is a view of `out`, (R, k d)."""
        torch.addmm(self.project_bias, x, self.project.T, out=out)
        return out.view(len(x), -1, self.heads, x.shape[1] // self.heads)

    def update(self, x: Tensor, joined: Tensor, hidden: Tensor) -> None:
        """Add the MLP's output to the residual stream `x` (R, d), in place.

        joined: (R, 2 d) token and attended values, in the products' dtype; hidden: memory of the same shape.
        """
        torch.addmm(self.first_bias, joined, self.first.T, out=hidden)
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
        project=cast(project),
        project_bias=cast(bias),
        first=cast(torch.cat((from_token, from_context), 1)),
        first_bias=cast(first_bias),
        norm_weight=cast(norm.weight),
        norm_bias=cast(norm.bias),
        norm_eps=norm.eps,
        last=cast(last.weight),
        last_bias=cast(last.bias),
    )


def fold_layers(network: LightGlueNetwork, dtype: torch.dtype) -> list[FoldedLayer]:
    """Every layer folded, of a network that `is_plain`."""
    return [fold_layer(layer, dtype) for layer in network.transformers if isinstance(layer, TransformerLayer)]
