"""How large the image in a file is when it stands upright, by its header: nothing is decoded."""

from __future__ import annotations

import mmap
import os
from typing import Any, cast

from lightglue_runtime.images.exif import read_exif
from lightglue_runtime.images.headers import format_of, stored_size

__all__ = ["size_in_file"]


def size_in_file(path: str | os.PathLike[str]) -> tuple[int, int] | None:
    """(width, height) in px of what `load_image` gives of a file; None for a file that is no whole image."""
    try:
        with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            kind = format_of(data[:64])
            size = None if kind is None else stored_size(kind, cast(Any, data))
    except (OSError, ValueError):  # ValueError: it is empty
        return None
    if size is None:
        return None
    return size if read_exif(path).orientation < 5 else size[::-1]  # from 5 on it is turned by a quarter
