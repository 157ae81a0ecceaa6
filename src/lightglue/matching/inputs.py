"""Read the published feature dictionaries: check every array, say what is wrong, normalise positions."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from lightglue.errors import InputError
from lightglue.matching.config import LightGlueConfig

__all__ = [
    "Arrays",
    "ImageKeypoints",
    "both_images",
    "normalize_keypoints",
    "pad_to_length",
    "pair_list",
    "read_arrays",
    "read_features",
    "read_pairs",
    "read_sizes",
    "with_batch",
]


class Arrays(NamedTuple):
    """What every matcher needs of B images."""

    keypoints: Tensor  # (B, N, 2), px
    descriptors: Tensor  # (B, N, D)


@dataclass(frozen=True, eq=False)
class ImageKeypoints:
    """The keypoints of one image as the user gave them."""

    positions: Tensor  # (N, 2 or 4) float32, normalised; then log-free scale and orientation where used
    descriptors: Tensor  # (N, input_dim) float32


def normalize_keypoints(kpts: Tensor, size: Any = None) -> Tensor:
    """Pixels to about [-1, 1]: the image's centre is 0, half of its longer side is 1.

    kpts: (..., N, 2) x y in px; size: (..., 2) width height in px, by default the keypoints' extent. One scale for both
    axes keeps the aspect ratio (cvg/LightGlue, `normalize_keypoints`).
    """
    size = 1 + kpts.amax(-2) - kpts.amin(-2) if size is None else torch.as_tensor(size).to(kpts)
    centre = size / 2
    positions: Tensor = (kpts - centre[..., None, :]) / centre.amax(-1)[..., None, None]
    return positions


def pad_to_length(x: Tensor, length: int) -> tuple[Tensor, Tensor]:
    """x (..., N, d) with rows of ones up to `length`, and the mask (..., length or N, 1) of its own rows."""
    missing = max(length - x.shape[-2], 0)
    mask = torch.ones_like(x[..., :1], dtype=torch.bool)
    return F.pad(x, (0, 0, 0, missing), value=1), F.pad(mask, (0, 0, 0, missing), value=False)


def read_pairs(
    data: Any, owner: str, config: LightGlueConfig, like: Tensor, also: Sequence[str] = ()
) -> list[tuple[ImageKeypoints, ImageKeypoints]]:
    """The B pairs of a matcher's input, {"image0": features, "image1": features}; see `read_features`.

    owner: the matcher's name, for the errors. Raises InputError.
    """
    both = zip(both_images(data, owner), ("image0", "image1"), strict=True)
    images0, images1 = (read_features(features, name, config, like, also) for features, name in both)
    if len(images0) != len(images1) or not images0:
        raise InputError(
            f"image0 has a batch of {len(images0)} and image1 of {len(images1)}: they must be equal and at least 1"
        )
    return list(zip(images0, images1, strict=True))


def both_images(data: Any, owner: str) -> tuple[Any, Any]:
    """The features dictionaries of a matcher's input, not looked into. Raises InputError."""
    if not isinstance(data, Mapping):
        raise InputError(f"{owner} takes a dictionary with image0 and image1, not {type(data).__name__}")
    for key in ("image0", "image1"):
        if key not in data:
            raise InputError(f"{owner} needs {key!r} in its input; it has {sorted(map(str, data))}")
    return data["image0"], data["image1"]


def pair_list(pairs: Any) -> Iterator[tuple[Any, Any]]:
    """The pairs that a `match()` was given, one by one, not looked into. Raises InputError."""
    if not isinstance(pairs, Iterable):
        raise InputError(f"match() takes a list of pairs (features0, features1), not {type(pairs).__name__}")
    for i, pair in enumerate(pairs):
        if not isinstance(pair, (tuple, list)) or len(pair) != 2:
            raise InputError(f"match() takes pairs (features0, features1); item {i} is {type(pair).__name__}")
        yield pair[0], pair[1]


def with_batch(features: Any) -> Any:
    """A features dictionary with a batch dimension, which is added where `keypoints` have none."""
    if not isinstance(features, Mapping) or getattr(features.get("keypoints"), "ndim", 3) != 2:
        return features
    batched = ("keypoints", "descriptors", "scales", "oris")
    return {k: v[None] if k in batched and isinstance(v, Tensor) else v for k, v in features.items()}


def read_features(
    data: Any, name: str, config: LightGlueConfig, like: Tensor, also: Sequence[str] = ()
) -> list[ImageKeypoints]:
    """The B images of a published features dictionary, checked, in the dtype of `like` and on its device.

    name: what the user calls this dictionary, for the errors; also: further entries (B, N), put beside the positions.
    Raises InputError.
    """
    keypoints, descriptors = _read_shapes(data, name, like, config.input_dim)
    size = read_sizes(data, name, keypoints)
    positions = normalize_keypoints(keypoints, size)
    keys = (*(("scales", "oris") if config.add_scale_ori else ()), *also)
    extra = {key: _per_keypoint(data, name, key, keypoints, like)[..., None] for key in keys}
    positions = torch.cat((positions, *extra.values()), -1)
    _check_finite(name, keypoints=keypoints, descriptors=descriptors, **extra, positions=positions)
    return [ImageKeypoints(p, d) for p, d in zip(positions, descriptors, strict=True)]


def read_arrays(data: Any, name: str, like: Tensor) -> Arrays:
    """Keypoints and descriptors of any length, checked, in the dtype of `like` and on its device. Raises InputError."""
    arrays = _read_shapes(data, name, like, None)
    _check_finite(name, **arrays._asdict())
    return arrays


def _read_shapes(data: Any, name: str, like: Tensor, length: int | None) -> Arrays:
    """Keypoints and descriptors, of which the values are not checked. length: the descriptors'; None for any."""
    if not isinstance(data, Mapping):
        raise InputError(f"{name} must be a dictionary of features, as extract() returns, not {type(data).__name__}")
    keypoints = _tensor(data, name, "keypoints", like)
    descriptors = _tensor(data, name, "descriptors", like)
    if keypoints.ndim != 3 or keypoints.shape[-1] != 2:
        hint = "; add the batch dimension with keypoints[None]" if keypoints.ndim == 2 else ""
        raise InputError(f"{name}: keypoints must have shape (B, N, 2), not {tuple(keypoints.shape)}{hint}")
    _check_descriptors(descriptors, keypoints, name, length)
    return Arrays(keypoints, descriptors)


def _tensor(data: Mapping[str, Any], name: str, key: str, like: Tensor) -> Tensor:
    """A required array of the dictionary, as real numbers in the dtype of `like`."""
    if key not in data:
        raise InputError(f"{name} lacks {key!r}; it has {sorted(map(str, data))}")
    value = data[key]
    if not isinstance(value, Tensor):
        raise InputError(f"{name}: {key} must be a torch tensor, not {type(value).__name__}; use torch.as_tensor()")
    if value.dtype == torch.bool or value.is_complex() or value.is_quantized:
        raise InputError(f"{name}: {key} must hold real numbers, not {value.dtype}")
    if value.layout != torch.strided:
        raise InputError(f"{name}: {key} must be a dense tensor, not {value.layout}; use .to_dense()")
    if value.device != like.device:
        raise InputError(
            f"{name}: {key} is on {value.device} and the matcher on {like.device}; move the features with "
            f"batch_to_device(features, {str(like.device)!r}) or the matcher with .to()"
        )
    return value.to(like.dtype)


def _per_keypoint(data: Mapping[str, Any], name: str, key: str, keypoints: Tensor, like: Tensor) -> Tensor:
    value = _tensor(data, name, key, like)
    if value.shape != keypoints.shape[:2]:
        expected = tuple(keypoints.shape[:2])
        raise InputError(f"{name}: {key} must have shape (B, N) = {expected}, not {tuple(value.shape)}")
    return value


def _check_descriptors(descriptors: Tensor, keypoints: Tensor, name: str, length: int | None) -> None:
    shape, (batch, count) = tuple(descriptors.shape), keypoints.shape[:2]
    one_each = len(shape) == 3 and shape[:2] == (batch, count)
    if one_each and (shape[2] == length if length is not None else shape[2] > 0):
        return
    expected = f"({batch}, {count}, {'D' if length is None else length})"
    if one_each and length is not None:
        why = f"this matcher was made for descriptors of length {length}; is `features` right for them?"
    elif len(shape) == 3 and shape[::2] == (batch, count) and shape[1] == (length or shape[1]):
        why = "they are transposed: use descriptors.transpose(-1, -2)"
    else:
        why = "there must be one descriptor a keypoint"
    raise InputError(f"{name}: descriptors must have shape (B, N, D) = {expected}, not {shape}; {why}")


def read_sizes(data: Mapping[str, Any], name: str, keypoints: Tensor) -> Tensor:
    """(B, 2) width and height: from image_size, else from the image, else from the keypoints' extent."""
    batch = len(keypoints)
    value = data.get("image_size")
    if value is not None:
        try:
            size = torch.as_tensor(value).to(keypoints)
        except (TypeError, ValueError, RuntimeError) as error:
            raise InputError(f"{name}: image_size must be numbers (width, height), not {value!r}") from error
        if size.shape not in {(2,), (1, 2), (batch, 2)}:
            raise InputError(f"{name}: image_size must have shape (B, 2) = ({batch}, 2), not {tuple(size.shape)}")
        size = size.expand(batch, 2)
    elif data.get("image") is not None:
        shape: Sequence[int] = tuple(getattr(data["image"], "shape", ()))
        if len(shape) < 2:
            raise InputError(f"{name}: image must have shape (B, C, H, W), not {shape}; or give image_size")
        size = keypoints.new_tensor([shape[-1], shape[-2]]).expand(batch, 2)
    elif keypoints.shape[1] == 0:
        return keypoints.new_ones(batch, 2)
    else:
        # The published fallback: the extent of the keypoints stands for the image, from (0, 0).
        return (1 + keypoints.amax(1) - keypoints.amin(1)).detach()
    if not (size.isfinite() & (size > 0)).all():
        raise InputError(f"{name}: image_size must be positive (width, height) in px, not {size.tolist()}")
    return size


def _check_finite(name: str, **tensors: Tensor) -> None:
    for key, value in tensors.items():
        finite = value.isfinite()
        if not finite.all():
            bad = int((~finite).flatten(2).any(-1).sum())
            raise InputError(f"{name}: {key} hold NaN or infinity for {bad} keypoints; drop these keypoints first")
