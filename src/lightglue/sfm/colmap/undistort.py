"""Images and models without distortion, as dense reconstruction wants them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from lightglue.errors import LightGlueError
from lightglue.sfm.colmap.with_pycolmap import pycolmap, quiet, short

__all__ = ["undistort_images"]


def undistort_images(model: Path, images: Path, out: Path, max_size: int | None) -> None:
    """COLMAP's image undistorter: `out` becomes its workspace for dense reconstruction.

    max_size: px; larger images are shrunk. The images must have the sizes of their cameras: COLMAP ends the process
    where they have not. Raises LightGlueError for what COLMAP says.
    """
    options: Any = pycolmap.UndistortCameraOptions()
    if max_size is not None:
        options.max_image_size = max_size
    try:
        with quiet():
            pycolmap.undistort_images(
                output_path=str(out), input_path=str(model), image_path=str(images), undistort_options=options
            )
    except (RuntimeError, ValueError, IndexError, OSError) as error:
        raise LightGlueError(f"COLMAP could not undistort the images of {model}: {short(error)}.") from error
