"""EXIF as no camera should write it: fields of any value, in files that are otherwise whole."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Mapping, Sequence
from typing import TypeAlias

# What a field holds: numbers of 16 bits, fractions, text, or bytes.
Value: TypeAlias = int | str | bytes | Sequence[tuple[int, int]]
Fields: TypeAlias = Mapping[int, Value]

MAKE, MODEL, ORIENTATION = 0x010F, 0x0110, 0x0112
FOCAL, FOCAL_35 = 0x920A, 0xA405
PLANE_X, PLANE_Y, PLANE_UNIT = 0xA20E, 0xA20F, 0xA210  # pixels a unit of the sensor: 2 inch, 3 cm
WIDTH, HEIGHT = 0xA002, 0xA003
LATITUDE_REF, LATITUDE, LONGITUDE_REF, LONGITUDE, ALTITUDE_REF, ALTITUDE = range(1, 7)
_EXIF_IFD, _GPS_IFD = 0x8769, 0x8825


def exif_of(first: Fields, camera: Fields, gps: Fields) -> bytes:
    """A TIFF header and three directories of fields: of the image, of the camera, of the place."""
    parts: list[tuple[Fields, tuple[int, ...]]] = [(first, (_EXIF_IFD, _GPS_IFD)), (camera, ()), (gps, ())]
    starts, at = [], 8
    for fields, follow in parts:
        starts.append(at)
        at += 2 + 12 * (len(fields) + len(follow)) + 4 + sum(len(_field(value)[2]) for value in fields.values())
    content = b"MM\0*" + struct.pack(">I", 8)
    for start, (fields, follow) in zip(starts, parts, strict=True):
        pointers = dict(zip(follow, starts[1:], strict=False))
        content += _directory(start, fields, pointers)
    return content


def _directory(start: int, fields: Fields, pointers: Mapping[int, int]) -> bytes:
    beyond = start + 2 + 12 * (len(fields) + len(pointers)) + 4
    entries, data = [], b""
    for tag in sorted({*fields, *pointers}):
        if tag in pointers:
            entries.append(struct.pack(">HHII", tag, 4, 1, pointers[tag]))
            continue
        kind, count, value = _field(fields[tag])
        entries.append(struct.pack(">HHII", tag, kind, count, beyond + len(data)))
        if len(value) <= 4:
            entries[-1] = struct.pack(">HHI", tag, kind, count) + value.ljust(4, b"\0")
        data += value
    return struct.pack(">H", len(entries)) + b"".join(entries) + bytes(4) + data


def _field(value: Value) -> tuple[int, int, bytes]:
    """The TIFF type, the count and the content of a field."""
    if isinstance(value, int):
        return 3, 1, struct.pack(">H", value)
    if isinstance(value, str):
        return 2, len(value) + 1, value.encode() + b"\0"
    if isinstance(value, bytes):
        return 1, len(value), value
    return 5, len(value), b"".join(struct.pack(">II", *fraction) for fraction in value)


def with_exif(image: bytes, content: bytes) -> bytes:
    """A JPEG or PNG file with this EXIF in it."""
    if image[:2] == b"\xff\xd8":
        segment = b"Exif\0\0" + content
        return image[:2] + b"\xff\xe1" + struct.pack(">H", len(segment) + 2) + segment + image[2:]
    if image[:4] == b"\x89PNG":  # after the header, its first chunk
        return image[:33] + _chunk(b"eXIf", content) + image[33:]
    raise ValueError("neither JPEG nor PNG")


def _chunk(name: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))
