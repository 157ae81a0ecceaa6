"""State dicts: into a network strictly, and with the keys that published files have."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from lightglue.errors import WeightsError

__all__ = ["ToBeLoaded", "add_counters", "check_tensors", "load_strictly", "publish_keys"]

_DRAWING = (nn.init.kaiming_uniform_, nn.init.uniform_, nn.init.normal_)
SHOWN = 5  # problems of a kind that an error lists


def check_tensors(state: Any, source: str) -> dict[str, Tensor]:
    """`state` as a mapping of parameter names to tensors; WeightsError, which names `source`, where it is none."""
    if not isinstance(state, Mapping) or not all(isinstance(value, Tensor) for value in state.values()):
        raise WeightsError(f"{source} must map parameter names to tensors")
    return {str(key): value for key, value in state.items()}


def load_strictly(
    network: nn.Module, state: Mapping[str, Tensor], owner: str, source: str = "", hint: str = ""
) -> None:
    """Copy `state` into `network`: every key there, none more, each of its shape, all values finite.

    owner: what the user calls the network; source: where the weights are from; hint: what to say of weights that do
    not fit. Raises WeightsError, which lists what is wrong; the network is then as it was.
    """
    expected = network.state_dict()
    where = f"{source}: these" if source else "These"
    if any(value.is_meta for value in state.values()):
        raise WeightsError(f"{where} weights hold no values (they are on the meta device); load them on the CPU")
    common = [key for key in expected if key in state]
    problems = [
        [f"missing: {key}" for key in expected if key not in state],
        [f"unexpected: {key}" for key in state if key not in expected],
        [
            f"wrong shape: {key} is {tuple(state[key].shape)}, not {tuple(expected[key].shape)}"
            for key in common
            if state[key].shape != expected[key].shape
        ],
        [f"not finite: {key} holds NaN or infinity" for key in common if not _is_finite(state[key])],
    ]
    if any(problems):
        listed = [
            line for kind in problems for line in kind[:SHOWN] + [f"and {len(kind) - SHOWN} more"] * (len(kind) > SHOWN)
        ]
        raise WeightsError("\n  ".join([f"{where} weights do not fit {owner}:", *listed, *filter(None, [hint])]))
    network.load_state_dict(dict(state))


def _is_finite(tensor: Tensor) -> bool:
    """A sum tells in a fifth of the time; only where it is none does each element count, as sums may overflow."""
    return bool(tensor.sum().isfinite()) or bool(tensor.isfinite().all())


class ToBeLoaded(TorchFunctionMode):
    """`with ToBeLoaded():` networks are made without drawing random parameters, which takes longer than to load them.

    What the parameters hold until `load_strictly` has filled them all is undefined.
    """

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """As torch has it, but for what draws."""
        given = kwargs or {}
        return given["tensor"] if function in _DRAWING else function(*args, **given)


def add_counters(network: nn.Module, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """`state` with the batch counters of `network` that it lacks: older files have none, and nothing reads them."""
    counters = {key: value for key, value in network.state_dict().items() if key.endswith(".num_batches_tracked")}
    return {**counters, **state}


def publish_keys(module: nn.Module) -> None:
    """Save `module.network`'s parameters without the prefix "network.", and load them with or without it."""
    module._register_state_dict_hook(_remove_prefix)  # type: ignore[no-untyped-call]
    module._register_load_state_dict_pre_hook(_add_prefix, with_module=True)  # type: ignore[no-untyped-call]


def _remove_prefix(module: nn.Module, state: dict[str, Any], prefix: str, _: Any) -> None:
    for key in [key for key in state if key.startswith(f"{prefix}network.")]:
        state[prefix + key.removeprefix(f"{prefix}network.")] = state.pop(key)


def _add_prefix(module: nn.Module, state: dict[str, Any], prefix: str, *_: Any) -> None:
    for key in module.get_submodule("network").state_dict():
        if prefix + key in state:
            state[f"{prefix}network.{key}"] = state.pop(prefix + key)
