"""AdamW, its learning rate over a run, and the average of the weights."""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from lightglue.errors import InputError, StoreError
from lightglue.matching.network import LightGlueNetwork
from lightglue.training.initialise import chosen
from lightglue.training.options import OptimiserOptions

__all__ = ["Average", "factor", "load_state", "make_optimiser", "saved_state"]


def factor(options: OptimiserOptions, step: int, done: float) -> float:
    """What the learning rates are multiplied with in a step.

    step: 0-based; done: the share of the run before it, 0 to 1.
    """
    rise = min(1.0, (step + 1) / (options.warmup + 1))
    if options.schedule == "constant":
        return rise
    if options.schedule == "cosine":
        return rise * (options.final + (1 - options.final) * 0.5 * (1 + math.cos(math.pi * min(done, 1.0))))
    later = (done - options.decay_from) / max(1 - options.decay_from, 1e-9)
    steps = min(max(math.floor(later * options.decay_steps + 1e-9) + 1, 0), options.decay_steps)
    # The published factor of an epoch, 0.794, is 0.01^(1/20): twenty of them leave a hundredth.
    return rise * math.pow(max(options.final, 1e-12), steps / options.decay_steps)


def make_optimiser(network: LightGlueNetwork, options: OptimiserOptions, frozen: set[str]) -> torch.optim.AdamW:
    """AdamW over what is not frozen, which is marked so. Groups know their own learning rate as "base".

    Raises InputError for a name that no parameter has, and where nothing is left to train.
    """
    for name in options.lr_of:
        chosen(network, (name,), "optimiser.lr_of")
    groups: dict[tuple[float, float], list[tuple[str, nn.Parameter]]] = {}
    for name, parameter in network.named_parameters():
        parameter.requires_grad_(name not in frozen)
        if name in frozen:
            continue
        # Of several beginnings the longest counts.
        own = [prefix for prefix in options.lr_of if name in chosen(network, (prefix,), "optimiser.lr_of")]
        lr = options.lr_of[max(own, key=len)] if own else options.lr
        decay = options.weight_decay if parameter.ndim > 1 and not name.startswith("posenc.") else 0.0
        groups.setdefault((lr, decay), []).append((name, parameter))
    if not groups:
        raise InputError("network.freeze leaves nothing to train; name fewer parts.")
    listed: list[dict[str, Any]] = []
    for (lr, decay), members in groups.items():
        names, parameters = zip(*members, strict=True)
        listed.append({"params": parameters, "names": names, "base": lr, "lr": lr, "weight_decay": decay})
    fused = next(network.parameters()).device.type in ("cpu", "cuda")
    return torch.optim.AdamW(listed, betas=options.betas, fused=fused)


def saved_state(optimiser: torch.optim.AdamW) -> dict[str, Tensor]:
    """Its tensors by parameter, such as "exp_avg/posenc.Wr.weight"; none before the first step."""
    found = {}
    for group in optimiser.param_groups:
        for name, parameter in zip(group["names"], group["params"], strict=True):
            for key, value in optimiser.state.get(parameter, {}).items():
                found[f"{key}/{name}"] = value.detach().cpu()
    return found


def load_state(optimiser: torch.optim.AdamW, state: Mapping[str, Tensor]) -> None:
    """Back from `saved_state`. Raises StoreError where it is of other parameters."""
    for group in optimiser.param_groups:
        for name, parameter in zip(group["names"], group["params"], strict=True):
            own = {key: state[f"{key}/{name}"] for key in ("step", "exp_avg", "exp_avg_sq") if f"{key}/{name}" in state}
            if not own and not state:
                continue
            if len(own) != 3 or own["exp_avg"].shape != parameter.shape:
                raise StoreError(f"the checkpoint has no state of the optimiser for {name}; it is of another run.")
            # The count of steps stays where the fused kernel of the device wants it.
            where = parameter.device if parameter.device.type == "cuda" else torch.device("cpu")
            optimiser.state[parameter] = {
                "step": own["step"].to(where, copy=True),
                "exp_avg": own["exp_avg"].to(parameter, copy=True),
                "exp_avg_sq": own["exp_avg_sq"].to(parameter, copy=True),
            }


class Average:
    """The exponential moving average of a network's parameters, as a network of its own.

    It begins as a plain mean: after n steps the decay is at most n / (n + 10), so that the start is soon forgotten.
    """

    def __init__(self, network: LightGlueNetwork, decay: float) -> None:
        self.decay = decay
        self.network = copy.deepcopy(network).requires_grad_(False).eval()

    @torch.no_grad()
    def update(self, network: LightGlueNetwork, step: int) -> None:
        """After the step of this number, from 1 on."""
        decay = min(self.decay, step / (step + 10))
        torch._foreach_lerp_(list(self.network.parameters()), list(network.parameters()), 1 - decay)
