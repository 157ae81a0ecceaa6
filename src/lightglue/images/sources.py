"""Whatever a user has as an image, as a tensor: files, arrays, Pillow's images, tensors."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from lightglue.images.tensors import load_image, numpy_image_to_torch
from lightglue_runtime.images.files import ImageSource, is_file
from lightglue_runtime.images.sources import as_pixels, is_pillow

if TYPE_CHECKING:
    from PIL.Image import Image

__all__ = ["AnyImage", "as_tensor"]

# A file; (H, W, 3) RGB or (H, W) uint8 or uint16; one of Pillow's, as it is shown without EXIF; (C, H, W) in [0, 1].
AnyImage: TypeAlias = "ImageSource | NDArray[Any] | Image | Tensor"


def as_tensor(image: Any, stretch: bool = False) -> Any:
    """Any image as a tensor (C, H, W), float32 in [0, 1]; what is a tensor already, or no image, as it is.

    stretch: spread the range that the values of a file, an array or a Pillow image use, as `load_image` does.

    Raises ImageError for a file that cannot be read, InputError for an array or a Pillow image that is no image.
    """
    if is_file(image) and not is_pillow(image):
        return load_image(image, stretch=stretch)
    image = as_pixels(image, stretch)
    return numpy_image_to_torch(image) if isinstance(image, np.ndarray) else image
