"""Images as arrays and tensors: from one to the other, and arrays resized.

An array of three channels is red, green, blue. OpenCV reads blue first: `image[..., ::-1]` reverses that.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lightglue.errors import InputError
from lightglue.images.resampling import MAX_EDGE
from lightglue.support.checks import is_int

__all__ = ["check_resize", "numpy_image_to_torch", "resize_image", "size_of"]

_EDGES = {"max": max, "min": min}
_INTERPOLATIONS = {
    "linear": cv2.INTER_LINEAR,
    "cubic": cv2.INTER_CUBIC,
    "nearest": cv2.INTER_NEAREST,
    "area": cv2.INTER_AREA,
}


def size_of(image: Tensor | NDArray[Any]) -> tuple[int, int]:
    """Width and height, px, of a tensor (..., H, W) or an array (H, W, ...). Raises InputError for anything else."""
    if not isinstance(image, (Tensor, np.ndarray)):
        raise InputError(f"The image is a {type(image).__name__}; give a file, an array, or a tensor (C, H, W).")
    if image.ndim < 2:
        raise InputError(f"Not an image: shape {tuple(image.shape)}; give (H, W), (H, W, 3), or a tensor (C, H, W).")
    h, w = image.shape[-2:] if isinstance(image, Tensor) else image.shape[:2]
    return int(w), int(h)


def numpy_image_to_torch(image: NDArray[Any]) -> Tensor:
    """Turn an array (H, W, 3), (H, W, 1) or (H, W) into a tensor (C, H, W), float32 in [0, 1].

    uint16 is divided by 65,535. All else is divided by 255, as in the published package: floating point too, which
    is therefore taken to hold 0 to 255. Since a floating-point image of nothing but 0 to 1 was hardly meant so, it is
    refused.

    Raises:
        InputError: another shape or dtype, or values outside the range.
    """
    if not isinstance(image, np.ndarray):
        raise InputError(f"The image is a {type(image).__name__}; give a NumPy array.")
    if image.ndim not in (2, 3) or image.size == 0 or (image.ndim == 3 and image.shape[2] not in (1, 3)):
        raise InputError(f"Not an image: shape {image.shape}; give (H, W), (H, W, 1) or (H, W, 3), not empty.")
    image = image.astype(image.dtype.newbyteorder("="), copy=False)
    if image.dtype not in (np.uint8, np.uint16):
        image = _checked_values(image)
    full = 65535.0 if image.dtype == np.uint16 else 255.0
    channels_last = image[..., None] if image.ndim == 2 else image
    # torch takes no read-only arrays, no negative strides and not every dtype: copy the rare ones.
    plain = np.require(channels_last, requirements=["W"]) if min(channels_last.strides) >= 0 else channels_last.copy()
    tensor = torch.from_numpy(plain).permute(2, 0, 1)
    return tensor.to(torch.float32, memory_format=torch.contiguous_format).div_(full)


def _checked_values(image: NDArray[Any]) -> NDArray[np.float32]:
    """An integer or floating-point array with values in 0 to 255 as float32."""
    if image.dtype.kind not in "iuf":
        raise InputError(f"The image has dtype {image.dtype}; give uint8, uint16, or numbers from 0 to 255.")
    low, high = image.min(), image.max()
    if not (low >= 0 and high <= 255):  # NaN fails too
        raise InputError(f"The image has values from {low} to {high}; as {image.dtype} they must lie in 0 to 255.")
    if image.dtype.kind == "f" and 0 < high <= 1:
        raise InputError(
            f"The image has values from {low} to {high}, where 0 to 255 is expected; if they are in [0, 1] already, "
            "torch.from_numpy(image).permute(2, 0, 1) is all it takes."
        )
    return image.astype(np.float32)


def resize_image(
    image: NDArray[Any], size: int | Sequence[int], fn: str = "max", interp: str = "area"
) -> tuple[NDArray[Any], tuple[float, float]]:
    """Resize an array (H, W) or (H, W, C) with OpenCV.

    Args:
        image: uint8, uint16 or floating point.
        size: px of the edge that `fn` ("max" or "min") names, the other rounded; or (height, width) in px.
        fn: which edge.
        interp: "area", "linear", "cubic" or "nearest".

    Returns:
        The image in its dtype and its scales (w / W, h / H).
    """
    check_resize(size, fn, interp)
    if not isinstance(image, np.ndarray) or image.ndim not in (2, 3) or image.size == 0:
        raise InputError(f"Not an image: {np.shape(image)}; give an array (H, W) or (H, W, C), not empty.")
    height, width = image.shape[:2]
    if isinstance(size, Sequence):
        new_height, new_width = (int(edge) for edge in size)
    else:
        scale = min(size, MAX_EDGE + 1) / _EDGES[fn](height, width)
        new_height, new_width = max(1, round(height * scale)), max(1, round(width * scale))
    if max(new_height, new_width) > MAX_EDGE:
        made = f"makes an edge of this image, {width} x {height} px, longer than {MAX_EDGE:,} px"
        raise InputError(f"resize is {size!r}, which {made}; give a smaller one.")
    try:
        resized = cv2.resize(image, (new_width, new_height), interpolation=_INTERPOLATIONS[interp])
    except cv2.error as error:
        raise InputError(f"OpenCV cannot resize {image.dtype} {image.shape} to {size}: {error.err}") from error
    return resized.reshape(new_height, new_width, *image.shape[2:]), (new_width / width, new_height / height)


def check_resize(size: Any, fn: str, interp: str) -> None:
    """InputError for a size or a mode that `resize_image` cannot work with."""
    is_pair = isinstance(size, (tuple, list))
    edges = size if is_pair else (size,)
    if len(edges) != 1 + is_pair or not all(is_int(edge, 1) for edge in edges):
        raise InputError(f"resize is {size!r}; give a positive integer in px, or a pair (height, width) of them.")
    if fn not in _EDGES:
        raise InputError(f"fn is {fn!r}; choose one of {', '.join(_EDGES)}.")
    if interp not in _INTERPOLATIONS:
        raise InputError(f"interp is {interp!r}; choose one of {', '.join(_INTERPOLATIONS)}.")
