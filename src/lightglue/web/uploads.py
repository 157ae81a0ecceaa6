"""What is known of an image file before it is decoded: its kind and size, by its first bytes."""

from __future__ import annotations

from dataclasses import dataclass

from lightglue.web.failures import FailureError
from lightglue.web.forms import Upload
from lightglue.web.options import Limits
from lightglue_runtime.images.exif import read_exif
from lightglue_runtime.images.headers import HEAD, format_of, stored_size
from lightglue_runtime.images.unread import unread_kind

__all__ = ["KINDS", "Header", "read_header"]

# Kind -> media type. Others that the package reads have decoders that few look after.
KINDS = {
    "JPEG": "image/jpeg",
    "PNG": "image/png",
    "WebP": "image/webp",
    "TIFF": "image/tiff",
    "BMP": "image/bmp",
    "AVIF": "image/avif",
    "HEIC": "image/heic",
}

LONGEST_EDGE = 65_500  # px; of a JPEG, as which images are shown


@dataclass(frozen=True)
class Header:
    """What a file says of itself."""

    kind: str
    width: int  # px, of the upright image
    height: int


def read_header(upload: Upload, limits: Limits, field: str = "file") -> Header:
    """The header of an image file. Raises FailureError: 415 for what is no image, 413 for one that is too large."""
    name, data = upload.name, upload.data
    if not data:
        raise FailureError.of(415, "image", f"{name} is empty.", field)
    if (other := unread_kind(data[:HEAD], name)) is not None:
        raise FailureError.of(415, "image", f"{name} is a {other.name} file, which is not read; {other.remedy}.", field)
    kind = format_of(data[:HEAD])
    if kind not in KINDS:
        what = f"a {kind} file, which is not taken" if kind else "not an image that can be read"
        raise FailureError.of(415, "image", f"{name} is {what}; send {', '.join(KINDS)}.", field)
    size = stored_size(kind, data)
    if size is None:
        raise FailureError.of(422, "image", f"{name}: this {kind} file is damaged or cut off.", field)
    width, height = size if read_exif(data).orientation < 5 else size[::-1]
    if max(width, height) > LONGEST_EDGE:
        most = f"{name}: {width} x {height} px is too long for a picture, which has at most {LONGEST_EDGE} px an edge."
        raise FailureError.of(413, "pixels", most, field)
    if width * height > limits.pixels:
        raise FailureError.of(
            413,
            "pixels",
            f"{name}: {width} x {height} is {width * height / 1e6:.4g} megapixels, and at most {limits.megapixels} are "
            "taken; shrink the image.",
            field,
        )
    return Header(kind, width, height)
