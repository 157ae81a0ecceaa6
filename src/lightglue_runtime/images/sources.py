"""Whatever a user has as an image, as an array: files, arrays, Pillow's images."""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lightglue_runtime.errors import ImageError, InputError
from lightglue_runtime.images.arrays import to_float
from lightglue_runtime.images.files import ImageFile, is_file
from lightglue_runtime.images.value_range import eight_bits, stretched, warn_of_narrow_range

__all__ = ["as_float", "as_pixels", "is_pillow"]

_GRAY = ("1", "L")
_DEEP = ("I;16", "I;16L", "I;16B", "I;16N")
_COLOURS = ("RGB", "RGBA", "RGBX", "RGBa", "LA", "La", "PA", "P", "CMYK", "YCbCr", "LAB", "HSV")


def as_float(image: Any, stretch: bool = False) -> NDArray[np.float32]:
    """Any image as an array (H, W, 3) RGB or (H, W, 1), float32 in [0, 1]; a file with all the bits that it has.

    stretch: spread the range that its values use over [0, 1].

    Raises ImageError for a file that cannot be read, InputError for what is no image.
    """
    if is_file(image) and not is_pillow(image):
        file = ImageFile.read(image)
        pixels: NDArray[Any] = file.decode(stretch=stretch)
        if not stretch:
            warn_of_narrow_range(pixels, file.name)
        return to_float(pixels)
    return to_float(as_pixels(image, stretch))


def as_pixels(image: Any, stretch: bool = False) -> Any:
    """Any image as an array (H, W, 3) RGB or (H, W), as far as it is no tensor: a file as uint8, too large for floats.

    `stretch` and errors as for `as_float`; what is no image stays as it is.
    """
    is_read = is_file(image) and not is_pillow(image)
    if is_pillow(image):
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


def is_pillow(image: Any) -> bool:
    """Whether `image` is one of Pillow's."""
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
