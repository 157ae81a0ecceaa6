"""Image files, as paths, bytes or open files: read once, sized before they are decoded, oriented as EXIF says.

Pixels come from OpenCV, as in the published package, so that values are the same to the last bit. Every fault of
a file gives one `ImageError` that names it and what to do.
"""

from __future__ import annotations

import math
import os
import re
import stat
import warnings
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, BinaryIO, TypeAlias

import cv2
import numpy as np
from numpy.typing import NDArray

from lightglue_runtime.checks import is_real
from lightglue_runtime.errors import ImageError, ImageNotFoundError, InputError
from lightglue_runtime.images.exif import number, read_exif, text
from lightglue_runtime.images.headers import FORMATS, HEAD, format_of, stored_size
from lightglue_runtime.images.unread import unread_kind
from lightglue_runtime.images.value_range import eight_bits, narrow_range, stretched
from lightglue_runtime.images.with_pillow import DECODED, decode_by_pillow, what_is_missing
from lightglue_runtime.native_lines import with_native_lines

__all__ = [
    "DEFAULT_MAX_PIXELS",
    "ImageFile",
    "ImageSource",
    "content_of",
    "contents_of",
    "is_file",
    "read_image",
    "read_to_look_at",
]

DEFAULT_MAX_PIXELS = 500_000_000  # admits 20,000 x 20,000
# Of what decoders say of an image that they did decode. Each GeoTIFF has fields that libtiff does not know.
_DAMAGED = re.compile(
    "^(?!libpng warning|.*[Ww]arning|.*Unknown field with tag)"
)  # of what decoders say of an image that they did decode
_NO_DATA = 42113  # TIFF's tag of GDAL: the value of pixels that were not measured
_ROWS = 256  # of an image that are converted to RGB at once
_OPENCV_MAX_PIXELS = 2**30  # its own limit, unless OPENCV_IO_MAX_IMAGE_PIXELS is set before it starts

# A path, the content of a file, or a file that is open for reading bytes.
ImageSource: TypeAlias = str | os.PathLike[str] | bytes | bytearray | memoryview | BinaryIO


def read_image(
    path: ImageSource, grayscale: bool = False, max_pixels: int | None = DEFAULT_MAX_PIXELS, stretch: bool = False
) -> NDArray[np.uint8]:
    """Read an image file as (H, W, 3) RGB or (H, W) gray, uint8; 16-bit files lose their low byte.

    Files, `stretch` and errors are those of `lightglue.load_image`.
    """
    return eight_bits(ImageFile.read(path).decode(grayscale, max_pixels, stretch), rounded=stretch)


def read_to_look_at(path: ImageSource) -> NDArray[np.uint8]:
    """Read an image file as (H, W, 3) RGB uint8 for a person's eyes, whether or not features were found in it so.

    8 bits are as they are; the values of deeper images are spread where they would be nearly black. Errors are those of
    `read_image`.
    """
    file = ImageFile.read(path)
    image = file.decode(stretch=file._samples not in ("uint8", "uint16"))
    return eight_bits(stretched(image) if narrow_range(image) else image, rounded=True)


@dataclass(frozen=True, eq=False)
class ImageFile:
    """The content of an image file, read but not decoded yet: its size is known before it takes up memory."""

    name: str  # in messages: its path, or what it is
    data: bytes
    kind: str  # such as "JPEG", by its first bytes

    @classmethod
    def read(cls, source: ImageSource) -> ImageFile:
        """Read a file once. Raises ImageError; ImageNotFoundError where there is none."""
        if isinstance(source, (bytes, bytearray, memoryview)):
            return cls._of("The image given as bytes", bytes(source))
        if hasattr(source, "read"):
            return cls._of(str(getattr(source, "name", "The open file")), content_of(source))
        return cls._of(str(source), _read_bytes(source))

    @classmethod
    def _of(cls, name: str, data: bytes) -> ImageFile:
        if not data:
            raise ImageError(f"{name} is empty; fetch the file again.")
        if (other := unread_kind(data[:HEAD], name)) is not None:
            if other.is_video:
                raise ImageError(f"{name} is a video, not an image: {other.remedy}.")
            raise ImageError(f"{name} is a {other.name} file, which is not read; {other.remedy}.")
        if (kind := format_of(data[:HEAD])) is None:
            raise ImageError(
                f"{name} is not an image that can be read ({', '.join(FORMATS)}); convert it to one of these."
            )
        if missing := what_is_missing(kind):
            raise ImageError(f"{name} is a {kind} file, which is not read here: {missing}.")
        return cls(name, data, kind)

    @property
    def size(self) -> tuple[int, int]:
        """Width and height, px, before any orientation tag. Raises ImageError where the file does not tell."""
        size = stored_size(self.kind, self.data)
        if size is None:
            raise ImageError(f"{self.name}: this {self.kind} file is damaged or cut off; fetch it again.")
        return size

    def decode(
        self, grayscale: bool = False, max_pixels: int | None = DEFAULT_MAX_PIXELS, stretch: bool = False
    ) -> NDArray[np.uint8] | NDArray[np.uint16]:
        """The pixels, (H, W, 3) RGB or (H, W) gray, with 8 or 16 bits as the file has them, oriented as its EXIF says.

        `arrays.to_float` makes values in [0, 1] of them. Raises ImageError, InputError.
        """
        self._check_size(max_pixels)
        if self.kind in DECODED:
            image = self._decoded_by_pillow(grayscale)
            return stretched(image) if stretch else image
        if stretch:
            return self._stretched(grayscale)
        if (samples := self._samples) not in ("uint8", "uint16"):
            raise ImageError(
                f"{self.name}: this {self.kind} holds {samples} samples, whose range is not known; spread the one that "
                "they use with --stretch (stretch=True), or convert it to 8 or 16 bits a channel."
            )
        image = self._decoded((cv2.IMREAD_GRAYSCALE if grayscale else cv2.IMREAD_COLOR) | cv2.IMREAD_ANYDEPTH)
        return image if grayscale else _turn_to_rgb(image)

    def _stretched(self, grayscale: bool) -> NDArray[Any]:
        # Colours as the file has them: OpenCV makes none of 32-bit samples.
        image = self._decoded(cv2.IMREAD_ANYCOLOR | cv2.IMREAD_ANYDEPTH)
        if (unset := read_exif(self.data).image.get(_NO_DATA)) is not None and self.kind == "TIFF":
            with suppress(ValueError):
                image = np.where(image == float(text(unset)), np.nan, image)
        image = stretched(image)
        is_gray = image.ndim == 2 or image.shape[2] < 3
        if is_gray:
            image = image if image.ndim == 2 else np.ascontiguousarray(image[..., 0])
            return image if grayscale else cv2.cvtColor(image, cv2.COLOR_GRAY2RGB)
        return cv2.cvtColor(image, cv2.COLOR_BGR2GRAY) if grayscale else _turn_to_rgb(image)

    @property
    def _samples(self) -> str:
        """The type of a sample: "uint16" also for less than 8 or 16 bits, which the decoder makes 8 or 16."""
        if self.kind != "TIFF":
            return "uint16"
        tags = read_exif(self.data).image
        bits, form = number(tags.get(258)), number(tags.get(339))
        if form in (2, 3) or bits > 16:
            return f"{'int' if form == 2 else 'float' if form == 3 else 'uint'}{bits:g}"
        return "uint16"

    def _check_size(self, max_pixels: int | None) -> None:
        if max_pixels is not None and not (max_pixels == math.inf or (is_real(max_pixels) and max_pixels > 0)):
            raise InputError(
                f"max_pixels is {max_pixels!r}; give a positive number, or None for no limit but OpenCV's own."
            )
        size = self.size
        pixels = size[0] * size[1]
        if max_pixels is not None and pixels > max_pixels:
            raise ImageError(
                f"{self.name}: {size[0]} x {size[1]} is {pixels:,} pixels, more than max_pixels={max_pixels:,}; "
                "shrink the image, or raise max_pixels if you trust the file."
            )

    def _decoded(self, flag: int) -> NDArray[Any]:
        """What OpenCV makes of the file."""
        size, name, kind = self.size, self.name, self.kind
        turned_here = kind == "WebP"  # OpenCV before 4.13 does not
        image, lines = with_native_lines(
            lambda: _decoded(self.data, flag | (cv2.IMREAD_IGNORE_ORIENTATION if turned_here else 0))
        )
        if isinstance(image, Exception):
            raise ImageError(_undecodable(name, kind, size, lines)) from image
        if image is None or image.size == 0:
            raise ImageError(_undecodable(name, kind, size, lines))
        if said := [line for line in lines if _DAMAGED.search(line)]:
            warnings.warn(
                f"{name}: this {kind} file is damaged, and parts of the image may be wrong ({'; '.join(said)[:200]}); "
                "fetch it again.",
                stacklevel=2,
            )
        return _upright(image, read_exif(self.data).orientation) if turned_here else image

    def _decoded_by_pillow(self, grayscale: bool) -> NDArray[Any]:
        try:
            image = decode_by_pillow(self.kind, self.data)
        except (OSError, ValueError, MemoryError) as error:
            raise ImageError(_undecodable(self.name, self.kind, self.size, [])) from error
        return cv2.cvtColor(image, cv2.COLOR_RGB2GRAY) if grayscale else image


def _decoded(data: bytes, flag: int) -> NDArray[Any] | Exception | None:
    """What OpenCV decodes; None, or what it raises, for what it cannot."""
    try:
        return cv2.imdecode(np.frombuffer(data, np.uint8), flag)
    except (cv2.error, MemoryError) as error:
        return error


def _upright(image: NDArray[Any], orientation: int) -> NDArray[Any]:
    """An image as its EXIF says that it is to be shown, 1 to 8."""
    if orientation >= 5:
        image = cv2.transpose(image)
    code = {2: 1, 3: -1, 4: 0, 6: 1, 7: -1, 8: 0}.get(orientation)  # of `cv2.flip`
    return image if code is None else cv2.flip(image, code)


def _turn_to_rgb(image: NDArray[Any]) -> NDArray[Any]:
    """OpenCV's order of channels into RGB, in place: a copy of a large image would double the memory."""
    for start in range(0, len(image), _ROWS):
        rows = image[start : start + _ROWS]
        rows[:] = cv2.cvtColor(rows, cv2.COLOR_BGR2RGB)
    return image


def _undecodable(name: str, kind: str, size: tuple[int, int], lines: list[str]) -> str:
    if size[0] * size[1] > _OPENCV_MAX_PIXELS:
        return (
            f"{name}: OpenCV decodes no more than {_OPENCV_MAX_PIXELS:,} pixels and this is {size[0]} x {size[1]}; "
            "shrink the image, or set OPENCV_IO_MAX_IMAGE_PIXELS before Python starts."
        )
    said = f" ({'; '.join(lines)[:200]})" if lines else ""
    return (
        f"{name}: this {kind} file ({size[0]} x {size[1]}) cannot be decoded: it is cut off, damaged, or of a rare "
        f"kind{said}. Fetch it again, or convert it to an 8- or 16-bit PNG."
    )


def content_of(image: Any) -> Any:
    """`image`; of an open file its content as bytes, since it can be read once. Raises InputError for one of text."""
    if not hasattr(image, "read"):
        return image
    data = image.read()
    if not isinstance(data, bytes):
        name = getattr(image, "name", "The open file")
        raise InputError(f"{name} is open for text; open an image with mode 'rb'.")
    return data


def contents_of(images: Iterable[Any]) -> dict[int, Any]:
    """`content_of` each image, by its id: an open file that comes twice is read once."""
    return {key: content_of(image) for key, image in {id(image): image for image in images}.items()}


def is_file(image: Any) -> bool:
    """Whether `image` is an `ImageSource` and not pixels."""
    return isinstance(image, (str, os.PathLike, bytes, bytearray, memoryview)) or hasattr(image, "read")


def _read_bytes(path: Any) -> bytes:
    """The content of an image file; no more than its beginning where that is of no image."""
    if not isinstance(path, (str, os.PathLike)):
        raise InputError(f"The path of an image is a {type(path).__name__}; give a string or a Path, or its bytes.")
    try:
        mode = os.stat(path).st_mode  # before opening: a pipe would wait for its writer
        if stat.S_ISREG(mode):
            with open(path, "rb") as file:
                head = file.read(HEAD)
                return head + file.read() if format_of(head) else head
    except (FileNotFoundError, NotADirectoryError) as error:
        raise ImageNotFoundError(f"There is no image at {path}; check the path.") from error
    except PermissionError as error:
        raise ImageError(f"{path} may not be read; change its permissions.") from error
    except (OSError, ValueError, MemoryError) as error:  # ValueError: a NUL byte in the path
        raise ImageError(
            f"{path!r} cannot be read: {getattr(error, 'strerror', None) or error}; check the path and the disk."
        ) from error
    what = "a folder; name an image in it" if stat.S_ISDIR(mode) else "not a regular file; name an image file"
    raise ImageError(f"{path} is {what}.")
