"""Images as arrays: checked, as numbers in [0, 1], resized by OpenCV.

An array of three channels is red, green, blue. OpenCV reads blue first: `image[..., ::-1]` reverses that.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from lightglue_runtime.checks import is_int
from lightglue_runtime.errors import InputError
from lightglue_runtime.resize import MAX_EDGE

__all__ = ["check_resize", "checked_pixels", "resize_image", "to_float"]

_EDGES = {"max": max, "min": min}
_INTERPOLATIONS = {
    "linear": cv2.INTER_LINEAR,
    "cubic": cv2.INTER_CUBIC,
    "nearest": cv2.INTER_NEAREST,
    "area": cv2.INTER_AREA,
}


def to_float(image: NDArray[Any]) -> NDArray[np.float32]:
    """An image as float32 (H, W, 3) or (H, W, 1) in [0, 1]: what `lightglue.utils.numpy_image_to_torch` gives.

    Raises InputError as `checked_pixels`.
    """
    pixels, full = checked_pixels(image, "multiply it by 255")
    found = pixels.astype(np.float32)
    found /= np.float32(full)
    return found


def checked_pixels(image: NDArray[Any], remedy: str) -> tuple[NDArray[Any], float]:
    """An array (H, W, 3), (H, W, 1) or (H, W) as (H, W, C) in uint8, uint16 or float32, and the value of white.

    White is 65,535 for uint16 and 255 for all else, as in the published package: for floating point too. remedy: what
    to do about an image in [0, 1], which is refused.

    Raises InputError for another shape or dtype, and for values outside the range.
    """
    if not isinstance(image, np.ndarray):
        raise InputError(f"The image is a {type(image).__name__}; give a NumPy array.")
    if image.ndim not in (2, 3) or image.size == 0 or (image.ndim == 3 and image.shape[2] not in (1, 3)):
        raise InputError(f"Not an image: shape {image.shape}; give (H, W), (H, W, 1) or (H, W, 3), not empty.")
    image = image.astype(image.dtype.newbyteorder("="), copy=False)
    if image.dtype not in (np.uint8, np.uint16):
        image = _checked_values(image, remedy)
    return image[..., None] if image.ndim == 2 else image, 65535.0 if image.dtype == np.uint16 else 255.0


def _checked_values(image: NDArray[Any], remedy: str) -> NDArray[np.float32]:
    """An integer or floating-point array with values in 0 to 255 as float32."""
    if image.dtype.kind not in "iuf":
        raise InputError(f"The image has dtype {image.dtype}; give uint8, uint16, or numbers from 0 to 255.")
    low, high = image.min(), image.max()
    if not (low >= 0 and high <= 255):  # NaN fails too
        raise InputError(f"The image has values from {low} to {high}; as {image.dtype} they must lie in 0 to 255.")
    if image.dtype.kind == "f" and 0 < high <= 1:
        raise InputError(
            f"The image has values from {low} to {high}, where 0 to 255 is expected; if they are in [0, 1] already, "
            f"{remedy}."
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
