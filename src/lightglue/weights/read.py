"""Tensors from weight files, without running any code that a file may hold."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lightglue.errors import WeightsError
from lightglue.weights.locate import resolve

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["load_state_dict"]

# Checkpoints that keep their tensors one level down name that level so: `extractor` is DISK's, `state_dict`
# HardNet's, `model` glue-factory's.
_WRAPPERS = ("extractor", "state_dict", "model")

# What people save by mistake under a checkpoint's name, by its first bytes.
_MISTAKES = {
    b"<": "it is a web page or XML, not the file itself",
    b"version https://git-lfs": "it is a git-lfs pointer; `git lfs pull` fetches the file itself",
}


def load_state_dict(name_or_path: str | os.PathLike[str], *, commercial_only: bool = False) -> dict[str, Tensor]:
    """The tensors of a weight file on the CPU, by parameter name.

    Takes what `resolve` takes. Files ending in `.safetensors` are read as such, all others as PyTorch
    checkpoints without running code from them. Tensors kept one level down, under `extractor` (DISK),
    `state_dict` or `model`, are brought up.

    Raises `WeightsError` as `resolve` does, and for a file that is empty, damaged, no checkpoint, or that
    holds something other than tensors.
    """
    path = resolve(name_or_path, commercial_only=commercial_only)
    return _tensors(_read(path), path)


def _read(path: Path) -> Any:
    """What the file at `path` holds, without running any code that it may hold."""
    import torch
    from safetensors.torch import load_file

    try:
        with path.open("rb") as source:
            head = source.read(64).lstrip()
        for start, mistake in _MISTAKES.items():
            if head.startswith(start):
                raise WeightsError(f"{path} holds no weights: {mistake}.")
        if path.suffix == ".safetensors":
            return load_file(path)
        return torch.load(path, map_location="cpu", weights_only=True)
    except WeightsError:
        raise
    except OSError as error:
        raise WeightsError(f"{path} cannot be read: {error.strerror or error}.") from error
    except Exception as error:  # damaged files raise all kinds of errors, with torch's or zip's inner words
        raise WeightsError(
            f"{path} is no readable checkpoint: it is empty, damaged, of another format, or holds Python objects "
            f"other than tensors, which are refused because loading them can run code."
        ) from error


def _tensors(content: Any, path: Path) -> dict[str, Tensor]:
    from torch import Tensor

    if isinstance(content, Mapping):
        inner = next((content[key] for key in _WRAPPERS if isinstance(content.get(key), Mapping)), None)
        content = content if inner is None else inner
    if not isinstance(content, Mapping) or not content:
        raise WeightsError(f"{path} holds no named tensors but {type(content).__name__}.")
    for key, value in content.items():
        if not isinstance(key, str) or not isinstance(value, Tensor):
            raise WeightsError(f"{path} is no state dict: its entry {key!r} is {type(value).__name__}, not a tensor.")
    return dict(content)
