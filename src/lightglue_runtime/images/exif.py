"""What an image file's EXIF says: of the picture, of the camera, of the place.

One reader for every format that is decoded here, so that focal length, place and orientation do not depend on who reads
the file: COLMAP's reader knows no WebP, JPEG 2000 or GIF, and decodes a whole image for its EXIF. Only the parts of a
file that hold EXIF are read. A field that is damaged costs that field and no other; nothing here raises for a file.

EXIF is TIFF's directory of fields (CIPA DC-008) in a container: a segment of JPEG, a chunk of PNG or WebP, a box of
JPEG 2000 or HEIF.
"""

from __future__ import annotations

import io
import math
import os
import re
import stat
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import BinaryIO, TypeAlias

from lightglue_runtime.images.headers import format_of

__all__ = ["Exif", "Value", "number", "orientation_of", "read_exif", "text"]

# Numbers, of which fractions over zero are NaN or infinite; text; or bytes.
Value: TypeAlias = tuple[float, ...] | str | bytes

_ORIENTATION, _CAMERA, _PLACE = 0x0112, 0x8769, 0x8825
_TURNING = ("JPEG", "PNG", "TIFF", "WebP")  # formats whose orientation the decoder applies
_LARGEST = 1 << 16  # bytes of a field that is read; thumbnails and maker notes are longer
_FIELDS = 1000  # of a directory
_SEARCHED = 1 << 25  # bytes of a HEIF file in which EXIF is looked for
# TIFF's type of a field -> `struct`'s letter.
_KINDS = {
    1: "B",
    3: "H",
    4: "I",
    5: "II",
    6: "b",
    8: "h",
    9: "i",
    10: "ii",
    11: "f",
    12: "d",
    13: "I",
    16: "Q",
    17: "q",
}
_TEXT, _RAW = 2, 7


@dataclass(frozen=True)
class Exif:
    """The fields of a file by their numbers; empty where it has none."""

    image: Mapping[int, Value] = field(default_factory=dict)  # such as make 0x010F, model 0x0110, orientation 0x0112
    camera: Mapping[int, Value] = field(default_factory=dict)  # such as the focal length 0x920A
    place: Mapping[int, Value] = field(default_factory=dict)  # GPS
    is_applied: bool = True  # the orientation: the decoder turns images of this format

    @property
    def orientation(self) -> int:
        """How the stored picture is turned to be upright, EXIF's 1 to 8; 1 where it is not."""
        value = number(self.image.get(_ORIENTATION))
        return int(value) if self.is_applied and value in range(1, 9) else 1


def number(value: Value | None) -> float:
    """The first number of a field; NaN where there is none."""
    return value[0] if isinstance(value, tuple) and value else math.nan


def text(value: Value | None) -> str:
    """The text of a field; empty where there is none."""
    if isinstance(value, tuple) or value is None:
        return ""
    return (value.decode("latin-1") if isinstance(value, bytes) else value).split("\0")[0].strip()


def read_exif(source: str | os.PathLike[str] | bytes | bytearray | memoryview) -> Exif:
    """The EXIF of an image file, given as its path or its content; an empty one where it has none or cannot be read."""
    try:
        if isinstance(source, (bytes, bytearray, memoryview)):
            return _read(io.BytesIO(source))
        if not stat.S_ISREG(os.stat(source).st_mode):  # before opening: a pipe would wait for its writer
            return Exif()
        with open(source, "rb") as file:
            return _read(file)
    except (OSError, ValueError):
        return Exif()


def orientation_of(image: object) -> int:
    """How an image is turned to be upright, EXIF's 1 to 8: of a path or a file's content; 1 of all else."""
    return read_exif(image).orientation if isinstance(image, (str, os.PathLike, bytes, bytearray, memoryview)) else 1


def _read(file: BinaryIO) -> Exif:
    head = file.read(64)
    kind = format_of(head)
    try:
        start = _start(kind, file, head)
        return Exif() if start is None else _Fields(file, start).all(kind in _TURNING)
    except (EOFError, struct.error, OverflowError):
        return Exif()


def _at(file: BinaryIO, position: int, count: int) -> bytes:
    """So many bytes of a file. Raises EOFError where it is shorter."""
    file.seek(position)
    found = file.read(count)
    if len(found) < count:
        raise EOFError
    return found


# --- where EXIF begins in a file --------------------------------------------------------------------------------------


def _start(kind: str | None, file: BinaryIO, head: bytes) -> int | None:
    """Where the TIFF header of the EXIF stands."""
    if kind == "TIFF":
        return 0
    if kind == "JPEG":
        return _in_jpeg(file)
    if head[4:8] == b"ftyp":
        return _in_heif(file)
    for name, begin, length in _parts(kind, file):
        if name in (b"eXIf", b"EXIF"):
            return begin + (6 if _at(file, begin, min(length, 6)) == b"Exif\0\0" else 0)
        if name == b"uuid" and _at(file, begin, 16) == b"JpgTiffExif->JP2":
            return begin + 16
    return None


def _in_jpeg(file: BinaryIO) -> int | None:
    position = 2
    while True:
        mark, marker = _at(file, position, 2)
        if mark != 0xFF or marker in (0xDA, 0xD9):  # the picture begins, or the file ends
            return None
        if marker == 0xFF or marker == 0x01 or 0xD0 <= marker <= 0xD8:  # without a content
            position += 1 if marker == 0xFF else 2
            continue
        (length,) = struct.unpack(">H", _at(file, position + 2, 2))
        if marker == 0xE1 and length > 8 and _at(file, position + 4, 6) == b"Exif\0\0":
            return position + 10
        position += 2 + length


def _parts(kind: str | None, file: BinaryIO) -> Iterator[tuple[bytes, int, int]]:
    """The name, the beginning and the length of each chunk or box of a file."""
    if kind == "PNG":
        position, layout, around = 8, struct.Struct(">I4s"), 4  # a checksum follows
    elif kind == "WebP":
        position, layout, around = 12, struct.Struct("<4sI"), 0
    elif kind == "JPEG 2000":
        position, layout, around = 0, struct.Struct(">I4s"), 0
    else:
        return
    while True:
        try:
            first, second = layout.unpack(_at(file, position, 8))
        except EOFError:
            return
        name, length = (first, second) if kind == "WebP" else (second, first)
        begin = position + 8
        if kind == "JPEG 2000":  # whose lengths count the header; 1: the length follows, 0: to the end
            if length == 1:
                (length,) = struct.unpack(">Q", _at(file, begin, 8))
                begin += 8
            length = length - (begin - position) if length else _SEARCHED
            if length < 0:
                return
        yield name, begin, length
        position = begin + length + around + (length % 2 if kind == "WebP" else 0)


def _in_heif(file: BinaryIO) -> int | None:
    """By its mark: where the boxes say that it stands has many forms, and the mark none but this."""
    file.seek(0)
    found = re.search(rb"Exif\0\0(?=II\*\0|MM\0\*)", file.read(_SEARCHED))
    return found.end() if found else None


# --- fields -----------------------------------------------------------------------------------------------------------


class _Fields:
    """The directories of fields behind a TIFF header."""

    def __init__(self, file: BinaryIO, start: int) -> None:
        self.file, self.start = file, start
        head = _at(file, start, 16 if _at(file, start, 4)[2:] in (b"+\0", b"\0+") else 8)
        self.order = {b"II": "<", b"MM": ">"}.get(head[:2], "")
        (version,) = struct.unpack(self.order + "H", head[2:4]) if self.order else (0,)
        self.is_big = version == 43
        if version not in (42, 43):
            raise EOFError
        (self.first,) = struct.unpack_from(self.order + ("Q" if self.is_big else "I"), head, 8 if self.is_big else 4)

    def all(self, is_applied: bool) -> Exif:
        image = self._directory(self.first)
        camera, place = (self._below(image.get(tag)) for tag in (_CAMERA, _PLACE))
        return Exif(image, camera, place, is_applied)

    def _below(self, value: Value | None) -> dict[int, Value]:
        """The directory that a field points at."""
        at = number(value)
        return self._directory(int(at)) if math.isfinite(at) and at > 0 else {}

    def _directory(self, at: int) -> dict[int, Value]:
        found: dict[int, Value] = {}
        lead, entry, count = (8, 20, "Q") if self.is_big else (2, 12, "H")
        try:
            (fields,) = struct.unpack(self.order + count, _at(self.file, self.start + at, lead))
            for row in range(min(fields, _FIELDS)):
                data = _at(self.file, self.start + at + lead + row * entry, entry)
                tag, kind, length = struct.unpack_from(self.order + ("HHQ" if self.is_big else "HHI"), data)
                value = self._value(kind, length, data[entry // 2 + 2 :])
                if value is not None:
                    found.setdefault(tag, value)
        except (EOFError, struct.error, OSError, OverflowError):
            pass  # cut off: what stood before is there
        return found

    def _value(self, kind: int, count: int, inside: bytes) -> Value | None:
        """A field's value, which stands in its entry or where that points; None where there is none."""
        letters = _KINDS.get(kind, "B")
        size = struct.calcsize(self.order + letters) * count
        if not 0 < size <= _LARGEST or (kind not in _KINDS and kind not in (_TEXT, _RAW)):
            return None
        try:
            if size > len(inside):
                (at,) = struct.unpack(self.order + ("Q" if self.is_big else "I"), inside)
                inside = _at(self.file, self.start + at, size)
        except (EOFError, OSError, OverflowError):
            return None
        if kind == _TEXT:
            return inside[:size].split(b"\0")[0].decode("utf-8", "replace")
        if kind == _RAW:
            return inside[:size]
        numbers = struct.unpack(self.order + letters * count, inside[:size])
        if len(letters) == 2:
            return tuple(_fraction(*pair) for pair in zip(numbers[::2], numbers[1::2], strict=True))
        return tuple(float(each) for each in numbers)


def _fraction(above: int, below: int) -> float:
    if below:
        return above / below
    return math.copysign(math.inf, above) if above else math.nan
