"""Images in, tensors out: decode, orient, convert, resize."""

from __future__ import annotations

from lightglue.images.resampling import ImagePreprocessor, resize_tensor
from lightglue.images.sources import AnyImage, as_tensor
from lightglue.images.tensors import load_image, numpy_image_to_torch, size_of
from lightglue_runtime.images.arrays import resize_image
from lightglue_runtime.images.files import (
    DEFAULT_MAX_PIXELS,
    ImageFile,
    ImageSource,
    contents_of,
    read_image,
    read_to_look_at,
)
from lightglue_runtime.images.sources import as_pixels
from lightglue_runtime.images.value_range import narrow_range

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
