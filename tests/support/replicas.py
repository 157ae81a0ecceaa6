"""Copies of modules as `nn.DataParallel` makes them."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor, nn


def replica(module: nn.Module, copied: Callable[[Tensor], Tensor] = Tensor.detach) -> nn.Module:
    """A copy whose tensors, `copied` from the parameters, are attributes and no longer parameters."""
    copy = module._replicate_for_data_parallel()
    for name, child in module.named_children():
        copy._modules[name] = replica(child, copied)
    for name, parameter in module._parameters.items():
        if parameter is None:
            copy._parameters[name] = None
        else:
            setattr(copy, name, copied(parameter))
    return copy
