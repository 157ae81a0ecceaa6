"""Our cameras as pycolmap's and back."""

from __future__ import annotations

import os
from typing import Any

from lightglue.errors import InputError, LightGlueError
from lightglue.geometry.intrinsics import Intrinsics, params_from_colmap, params_to_colmap
from lightglue.images.focal import StatedFocal, stated_focal

try:
    import pycolmap
except ImportError as error:
    raise LightGlueError(
        "Maps, cameras with a lens and cameras from EXIF need pycolmap: pip install 'lightglue[sfm]'."
    ) from error

__all__ = ["camera_from_colmap", "camera_to_colmap", "focal_from_exif"]


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


def focal_from_exif(path: str | os.PathLike[str]) -> StatedFocal:
    """The focal length that COLMAP takes from an image's EXIF, if it can be; none of a file that it does not read."""
    try:
        camera = pycolmap.infer_camera_from_image(str(path))
    except (ValueError, RuntimeError, OSError):
        return StatedFocal()
    if not camera.has_prior_focal_length:
        return StatedFocal()
    return stated_focal(float(camera.mean_focal_length()), (int(camera.width), int(camera.height)))
