"""The helper names of the published `lightglue.utils`, each from the module that owns it."""

from __future__ import annotations

from lightglue.containers import batch_to_device, map_tensor, rbd
from lightglue.extractors.base import Extractor
from lightglue.images import ImagePreprocessor, load_image, numpy_image_to_torch, read_image, resize_image
from lightglue.pairs.match import match_pair

__all__ = [
    "Extractor",
    "ImagePreprocessor",
    "batch_to_device",
    "load_image",
    "map_tensor",
    "match_pair",
    "numpy_image_to_torch",
    "rbd",
    "read_image",
    "resize_image",
]
