"""Cameras and images as COLMAP and hloc write them in text files.

    cameras.txt       CAMERA_ID MODEL WIDTH HEIGHT PARAMS...
    images.txt        IMAGE_ID QW QX QY QZ TX TY TZ CAMERA_ID NAME, and below each a line of X Y POINT3D_ID ...
    hloc's queries    NAME MODEL WIDTH HEIGHT PARAMS...; COLMAP's lists of images have the names alone

(0, 0) is the corner of the top-left pixel in all of them; `Intrinsics` have its centre there, as everywhere in this
package. Names may have blanks in them, though not around them. Nothing here needs numpy or pycolmap.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from lightglue.errors import InputError
from lightglue.geometry.intrinsics import MODELS, Intrinsics, params_from_colmap, params_to_colmap
from lightglue.support.text import BLANKS, content_lines, split_lines

__all__ = [
    "PosedImage",
    "camera_from_words",
    "camera_lines",
    "camera_words",
    "image_lines",
    "is_cameras",
    "is_images",
    "listed_image",
]

_LARGEST_SIZE = 1_000_000  # px of an edge
_MODEL = re.compile("[A-Z][A-Z0-9_]+")


@dataclass(frozen=True)
class PosedImage:
    """An image of images.txt, in words."""

    number: str
    name: str
    camera: str  # its number
    pose: tuple[str, ...]  # QW QX QY QZ TX TY TZ, from the world to the camera
    points: str  # X Y POINT3D_ID ...


def camera_from_words(words: Sequence[str]) -> Intrinsics:
    """A camera from MODEL WIDTH HEIGHT PARAMS... Raises InputError, which says what is wrong with them."""
    model, *rest = words if words else ("",)
    model = model.upper()
    numbers = [_number(word) for word in rest]
    if model not in MODELS:
        raise InputError(f"COLMAP has no camera model {model!r}; choose one of {', '.join(MODELS)}.")
    if len(numbers) != 2 + len(MODELS[model]):
        expected = f"WIDTH HEIGHT {' '.join(MODELS[model])}"
        raise InputError(f"{' '.join(words)!r:.200} is no camera: {model} takes {expected}, {len(numbers)} were given.")
    if not all(edge.is_integer() and 1 <= edge <= _LARGEST_SIZE for edge in numbers[:2]):
        raise InputError(f"{' '.join(words)!r:.200} is no camera: its size is {' x '.join(rest[:2])}; give whole px.")
    width, height, *params = numbers
    camera = Intrinsics(model, (int(width), int(height)), tuple(params_from_colmap(model, params)))
    if min(camera.focal) <= 0:
        raise InputError(f"{' '.join(words)!r:.200} is no camera: its focal length is {min(camera.focal):g} px.")
    return camera


def camera_words(camera: Intrinsics) -> list[str]:
    """MODEL WIDTH HEIGHT PARAMS..., which `camera_from_words` reads."""
    params = params_to_colmap(camera.model, camera.params)
    return [camera.model, str(camera.width), str(camera.height), *(repr(float(value)) for value in params)]


def camera_lines(text: str) -> dict[str, tuple[str, ...]]:
    """The words MODEL WIDTH HEIGHT PARAMS... of each camera of a cameras.txt, by its number."""
    return {words[0]: tuple(words[1:]) for _, line in content_lines(text) if (words := line.split())}


def image_lines(text: str) -> list[PosedImage]:
    """The images of an images.txt, whether or not a line of points follows each. Raises InputError."""
    return list(_images(split_lines(text)))


def _images(lines: Sequence[str]) -> Iterator[PosedImage]:
    at = 0
    while at < len(lines):
        line = lines[at].strip(BLANKS)
        at += 1
        if not line or line.startswith("#"):
            continue
        if not _is_image(line):
            raise InputError(f"Line {at}, {line!r:.80}, is no image of COLMAP's.")
        words = line.split(maxsplit=9)
        points = lines[at].strip(BLANKS) if at < len(lines) else ""
        if points.startswith("#") or _is_image(points):
            points = ""
        else:
            at += 1
        yield PosedImage(words[0], words[9], words[8], tuple(words[1:8]), points)


def is_cameras(text: str) -> bool:
    """Whether a text is a cameras.txt: cameras with a number in front."""
    lines = [line.split() for _, line in content_lines(text)]
    return bool(lines) and all(len(words) > 3 and words[0].isdigit() and words[1].upper() in MODELS for words in lines)


def is_images(text: str) -> bool:
    """Whether a text is an images.txt."""
    return _is_image(next((line for _, line in content_lines(text)), ""))


def _is_image(line: str) -> bool:
    """Whether a line is an image's, and not one of points: these are numbers throughout."""
    words = line.split(maxsplit=9)
    return (
        len(words) == 10
        and words[0].isdigit()
        and words[8].isdigit()
        and all(map(_is_number, words[1:8]))
        and not all(map(_is_number, words[9].split()))
    )


def listed_image(line: str) -> tuple[str, tuple[str, ...]]:
    """The name in a line of a list, and the words of its camera, MODEL WIDTH HEIGHT PARAMS...; none where it has none.

    The camera is what stands behind the name: a word in capitals, and nothing but numbers to the end.
    """
    for found in re.finditer(r"(?<=[ \t])\S+", line):
        model, rest = found[0], line[found.end() :].split()
        if not all(map(_is_number, rest)):
            continue
        if model.upper() in MODELS or (len(rest) >= 3 and _MODEL.fullmatch(model)):
            return line[: found.start()].strip(BLANKS), (model, *rest)
    return line, ()


def _number(word: str) -> float:
    try:
        return float(word)
    except ValueError:
        return math.nan


def _is_number(word: str) -> bool:
    try:
        float(word)
    except ValueError:
        return False
    return True
