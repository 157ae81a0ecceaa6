"""Image files in, image tensors out: decode, orient, resize.

Pixels come from OpenCV, as in the published package, so that values are the same to the last bit. Every fault of
a file gives one `ImageError` that names the path and what to do.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lightglue.errors import ImageError, ImageNotFoundError, InputError
from lightglue.images.headers import FORMATS, format_of, stored_size
from lightglue.images.resampling import MAX_EDGE, ImagePreprocessor, resize_tensor
from lightglue.timing import span

__all__ = [
    "DEFAULT_MAX_PIXELS",
    "ImageFile",
    "ImagePreprocessor",
    "load_image",
    "numpy_image_to_torch",
    "read_image",
    "resize_image",
    "resize_tensor",
    "size_of",
]

DEFAULT_MAX_PIXELS = 500_000_000  # admits 20,000 x 20,000
_ROWS = 256  # of an image that are turned to RGB at once
_OPENCV_MAX_PIXELS = 2**30  # its own limit, unless OPENCV_IO_MAX_IMAGE_PIXELS is set before it starts

ImagePath: TypeAlias = str | os.PathLike[str]
_EDGES = {"max": max, "min": min}
_INTERPOLATIONS = {
    "linear": cv2.INTER_LINEAR,
    "cubic": cv2.INTER_CUBIC,
    "nearest": cv2.INTER_NEAREST,
    "area": cv2.INTER_AREA,
}


def load_image(
    path: ImagePath,
    resize: int | tuple[int, int] | None = None,
    fn: str = "max",
    interp: str = "area",
    grayscale: bool = False,
    max_pixels: int | None = DEFAULT_MAX_PIXELS,
) -> Tensor:
    """Load an image file as a tensor.

    Eight-bit values are divided by 255, 16-bit values by 65,535 without first losing their low bits. The EXIF
    orientation is applied. Transparency is dropped, the colours under it stay; of several frames or pages the first
    is read.

    Args:
        path: a JPEG, PNG, TIFF, WebP, BMP, GIF, PNM or JPEG 2000 file.
        resize: px of the edge that `fn` names, the other following the aspect ratio; or (height, width) in px.
        fn: "max" for the long edge, "min" for the short one.
        interp: "area", "linear", "cubic" or "nearest", as OpenCV does them.
        grayscale: load one channel; a colour image is converted.
        max_pixels: refuse larger images before they are decoded; None for no limit but OpenCV's own.

    Returns:
        (3, H, W) RGB, or (1, H, W) gray, float32 in [0, 1].

    Raises:
        ImageNotFoundError: there is no such file.
        ImageError: the file is not a whole image of a supported kind, or too large.
        InputError: an argument has no meaning.
    """
    if resize is not None:
        _check_resize(resize, fn, interp)
    with span("load"):
        image: NDArray[Any] = ImageFile.read(path).decode(grayscale, max_pixels)
        if resize is not None:
            image, _ = resize_image(image, resize, fn, interp)
        return numpy_image_to_torch(image)


def read_image(
    path: ImagePath, grayscale: bool = False, max_pixels: int | None = DEFAULT_MAX_PIXELS
) -> NDArray[np.uint8]:
    """Read an image file as (H, W, 3) RGB or (H, W) gray, uint8; 16-bit files lose their low byte.

    Files and errors are those of `load_image`.
    """
    return ImageFile.read(path)._decode(grayscale, 0, max_pixels)


def numpy_image_to_torch(image: NDArray[Any]) -> Tensor:
    """Turn an array (H, W, 3), (H, W, 1) or (H, W) into a tensor (C, H, W), float32 in [0, 1].

    uint16 is divided by 65,535. All else is divided by 255, as in the published package: floating point too, which
    is therefore taken to hold 0 to 255. Since a floating-point image of nothing but 0 to 1 was hardly meant so, it is
    refused.

    Raises:
        InputError: another shape or dtype, or values outside the range.
    """
    if not isinstance(image, np.ndarray):
        raise InputError(f"The image is a {type(image).__name__}; give a NumPy array.")
    if image.ndim not in (2, 3) or image.size == 0 or (image.ndim == 3 and image.shape[2] not in (1, 3)):
        raise InputError(f"Not an image: shape {image.shape}; give (H, W), (H, W, 1) or (H, W, 3), not empty.")
    image = image.astype(image.dtype.newbyteorder("="), copy=False)
    if image.dtype not in (np.uint8, np.uint16):
        image = _checked_values(image)
    full = 65535.0 if image.dtype == np.uint16 else 255.0
    channels_last = image[..., None] if image.ndim == 2 else image
    # torch takes no read-only arrays, no negative strides and not every dtype: copy the rare ones.
    plain = np.require(channels_last, requirements=["W"]) if min(channels_last.strides) >= 0 else channels_last.copy()
    tensor = torch.from_numpy(plain).permute(2, 0, 1)
    return tensor.to(torch.float32, memory_format=torch.contiguous_format).div_(full)


def _checked_values(image: NDArray[Any]) -> NDArray[np.float32]:
    """An integer or floating-point array with values in 0 to 255 as float32."""
    if image.dtype.kind not in "iuf":
        raise InputError(f"The image has dtype {image.dtype}; give uint8, uint16, or numbers from 0 to 255.")
    low, high = image.min(), image.max()
    if not (low >= 0 and high <= 255):  # NaN fails too
        raise InputError(f"The image has values from {low} to {high}; as {image.dtype} they must lie in 0 to 255.")
    if image.dtype.kind == "f" and 0 < high <= 1:
        raise InputError(
            f"The image has values from {low} to {high}, where 0 to 255 is expected; if they are in [0, 1] already, "
            "torch.from_numpy(image).permute(2, 0, 1) is all it takes."
        )
    return image.astype(np.float32)


def resize_image(
    image: NDArray[Any], size: int | Sequence[int], fn: str = "max", interp: str = "area"
) -> tuple[NDArray[Any], tuple[float, float]]:
    """Resize an array (H, W) or (H, W, C) with OpenCV.

    Args:
        image: uint8, uint16 or floating point.
        size: px of the edge that `fn` ("max" or "min") names, the other rounded; or (height, width) in px.
        fn: which edge.
        interp: "area", "linear", "cubic" or "nearest".

    Returns:
        The image in its dtype and its scales (w / W, h / H).
    """
    _check_resize(size, fn, interp)
    if not isinstance(image, np.ndarray) or image.ndim not in (2, 3) or image.size == 0:
        raise InputError(f"Not an image: {np.shape(image)}; give an array (H, W) or (H, W, C), not empty.")
    height, width = image.shape[:2]
    if isinstance(size, Sequence):
        new_height, new_width = (int(edge) for edge in size)
    else:
        scale = min(size, MAX_EDGE + 1) / _EDGES[fn](height, width)
        new_height, new_width = max(1, round(height * scale)), max(1, round(width * scale))
    if max(new_height, new_width) > MAX_EDGE:
        made = f"makes an edge of this image, {width} x {height} px, longer than {MAX_EDGE:,} px"
        raise InputError(f"resize is {size!r}, which {made}; give a smaller one.")
    try:
        resized = cv2.resize(image, (new_width, new_height), interpolation=_INTERPOLATIONS[interp])
    except cv2.error as error:
        raise InputError(f"OpenCV cannot resize {image.dtype} {image.shape} to {size}: {error.err}") from error
    return resized.reshape(new_height, new_width, *image.shape[2:]), (new_width / width, new_height / height)


def _check_resize(size: Any, fn: str, interp: str) -> None:
    edges = list(size) if isinstance(size, Sequence) and not isinstance(size, str) else [size]
    is_right = len(edges) == 2 or edges == [size]
    if not is_right or not all(isinstance(e, int | np.integer) and e is not True and e >= 1 for e in edges):
        raise InputError(f"resize is {size!r}; give a positive integer in px, or a pair (height, width) of them.")
    if fn not in _EDGES:
        raise InputError(f"fn is {fn!r}; choose one of {', '.join(_EDGES)}.")
    if interp not in _INTERPOLATIONS:
        raise InputError(f"interp is {interp!r}; choose one of {', '.join(_INTERPOLATIONS)}.")


@dataclass(frozen=True, eq=False)
class ImageFile:
    """The content of an image file, read but not decoded yet: its size is known before it takes up memory."""

    path: ImagePath
    data: bytes
    kind: str  # such as "JPEG", by its first bytes

    @classmethod
    def read(cls, path: ImagePath) -> ImageFile:
        """Read a file once. Raises ImageError; ImageNotFoundError where there is none."""
        return cls(path, *_read_bytes(path))

    @property
    def size(self) -> tuple[int, int]:
        """Width and height, px, before any orientation tag. Raises ImageError where the file does not tell."""
        size = stored_size(self.kind, self.data)
        if size is None:
            raise ImageError(f"{self.path}: this {self.kind} file is damaged or cut off; fetch it again.")
        return size

    def decode(
        self, grayscale: bool = False, max_pixels: int | None = DEFAULT_MAX_PIXELS
    ) -> NDArray[np.uint8] | NDArray[np.uint16]:
        """The pixels, (H, W, 3) RGB or (H, W) gray, with 8 or 16 bits as the file has them, turned as its EXIF says.

        `numpy_image_to_torch` makes of them what `load_image` gives. Raises ImageError, InputError.
        """
        return self._decode(grayscale, cv2.IMREAD_ANYDEPTH, max_pixels)

    def _decode(self, grayscale: bool, depth_flag: int, max_pixels: int | None) -> NDArray[Any]:
        """uint16 only where `depth_flag` says so."""
        if max_pixels is not None and not _is_positive(max_pixels):
            raise InputError(
                f"max_pixels is {max_pixels!r}; give a positive number, or None for no limit but OpenCV's own."
            )
        size, path, kind = self.size, self.path, self.kind
        pixels = size[0] * size[1]
        if max_pixels is not None and pixels > max_pixels:
            raise ImageError(
                f"{path}: {size[0]} x {size[1]} is {pixels:,} pixels, more than max_pixels={max_pixels:,}; "
                "shrink the image, or raise max_pixels if you trust the file."
            )
        flag = (cv2.IMREAD_GRAYSCALE if grayscale else cv2.IMREAD_COLOR) | depth_flag
        try:
            image = cv2.imdecode(np.frombuffer(self.data, np.uint8), flag)
        except (cv2.error, MemoryError) as error:
            raise ImageError(_undecodable(path, kind, size)) from error
        if image is None or image.size == 0:
            raise ImageError(_undecodable(path, kind, size))
        if image.dtype not in (np.uint8, np.uint16):
            raise ImageError(f"{path}: this {kind} holds {image.dtype} samples; convert it to 8 or 16 bits a channel.")
        return image if grayscale else _turn_to_rgb(image)


def _turn_to_rgb(image: NDArray[Any]) -> NDArray[Any]:
    """OpenCV's order of channels into RGB, in place: a copy of a large image would double the memory."""
    for start in range(0, len(image), _ROWS):
        rows = image[start : start + _ROWS]
        rows[:] = cv2.cvtColor(rows, cv2.COLOR_BGR2RGB)
    return image


def size_of(image: Tensor | NDArray[Any]) -> tuple[int, int]:
    """Width and height, px, of a tensor (..., H, W) or an array (H, W, ...)."""
    h, w = image.shape[-2:] if isinstance(image, Tensor) else image.shape[:2]
    return int(w), int(h)


def _is_positive(value: Any) -> bool:
    return isinstance(value, (int, float, np.number)) and value is not True and bool(value > 0)


def _undecodable(path: ImagePath, kind: str, size: tuple[int, int]) -> str:
    if size[0] * size[1] > _OPENCV_MAX_PIXELS:
        return (
            f"{path}: OpenCV decodes no more than {_OPENCV_MAX_PIXELS:,} pixels and this is {size[0]} x {size[1]}; "
            "shrink the image, or set OPENCV_IO_MAX_IMAGE_PIXELS before Python starts."
        )
    return (
        f"{path}: this {kind} file ({size[0]} x {size[1]}) cannot be decoded: it is cut off, damaged, or of a rare "
        "kind. Fetch it again, or convert it to an 8- or 16-bit PNG."
    )


def _read_bytes(path: ImagePath) -> tuple[bytes, str]:
    """The content of an image file, and its format by its first bytes."""
    if not isinstance(path, (str, os.PathLike)):
        raise InputError(f"The path of an image is a {type(path).__name__}; give a string or a Path.")
    head, data, kind = b"", b"", None
    try:
        mode = os.stat(path).st_mode  # before opening: a pipe would wait for its writer
        if stat.S_ISREG(mode):
            with open(path, "rb") as file:
                head = file.read(64)
                kind = format_of(head)
                file.seek(0)
                data = file.read() if kind else b""
    except (FileNotFoundError, NotADirectoryError) as error:
        raise ImageNotFoundError(f"There is no image at {path}; check the path.") from error
    except PermissionError as error:
        raise ImageError(f"{path} may not be read; change its permissions.") from error
    except (OSError, ValueError, MemoryError) as error:  # ValueError: a NUL byte in the path
        raise ImageError(
            f"{path!r} cannot be read: {getattr(error, 'strerror', None) or error}; check the path and the disk."
        ) from error
    if not stat.S_ISREG(mode):
        what = "a folder; name an image in it" if stat.S_ISDIR(mode) else "not a regular file; name an image file"
        raise ImageError(f"{path} is {what}.")
    if not head:
        raise ImageError(f"{path} is empty; fetch the file again.")
    if kind is None:
        raise ImageError(f"{path} is not an image that can be read ({', '.join(FORMATS)}); convert it to one of these.")
    return data, kind
