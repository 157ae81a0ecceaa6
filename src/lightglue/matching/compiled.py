"""The layers through torch.compile: each image padded to one of a few lengths, so that few graphs are built."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from lightglue.matching import adaptive
from lightglue.matching.engine import EngineOptions, ImageTokens, Ledger, PairResult, pack
from lightglue.matching.network import LightGlueNetwork, fused_attention

__all__ = ["CompiledLayers", "compile_layers", "match_padded"]


class CompiledLayers(NamedTuple):
    """The compiled transformer layers and the lengths that they take."""

    layers: list[Callable[..., Any]]
    static_lengths: tuple[int, ...]  # ascending

    def length_for(self, pair: tuple[ImageTokens, ImageTokens]) -> int | None:
        """The shortest length that both images fit into; None where there is none or an image has no keypoints."""
        sizes = [len(image.tokens) for image in pair]
        fitting = [length for length in self.static_lengths if length >= max(sizes)]
        return fitting[0] if fitting and min(sizes) > 0 else None


def compile_layers(network: LightGlueNetwork, mode: str, static_lengths: Sequence[int]) -> CompiledLayers:
    """Compile each layer. The work is done when a length is first met, which takes seconds to minutes."""
    layers = [torch.compile(layer, mode=mode, fullgraph=True) for layer in network.transformers]
    return CompiledLayers(layers, tuple(sorted(static_lengths)))


def match_padded(
    network: LightGlueNetwork,
    compiled: CompiledLayers,
    pair: tuple[ImageTokens, ImageTokens],
    options: EngineOptions,
    products: torch.dtype,
) -> PairResult:
    """Match one pair with early stopping and, as in the published code, without pruning."""
    length = compiled.length_for(pair)
    assert length is not None, "the caller asks length_for first"
    packed = pack([pair])
    places = packed.slices()
    n_keypoints = sum(packed.counts)
    ledger = Ledger(packed, len(network.transformers), replace(options, width_confidence=-1))

    x0, x1 = (_padded(packed.tokens[place], length) for place in places)
    rotation = torch.stack((packed.rotation.real, packed.rotation.imag))
    rotation0, rotation1 = (_padded(rotation[:, place], length) for place in places)
    mask0, mask1 = (torch.arange(length, device=x0.device)[None] < count for count in packed.counts)
    m, n = packed.counts
    last = len(network.transformers) - 1
    for i, layer in enumerate(compiled.layers):
        with torch.autocast(x0.device.type, products, enabled=products != x0.dtype):
            x0, x1 = layer(x0, x1, rotation0, rotation1, mask0, mask1, fused_attention)
        if i < last and options.depth_confidence > 0:
            sure = network.token_confidence[i](torch.cat((x0[0, :m], x1[0, :n])))
            n_unsure = int((sure < network.confidence_thresholds[i]).sum())
            if adaptive.should_stop(n_unsure, n_keypoints, options.depth_confidence):
                break
    found = network.assignment(i).matches(x0[0, :m], x1[0, :n], options.filter_threshold)
    ledger.finish(0, i + 1, found, packed.slots[places[0]], packed.slots[places[1]])
    (result,) = ledger.results
    assert result is not None
    return result


def _padded(rows: Tensor, length: int) -> Tensor:
    """(..., N, c) -> (..., length, c) with zeros at the end, and a batch dimension before the rows."""
    return F.pad(rows, (0, 0, 0, length - rows.shape[-2])).unsqueeze(-3)
