"""Tensors that are computed from a module's parameters once, and again when the parameters have changed."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from operator import attrgetter
from typing import Any, Generic, TypeVar, cast

import torch
from torch import Tensor, nn

__all__ = ["Derived", "is_plain"]

T = TypeVar("T")


class Derived(Generic[T]):
    """What `make(module, option)` gives, kept as long as the tensors of `module` stay as they are.

    One result is kept for each device, as the copies that `nn.DataParallel` makes share this object. Copies and
    pickles of a module start with nothing: the parameters say it all.
    """

    def __init__(self, make: Callable[[Any, Any], T]) -> None:
        self._make = make
        self._kept: dict[torch.device, tuple[tuple[Hashable, ...], Tensor, T]] = {}

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self._make,)

    def of(self, module: nn.Module, names: tuple[str, ...], option: Hashable = None) -> T:
        """The result for `module`, all of whose parameters and buffers are `names`.

        They are asked for by name since `parameters` is empty in the copies that `nn.DataParallel` makes.
        """
        tensors = [cast(Tensor, attrgetter(name)(module)).detach() for name in names]
        device = tensors[0].device
        # A tensor made in inference mode has no version; the sample alone speaks for it.
        key = (option, *((t.dtype, 0 if t.is_inference() else t._version) for t in tensors))
        sample = torch.cat([_sample(t).to(tensors[0].dtype) for t in tensors])
        kept = self._kept.get(device)
        if kept is None or kept[0] != key or not torch.equal(kept[1], sample):
            with torch.no_grad():
                kept = key, sample, self._make(module, option)
            self._kept[device] = kept
        return kept[2]


def is_plain(network: nn.Module, modules: tuple[type[nn.Module], ...]) -> bool:
    """Whether its parameters say all that `network` does: only these kinds of module, none of them with a hook."""
    return all(
        type(module) in modules and not (module._forward_hooks or module._forward_pre_hooks)
        for module in network.modules()
    )


def _sample(tensor: Tensor) -> Tensor:
    """Some elements, by which to notice a change that torch does not count (`.data`, inference tensors).

    Of a weight one of each output channel, in different places; of a vector all.
    """
    flat = tensor.flatten()
    return flat[:: max(1, tensor[0].numel() - 1)] if tensor.ndim > 1 else flat
