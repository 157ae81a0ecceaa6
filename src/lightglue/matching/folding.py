"""Transformer layers rearranged for speed, once, from the parameters of the network. The results stay the same.

Three things are folded (none changes the checkpoint's format):

- The projection after attention is linear and so is the first layer of the MLP that follows; their product is taken
  once, in float64, and the MLP reads the attended values directly.
- The outputs of the projection before attention are reordered: queries, keys and values each in one piece, head by
  head, and within a head the first of each rotated pair of channels before the second. A permutation that queries
  and keys share leaves their products as they are.
- In cross-attention, both projections become one.

Shapes: d width of the transformer, e width of a head, R rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrize import type_before_parametrizations

from lightglue.errors import InputError
from lightglue.matching.network import CrossAttention, SelfAttention, TransformerLayer

__all__ = ["FoldCache", "FoldedBlock", "FoldedLayer", "fold_layer", "rotate_halves"]

# Every so many elements of a parameter are compared to notice a change that torch does not count (`.data`, inference
# tensors): few enough to cost nothing, close enough to meet each row of a matrix.
SAMPLE_STRIDE = 61

# Modules whose parameters say all that they do.
PLAIN_MODULES = (TransformerLayer, SelfAttention, CrossAttention, nn.Linear, nn.LayerNorm, nn.GELU, nn.Sequential)


@dataclass(frozen=True)
class FoldedBlock:
    """One attention block with its MLP. Matrices are (out, in), in the dtype of the products."""

    heads: int
    project: Tensor  # (k d, d): queries, keys and values, or shared queries and values
    project_bias: Tensor  # (k d,)
    from_token: Tensor  # (2 d, d) first MLP layer, from the token
    from_context: Tensor  # (2 d, d) first MLP layer, from the attended values
    hidden_bias: Tensor  # (2 d,)
    norm_weight: Tensor  # (2 d,)
    norm_bias: Tensor  # (2 d,)
    norm_eps: float
    out: Tensor  # (d, 2 d) last MLP layer
    out_bias: Tensor  # (d,)

    def projections(self, x: Tensor) -> list[Tensor]:
        """(R, d) in the products' dtype -> k tensors (R, h, e), views of one."""
        rows = F.linear(x, self.project, self.project_bias)
        parts = rows.view(len(x), -1, x.shape[1]).unbind(1)
        return [part.unflatten(-1, (self.heads, -1)) for part in parts]  # type: ignore[no-untyped-call]

    def update(self, x: Tensor, x_in: Tensor, context: Tensor) -> Tensor:
        """(R, d) residual stream, the same in the products' dtype, attended values -> (R, d) updated stream."""
        hidden = F.linear(x_in, self.from_token, self.hidden_bias)
        hidden.addmm_(context, self.from_context.T)
        hidden = F.layer_norm(hidden, self.norm_weight.shape, self.norm_weight, self.norm_bias, self.norm_eps)
        return x + F.linear(F.gelu(hidden), self.out, self.out_bias)


@dataclass(frozen=True)
class FoldedLayer:
    """Self-attention, then cross-attention."""

    self_attn: FoldedBlock
    cross_attn: FoldedBlock


def rotate_halves(x: Tensor, rotation: Tensor) -> Tensor:
    """Turn pairs of channels by their angles. x: (R, h, e), the pairs' first channels before their second.

    rotation: (2, R, 1, e / 2) cosines and sines.
    """
    cos, sin = rotation
    a, b = x.chunk(2, -1)
    return torch.cat((a * cos - b * sin, b * cos + a * sin), -1)


def fold_layer(layer: TransformerLayer, dtype: torch.dtype) -> FoldedLayer:
    """The layer with its matrices folded and cast to `dtype`."""
    own, cross = layer.self_attn, layer.cross_attn
    order = _split_order(own.Wqkv.weight.shape[1], own.heads).to(own.Wqkv.weight.device)
    return FoldedLayer(
        _fold(own, own.out_proj, own.Wqkv.weight[order], own.Wqkv.bias[order], dtype),
        _fold(
            cross,
            cross.to_out,
            torch.cat((cross.to_qk.weight, cross.to_v.weight)),
            torch.cat((cross.to_qk.bias, cross.to_v.bias)),
            dtype,
        ),
    )


def _split_order(d: int, heads: int) -> Tensor:
    """(3 d,) where each output of the folded projection stands in the checkpoint's Wqkv."""
    # The checkpoint's order is (head, pair, first|second, q|k|v).
    places = torch.arange(3 * d).view(heads, -1, 2, 3)
    queries, keys = (places[..., i].transpose(1, 2).flatten() for i in (0, 1))  # (head, first|second, pair)
    return torch.cat((queries, keys, places[..., 2].flatten()))


def _fold(
    block: SelfAttention | CrossAttention, out_proj: nn.Linear, project: Tensor, bias: Tensor, dtype: torch.dtype
) -> FoldedBlock:
    first, norm, _, last = block.ffn
    assert isinstance(first, nn.Linear)
    assert isinstance(last, nn.Linear)
    assert isinstance(norm, nn.LayerNorm)
    from_token, from_message = first.weight.double().tensor_split(2, 1)
    from_context = from_message @ out_proj.weight.double()
    hidden_bias = first.bias.double() + from_message @ out_proj.bias.double()

    def cast(parameter: Tensor) -> Tensor:
        return parameter.detach().to(dtype).contiguous()

    return FoldedBlock(
        heads=block.heads,
        project=cast(project),
        project_bias=cast(bias),
        from_token=cast(from_token),
        from_context=cast(from_context),
        hidden_bias=cast(hidden_bias),
        norm_weight=cast(norm.weight),
        norm_bias=cast(norm.bias),
        norm_eps=norm.eps,
        out=cast(last.weight),
        out_bias=cast(last.bias),
    )


class FoldCache:
    """The folded layers of a network, made anew when one of its parameters has changed."""

    def __init__(self) -> None:
        self._key: tuple[Any, ...] = ()
        self._sample = torch.empty(0)
        self._layers: list[FoldedLayer] = []

    def layers(self, layers: Sequence[TransformerLayer], dtype: torch.dtype) -> list[FoldedLayer]:
        """The layers folded in `dtype`. Raises InputError where a module was replaced or given a hook."""
        for index, layer in enumerate(layers):
            _check_plain(layer, f"transformers[{index}]")
        parameters = [parameter.detach() for layer in layers for parameter in layer.parameters()]
        versions = (0 if p.is_inference() else p._version for p in parameters)
        key = (dtype, parameters[0].dtype, parameters[0].device, *versions)
        sample = torch.cat([p.flatten()[::SAMPLE_STRIDE] for p in parameters])
        if key != self._key or not torch.equal(sample, self._sample):
            self._layers = [fold_layer(layer, dtype) for layer in layers]
            self._key, self._sample = key, sample
        return self._layers


def _check_plain(layer: TransformerLayer, name: str) -> None:
    """Refuse what the folded layers would silently leave out."""
    for path, module in layer.named_modules(prefix=name):
        if type_before_parametrizations(module) not in PLAIN_MODULES:
            raise InputError(
                f"LightGlue: {path} has become a {type(module).__name__}; matching reads the parameters of the "
                "original modules, so merge the change into their weights"
            )
        if module._forward_hooks or module._forward_pre_hooks:
            raise InputError(
                f"LightGlue: {path} has a forward hook, which matching would not call; remove it, or run the layers "
                "one by one with matcher.reference() or matcher.transformers[i](...)"
            )
