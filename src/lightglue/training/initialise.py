"""The network that is trained: fresh, or from other weights, with a table of what was taken over.

Weights may be of another feature type, with or without scales and orientations, of more or fewer layers. What fits is
copied, what cannot is fresh, and columns of the positional encoding that the weights lack start at zero, so that the
network begins as the one that it came from. Nothing happens in silence: the table says it, and weights of which nothing
fits are an error.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from lightglue.errors import InputError, WeightsError
from lightglue.matching import checkpoint
from lightglue.matching.config import PRESETS, LightGlueConfig
from lightglue.matching.network import LightGlueNetwork
from lightglue.models.registry import FEATURES
from lightglue.options import nearest_name
from lightglue.training.options import NetworkOptions
from lightglue.weights import load_state_dict, resolve

__all__ = ["Fate", "chosen", "describe", "initialise", "matcher_name", "network_config"]


@dataclass(frozen=True)
class Fate:
    """What became of one parameter of the new network, or of one of the weights that has no place in it."""

    name: str
    what: str  # "copied", "fresh", "zeroed" (its new columns; the rest copied), "left" (of the weights alone)
    why: str = ""
    count: int = 0  # numbers


def matcher_name(feature_type: str) -> str | None:
    """The preset of `matching.config` for a feature type; None for features of the user's own."""
    if feature_type in FEATURES:
        return FEATURES[feature_type].matcher
    return feature_type if feature_type in PRESETS else None


def network_config(options: NetworkOptions, descriptor_dim: int, has_scale_ori: bool) -> LightGlueConfig:
    """The architecture for features with descriptors of this length. Raises InputError."""
    wanted = has_scale_ori if options.add_scale_ori is None else options.add_scale_ori
    if wanted and not has_scale_ori:
        raise InputError("network.add_scale_ori is true, but the features have no scales and orientations.")
    return LightGlueConfig(
        input_dim=descriptor_dim,
        descriptor_dim=options.width,
        add_scale_ori=wanted,
        n_layers=options.layers,
        num_heads=options.heads,
        flash=False,
    )


def initialise(
    options: NetworkOptions, config: LightGlueConfig, feature_type: str, seed: int
) -> tuple[LightGlueNetwork, list[Fate]]:
    """The network, with fresh values drawn from `seed`, and what became of each parameter. Raises WeightsError."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = LightGlueNetwork(config)
    if options.init_from is None:
        fates = [Fate(name, "fresh", "from scratch", p.numel()) for name, p in network.named_parameters()]
        return network, fates
    state = checkpoint.adapt(_without_prefix(load_state_dict(options.init_from)), n_layers=1_000)
    source = _feature_type_of(options.init_from)
    take_input = options.input_projection == "copy" or (
        options.input_projection == "auto" and (source is None or source == matcher_name(feature_type))
    )
    why_not = f"the weights are for {source}, not {feature_type}" if source else "input_projection is fresh"
    fates = [_take(name, p, state, None if take_input else why_not) for name, p in network.named_parameters()]
    own = dict(network.named_parameters())
    fates += [Fate(name, "left", "no place", t.numel()) for name, t in state.items() if name not in own]
    # Single numbers fit any network; what counts is a layer.
    if not any(fate.what == "copied" and fate.name.startswith("transformers.") for fate in fates):
        made_with = checkpoint.infer_architecture(state)
        raise WeightsError(
            f"init_from {options.init_from}: none of these weights fit this network (width {config.descriptor_dim}, "
            f"{config.num_heads} heads, {config.n_layers} layers)"
            + (f"; they were made with {made_with}. Set network.width and network.heads so." if made_with else ".")
        )
    if bad := next((name for name, p in own.items() if not bool(p.isfinite().all())), None):
        raise WeightsError(f"init_from {options.init_from}: {bad} holds NaN or infinity.")
    return network, fates


@torch.no_grad()
def _take(name: str, parameter: Tensor, state: Mapping[str, Tensor], no_input: str | None) -> Fate:
    """Fill one parameter from the weights, as far as they have it."""
    count = parameter.numel()
    if name.startswith("input_proj.") and no_input:
        return Fate(name, "fresh", no_input, count)
    if name not in state:
        return Fate(name, "fresh", "the weights have none", count)
    found = state[name].to(parameter)
    if found.shape == parameter.shape:
        parameter.copy_(found)
        return Fate(name, "copied", "", count)
    if name == "posenc.Wr.weight" and found.shape[0] == parameter.shape[0]:
        columns = min(found.shape[1], parameter.shape[1])
        parameter.zero_()[:, :columns] = found[:, :columns]
        if parameter.shape[1] > columns:
            return Fate(name, "zeroed", "columns of scale and orientation are new", count)
        return Fate(name, "copied", "without the columns of scale and orientation", count)
    return Fate(name, "fresh", f"its shape is {tuple(found.shape)}, not {tuple(parameter.shape)}", count)


def _without_prefix(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Names without what wrappers for several GPUs or for compilation put before them."""
    for prefix in ("module.", "_orig_mod."):
        if state and all(key.startswith(prefix) for key in state):
            state = {key.removeprefix(prefix): value for key, value in state.items()}
    return dict(state)


def _feature_type_of(weights: str) -> str | None:
    """The preset of the features that weights are for, where that is known."""
    for name, preset in PRESETS.items():
        if preset.weights == weights:
            return name
    description = checkpoint.read_description(resolve(weights))
    if description is None or description.features is None:
        return None
    return matcher_name(description.features) or description.features


def describe(fates: list[Fate]) -> list[str]:
    """The table, one line for each part of the network and what became of it."""
    rows: dict[tuple[str, str, str], list[int]] = {}
    for fate in fates:
        part = fate.name.partition(".")[0]
        layer = fate.name.split(".")[1] if fate.name.split(".")[1].isdigit() else ""
        row = rows.setdefault((part, fate.what, fate.why), [0, 0, 10**9, -1])
        row[0] += 1
        row[1] += fate.count
        if layer:
            row[2], row[3] = min(row[2], int(layer)), max(row[3], int(layer))
    lines = []
    for (part, what, why), (tensors, numbers, first, last) in rows.items():
        where = f"{part} {first}-{last}" if last >= 0 else part
        lines.append(f"{where:24} {what:7} {tensors:4} tensors {numbers:11,} numbers{f'  ({why})' if why else ''}")
    return lines


def chosen(network: LightGlueNetwork, prefixes: tuple[str, ...], option: str) -> set[str]:
    """Names of the parameters that begin with one of these. Raises InputError for one that no parameter has."""
    names = [name for name, _ in network.named_parameters()]
    for prefix in prefixes:
        if not any(_begins(name, prefix) for name in names):
            parts = sorted({".".join(name.split(".")[:n]) for name in names for n in (1, 2, 3)})
            nearest = nearest_name(prefix, parts)
            hint = f"Did you mean {nearest!r}? " if nearest else ""
            known = ", ".join(network._modules)
            raise InputError(f"{option}: no parameter is called {prefix!r}. {hint}Parts: {known}.")
    return {name for name in names if any(_begins(name, prefix) for prefix in prefixes)}


def _begins(name: str, prefix: str) -> bool:
    """Whether a parameter is the one called `prefix`, or a part of it: "transformers.1" is not "transformers.10"."""
    return name == prefix or name.startswith(prefix.rstrip(".") + ".")
