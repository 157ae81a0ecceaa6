"""The cameras of a pair, from whatever is known of them: a matrix, COLMAP's camera or words for it, EXIF, a guess."""

from __future__ import annotations

import os
import warnings
from typing import Any, NamedTuple

import numpy as np
from torch import Tensor

from lightglue.errors import InputError, LightGlueError
from lightglue.geometry.camera_text import parse_camera
from lightglue.geometry.cameras import as_camera
from lightglue.geometry.exif_focal import focal_from_exif
from lightglue.geometry.intrinsics import Intrinsics
from lightglue.geometry.orientation import fitted
from lightglue.images.focal import StatedFocal
from lightglue_runtime.images.exif import orientation_of

__all__ = ["KnownCamera", "known_camera"]


class KnownCamera(NamedTuple):
    """A camera, and how it is known."""

    camera: Any  # as `lightglue.geometry` takes it
    source: str  # given, EXIF, or guessed
    K: list[list[float]]  # (3, 3), px; (0, 0) is the centre of the top-left pixel
    fault: str | None = None  # why the focal length that the file states is not taken


def known_camera(name: str, camera: Any, image: Any, size: tuple[int, int]) -> KnownCamera:
    """The camera `name`, which errors say, of an image of this (width, height), px.

    camera: "auto", a text as the command line takes it (`lightglue.geometry.camera_text`), fx, fy, cx, cy as a tuple,
    list or array, or what `lightglue.geometry.as_camera` takes.
    image: for "auto": EXIF is read where this is a path or the content of a file.

    A focal length in EXIF that cannot be is a warning, and is guessed.

    Raises InputError for what is no camera or not this image's, LightGlueError where pycolmap is missing, which
    distortion and COLMAP's list of cameras need.
    """
    if isinstance(camera, KnownCamera):
        return camera
    source, fault = "given", None
    if isinstance(camera, str):
        try:
            camera = parse_camera(camera)
        except InputError as error:
            raise InputError(f"{name}: {error}") from error
    if isinstance(camera, str):  # "auto"
        focal, fault = _stated(name, image, size)
        camera, source = Intrinsics.guessed(size, focal), "guessed" if focal is None else "EXIF"
        if fault is not None:
            file = f"{image}: " if isinstance(image, (str, os.PathLike)) else ""
            warnings.warn(f"{name}: {file}{fault}.", stacklevel=2)
    elif _is_row(camera) and len(camera) == 4:
        fx, fy, cx, cy = camera
        camera = [[fx, 0, cx], [0, fy, cy], [0, 0, 1]]
    if isinstance(camera, Intrinsics) and camera.size is not None and (orientation := orientation_of(image)) != 1:
        camera = fitted(f"{name}: the camera", camera, size, orientation)
    if isinstance(camera, Intrinsics) and camera.size not in (None, size):
        raise InputError(
            f"{name}: the camera's image has {camera.size[0]} x {camera.size[1]} px, the image {size[0]} x {size[1]}; "
            "give the camera of this very file."
        )
    try:
        return KnownCamera(camera, source, as_camera(camera).K.tolist(), fault)
    except InputError as error:
        raise InputError(f"{name}: {error}") from error
    except LightGlueError as error:
        raise LightGlueError(f"{name}: {error} Or give fx,fy,cx,cy.") from error


def _is_row(camera: Any) -> bool:
    """Whether these are numbers in a row, and no matrix."""
    if isinstance(camera, (np.ndarray, Tensor)):
        return camera.ndim == 1
    return isinstance(camera, (tuple, list)) and not any(isinstance(each, (tuple, list)) for each in camera)


def _stated(name: str, image: Any, size: tuple[int, int]) -> StatedFocal:
    """The focal length that a file states."""
    if not isinstance(image, (str, os.PathLike, bytes, bytearray, memoryview)):
        return StatedFocal()
    try:
        return focal_from_exif(image, size)
    except LightGlueError as error:  # of the list of cameras, which is pycolmap's
        raise LightGlueError(f"{name}: {error} Or give fx,fy,cx,cy.") from error
