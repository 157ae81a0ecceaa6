"""Images that OpenCV does not read, or reads without their rotation: AVIF by Pillow, HEIC by pillow-heif."""

from __future__ import annotations

from functools import cache
from importlib.util import find_spec
from io import BytesIO
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["DECODED", "decode_by_pillow", "what_is_missing"]

DECODED = ("AVIF", "HEIC")


@cache
def what_is_missing(kind: str) -> str | None:
    """What to do so that images of a kind can be read here; None where they can."""
    if kind == "HEIC" and find_spec("pillow_heif") is None:
        return "install pillow-heif (pip install 'lightglue[heif]'), or convert it to JPEG"
    if kind == "AVIF":
        from PIL import features

        if not (features.check("avif") if "avif" in features.modules else False):
            return "install Pillow 11.3 or later (pip install -U pillow), or convert it to JPEG"
    return None


def decode_by_pillow(kind: str, data: bytes) -> NDArray[np.uint8]:
    """The first image of a file, upright, (H, W, 3) RGB uint8; more than 8 bits are rounded to them.

    Raises OSError or ValueError where it cannot be decoded: of the libraries' many errors, as one of these.
    """
    try:
        image = _open_heic(data) if kind == "HEIC" else _open_avif(data)
        return np.asarray(image.convert("RGB"))
    except (RuntimeError, SyntaxError, EOFError, KeyError, TypeError) as error:
        raise ValueError(str(error)) from error


def _open_heic(data: bytes) -> Any:
    import pillow_heif

    return pillow_heif.open_heif(BytesIO(data)).to_pillow()  # libheif has rotated it


def _open_avif(data: bytes) -> Any:
    from PIL import AvifImagePlugin, ImageOps

    # Opened by its own class: `Image.open` warns of large images, after a limit that is the whole process's.
    return ImageOps.exif_transpose(AvifImagePlugin.AvifImageFile(BytesIO(data)))
