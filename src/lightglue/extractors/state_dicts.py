"""State dicts as the published files have them: keys without a network around them, batch norms without counters."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

__all__ = ["add_counters", "publish_keys"]


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
