"""One descriptor for an image from a network that was trained for it, loaded with torch.hub: MegaLoc.

Berton and Masone, MegaLoc: One Retrieval to Place Them All, 2025, arXiv:2502.17237. The first use downloads the code
and the weights of github.com/gmberton/MegaLoc and of DINOv2, and runs that code: it is used only where it is asked for.
Images are seen at 322 px a side, whatever their shape, less ImageNet's mean and over its deviation, as there.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from torch import Tensor

from lightglue.errors import InputError, LightGlueError
from lightglue.images import load_image
from lightglue.support.devices import find_device

__all__ = ["GlobalDescriptor"]

_REPOSITORY, _ENTRY = "gmberton/MegaLoc", "get_trained_model"
_EDGE = 322  # px
_MEAN, _DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class GlobalDescriptor:
    """MegaLoc's descriptor of an image, which stands where a `Vocabulary` does."""

    size: int = 8448

    @torch.inference_mode()
    def describe(self, image: str | os.PathLike[str] | Tensor, stretch: bool = False) -> Tensor:
        """(E,) float32 of length 1, on the CPU.

        image: a file, which is read with `stretch`, or (3, H, W) RGB in [0, 1].

        Raises LightGlueError where the network cannot be loaded, ImageError for a file that is no image.
        """
        pixels = image if isinstance(image, Tensor) else load_image(image, stretch=stretch)
        if pixels.ndim != 3 or pixels.shape[0] != 3:
            raise InputError(f"The image has the shape {tuple(pixels.shape)}; give (3, H, W) RGB in [0, 1].")
        model, device = _model()
        seen = torch.nn.functional.interpolate(
            pixels.float()[None].to(device), (_EDGE, _EDGE), mode="bilinear", align_corners=False, antialias=True
        )
        mean, deviation = (torch.tensor(value, device=device)[:, None, None] for value in (_MEAN, _DEVIATION))
        found = model((seen - mean) / deviation).float().cpu().flatten()
        if found.shape != (self.size,) or not torch.isfinite(found).all():
            raise LightGlueError(
                f"{_REPOSITORY} gave {tuple(found.shape)} numbers, not {self.size} finite ones; empty torch.hub's "
                "cache, or choose descriptor='vlad'."
            )
        return torch.nn.functional.normalize(found, dim=0)


@cache
def _model() -> tuple[Any, torch.device]:
    """The network, loaded once. Raises LightGlueError."""
    device = find_device("auto")
    try:
        # Asked for by the user, so that torch.hub need not ask again on a terminal that may not be there.
        model: Any = torch.hub.load(_REPOSITORY, _ENTRY, trust_repo=True)  # type: ignore[no-untyped-call]
        return model.eval().to(device), device
    except Exception as error:  # no network, no torchvision, a cache cut off: it raises what it likes
        raise LightGlueError(
            f"{_REPOSITORY} cannot be loaded by torch.hub ({type(error).__name__}: {error}); see that github.com is in "
            "reach and torchvision is installed, or choose descriptor='vlad', which downloads nothing."
        ) from error
