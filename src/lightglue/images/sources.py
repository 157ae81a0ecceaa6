"""Whatever a user has as an image: files, arrays, Pillow's images, tensors."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from lightglue.errors import ImageError, InputError
from lightglue.images.arrays import numpy_image_to_torch
from lightglue.images.files import ImageFile, ImageSource, is_file, load_image
from lightglue.images.value_range import eight_bits, stretched, warn_of_narrow_range

if TYPE_CHECKING:
    from PIL.Image import Image

__all__ = ["AnyImage", "as_pixels", "as_tensor"]

# A file; (H, W, 3) RGB or (H, W) uint8 or uint16; one of Pillow's, as it is shown without EXIF; (C, H, W) in [0, 1].
AnyImage: TypeAlias = "ImageSource | NDArray[Any] | Image | Tensor"

_GRAY = ("1", "L")
_DEEP = ("I;16", "I;16L", "I;16B", "I;16N")
_COLOURS = ("RGB", "RGBA", "RGBX", "RGBa", "LA", "La", "PA", "P", "CMYK", "YCbCr", "LAB", "HSV")


def as_tensor(image: Any, stretch: bool = False) -> Any:
    """Any image as a tensor (C, H, W), float32 in [0, 1]; what is a tensor already, or no image, as it is.

    stretch: spread the range that the values of a file, an array or a Pillow image use, as `load_image` does.

    Raises ImageError for a file that cannot be read, InputError for an array or a Pillow image that is no image.
    """
    if is_file(image) and not _is_pillow(image):
        return load_image(image, stretch=stretch)
    image = as_pixels(image, stretch)
    return numpy_image_to_torch(image) if isinstance(image, np.ndarray) else image


def as_pixels(image: Any, stretch: bool = False) -> Any:
    """Any image as an array (H, W, 3) RGB or (H, W), as far as it is no tensor: a file as uint8, too large for floats.

    `stretch` and errors as for `as_tensor`.
    """
    is_read = is_file(image) and not _is_pillow(image)
    if _is_pillow(image):
        image = _from_pillow(image)
    elif is_read:
        file = ImageFile.read(image)
        image = file.decode(stretch=stretch)
    if isinstance(image, np.ndarray) and image.ndim and min(image.strides) < 0:
        image = np.ascontiguousarray(image)  # such as OpenCV's with its channels reversed
    if not stretch:
        warn_of_narrow_range(image, file.name if is_read else "The image")
    elif not is_read and isinstance(image, np.ndarray) and image.ndim in (2, 3) and image.dtype.kind in "iuf":
        image = stretched(image)
    return eight_bits(image, rounded=stretch) if is_read else image


def _is_pillow(image: Any) -> bool:
    pillow = sys.modules.get("PIL.Image")  # where it was never loaded, nothing can be one
    return pillow is not None and isinstance(image, pillow.Image)


def _from_pillow(image: Any) -> NDArray[Any]:
    if image.mode not in (*_GRAY, *_DEEP, *_COLOURS):
        known = ", ".join((*_GRAY, _DEEP[0], *_COLOURS))
        raise InputError(f"The image has Pillow's mode {image.mode!r}; convert it to one of {known}.")
    try:
        if image.mode in _DEEP:
            return np.asarray(image).astype(np.uint16)
        return np.asarray(image.convert("L" if image.mode in _GRAY else "RGB"))
    except (OSError, SyntaxError, ValueError) as error:  # Pillow decodes only here
        name = getattr(image, "filename", "") or "The image opened by Pillow"
        raise ImageError(f"{name} cannot be decoded: {error}; open it again, or fetch the file again.") from error
