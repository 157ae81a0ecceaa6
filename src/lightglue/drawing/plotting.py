"""What a caller draws, as arrays: images and keypoints of any kind, checked. Needs no Matplotlib."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from lightglue.errors import InputError

__all__ = ["Array", "shrunk", "to_array", "to_bytes", "to_pixels", "to_points"]

Array = NDArray[Any]
_IMAGE_PX = 1600  # images are shrunk to this edge before they are drawn


def to_array(values: Any) -> Array:
    """`values` as an array on the CPU; bfloat16, which NumPy does not know, as float32."""
    if isinstance(values, torch.Tensor):
        values = values.detach().cpu()
        return np.asarray(values.float() if values.dtype == torch.bfloat16 else values)
    return np.asarray(values)


def to_points(keypoints: Any) -> Array:
    """Keypoints as (N, 2) float64; InputError for another shape."""
    points = to_array(keypoints)
    if points.size == 0:
        return np.zeros((0, 2))
    if points.ndim != 2 or points.shape[1] != 2:
        raise InputError(f"Keypoints have shape {points.shape}; give (N, 2) (rbd removes a batch dimension).")
    return points.astype(np.float64)


def to_pixels(image: Any) -> Array:
    """(H, W, 3) or (H, W) of any image: tensors are channels first, arrays channels last unless they cannot be.

    Raises InputError for what has no such shape.
    """
    pixels = to_array(image)
    if pixels.ndim == 3:
        first, last = pixels.shape[0] in (1, 3), pixels.shape[2] in (1, 3, 4)
        if first and (isinstance(image, torch.Tensor) or not last):
            pixels, last = pixels.transpose(1, 2, 0), True
        if last:
            pixels = pixels[..., 0] if pixels.shape[2] == 1 else pixels
    if pixels.size == 0 or not (pixels.ndim == 2 or (pixels.ndim == 3 and pixels.shape[2] in (3, 4))):
        raise InputError(f"An image has shape {to_array(image).shape}; give (3, H, W), (1, H, W), (H, W, 3) or (H, W).")
    if pixels.dtype.kind == "f":
        pixels = pixels.astype(np.float32)
        return pixels if pixels.ndim == 2 else pixels.clip(0, 1)
    if pixels.dtype == np.uint16 and pixels.ndim == 3:
        return (pixels >> 8).astype(np.uint8)  # Matplotlib draws integer colours up to 255
    return pixels


def to_bytes(image: Any) -> NDArray[np.uint8]:
    """(H, W, 3) uint8 of any image. Raises InputError."""
    pixels = to_pixels(image)
    pixels = pixels[..., None].repeat(3, axis=2) if pixels.ndim == 2 else pixels[..., :3]
    if pixels.dtype == np.uint16:
        pixels = pixels >> 8
    elif pixels.dtype.kind in "fb":
        pixels = np.round(np.nan_to_num(pixels.astype(np.float32)).clip(0, 1) * 255)
    elif pixels.dtype != np.uint8:
        raise InputError(f"An image has dtype {pixels.dtype}; give uint8, uint16, or floating point in [0, 1].")
    return np.ascontiguousarray(pixels, dtype=np.uint8)


def shrunk(pixels: Array) -> Array:
    """(H, W, C) or (H, W), no larger than a picture can show."""
    scale = _IMAGE_PX / max(pixels.shape[:2])
    if scale >= 1:
        return pixels
    size = [max(1, round(edge * scale)) for edge in pixels.shape[1::-1]]
    return np.asarray(cv2.resize(pixels, size, interpolation=cv2.INTER_AREA))
