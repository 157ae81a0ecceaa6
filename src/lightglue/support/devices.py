"""From a device's name on a command line to a device that is there."""

from __future__ import annotations

import torch

from lightglue.errors import InputError

__all__ = ["find_device"]


def find_device(name: str) -> torch.device:
    """The device called `name` (`auto` is the GPU where there is one). Raises InputError where it is not there."""
    count, mps = torch.cuda.device_count(), torch.backends.mps.is_available()
    if name == "auto":
        name = "cuda" if count else "mps" if mps else "cpu"
    try:
        device = torch.device(name)
    except (RuntimeError, TypeError):
        raise InputError(f"device is {name!r}; give one that torch knows, such as 'cpu' or 'cuda:1'.") from None
    if device.type == "cuda" and (device.index or 0) >= count:
        raise InputError(
            f"--device {name}: torch {torch.__version__} finds {count} CUDA devices here; use --device cpu, or install "
            "a driver and a build of torch that fit the GPU."
        )
    if device.type == "mps" and not mps:
        raise InputError(f"--device mps: torch {torch.__version__} finds no Apple GPU here; use --device cpu.")
    return device
