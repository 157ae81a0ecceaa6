"""Whether an image file is what a calibrated camera saw: of the same size, and shown as it is stored."""

from __future__ import annotations

from pathlib import Path

__all__ = ["camera_fault"]

_HEAD = 1 << 20  # bytes that are read of a file


def camera_fault(path: Path, width: int, height: int) -> str | None:
    """Why the image at `path` does not fit a camera of `width` x `height` px, or None where it seems to.

    An orientation tag is a reason: `load_image` rotates the image by it, COLMAP does not (its issues 1456 and 2104).
    """
    from lightglue_runtime.images.exif import read_exif
    from lightglue_runtime.images.headers import format_of, stored_size  # whose room loads torch

    try:
        with path.open("rb") as file:
            head = file.read(_HEAD)
    except OSError as error:
        return f"it cannot be read ({error.strerror or error})"
    kind = format_of(head[:64])
    size = None if kind is None else stored_size(kind, head + b"\xff\xd9")  # JPEG's end, which lies further on
    if size is not None and size != (width, height):
        return f"it has {size[0]} x {size[1]} px and its camera {width} x {height}"
    if read_exif(path).orientation != 1:
        return "its EXIF tag rotates it"
    return None
