"""What the first bytes of an image file tell: above all its size, so that no bomb is ever decoded.

Written out here because each alternative changes something global: Pillow's own limit is a module attribute and its
warnings need a filter that threads share; OpenCV reads its limit from the environment, once. Each reader below
returns (width, height) as stored, before any orientation tag.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Callable

__all__ = ["FORMATS", "HEAD", "format_of", "stored_size"]

HEAD = 512  # bytes at the beginning of a file that tell its kind
_BOXES = 1 << 18  # bytes at the beginning of a file in which AVIF and HEIC describe themselves


def _png(data: bytes) -> tuple[int, int]:
    width, height = struct.unpack_from(">II", data, 16)
    return width, height


def _jpeg(data: bytes) -> tuple[int, int]:
    at = 2
    while True:
        marker = data[at + 1]
        if data[at] != 0xFF:
            raise ValueError("no marker where one must stand")
        if marker == 0xFF:  # a fill byte
            at += 1
        elif marker == 0x01 or 0xD0 <= marker <= 0xD8:  # markers without a segment
            at += 2
        elif 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):  # start of frame
            if data.rfind(b"\xff\xd9") < at:  # OpenCV 4 fills what is cut off with gray, and says nothing
                raise ValueError("no end of image")
            height, width = struct.unpack_from(">HH", data, at + 5)
            return width, height
        else:
            at += 2 + struct.unpack_from(">H", data, at + 2)[0]


def _tiff(data: bytes) -> tuple[int, int]:
    order = "<" if data[:2] == b"II" else ">"
    big = struct.unpack_from(order + "H", data, 2)[0] == 43
    offset = struct.unpack_from(order + ("Q" if big else "I"), data, 8 if big else 4)[0]
    count = struct.unpack_from(order + ("Q" if big else "H"), data, offset)[0]
    first, length = (offset + 8, 20) if big else (offset + 2, 12)
    edges = {}
    for at in range(first, first + count * length, length):
        tag, kind = struct.unpack_from(order + "HH", data, at)
        if tag in (256, 257):
            value = order + {3: "H", 4: "I", 16: "Q"}[kind]
            edges[tag] = struct.unpack_from(value, data, at + (12 if big else 8))[0]
        if len(edges) == 2:
            break
    return edges[256], edges[257]


def _webp(data: bytes) -> tuple[int, int]:
    kind = data[12:16]
    if kind == b"VP8X":
        return 1 + int.from_bytes(data[24:27], "little"), 1 + int.from_bytes(data[27:30], "little")
    if kind == b"VP8L":
        bits = struct.unpack_from("<I", data, 21)[0]
        return 1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF)
    width, height = struct.unpack_from("<HH", data, 26)
    return width & 0x3FFF, height & 0x3FFF


def _bmp(data: bytes) -> tuple[int, int]:
    is_os2 = struct.unpack_from("<I", data, 14)[0] == 12
    width, height = struct.unpack_from("<HH" if is_os2 else "<ii", data, 18)
    return abs(width), abs(height)  # a negative height stands for rows from the top


def _gif(data: bytes) -> tuple[int, int]:
    width, height = struct.unpack_from("<HH", data, 6)
    return width, height


def _pnm(data: bytes) -> tuple[int, int]:
    space = rb"(?:\s|#[^\n]*\n)+"
    found = re.match(rb"P[1-6]" + space + rb"(\d{1,9})" + space + rb"(\d{1,9})", data)
    if found is None:
        raise ValueError("no width and height")
    return int(found[1]), int(found[2])


def _isobmff(data: bytes) -> tuple[int, int]:
    """Of HEIC and AVIF as they are shown: their own rotation counts, EXIF's orientation does not (ISO 23008-12)."""
    found = [struct.unpack_from(">II", data, at.end() + 4) for at in re.finditer(b"ispe", data[:_BOXES])]
    width, height = max(found, key=lambda size: size[0] * size[1])  # the others are tiles and thumbnails
    rotation = re.search(rb"\0\0\0\x09irot(.)", data[:_BOXES], re.DOTALL)
    return (height, width) if rotation is not None and rotation[1][0] & 1 else (width, height)


def _jpeg2000(data: bytes) -> tuple[int, int]:
    if data[:4] == b"\xff\x4f\xff\x51":  # a bare code stream
        right, bottom, left, top = struct.unpack_from(">IIII", data, 8)
        return right - left, bottom - top
    at = data.find(b"ihdr")  # a file in memory has no `index`
    if at < 0:
        raise ValueError("no header of the image")
    height, width = struct.unpack_from(">II", data, at + 4)
    return width, height


# Name -> how the file begins and where its size stands. `images.with_pillow` decodes AVIF and HEIC, OpenCV the others.
FORMATS: dict[str, tuple[re.Pattern[bytes], Callable[[bytes], tuple[int, int]]]] = {
    "JPEG": (re.compile(rb"\xff\xd8\xff"), _jpeg),
    "PNG": (re.compile(rb"\x89PNG\r\n\x1a\n"), _png),
    "TIFF": (re.compile(rb"II[*+]\0|MM\0[*+]"), _tiff),
    "WebP": (re.compile(rb"RIFF.{4}WEBP", re.DOTALL), _webp),
    "BMP": (re.compile(rb"BM.{4}\0\0\0\0", re.DOTALL), _bmp),
    "GIF": (re.compile(rb"GIF8[79]a"), _gif),
    "PNM": (re.compile(rb"P[1-6][\s#]"), _pnm),
    "AVIF": (re.compile(rb".{4}ftyp(?:avif|avis|(?:mif1|msf1).{4}(?:.{4}){0,10}?(?:avif|avis))", re.DOTALL), _isobmff),
    "HEIC": (re.compile(rb".{4}ftyp(?:hei[cxms]|hev[cmx]|mif1|msf1)", re.DOTALL), _isobmff),
    "JPEG 2000": (re.compile(rb"\0\0\0\x0cjP  |\xff\x4f\xff\x51"), _jpeg2000),
}


def format_of(head: bytes) -> str | None:
    """The format that a file beginning with `head` (64 bytes are enough) claims to have, or None."""
    return next((name for name, (magic, _) in FORMATS.items() if magic.match(head)), None)


def stored_size(name: str, data: bytes) -> tuple[int, int] | None:
    """(width, height) in px of the file `data` of format `name`, or None where it is damaged or cut off."""
    try:
        width, height = FORMATS[name][1](data)
    except (struct.error, IndexError, KeyError, ValueError, OverflowError):
        return None
    return (width, height) if width > 0 and height > 0 else None
