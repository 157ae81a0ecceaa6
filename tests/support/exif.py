"""EXIF as no camera should write it: fields of any value, in files that are otherwise whole."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Mapping, Sequence
from typing import NamedTuple, TypeAlias

import numpy as np

from lightglue_runtime.images.headers import stored_size


class Raw(NamedTuple):
    """A field of any type and count."""

    kind: int
    count: int
    content: bytes


# What a field holds: numbers of 16 bits, fractions, text, bytes, or anything.
Value: TypeAlias = int | str | bytes | Sequence[tuple[int, int]] | Raw
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
    if isinstance(value, Raw):
        return value
    if isinstance(value, int):
        return 3, 1, struct.pack(">H", value)
    if isinstance(value, str):
        return 2, len(value) + 1, value.encode() + b"\0"
    if isinstance(value, bytes):
        return 1, len(value), value
    return 5, len(value), b"".join(struct.pack(">II", *fraction) for fraction in value)


def with_exif(image: bytes, content: bytes) -> bytes:
    """A JPEG, PNG or plain WebP file with this EXIF in it."""
    if image[:2] == b"\xff\xd8":
        segment = b"Exif\0\0" + content
        return image[:2] + b"\xff\xe1" + struct.pack(">H", len(segment) + 2) + segment + image[2:]
    if image[:4] == b"\x89PNG":  # after the header, its first chunk
        return image[:33] + _chunk(b"eXIf", content) + image[33:]
    if image[:4] == b"RIFF":  # before the picture, a header that says that there is EXIF; behind it the EXIF
        (width, height) = (edge - 1 for edge in stored_size("WebP", image) or (1, 1))
        sizes = b"".join(edge.to_bytes(3, "little") for edge in (width, height))
        parts = (b"VP8X" + struct.pack("<IB3x", 10, 8) + sizes, image[12:], _riff(b"EXIF", content))
        return b"RIFF" + struct.pack("<I", 4 + sum(map(len, parts))) + b"WEBP" + b"".join(parts)
    raise ValueError("neither JPEG nor PNG nor WebP")


def _riff(name: bytes, content: bytes) -> bytes:
    return name + struct.pack("<I", len(content)) + content + bytes(len(content) % 2)


def _chunk(name: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))


# --- of no camera -----------------------------------------------------------------------------------------------------

_TAGS = {
    "image": (MAKE, MODEL, 0x011A, 0x0128),
    "camera": (FOCAL, FOCAL_35, PLANE_X, PLANE_Y, PLANE_UNIT, WIDTH, HEIGHT),
    "place": (LATITUDE_REF, LATITUDE, LONGITUDE_REF, LONGITUDE, ALTITUDE_REF, ALTITUDE),
}
_EDGES = (0, 1, 2, 3, 35, 90, 180, 65535, 2**31 - 1, 2**31, 2**32 - 1)
_TEXTS = ("", "N", "S", "E", "W", "Canon", "Canon EOS 5D Mark II", "\u00e9\u2603", "x" * 3000, "48,51,24N")


def _any_value(rng: np.random.Generator) -> Value:
    def edge() -> int:
        return int(rng.choice(_EDGES)) if rng.random() < 0.8 else int(rng.integers(2**32))

    fractions = [(edge(), edge()) for _ in range(int(rng.choice((1, 2, 3, 3, 3, 9))))]
    kind = int(rng.integers(8))
    if kind <= 2:
        return fractions
    if kind == 3:
        return edge() % 65536
    if kind == 4:
        return str(rng.choice(_TEXTS))
    if kind == 5:
        return rng.bytes(int(rng.integers(1, 40)))
    if kind == 6:  # floating point, as no standard allows: NaN and infinity too
        return Raw(12, 2, struct.pack(">dd", *rng.choice((0.0, -1.0, 5e-324, 1e308, np.inf, np.nan), 2)))
    return Raw(int(rng.integers(20)), edge(), rng.bytes(int(rng.integers(20))))


def _likely_value(tag: int, rng: np.random.Generator) -> Value:
    """What a camera would write."""
    if tag in (LATITUDE, LONGITUDE):
        return [(int(rng.integers(90)), 1), (int(rng.integers(60)), 1), (int(rng.integers(6000)), 100)]
    letters = {LATITUDE_REF: "NS", LONGITUDE_REF: "EW"}
    if tag in letters:
        return str(rng.choice(list(letters[tag])))
    texts = {MAKE: "Canon", MODEL: "Canon EOS 5D Mark II"}
    if tag in texts:
        return texts[tag]
    if tag in (FOCAL_35, PLANE_UNIT, ORIENTATION, WIDTH, HEIGHT):
        return {FOCAL_35: 35, PLANE_UNIT: 2, ORIENTATION: 1, WIDTH: 320, HEIGHT: 240}[tag]
    return [(int(rng.integers(1, 500)), int(rng.integers(1, 4)))]


def any_exif(rng: np.random.Generator) -> bytes:
    """EXIF as it may be met in the field: fields that are right, wrong, and of wrong types; damaged; or cut off.

    The orientation is upright, or none: images that are turned are another matter.
    """

    def fields(tags: Sequence[int]) -> dict[int, Value]:
        some = [tag for tag in tags if rng.random() < 0.75]
        return {tag: _likely_value(tag, rng) if rng.random() < 0.4 else _any_value(rng) for tag in some}

    first, camera, place = (fields(_TAGS[part]) for part in ("image", "camera", "place"))
    content = bytearray(exif_of(first, camera, place))
    damage = rng.random()
    if damage < 0.3:
        for _ in range(int(rng.integers(1, 6))):
            content[int(rng.integers(4, len(content)))] = int(rng.integers(256))
    elif damage < 0.4:
        del content[int(rng.integers(len(content))) :]
    elif damage < 0.45:
        content[4:8] = struct.pack(">I", int(rng.choice(_EDGES)))
    return bytes(content)
