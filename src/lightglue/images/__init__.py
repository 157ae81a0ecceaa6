"""Images in, tensors out: decode, orient, convert, resize."""

from __future__ import annotations

from lightglue.images.arrays import numpy_image_to_torch, resize_image, size_of
from lightglue.images.files import (
    DEFAULT_MAX_PIXELS,
    ImageFile,
    ImageSource,
    contents_of,
    load_image,
    read_image,
    read_to_look_at,
)
from lightglue.images.resampling import ImagePreprocessor, resize_tensor
from lightglue.images.sources import AnyImage, as_pixels, as_tensor
from lightglue.images.value_range import narrow_range

__all__ = [
    "DEFAULT_MAX_PIXELS",
    "AnyImage",
    "ImageFile",
    "ImagePreprocessor",
    "ImageSource",
    "as_pixels",
    "as_tensor",
    "contents_of",
    "load_image",
    "narrow_range",
    "numpy_image_to_torch",
    "read_image",
    "read_to_look_at",
    "resize_image",
    "resize_tensor",
    "size_of",
]
