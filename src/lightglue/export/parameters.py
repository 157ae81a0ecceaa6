"""A matcher's parameters as an exported graph takes them: NumPy arrays, folded and reordered.

Beyond `lightglue.matching.folding`: matrices are (in, out); the softmaxes' scale and the head's are in the matrices;
the projection before self-attention gives the real parts of all rotated channel pairs, then all imaginary parts, then
the values, so that a graph takes each as one piece, without strides. A product of a query and a key stays what it was.

Shapes: d width of the transformer, h heads of width e.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from lightglue.errors import ModelError
from lightglue.matching.folding import PLAIN_MODULES, FoldedBlock, fold_layers
from lightglue.matching.network import LightGlueNetwork, MatchAssignment, TokenConfidence
from lightglue.support.derived import is_plain

__all__ = ["Block", "Layer", "Linear", "Parameters", "parameters_of"]

Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Linear:
    """x @ weight + bias."""

    weight: Floats  # (in, out)
    bias: Floats  # (out,)


@dataclass(frozen=True)
class Block:
    """One attention block with its MLP."""

    project: Linear  # d -> real parts of q and k, imaginary parts, v: 3 d; or shared q and k, v: 2 d
    first: Linear  # 2 d -> 2 d, from the token and the attended values
    norm_weight: Floats  # (2 d,)
    norm_bias: Floats  # (2 d,)
    norm_eps: float
    last: Linear  # 2 d -> d


@dataclass(frozen=True)
class Layer:
    """A layer, and what can be asked after it."""

    own: Block
    cross: Block
    scores: Linear  # d -> matchability logit and, but after the last layer, confidence logit
    compared: Linear  # d -> d, descriptors whose products are the similarities


@dataclass(frozen=True)
class Parameters:
    """The whole network."""

    width: int  # d
    heads: int  # h
    input_dim: int
    has_scale_ori: bool
    input: Linear | None  # input_dim -> d; None where they are equal
    frequencies: Floats  # (2 or 4, e / 2)
    layers: tuple[Layer, ...]
    confidence_thresholds: tuple[float, ...]  # one a layer, as float32 holds it


def parameters_of(network: LightGlueNetwork, heads: int) -> Parameters:
    """Of a network whose modules are the published ones. Raises ModelError for a module that was replaced or hooked."""
    if not is_plain(network, PLAIN_MODULES):
        raise ModelError(
            "the matcher has a module that was replaced, or a hook, which a file cannot hold; export one without."
        )
    with torch.no_grad():
        folded = fold_layers(network, torch.float32)
        d = folded[0].cross_attn.last.shape[0]
        layers = [
            Layer(
                _block(layer.self_attn, _self_order(d, heads), _self_scale(d, heads)),
                _block(layer.cross_attn, None, _cross_scale(d, heads)),
                _scores(network, i),
                _compared(network, i),
            )
            for i, layer in enumerate(folded)
        ]
        frequencies = _array(network.posenc.Wr.weight.T)
        projection = network.input_proj
        return Parameters(
            width=d,
            heads=heads,
            input_dim=projection.in_features if isinstance(projection, nn.Linear) else d,
            has_scale_ori=frequencies.shape[0] == 4,
            input=_linear(projection.weight, projection.bias) if isinstance(projection, nn.Linear) else None,
            frequencies=frequencies,
            layers=tuple(layers),
            confidence_thresholds=tuple(network.confidence_thresholds.tolist()),
        )


def _array(tensor: Tensor) -> Floats:
    return np.ascontiguousarray(tensor.detach().cpu().float().numpy())


def _linear(weight: Tensor, bias: Tensor) -> Linear:
    return Linear(_array(weight.T), _array(bias))


def _self_order(d: int, h: int) -> Tensor:
    """(3 d,) where each output of the graph's projection stands in the folded one: (q|k|v, head, pair, real|imag)."""
    places = torch.arange(3 * d).view(3, h, -1, 2)
    real, imaginary = places[:2].unbind(-1)
    return torch.cat((real.flatten(), imaginary.flatten(), places[2].flatten()))


def _self_scale(d: int, h: int) -> Tensor:
    """(3 d,) the softmax's scale at the queries, in the graph's order."""
    half = torch.ones(2, d // 2)
    half[0] = (d // h) ** -0.5
    return torch.cat((half.flatten(), half.flatten(), torch.ones(d)))


def _cross_scale(d: int, h: int) -> Tensor:
    """(2 d,) its root at what serves as queries and as keys."""
    return torch.cat((torch.full((d,), (d // h) ** -0.25), torch.ones(d)))


def _block(block: FoldedBlock, order: Tensor | None, scale: Tensor) -> Block:
    project, bias = block.project.weight.cpu(), block.project.bias.cpu()
    if order is not None:
        project, bias = project[order], bias[order]
    return Block(
        project=_linear(project * scale[:, None], bias * scale),
        first=_linear(block.first.weight, block.first.bias),
        norm_weight=_array(block.norm_weight),
        norm_bias=_array(block.norm_bias),
        norm_eps=block.norm_eps,
        last=_linear(block.last, block.last_bias),
    )


def _scores(network: LightGlueNetwork, index: int) -> Linear:
    head = network.log_assignment[index]
    assert isinstance(head, MatchAssignment)
    rows: list[nn.Linear] = [head.matchability]
    if index < len(network.token_confidence):
        confidence = network.token_confidence[index]
        assert isinstance(confidence, TokenConfidence)
        first = confidence.token[0]
        assert isinstance(first, nn.Linear)
        rows.append(first)
    return _linear(torch.cat([row.weight for row in rows]), torch.cat([row.bias for row in rows]))


def _compared(network: LightGlueNetwork, index: int) -> Linear:
    head = network.log_assignment[index]
    assert isinstance(head, MatchAssignment)
    scale = float(head.final_proj.out_features) ** -0.25
    return _linear(head.final_proj.weight * scale, head.final_proj.bias * scale)
