"""Image files of users, decoded once: to know that they can be, and as the page shows them."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from lightglue.errors import ImageError
from lightglue.web.failures import without_path
from lightglue.web.tasks.report import Report
from lightglue_runtime.images.exif import orientation_of
from lightglue_runtime.images.files import ImageFile, read_to_look_at

__all__ = ["inspect", "picture"]

SHOWN_AS_THEY_ARE = ("JPEG", "PNG", "WebP")  # which every browser shows
THUMBNAIL = 192  # px of the longer side
QUALITY = 92  # of JPEG


def inspect(given: dict[str, Any], report: Report) -> dict[str, Any]:
    """Size of the upright image, a small one, and one that a browser shows where it would not show the file."""
    data: bytes = given["data"]
    file = ImageFile.read(data)
    image = read_to_look_at(_Named(data, given["name"]))
    height, width = image.shape[:2]
    as_it_is = file.kind in SHOWN_AS_THEY_ARE and orientation_of(data) == 1
    return {
        "width": width,
        "height": height,
        "shown": None if as_it_is else _jpeg(image),
        "thumbnail": _jpeg(_small(image)),
    }


class _Named(io.BytesIO):
    """A file in memory with a name, by which errors call it."""

    def __init__(self, data: bytes, name: str) -> None:
        super().__init__(data)
        self.name = name


def picture(given: dict[str, Any], report: Report) -> bytes:
    """An image file of this machine as a browser shows it: JPEG, upright. given: path; edge, px of the longer side."""
    try:
        image = read_to_look_at(given["path"])
    except ImageError as error:
        raise without_path(error, given["path"], Path(given["path"]).name) from error
    return _jpeg(_small(image, given["edge"]))


def _small(image: NDArray[np.uint8], edge: int = THUMBNAIL) -> NDArray[np.uint8]:
    height, width = image.shape[:2]
    factor = edge / max(height, width)
    if factor >= 1:
        return image
    size = max(1, round(width * factor)), max(1, round(height * factor))
    return np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA), np.uint8)


def _jpeg(image: NDArray[np.uint8]) -> bytes:
    done, encoded = cv2.imencode(".jpg", image[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, QUALITY])
    if not done:
        raise ImageError("The image cannot be shown: it is too long or too wide.")
    return encoded.tobytes()
