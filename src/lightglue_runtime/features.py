"""Features of an image as a matcher's inputs: every array is checked, and what is wrong is said."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lightglue_runtime.errors import InputError

__all__ = ["read_features"]


def read_features(
    data: Any, name: str, side: int, features: str, length: int | None, also: Sequence[str] = ()
) -> dict[str, NDArray[np.float32]]:
    """One image's features as inputs of a matcher's file, float32.

    Args:
        data: keypoints (N, 2) px, descriptors (N, D), image_size (2,) width height, px; each may have a batch dimension
            of 1. Without a size the keypoints' extent stands for it, as in the published package.
        name: what the caller calls the image, for the errors.
        side: 0 or 1, the image's number in the names of the inputs.
        features: that the file was made for; length: of their descriptors, None for any.
        also: further entries (N,), such as scales and oris.

    Raises InputError.
    """
    if not isinstance(data, Mapping):
        raise InputError(f"{name} must be a dictionary of features, as extract() returns, not {type(data).__name__}")
    keypoints = _array(data, name, "keypoints", 2)
    descriptors = _array(data, name, "descriptors", 2)
    count = len(keypoints)
    if keypoints.shape[1] != 2:
        raise InputError(f"{name}: keypoints must have shape (N, 2), not {keypoints.shape}")
    if len(descriptors) != count:
        hint = "; they are transposed" if descriptors.shape[1] == count else ""
        raise InputError(f"{name}: there are {count} keypoints and descriptors of shape {descriptors.shape}{hint}")
    if length is not None and descriptors.shape[1] != length:
        raise InputError(
            f"{name}: descriptors have length {descriptors.shape[1]} and this matcher was made for {features}, whose "
            f"have {length}; give a matcher of the features that were extracted"
        )
    found = {"kpts": keypoints, "desc": descriptors, **{key: _array(data, name, key, 1) for key in also}}
    for key in also:
        if len(found[key]) != count:
            raise InputError(f"{name}: {key} must have shape (N,) = ({count},), not {found[key].shape}")
    size = _size(data, name, keypoints)
    for key, value in found.items():
        if not np.isfinite(value).all():
            bad = int((~np.isfinite(value).reshape(count, -1).all(1)).sum())
            label = {"kpts": "keypoints", "desc": "descriptors"}.get(key, key)
            raise InputError(f"{name}: {label} hold NaN or infinity for {bad} keypoints; drop these keypoints first")
    return {f"{key}{side}": value[None] for key, value in {**found, "image_size": size}.items()}


def _array(data: Mapping[str, Any], name: str, key: str, dimensions: int) -> NDArray[np.float32]:
    """A required array without its batch dimension."""
    if key not in data:
        raise InputError(f"{name} lacks {key!r}; it has {sorted(map(str, data))}")
    value = data[key]
    if not isinstance(value, np.ndarray):
        raise InputError(f"{name}: {key} must be a NumPy array, not {type(value).__name__}")
    if value.dtype.kind not in "fiu":
        raise InputError(f"{name}: {key} must hold real numbers, not {value.dtype}")
    if value.ndim == dimensions + 1 and len(value) == 1:
        value = value[0]
    if value.ndim != dimensions:
        what = "images; give one at a time" if value.ndim == dimensions + 1 else "dimensions"
        number = len(value) if value.ndim == dimensions + 1 else value.ndim
        raise InputError(f"{name}: {key} have shape {value.shape}, of {number} {what}")
    found: NDArray[np.float32] = value.astype(np.float32, copy=False)
    return found


def _size(data: Mapping[str, Any], name: str, keypoints: NDArray[np.float32]) -> NDArray[np.float32]:
    """(2,) width and height."""
    value = data.get("image_size")
    if value is None:
        return np.ones(2, np.float32) if not len(keypoints) else 1 + keypoints.max(0) - keypoints.min(0)
    try:
        size = np.asarray(value, np.float32)
    except (TypeError, ValueError) as error:
        raise InputError(f"{name}: image_size must be numbers (width, height), not {value!r}") from error
    if size.shape not in ((2,), (1, 2)):
        raise InputError(f"{name}: image_size must have shape (2,), not {size.shape}")
    if not (np.isfinite(size) & (size > 0)).all():
        raise InputError(f"{name}: image_size must be positive (width, height) in px, not {size.tolist()}")
    return size.reshape(2)
