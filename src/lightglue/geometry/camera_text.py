"""Cameras in words: the one grammar of the command line.

    auto                          from EXIF, or guessed
    fx,fy,cx,cy                   a pinhole; (0, 0) is the centre of the top-left pixel
    MODEL:PARAMS                  one of COLMAP's models, its parameters in COLMAP's order, with the same origin
    MODEL,WIDTH,HEIGHT,PARAMS     as COLMAP itself writes a camera: (0, 0) is the corner of the top-left pixel

Nothing here needs numpy or pycolmap.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

from lightglue.errors import InputError
from lightglue.geometry.colmap_text import camera_from_words
from lightglue.geometry.intrinsics import Intrinsics

__all__ = ["CAMERA_HELP", "parse_camera", "parse_known_camera"]

# The same in the help of every command.
CAMERA_HELP = (
    "fx,fy,cx,cy or MODEL:PARAMS, such as PINHOLE:920,920,511.5,383.5, in px, (0, 0) being the centre of the first "
    "pixel; or COLMAP's own MODEL,WIDTH,HEIGHT,PARAMS, (0, 0) being its corner."
)


def parse_camera(text: str) -> Intrinsics | Literal["auto"]:
    """The camera that a text stands for. Raises InputError."""
    return "auto" if text.strip().lower() == "auto" else _parse(text, "auto, ")


def parse_known_camera(text: str) -> Intrinsics:
    """The same where "auto" is no answer. Raises InputError."""
    return _parse(text, "")


def _parse(text: str, also: str) -> Intrinsics:
    """also: what else may be given, for the error."""
    model, colon, rest = (part.strip() for part in text.partition(":"))
    if colon:
        return _checked(text, also, model, None, _numbers(rest.split(",")))
    words = [part.strip() for part in text.split(",")]
    if not words[0][:1].isalpha():
        if len(words) == 4:
            return _checked(text, also, "PINHOLE", None, _numbers(words))
    elif len(_numbers(words[1:])) >= 3:
        return camera_from_words(words)
    raise _fault(text, also)


def _checked(text: str, also: str, model: str, size: tuple[int, int] | None, params: Sequence[float]) -> Intrinsics:
    if not params:
        raise _fault(text, also)
    camera = Intrinsics(model.upper(), size, tuple(params)).check()
    if min(camera.focal) <= 0:
        raise _fault(text, also)
    return camera


def _numbers(parts: Sequence[str]) -> list[float]:
    """Finite numbers; none where one of the parts is not."""
    try:
        numbers = [float(part) for part in parts]
    except ValueError:
        return []
    return numbers if all(map(math.isfinite, numbers)) else []


def _fault(text: str, also: str) -> InputError:
    return InputError(
        f"{text!r} is no camera; give {also}fx,fy,cx,cy in px, MODEL:PARAMS such as PINHOLE:920,920,511.5,383.5, or "
        "MODEL,WIDTH,HEIGHT,PARAMS as COLMAP has them, such as OPENCV,1024,768,900,900,512,384,0.1,0,0,0."
    )
