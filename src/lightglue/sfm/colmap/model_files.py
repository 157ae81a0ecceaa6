"""Whether the binary files of a COLMAP model are whole: what reads them believes their counts, and may never end.

The layout is that of COLMAP's documentation, output format; all numbers are little-endian.
"""

from __future__ import annotations

import struct
from pathlib import Path

__all__ = ["check_model_files"]

_COUNT = struct.Struct("<Q")
_IMAGE = 4 + 7 * 8 + 4  # bytes before the name: number, pose, camera
_OBSERVATION = 24
_POINT = 8 + 3 * 8 + 3 + 8  # bytes before the track: number, position, colour, error
_TRACK = 8  # bytes of each of its elements
_LEAST = {"cameras.bin": 24, "rigs.bin": 8, "frames.bin": 8}  # bytes of an entry


def check_model_files(folder: Path) -> None:
    """Raises ValueError where the binary files of a model, those that are there, are cut off or damaged."""
    for name, check in (("images.bin", _check_images), ("points3D.bin", _check_points)):
        if (folder / name).exists():
            content = (folder / name).read_bytes()
            try:
                end = check(content)
            except (struct.error, ValueError, OverflowError):
                end = -1
            if end != len(content):
                raise ValueError(f"{name} is cut off, or its counts are wrong")
    for name, least in _LEAST.items():
        if (folder / name).exists():
            head = (folder / name).read_bytes()
            if len(head) < _COUNT.size or _COUNT.unpack_from(head)[0] * least > len(head):
                raise ValueError(f"{name} is cut off, or its counts are wrong")


def _check_images(content: bytes) -> int:
    """Where the last image ends."""
    at, unpack = _COUNT.size, _COUNT.unpack_from
    for _ in range(unpack(content)[0]):
        at = content.index(b"\0", at + _IMAGE) + 1
        at += _COUNT.size + _OBSERVATION * int(unpack(content, at)[0])
    return at


def _check_points(content: bytes) -> int:
    """Where the last point's track ends."""
    at, unpack = _COUNT.size, _COUNT.unpack_from
    for _ in range(unpack(content)[0]):
        at += _POINT
        at += _COUNT.size + _TRACK * int(unpack(content, at)[0])
    return at
