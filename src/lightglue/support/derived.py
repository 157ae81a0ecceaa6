"""Tensors that are computed from a module's parameters once, and again when the parameters have changed.

And when they may stand in for the module itself: where nobody asks for gradients and the module does what its
parameters say.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Hashable, Iterable, Sequence
from operator import attrgetter
from typing import Any, Generic, NamedTuple, TypeVar

import torch
from torch import Tensor, nn

__all__ = ["Derived", "is_plain", "tensors_of", "wants_gradients"]

T = TypeVar("T")


class _Kept(NamedTuple):
    key: Hashable  # what torch counts of the tensors
    samples: list[Tensor]  # views of the tensors
    values: Tensor  # what the samples held
    result: Any


class Derived(Generic[T]):
    """What `make(module, option)` gives, kept as long as the tensors of `module` stay as they are.

    A change that torch counts is always noticed: another tensor, an operation in place, `load_state_dict`, `to`. What
    it does not count, a write through `.data` or into a tensor made in inference mode, is looked for in a sample of
    every row; after a write of single elements `module.load_state_dict(module.state_dict())` makes it count.

    One result is kept for each device, as the copies that `nn.DataParallel` makes share this object. Threads may share
    it, too. Copies and pickles start with nothing: the parameters say it all.
    """

    def __init__(self, make: Callable[[Any, Any], T]) -> None:
        self._make = make
        self._kept: dict[torch.device, _Kept] = {}
        self._lock = threading.Lock()

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self._make,)

    def of(self, module: nn.Module, tensors: Sequence[Tensor], option: Hashable = None) -> T:
        """The result for `module`, of which `tensors` are the parameters and buffers that it depends on."""
        with self._lock:
            device = tensors[0].device
            key = option, tuple([_state(t) for t in tensors])
            kept = self._kept.get(device)
            if kept is None or kept.key != key or not torch.equal(_joined(kept.samples), kept.values):
                with torch.no_grad():
                    samples = [_sample(t.detach()) for t in tensors]
                    kept = _Kept(key, samples, _joined(samples), self._make(module, option))
                self._kept[device] = kept
            result: T = kept.result
            return result


def tensors_of(module: nn.Module, names: Sequence[str]) -> list[Tensor]:
    """Parameters and buffers by name, since `parameters` is empty in the copies that `nn.DataParallel` makes."""
    return [attrgetter(name)(module) for name in names]


def is_plain(network: nn.Module, modules: tuple[type[nn.Module], ...]) -> bool:
    """Whether its parameters say all that `network` does: only these kinds of module, with no hook or other forward.

    Asked at each call of small networks, so each kind is looked at once, and the modules without recursion.
    """
    kinds: set[type[nn.Module]] = set()
    left: list[nn.Module] = [network]
    while left:
        module = left.pop()
        if module._forward_hooks or module._forward_pre_hooks or "forward" in vars(module):
            return False
        if type(module) not in modules:
            return False
        kinds.add(type(module))
        left.extend(child for child in module._modules.values() if child is not None)
    return all(map(_is_untouched, kinds))


def _is_untouched(kind: type[nn.Module]) -> bool:
    """Whether nobody replaced the `forward` of this class by one of their own."""
    owner = next(each for each in kind.__mro__ if "forward" in vars(each))
    return len({part.__module__.partition(".")[0] for part in (owner, vars(owner)["forward"])}) == 1


def wants_gradients(*tensors: Iterable[Tensor]) -> bool:
    """Whether autograd is on and asked for by one of the tensors: inputs, parameters."""
    return torch.is_grad_enabled() and any(tensor.requires_grad for several in tensors for tensor in several)


def _state(tensor: Tensor) -> Hashable:
    """What changes with the tensor, as far as torch counts; one made in inference mode has no version.

    The address of the memory stands for the tensor itself, which `_Kept.samples` keep from being freed.
    """
    return tensor.data_ptr(), tensor.dtype, tensor.shape, 0 if tensor.is_inference() else tensor._version


def _sample(tensor: Tensor) -> Tensor:
    """Some elements, by which to notice a change that torch does not count.

    Of a weight one of each output channel, in different places, since each is read from memory that is not in the
    cache; of a vector all.
    """
    order = sorted(range(tensor.ndim), key=tensor.stride, reverse=True)
    flat = tensor.permute(order).flatten()  # in the order of the memory, so that it is a view
    return flat[:: max(1, tensor[0].numel() - 1)] if tensor.ndim > 1 else flat


def _joined(samples: Sequence[Tensor]) -> Tensor:
    return torch.cat([sample.to(samples[0].dtype) for sample in samples])
