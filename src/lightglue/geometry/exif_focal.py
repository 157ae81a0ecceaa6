"""The focal length of an image in px, from its file's EXIF, as COLMAP takes it (`Bitmap::ExifFocalLength`)."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator

from lightglue.images.focal import StatedFocal, stated_focal
from lightglue_runtime.images.exif import Exif, Value, number, read_exif, text

__all__ = ["focal_from_exif", "stated_focals"]

_MAKE, _MODEL = 0x010F, 0x0110
_FOCAL, _FOCAL_35, _PLANE_X, _PLANE_UNIT = 0x920A, 0xA405, 0xA20E, 0xA210
_DIAGONAL_35 = 43.27  # mm, of a frame of 35 mm film
_MM = {2: 25.4, 3: 10.0, 4: 1.0, 5: 0.001}  # of the unit of the resolution of the focal plane


def focal_from_exif(
    source: str | os.PathLike[str] | bytes | bytearray | memoryview, size: tuple[int, int]
) -> StatedFocal:
    """The focal length that a file states of its image of `size` (width, height), px: the first that can be.

    Raises LightGlueError where only COLMAP's list of cameras can tell, and pycolmap, which has it, is missing.
    """
    fault = None
    exif = read_exif(source)
    for focal in stated_focals(exif, size):
        found = stated_focal(focal, size)
        if found.px is not None:
            return found
        fault = fault or found.fault
    return StatedFocal(None, fault or _lens_fault(exif))


def _lens_fault(exif: Exif) -> str | None:
    """What is wrong with the focal length of the lens, mm, where nothing says what that is in px."""
    focal = _fields(exif).get(_FOCAL)
    if focal is None or 0 < number(focal) < math.inf:
        return None
    return f"its EXIF states a focal length of {number(focal):g} mm; it is guessed, as if there were none"


def _fields(exif: Exif) -> dict[int, Value]:
    return {**exif.image, **exif.camera}  # some programs write all into one directory


def stated_focals(exif: Exif, size: tuple[int, int]) -> Iterator[float]:
    """Each focal length in px that EXIF states in some way for an image of `size` (width, height), px.

    COLMAP takes the first: by the equivalent for 35 mm film, by the pixels a unit of the sensor, by the sensor's width
    in COLMAP's list of cameras. They may be zero, infinite, NaN or absurd, as the file has them.

    Raises LightGlueError where only the list can tell, and pycolmap, which has it, is missing.
    """
    fields = _fields(exif)
    film, focal = number(fields.get(_FOCAL_35)), number(fields.get(_FOCAL))
    if _FOCAL_35 in fields and film != 0:  # 0: not known
        yield film / _DIAGONAL_35 * math.hypot(*size)
    if _FOCAL not in fields:
        return
    unit = _MM.get(_whole(number(fields.get(_PLANE_UNIT))))
    if _PLANE_X in fields and unit is not None:
        yield focal * number(fields[_PLANE_X]) / unit
    make, model = text(fields.get(_MAKE)), text(fields.get(_MODEL))
    if make and model:
        from lightglue.geometry.colmap_cameras import sensor_width

        if (width := sensor_width(make, model)) is not None:
            yield focal / width * max(size)


def _whole(value: float) -> int:
    return int(value) if math.isfinite(value) else 0
