"""Masks: where in an image keypoints may lie."""

from __future__ import annotations

from collections.abc import Callable
from os import PathLike
from typing import Any, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lightglue.errors import InputError
from lightglue.images import read_image

__all__ = ["Allowed", "Mask", "mask_of", "on_mask", "read_mask", "read_masks"]

Mask: TypeAlias = "Tensor | NDArray[Any] | str | PathLike[str]"

# Says of keypoints (N, 2), in px of the tensor that `forward` gets, which may stay: (N,) bool.
Allowed: TypeAlias = Callable[[Tensor], Tensor]

# A position this close to the line between two pixels, px, lies on both: rounding decides on which it falls.
_EDGE = 1e-3


def read_mask(mask: Mask, height: int, width: int) -> Tensor:
    """`mask` as (H, W) bool on its device.

    Args:
        mask: an array (H, W) or (1, H, W), bool or integers of which 0 means outside; or an image file, which is
            rotated as its EXIF orientation says, and whose black pixels are outside.
        height, width: of the image, px.

    Raises:
        InputError: for anything else, and for a mask of another size than the image.
        ImageError: the file cannot be read.
    """
    if isinstance(mask, (str, PathLike)):
        values = torch.from_numpy(read_image(mask, grayscale=True) != 0)
    elif isinstance(mask, np.ndarray):
        if mask.dtype.kind not in "biu":
            raise InputError(f"The mask has dtype {mask.dtype}; give bool, True where keypoints may lie.")
        values = torch.from_numpy(mask != 0)
    elif isinstance(mask, Tensor):
        if mask.is_floating_point() or mask.is_complex():
            raise InputError(f"The mask has dtype {mask.dtype}; give bool, True where keypoints may lie: mask > 0.5.")
        values = mask != 0
    else:
        raise InputError(f"The mask is a {type(mask).__name__}; give a bool array (H, W) or the path of an image.")
    if values.ndim == 3 and values.shape[0] == 1:
        values = values[0]
    if values.ndim != 2 or tuple(values.shape) != (height, width):
        size = " x ".join(map(str, reversed(values.shape)))
        raise InputError(f"The mask has {size} px, the image {width} x {height}; give a mask of the image's size.")
    return values


def read_masks(mask: Any, images: Tensor) -> list[Tensor | None]:
    """A mask (H, W) for each of `images` (B, C, H, W): `mask` for all, its parts where it is a batch (B, H, W)."""
    h, w = images.shape[-2:]
    if mask is None:
        return [None] * len(images)
    if isinstance(mask, (Tensor, np.ndarray)) and mask.ndim == 3 and len(mask) == len(images):
        return [read_mask(own, h, w) for own in mask]
    return [read_mask(mask, h, w)] * len(images)


def mask_of(mask: Tensor | None, to_image: Callable[[Tensor], Tensor]) -> Allowed | None:
    """Says which keypoints lie on `mask`; `to_image` converts their positions to px of the mask."""
    return None if mask is None else lambda keypoints: on_mask(mask, to_image(keypoints))


def on_mask(mask: Tensor, keypoints: Tensor) -> Tensor:
    """Which of `keypoints` (N, 2), x y in px of the `mask` (H, W), lie on it: (N,) bool.

    A keypoint on the line between two pixels must have both on the mask.
    """
    h, w = mask.shape
    limits = torch.tensor([w - 1, h - 1])
    positions = keypoints.detach().cpu().double()  # some devices have no float64
    low = (positions - 0.5 - _EDGE).ceil().long().clamp(min=0).minimum(limits).to(mask.device)
    high = (positions + 0.5 + _EDGE).floor().long().clamp(min=0).minimum(limits).to(mask.device)
    corners = [mask[y[:, 1], x[:, 0]] for y in (low, high) for x in (low, high)]
    return torch.stack(corners).all(0).to(keypoints.device)
