"""Nested dictionaries and lists of tensors: move them, map over them, drop their batch dimension."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lightglue.errors import InputError

__all__ = ["batch_to_device", "map_tensor", "rbd"]


def map_tensor(input_: Any, func: Callable[[Tensor], Any]) -> Any:
    """Apply `func` to every tensor in nested mappings and sequences; leave all else as it is."""
    if isinstance(input_, Tensor):
        return func(input_)
    if isinstance(input_, (str, bytes)):
        return input_
    if isinstance(input_, Mapping):
        return {key: map_tensor(value, func) for key, value in input_.items()}
    if isinstance(input_, Sequence):
        return [map_tensor(value, func) for value in input_]
    return input_


def batch_to_device(batch: Any, device: str | torch.device = "cpu", non_blocking: bool = True) -> Any:
    """A copy of `batch` with every tensor moved to `device` and detached from the autograd graph.

    A copy to the CPU is waited for even with `non_blocking`: its values could otherwise be read before they arrive.
    """
    wait = torch.device(device).type == "cpu"
    return map_tensor(batch, lambda t: t.detach().to(device, non_blocking=non_blocking and not wait))


def rbd(data: Mapping[str, Any]) -> dict[str, Any]:
    """Remove the batch dimension: the first element of every tensor, array and list in `data`.

    Values without a batch dimension (numbers, strings, 0-dimensional tensors) stay as they are.

    Raises:
        InputError: the batch dimension of a value has length 0.
    """

    def first(key: str, value: Any) -> Any:
        if not isinstance(value, (Tensor, np.ndarray, list)) or (not isinstance(value, list) and value.ndim == 0):
            return value
        if len(value) == 0:
            raise InputError(f"{key!r} holds a batch of nothing: there is no first element to keep.")
        return value[0]

    return {key: first(key, value) for key, value in data.items()}
