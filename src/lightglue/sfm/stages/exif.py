"""Where and when an image was taken, as its file says."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timezone

from lightglue_runtime.images.exif import Exif, Value, number, read_exif, text

__all__ = ["Location", "location_of", "read_location", "time_of"]

_LATITUDE_REF, _LATITUDE, _LONGITUDE_REF, _LONGITUDE, _ALTITUDE_REF, _ALTITUDE = range(1, 7)  # of EXIF's GPS fields
_TIME, _SUBSECOND = 0x9003, 0x9291  # of the camera's fields: when the picture was taken
_ALTITUDES = -12_000.0, 100_000.0  # m: from the deepest trench to above the highest balloon


@dataclass(frozen=True)
class Location:
    """Where an image was taken, in WGS 84."""

    latitude: float  # degrees, north positive
    longitude: float  # degrees, east positive
    altitude: float | None  # m above the sea, or above the ellipsoid: files do not say


def read_location(path: str | os.PathLike[str]) -> Location | None:
    """Where the image in a file was taken; None where the file does not say, or cannot be read."""
    return location_of(read_exif(path))


def location_of(exif: Exif) -> Location | None:
    """Where an image was taken, by its EXIF; None where that does not say."""
    return _location(exif.place)


def time_of(exif: Exif) -> float:
    """When an image was taken by its camera's clock, s since any moment; NaN where its EXIF does not say."""
    said = text(exif.camera.get(_TIME))
    try:
        moment = datetime.strptime(said, "%Y:%m:%d %H:%M:%S").replace(tzinfo=timezone.utc)
        parts = text(exif.camera.get(_SUBSECOND))
        return moment.timestamp() + (float(f"0.{parts}") if parts.isdecimal() else 0.0)
    except (ValueError, OverflowError):
        return math.nan


def _location(place: Mapping[int, Value]) -> Location | None:
    if _LATITUDE not in place or _LONGITUDE not in place:
        return None
    latitude = _degrees(place[_LATITUDE]) * (-1 if _letter(place.get(_LATITUDE_REF)) == "S" else 1)
    longitude = _degrees(place[_LONGITUDE]) * (-1 if _letter(place.get(_LONGITUDE_REF)) == "W" else 1)
    if not (abs(latitude) <= 90 and abs(longitude) <= 180) or (latitude == 0 and longitude == 0):
        return None  # NaN too; 0, 0 is what cameras write that have not found a satellite
    return Location(latitude, longitude, _altitude(place))


def _altitude(place: Mapping[int, Value]) -> float | None:
    """A bad altitude costs the altitude, not the place."""
    altitude = number(place.get(_ALTITUDE)) * (-1 if place.get(_ALTITUDE_REF) in ((1.0,), b"\1") else 1)
    low, high = _ALTITUDES
    return altitude if low <= altitude <= high else None


def _degrees(parts: Value) -> float:
    """From degrees, minutes and seconds, NaN where they are none.

    The later may be missing, or 0/0: whoever states minutes with a fraction has no seconds to state, and whoever
    states degrees with a fraction no minutes either.
    """
    numbers = list(parts) if isinstance(parts, tuple) and len(parts) <= 3 else [math.nan]
    while len(numbers) > 1 and math.isnan(numbers[-1]) and (len(numbers) > 2 or numbers[0] % 1):
        del numbers[-1]
    return float(sum(number / 60**power for power, number in enumerate(numbers)))


def _letter(value: Value | None) -> str:
    return text(value).upper()[:1]
