"""Images as tensors: what `lightglue_runtime.images` reads and checks, on torch's side."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lightglue.errors import InputError
from lightglue.timing import span
from lightglue_runtime.images.arrays import check_resize, checked_pixels, resize_image
from lightglue_runtime.images.files import DEFAULT_MAX_PIXELS, ImageFile, ImageSource
from lightglue_runtime.images.value_range import warn_of_narrow_range

__all__ = ["load_image", "numpy_image_to_torch", "size_of"]


def load_image(
    path: ImageSource,
    resize: int | tuple[int, int] | None = None,
    fn: str = "max",
    interp: str = "area",
    grayscale: bool = False,
    max_pixels: int | None = DEFAULT_MAX_PIXELS,
    stretch: bool = False,
) -> Tensor:
    """Load an image file as a tensor.

    Eight-bit values are divided by 255, 16-bit values by 65,535 without first losing their low bits. The EXIF
    orientation is applied. Transparency is dropped, the colours under it stay; of several frames or pages the first
    is read.

    Args:
        path: a JPEG, PNG, TIFF, WebP, BMP, GIF, PNM, JPEG 2000, AVIF or HEIC file (the last with pillow-heif): its
            path, its content as bytes, or the file opened in binary mode, which is read on from where it stands.
        resize: px of the edge that `fn` names, the other following the aspect ratio; or (height, width) in px.
        fn: "max" for the long edge, "min" for the short one.
        interp: "area", "linear", "cubic" or "nearest", as OpenCV does them.
        grayscale: load one channel; a colour image is converted.
        max_pixels: refuse larger images before they are decoded; None for no limit but OpenCV's own.
        stretch: spread the range of values that the image uses over [0, 1], as images of 12 bits in 16, of thermal
            cameras, and TIFF files of floating point need: see `lightglue_runtime.images.value_range`. NaN becomes
            black. Without it, a 16-bit image that uses less than a quarter of its range is a warning.

    Returns:
        (3, H, W) RGB, or (1, H, W) gray, float32 in [0, 1].

    Raises:
        ImageNotFoundError: there is no such file.
        ImageError: the file is not a whole image of a supported kind, or too large.
        InputError: an argument has no meaning.
    """
    if resize is not None:
        check_resize(resize, fn, interp)
    with span("load"):
        file = ImageFile.read(path)
        image: NDArray[Any] = file.decode(grayscale, max_pixels, stretch)
        if not stretch:
            warn_of_narrow_range(image, file.name)
        if resize is not None:
            image, _ = resize_image(image, resize, fn, interp)
        return numpy_image_to_torch(image)


def size_of(image: Tensor | NDArray[Any]) -> tuple[int, int]:
    """Width and height, px, of a tensor (..., H, W) or an array (H, W, ...). Raises InputError for anything else."""
    if not isinstance(image, (Tensor, np.ndarray)):
        raise InputError(f"The image is a {type(image).__name__}; give a file, an array, or a tensor (C, H, W).")
    if image.ndim < 2:
        raise InputError(f"Not an image: shape {tuple(image.shape)}; give (H, W), (H, W, 3), or a tensor (C, H, W).")
    h, w = image.shape[-2:] if isinstance(image, Tensor) else image.shape[:2]
    return int(w), int(h)


def numpy_image_to_torch(image: NDArray[Any]) -> Tensor:
    """Turn an array (H, W, 3), (H, W, 1) or (H, W) into a tensor (C, H, W), float32 in [0, 1].

    uint16 is divided by 65,535. All else is divided by 255, as in the published package: floating point too, which
    is therefore taken to hold 0 to 255. Since a floating-point image of nothing but 0 to 1 was hardly meant so, it is
    refused.

    Raises:
        InputError: another shape or dtype, or values outside the range.
    """
    pixels, full = checked_pixels(image, "torch.from_numpy(image).permute(2, 0, 1) is all it takes")
    # torch takes no read-only arrays, no negative strides and not every dtype: copy the rare ones.
    plain = np.require(pixels, requirements=["W"]) if min(pixels.strides) >= 0 else pixels.copy()
    tensor = torch.from_numpy(plain).permute(2, 0, 1)
    return tensor.to(torch.float32, memory_format=torch.contiguous_format).div_(full)
