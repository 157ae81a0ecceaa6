"""Whether the binary files of a COLMAP model are whole: what reads them believes their counts, and may never end.

The layout is that of COLMAP's documentation, output format; all numbers are little-endian. Beside the models of a map
stands a summary with a checksum of each file, by which a bit that has changed is noticed.
"""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

from lightglue.errors import StoreError
from lightglue.support.files import read_json

__all__ = ["SUMMARY", "check_checksums", "check_model_files", "checksums"]

SUMMARY = "reconstruction.json"  # in the folder of a map's models

_COUNT = struct.Struct("<Q")
_IMAGE = 4 + 7 * 8 + 4  # bytes before the name: number, pose, camera
_OBSERVATION = 24
_POINT = 8 + 3 * 8 + 3 + 8  # bytes before the track: number, position, colour, error
_TRACK = 8  # bytes of each of its elements
_LEAST = {"cameras.bin": 24, "rigs.bin": 8, "frames.bin": 8}  # bytes of an entry


def checksums(folder: Path) -> dict[str, int]:
    """CRC-32 of each binary file under a folder, by its path."""
    found = {}
    for path in sorted(folder.glob("**/*.bin")):
        checksum = 0
        with path.open("rb") as file:
            while content := file.read(1 << 24):
                checksum = zlib.crc32(content, checksum)
        found[path.relative_to(folder).as_posix()] = checksum
    return found


def check_checksums(folder: Path) -> None:
    """Raises StoreError where a model of a map has other files than were written; one of no map may have any."""
    # MAP/model is a link to MAP/models/0, or a copy of it.
    place = folder.resolve()
    models, number = (place.parent, place.name) if place.name != "model" else (place.parent / "models", "0")
    try:
        recorded = read_json(models / SUMMARY)["files"]
        wanted = {
            str(name).partition("/")[2]: checksum
            for name, checksum in recorded.items()
            if str(name).partition("/")[0] == number
        }
    except (FileNotFoundError, NotADirectoryError):
        return
    except (KeyError, AttributeError):
        wanted = {}
    found = checksums(place)
    if different := sorted(name for name in {**wanted, **found} if wanted.get(name) != found.get(name)):
        raise StoreError(
            f"{', '.join(different)} in {folder} changed after the map was made: damaged, or written by another "
            f"program. `lightglue sfm` makes the model again; if the change was on purpose, `lightglue map accept "
            f"{models.parent}` takes it as it is."
        )


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
