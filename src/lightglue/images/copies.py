"""Image files as programs read them that neither turn images by their EXIF nor know every format."""

from __future__ import annotations

import os
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from lightglue.errors import ImageError
from lightglue_runtime.images.exif import orientation_of
from lightglue_runtime.images.files import ImageFile, read_image
from lightglue_runtime.images.headers import HEAD, format_of, stored_size

__all__ = ["PlainFile", "as_png", "plain_file", "upright_png"]

_LOOKED_AT = 1 << 20  # bytes of a file, in which its size stands
# Formats that COLMAP, OpenCV, Pillow and imageio read, and how their files are called.
_COMMON = {"JPEG": (".jpg", ".jpeg"), "PNG": (".png",), "TIFF": (".tif", ".tiff"), "BMP": (".bmp",)}


class PlainFile(NamedTuple):
    """What other programs take an image file for."""

    kind: str  # such as "JPEG"
    orientation: int  # EXIF's, 1 to 8
    size: tuple[int, int]  # width and height as it is shown, px
    suffix: str | None  # to be added to its name, mostly none; None where a copy has to be written

    @property
    def is_common(self) -> bool:
        """Whether others know the format."""
        return self.kind in _COMMON


def plain_file(path: Path, stretch: bool = False) -> PlainFile:
    """How others would read an image file. Raises ImageError for one that cannot be read.

    stretch: the values of images of more than 8 bits are spread where they are read here, and nowhere else.
    """
    try:
        if not path.is_file() and path.exists():  # before opening: a pipe would wait for its writer
            raise ImageError(f"{path} is no regular file any more; put the image back.")
        with path.open("rb") as file:
            head = file.read(_LOOKED_AT)
    except ImageError:
        raise
    except OSError as error:
        raise ImageError(f"{path} cannot be read ({error.strerror}); put it back.") from error
    kind = format_of(head[:HEAD])
    if kind is None:
        raise ImageError(f"{path} is no image any more; put it back.")
    # JPEG's end lies further on; a TIFF file may say at its end how large it is.
    size = stored_size(kind, head + b"\xff\xd9") or ImageFile.read(path).size
    orientation, suffixes = orientation_of(path), _COMMON.get(kind)
    size = size[::-1] if orientation >= 5 else size
    if stretch and (kind == "TIFF" or (kind == "PNG" and head[24:25] == b"\x10")):
        return PlainFile(f"{kind} with stretched values", orientation, size, None)
    if suffixes is None or orientation != 1:
        return PlainFile(kind, orientation, size, None)
    return PlainFile(kind, orientation, size, "" if path.suffix.lower() in suffixes else suffixes[0])


def upright_png(path: str | os.PathLike[str], stretch: bool = False) -> bytes:
    """An image file as a PNG of its pixels as they are shown, with 8 bits. Raises ImageError for one that is none."""
    return as_png(read_image(path, stretch=stretch), str(path))


def as_png(image: NDArray[np.uint8], name: str) -> bytes:
    """(H, W, 3) uint8 RGB as the bytes of a PNG file. Raises ImageError for more pixels than the format takes."""
    done, content = cv2.imencode(".png", cv2.cvtColor(image, cv2.COLOR_RGB2BGR))
    if not done:
        raise ImageError(f"{name} cannot be written as PNG; shrink it.")
    return content.tobytes()
