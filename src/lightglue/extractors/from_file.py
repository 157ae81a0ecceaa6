"""The features of an image file: what `lightglue extract` writes of it."""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import Tensor

from lightglue.containers import batch_to_device, rbd
from lightglue.extractors.masks import read_mask
from lightglue.extractors.no_keypoints import likely_cause
from lightglue.extractors.options import ViewOptions
from lightglue.images import as_pixels, as_tensor, read_image, size_of

__all__ = ["FileFeatures", "extract_file"]


@dataclass(frozen=True, eq=False)
class FileFeatures:
    """The features of an image, on the CPU, without batch dimension."""

    features: dict[str, Tensor]  # keypoints (N, 2) px of the file, descriptors (N, D), ...
    no_keypoints: str | None = None  # why there are none

    def npz(self, kind: str) -> bytes:
        """The content of a file. kind: the name of the feature type."""
        buffer = io.BytesIO()
        arrays: dict[str, Any] = {name: value.numpy() for name, value in self.features.items()}
        np.savez(buffer, features=np.array(kind), **arrays)
        return buffer.getvalue()


def extract_file(extractor: Any, image: Any, views: ViewOptions, mask: Any = None, name: str = "") -> FileFeatures:
    """Extract.

    image, mask: a path, or the content of a file. name: of the image, for errors about the mask.

    Raises ImageError, InputError.
    """
    options = views.keywords()
    pixels = (as_tensor if views.tile is None else as_pixels)(image, views.stretch)
    width, height = size_of(pixels)
    if isinstance(mask, bytes):
        mask = read_image(mask, grayscale=True)
    allowed = None if mask is None else read_mask(mask, height, width, name)
    found = rbd(batch_to_device(extractor.extract(pixels, mask=allowed, **options)))
    cause = None
    if not len(found["keypoints"]):
        cause = likely_cause(pixels if views.stretch else image, allowed, extractor, options.get("resize"))
    return FileFeatures(found, cause)
