"""Our cameras as pycolmap's and back."""

from __future__ import annotations

import base64
import struct
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from lightglue.errors import InputError, LightGlueError
from lightglue.geometry.intrinsics import Intrinsics, params_from_colmap, params_to_colmap

try:
    import pycolmap
except ImportError as error:
    raise LightGlueError(
        "Maps, cameras with a lens and cameras from EXIF need pycolmap: pip install 'lightglue[sfm]'."
    ) from error

__all__ = ["camera_from_colmap", "camera_to_colmap", "sensor_width"]

_LONGEST = 1000  # characters of make and model; none in the list has as many
# A gray JPEG of 1 x 1 px.
_JPEG = base64.b64decode(
    "/9j/4AAQSkZJRgABAQAAAQABAAD/2wBDAFA3PEY8MlBGQUZaVVBfeMiCeG5uePWvuZHI////////////////////////////////"
    "////////////////////wAALCAABAAEBAREA/8QAFAABAAAAAAAAAAAAAAAAAAAABP/EABQQAQAAAAAAAAAAAAAAAAAAAAD/2gAI"
    "AQEAAD8AE//Z"
)


def camera_to_colmap(camera: Intrinsics, camera_id: int = 1) -> Any:
    """A `pycolmap.Camera`. Raises InputError for a model that it lacks, or parameters that are none of the model's."""
    params = params_to_colmap(camera.model, camera.params)
    if camera.model not in pycolmap.CameraModelId.__members__:
        names = ", ".join(name for name in pycolmap.CameraModelId.__members__ if name != "INVALID")
        raise InputError(
            f"pycolmap {pycolmap.__version__} has no camera model {camera.model!r}; choose one of {names}."
        )
    width, height = camera.size or (1, 1)
    made = pycolmap.Camera(model=camera.model, width=width, height=height, params=params, camera_id=camera_id)
    made.has_prior_focal_length = camera.has_prior_focal
    return made


def camera_from_colmap(camera: Any, is_fixed: bool = True) -> Intrinsics:
    """The intrinsics of a `pycolmap.Camera`."""
    model, size = camera.model.name, (int(camera.width), int(camera.height))
    params = tuple(params_from_colmap(model, camera.params))
    return Intrinsics(model, size, params, bool(camera.has_prior_focal_length), is_fixed)


@cache
def sensor_width(make: str, model: str) -> float | None:
    """The width in mm of the sensor of a camera in COLMAP's list; None where it is not in it.

    pycolmap does not have the list as such. It is asked what it takes the focal length of a tiny image of that camera,
    with a lens of 1 mm, to be.
    """
    if len(make) + len(model) > _LONGEST:
        return None
    with TemporaryDirectory() as folder:
        path = Path(folder) / "image.jpg"
        path.write_bytes(_photograph(make, model))
        try:
            camera = pycolmap.infer_camera_from_image(str(path))
        except (ValueError, RuntimeError, OSError):
            return None
        if not camera.has_prior_focal_length or camera.focal_length <= 0:
            return None
        return float(max(camera.width, camera.height) / camera.focal_length)


def _photograph(make: str, model: str) -> bytes:
    """A JPEG of 1 x 1 px whose EXIF has a make, a model and a focal length of 1 mm."""
    first = [(0x010F, 2, make.encode() + b"\0"), (0x0110, 2, model.encode() + b"\0")]
    at = 8 + 2 + 12 * (len(first) + 1) + 4
    entries, beyond = b"", b""
    for tag, kind, value in first:
        value = value.ljust(5, b"\0")  # so that it is never stored in the entry
        entries += struct.pack(">HHII", tag, kind, len(value), at + len(beyond))
        beyond += value
    below = at + len(beyond)
    entries += struct.pack(">HHII", 0x8769, 4, 1, below)
    camera = struct.pack(">HHHII4xII", 1, 0x920A, 5, 1, below + 18, 1, 1)
    tiff = struct.pack(">2sHIH", b"MM", 42, 8, len(first) + 1) + entries + bytes(4) + beyond + camera
    segment = struct.pack(">H", 8 + len(tiff)) + b"Exif\0\0" + tiff
    return _JPEG[:2] + b"\xff\xe1" + segment + _JPEG[2:]
