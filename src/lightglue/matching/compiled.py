"""The layers through torch.compile: both images of a pair padded to one length, without pruning.

One function serves all layers, since their matrices are its inputs, and all lengths, since the length is a symbol in
it. So there are two graphs, with and without a mask, however many lengths are met; CUDA graphs are recorded anew for
each length, which is why there the lengths are few.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from types import FunctionType
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from lightglue.errors import InputError, LightGlueError
from lightglue.matching import adaptive
from lightglue.matching.engine import EngineOptions, ImageTokens, Ledger, PairResult, pack
from lightglue.matching.folding import FoldedBlock, FoldedLayer
from lightglue.matching.network import LightGlueNetwork, rotate
from lightglue.matching.packing import PackedPairs

__all__ = ["MODES", "CompiledLayers", "compile_layers", "match_padded", "padded_layer", "padded_length"]

MODES = ("default", "reduce-overhead", "max-autotune", "max-autotune-no-cudagraphs")  # torch.compile's

PaddedLayer = Callable[[FoldedLayer, Tensor, Tensor, Tensor | None, torch.dtype], Tensor]


class CompiledLayers(NamedTuple):
    """The compiled transformer layer and the lengths that it is used for."""

    layer: PaddedLayer
    static_lengths: tuple[int, ...]  # ascending

    def length_for(self, pair: tuple[ImageTokens, ImageTokens]) -> int | None:
        """The length to pad both images of this pair to; see `padded_length`."""
        sizes = [len(image.tokens) for image in pair]
        return padded_length(sizes, self.static_lengths, pair[0].tokens.device)


def padded_length(sizes: Sequence[int], static_lengths: Sequence[int], device: torch.device) -> int | None:
    """The length to pad images of these sizes to; None where one is too long or has no keypoints.

    Without CUDA graphs nothing is recorded for a length, so the longer image gives it: every row of padding costs time.
    """
    if min(sizes) == 0 or max(sizes) > max(static_lengths):
        return None
    if device.type == "cuda":
        return min(length for length in static_lengths if length >= max(sizes))
    return max(2, *sizes)  # torch makes a case of its own of the length 1


def compile_layers(mode: str, static_lengths: Sequence[int]) -> CompiledLayers:
    """Compile the layer. The work is done when a pair is first matched, and takes seconds.

    Raises InputError; LightGlueError where torch compiles nothing at all here.
    """
    if mode not in MODES:
        raise InputError(f"compile: mode must be one of {', '.join(MODES)}, not {mode!r}")
    # torch counts the variants of a function by its code, up to 8: each matcher has a code object of its own.
    own = FunctionType(padded_layer.__code__.replace(), padded_layer.__globals__)
    try:
        return CompiledLayers(torch.compile(own, mode=mode), tuple(sorted(static_lengths)))
    except RuntimeError as error:  # this Python is too new for this torch, for one
        raise LightGlueError(f"compile: {error}; match without compile()") from error


def padded_layer(
    layer: FoldedLayer,
    tokens: Tensor,  # (2, L, d) the residual stream of both images
    rotation: Tensor,  # (2, 2, L, e / 2) cosines and sines, of both images
    mask: Tensor | None,  # (2, L) bool, True where the row is a keypoint; None where all are
    attention_dtype: torch.dtype,
) -> Tensor:
    """One transformer layer over a padded pair: the twin of `packing.run_layer`. Padded rows come out arbitrary."""
    dtype = layer.self_attn.project.dtype
    length = tokens.shape[1]
    x, angles = tokens.flatten(0, 1), rotation.flatten(1, 2)

    def split(rows: Tensor) -> Tensor:  # (2 L, h, e) -> (2, h, L, e)
        return rows.to(attention_dtype).view(2, length, *rows.shape[1:]).transpose(1, 2)

    def attend(q: Tensor, k: Tensor, v: Tensor, keys: Tensor | None) -> Tensor:  # -> (2 L, d)
        context = F.scaled_dot_product_attention(q, k, v, None if keys is None else keys[:, None, None])
        return context.transpose(1, 2).flatten(2).flatten(0, 1).to(dtype)

    x_in = x.to(dtype)
    q, k, v = _projections(layer.self_attn, x_in)
    q, k = rotate(q, angles), rotate(k, angles)
    x = _update(layer.self_attn, x, x_in, attend(split(q), split(k), split(v), mask))
    x_in = x.to(dtype)
    qk, v = (split(t) for t in _projections(layer.cross_attn, x_in))
    context = attend(qk, qk.flip(0), v.flip(0), None if mask is None else mask.flip(0))
    return _update(layer.cross_attn, x, x_in, context).view_as(tokens)


def _projections(block: FoldedBlock, x: Tensor) -> tuple[Tensor, ...]:
    """`FoldedBlock.projections` into new memory, which torch.compile plans itself: k tensors (R, h, e)."""
    rows = F.linear(x, block.project, block.project_bias)
    return rows.view(len(x), -1, block.heads, x.shape[1] // block.heads).unbind(1)


def _update(block: FoldedBlock, x: Tensor, x_in: Tensor, context: Tensor) -> Tensor:
    """`FoldedBlock.update` into new memory: (R, d) stream, the same as `x_in`, attended values -> (R, d)."""
    hidden = F.linear(torch.cat((x_in, context), -1), block.first, block.first_bias)
    hidden = F.layer_norm(hidden, block.norm_weight.shape, block.norm_weight, block.norm_bias, block.norm_eps)
    return x + F.linear(F.gelu(hidden), block.last, block.last_bias)


def match_padded(
    network: LightGlueNetwork,
    compiled: CompiledLayers,
    layers: Sequence[FoldedLayer],
    pair: tuple[ImageTokens, ImageTokens],
    options: EngineOptions,
) -> PairResult:
    """Match one pair with early stopping and, as in the published code, without pruning."""
    length = compiled.length_for(pair)
    assert length is not None, "the caller asks length_for first"
    packed = pack([pair])
    m, n = packed.counts
    ledger = Ledger(packed, len(layers), replace(options, width_confidence=-1))
    x, rotation, mask = _pad(packed, length)
    # CUDA graphs may overwrite what earlier pairs left in their memory; no result lies there.
    torch.compiler.cudagraph_mark_step_begin()  # type: ignore[no-untyped-call]
    for i, layer in enumerate(layers):
        x = _run(compiled.layer, layer, x, rotation, mask, options.attention_dtype)
        if i < len(layers) - 1 and options.depth_confidence > 0:
            sure = network.token_confidence[i](torch.cat((x[0, :m], x[1, :n])))
            n_unsure = int((sure < network.confidence_thresholds[i]).sum())
            if adaptive.should_stop(n_unsure, m + n, options.depth_confidence):
                break
    found = network.assignment(i).matches(x[0, :m], x[1, :n], options.filter_threshold)
    place0, place1 = packed.slices()
    ledger.finish(0, i + 1, found, packed.slots[place0], packed.slots[place1])
    (result,) = ledger.results
    assert result is not None
    return result


def _pad(packed: PackedPairs, length: int) -> tuple[Tensor, Tensor, Tensor | None]:
    """Tokens, rotation and mask of one pair as `padded_layer` takes them."""
    places = packed.slices()
    angles = torch.stack((packed.rotation.real, packed.rotation.imag))
    tokens, rotation = (
        torch.stack([F.pad(rows[..., place, :], (0, 0, 0, length - place.stop + place.start)) for place in places], -3)
        for rows in (packed.tokens, angles)
    )
    mask = None
    if any(count < length for count in packed.counts):
        counts = torch.tensor(packed.counts, device=tokens.device)
        mask = torch.arange(length, device=tokens.device) < counts[:, None]
    return tokens, rotation, mask


def _run(
    compiled: PaddedLayer,
    layer: FoldedLayer,
    tokens: Tensor,
    rotation: Tensor,
    mask: Tensor | None,
    attention_dtype: torch.dtype,
) -> Tensor:
    """`padded_layer`, compiled for any length. Raises LightGlueError where torch cannot build it."""
    for tensor, dim in ((tokens, 1), (rotation, 2), (mask, 1)):
        if tensor is not None:
            torch._dynamo.maybe_mark_dynamic(tensor, dim)
    try:
        return compiled(layer, tokens, rotation, mask, attention_dtype)
    except torch._dynamo.exc.TorchDynamoException as error:
        reason = str(getattr(error, "inner_exception", error)).strip().split("\n")[0]
        raise LightGlueError(
            f"compile: torch could not build the layers ({reason}). On a CPU it needs a C++ compiler, on a GPU Triton "
            "and a C compiler: install g++ (and triton), or match without compile()"
        ) from error
