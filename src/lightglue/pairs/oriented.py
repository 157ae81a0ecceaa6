"""An image of a pair as it is given to the extractor: upright, with its mask."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lightglue.errors import InputError
from lightglue.extractors.masks import read_mask
from lightglue.images import as_pixels, as_tensor, numpy_image_to_torch, size_of
from lightglue.images.rotation import Rotation
from lightglue.matching.effort import EffortRecord
from lightglue.pairs.record import MatchedPair
from lightglue.timing import span
from lightglue.types import Extractor, Features

__all__ = ["OrientedImage", "pair_of", "pixels_of"]


def pixels_of(image: Any, tile: Any = None, angles: Sequence[float] = (), stretch: bool = False) -> Any:
    """Any image as pixels: a tensor, with `tile` an array. InputError where it is to be rotated and cannot be.

    stretch: as `load_image` has it; not of tensors.
    """
    pixels = image
    if isinstance(image, (list, tuple)):
        raise InputError(f"The image is a {type(image).__name__} of {len(image)}; give one image.")
    if not isinstance(image, Tensor):
        with span("load"):
            pixels = as_tensor(image, stretch) if tile is None else as_pixels(image, stretch)
    if not angles or (isinstance(pixels, Tensor) and pixels.ndim == 3 and pixels.numel()):
        return pixels
    if isinstance(pixels, np.ndarray) and pixels.ndim in (2, 3) and pixels.size:
        return pixels
    shape = tuple(getattr(image, "shape", ())) or type(image).__name__
    raise InputError(f"The image is {shape}; with auto_rotate give (C, H, W), an array, or a file.")


@dataclass(frozen=True, eq=False)
class OrientedImage:
    """An image, and by how much it is rotated before its features are extracted."""

    image: Any  # (C, H, W) tensor, or (H, W, 3) or (H, W) array
    mask: Any
    angle: float = 0  # degrees, clockwise

    @property
    def key(self) -> tuple[int, int, float]:
        """Equal for images whose features are the same."""
        return id(self.image), id(self.mask), self.angle

    @property
    def rotation(self) -> Rotation | None:
        """How it is rotated; None where it is not."""
        return Rotation(self.angle, *size_of(self.image)) if self.angle else None

    def pixels(self) -> Any:
        """The image without batch dimension, as it is drawn and refined: floating point in [0, 1], or uint8."""
        image = self.image
        if isinstance(image, Tensor):
            image = image[0] if image.ndim == 4 else image
            return image if image.is_floating_point() else image.float()
        return numpy_image_to_torch(image) if isinstance(image, np.ndarray) and image.dtype == np.uint16 else image

    def read_mask(self) -> Any:
        """The mask as (H, W) bool; None where there is none."""
        width, height = size_of(self.image)
        return None if self.mask is None else read_mask(self.mask, height, width)

    def extract(self, extractor: Extractor, options: Mapping[str, Any]) -> Features:
        """Its features, in px of the rotated image."""
        rotation, mask, image = self.rotation, self.mask, self.image
        if rotation is not None:
            usual = getattr(extractor, "preprocess_conf", {})
            own = {"resize": usual["resize"]} if "resize" in usual and options.get("tile") is None else {}
            options = rotation.extract_options({**own, **options})
            if mask is not None:
                mask = read_mask(mask, rotation.height, rotation.width)
            image, mask = rotation.apply(image), rotation.mask(mask)
        if mask is not None:
            options = {**options, "mask": mask}
        with span("extraction"):
            return cast(Features, extractor.extract(image, **options))

    def in_its_own_pixels(self, features: Mapping[str, Any]) -> dict[str, Any]:
        """Features of the rotated image as those of the image."""
        rotation, own = self.rotation, dict(features)
        if rotation is None:
            return own
        own["keypoints"] = rotation.undo(own["keypoints"])
        if "image_size" in own:
            own["image_size"] = own["image_size"].new_tensor([[rotation.width, rotation.height]])
        if "oris" in own:
            own["oris"] = own["oris"] - math.radians(self.angle)
        return own


def pair_of(
    features: Sequence[Features],
    images: Sequence[OrientedImage],
    result: Mapping[str, Any],
    was_rotated: bool,
    device: str | torch.device = "cpu",
) -> MatchedPair:
    """The record of a pair, in px of the images as they were given."""
    first, second = (image.in_its_own_pixels(each) for image, each in zip(images, features, strict=True))
    pair = MatchedPair.of(first, second, result, device)
    if (record := pair.effort) is not None and record.model is not None:
        pair = pair.with_matches(effort=replace(record, model=_in_their_own_pixels(record.model, record, images)))
    return pair.with_matches(rotation=images[1].angle) if was_rotated else pair


def _in_their_own_pixels(
    model: NDArray[np.float64], record: EffortRecord, images: Sequence[OrientedImage]
) -> NDArray[np.float64]:
    """What relates the images, from what relates them rotated."""
    turned = [np.eye(3), np.eye(3)]
    for own, image in zip(turned, images, strict=True):
        if image.rotation is not None:
            own[:2] = image.rotation.matrix
    back = turned[1].T if record.geometry == "fundamental" else np.linalg.inv(turned[1])
    return np.asarray(back @ model @ turned[0])
