"""The layers through torch.compile: both images of a pair padded to one length, without pruning.

One function serves all layers, since their parameters are its inputs, and all lengths, since the length is a symbol in
it. So there are two graphs, with and without masks, however many lengths are met; CUDA graphs are recorded again for
each length, which is why there the lengths are few.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from types import FunctionType
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lightglue.errors import InputError, LightGlueError
from lightglue.matching.network import LightGlueNetwork
from lightglue.matching.steps import ImageTokens, ModuleSteps

__all__ = ["MODES", "CompiledLayer", "CompiledSteps", "compile_layer", "padded_length"]

MODES = ("default", "reduce-overhead", "max-autotune", "max-autotune-no-cudagraphs")  # torch.compile's


class CompiledLayer(NamedTuple):
    """The compiled `_run` and the lengths that it is used for."""

    run: Callable[..., tuple[Tensor, Tensor]]
    static_lengths: tuple[int, ...]  # ascending


def padded_length(sizes: Sequence[int], static_lengths: Sequence[int], device: torch.device) -> int | None:
    """The length to pad images of these sizes to; None where one is too long or has no keypoints.

    Without CUDA graphs nothing is recorded for a length, so the longer image gives it: every row of padding costs time.
    """
    if min(sizes) == 0 or max(sizes) > max(static_lengths):
        return None
    if device.type == "cuda":
        return min(length for length in static_lengths if length >= max(sizes))
    return max(2, *sizes)  # torch makes a case of its own of the length 1


def compile_layer(mode: str, static_lengths: Sequence[int]) -> CompiledLayer:
    """Compile the layer. The work is done when a pair is first matched, and takes seconds.

    Raises InputError; LightGlueError where torch compiles nothing at all here.
    """
    if mode not in MODES:
        raise InputError(f"compile: mode must be one of {', '.join(MODES)}, not {mode!r}")
    # torch counts the variants of a function by its code, up to 8: each matcher has a code object of its own.
    own = FunctionType(_run.__code__.replace(), _run.__globals__)
    try:
        return CompiledLayer(torch.compile(own, mode=mode), tuple(sorted(static_lengths)))
    except RuntimeError as error:  # this Python is too new for this torch, for one
        raise LightGlueError(f"compile: {error}; match without compile()") from error


def _run(layer: nn.Module, *arguments: Tensor | None) -> Any:
    return layer(*arguments)


class CompiledSteps(ModuleSteps):
    """The network's modules, of which the layers are compiled, for pairs that fit its lengths."""

    def __init__(self, network: LightGlueNetwork, products: torch.dtype | None, compiled: CompiledLayer) -> None:
        super().__init__(network, products)
        self.compiled = compiled

    def fits(self, pair: tuple[ImageTokens, ImageTokens]) -> bool:
        """Whether both images of a pair have keypoints, and not more than the longest length."""
        sizes = [len(image.tokens) for image in pair]
        return padded_length(sizes, self.compiled.static_lengths, pair[0].tokens.device) is not None

    def layer(self, index: int, image0: tuple[Tensor, Tensor], image1: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        """See `ModuleSteps.layer`. Raises LightGlueError where torch cannot build it."""
        sizes = [tokens.shape[1] for tokens, _ in (image0, image1)]
        length = padded_length(sizes, self.compiled.static_lengths, image0[0].device)
        assert length is not None, "the caller asks `fits` first"
        padded = [F.pad(t, (0, 0, 0, length - t.shape[-2])) for pair in zip(image0, image1, strict=True) for t in pair]
        masks: list[Tensor | None] = [None, None]
        if min(sizes) < length:
            rows = torch.arange(length, device=padded[0].device)[None]
            masks = [rows < size for size in sizes]
        for tensor in (*padded, *masks):
            if tensor is not None:
                torch._dynamo.maybe_mark_dynamic(tensor, 1 if tensor.ndim < 5 else 3)
        torch.compiler.cudagraph_mark_step_begin()  # type: ignore[no-untyped-call]  # the last results were copied
        try:
            x0, x1 = self.compiled.run(self.network.transformers[index], *padded, *masks)
        except torch._dynamo.exc.TorchDynamoException as error:
            reason = str(getattr(error, "inner_exception", error)).strip().split("\n")[0]
            raise LightGlueError(
                f"compile: torch could not build the layers ({reason}). On a CPU it needs a C++ compiler, on a GPU "
                "Triton and a C compiler: install g++ (and triton), or match without compile()"
            ) from error
        return x0[:, : sizes[0]], x1[:, : sizes[1]]
