"""The cameras of a pair, from whatever is known of them: a matrix, COLMAP's camera or words for it, EXIF, a guess."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

from lightglue.errors import InputError, LightGlueError
from lightglue.geometry.cameras import as_camera
from lightglue.pairs.options import parse_camera

__all__ = ["KnownCamera", "known_camera"]

_GUESSED_FOCAL = 1.2  # of the longer edge, as COLMAP guesses


class KnownCamera(NamedTuple):
    """A camera, and how it is known."""

    camera: Any  # as `lightglue.geometry` takes it
    source: str  # given, EXIF, or guessed
    K: list[list[float]]  # (3, 3), px; (0, 0) is the centre of the top-left pixel


def known_camera(name: str, camera: Any, image: Any, size: tuple[int, int]) -> KnownCamera:
    """The camera `name`, which errors say, of an image of this (width, height), px.

    camera: "auto", (fx, fy, cx, cy), COLMAP's (MODEL, width, height, *parameters), either of these as text with commas,
    or what `lightglue.geometry.as_camera` takes.
    image: for "auto": EXIF is read where this is a path or the content of a file.

    Raises InputError for what is no camera or not this image's, LightGlueError where pycolmap is needed and missing.
    """
    if isinstance(camera, KnownCamera):
        return camera
    source = "given"
    if isinstance(camera, str):
        camera = parse_camera(camera)
    if isinstance(camera, str):  # "auto"
        camera, source = _inferred(name, image, size)
    elif isinstance(camera, tuple) and camera and isinstance(camera[0], str):
        camera = _from_words(name, camera, size)
    elif isinstance(camera, tuple) and len(camera) == 4 and not hasattr(camera[0], "__len__"):
        fx, fy, cx, cy = camera
        camera = [[fx, 0, cx], [0, fy, cy], [0, 0, 1]]
    try:
        return KnownCamera(camera, source, as_camera(camera).K.tolist())
    except InputError as error:
        raise InputError(f"{name}: {error}") from error


def _inferred(name: str, image: Any, size: tuple[int, int]) -> tuple[Any, str]:
    """The camera that COLMAP takes from a file's EXIF, or guesses, and how it is known."""
    if isinstance(image, (str, os.PathLike)):
        return _from_file(name, Path(image), size)
    if isinstance(image, (bytes, bytearray, memoryview)):
        with TemporaryDirectory() as folder:
            path = Path(folder) / "image"
            path.write_bytes(image)
            return _from_file(name, path, size)
    focal = _GUESSED_FOCAL * max(size)
    return [[focal, 0, (size[0] - 1) / 2], [0, focal, (size[1] - 1) / 2], [0, 0, 1]], "guessed"


def _from_file(name: str, path: Path, size: tuple[int, int]) -> tuple[Any, str]:
    """The same for a file, of the image as EXIF's orientation turns it."""
    pycolmap = _pycolmap(name)
    try:
        camera = pycolmap.infer_camera_from_image(str(path))
    except (ValueError, RuntimeError) as error:
        raise InputError(f"{name}: COLMAP cannot read {path}; give fx,fy,cx,cy instead of auto.") from error
    source = "EXIF" if camera.has_prior_focal_length else "guessed"
    if (camera.width, camera.height) == size[::-1]:
        params = camera.params.copy()
        params[camera.principal_point_idxs()] = params[camera.principal_point_idxs()][::-1]
        upright = pycolmap.Camera(model=camera.model, width=size[0], height=size[1], params=params)
        upright.has_prior_focal_length = camera.has_prior_focal_length
        return upright, source
    _check_size(name, (camera.width, camera.height), size)
    return camera, source


def _from_words(name: str, words: Sequence[Any], size: tuple[int, int]) -> Any:
    """COLMAP's camera: MODEL, width, height, parameters."""
    pycolmap = _pycolmap(name)
    model, width, height, *params = words
    names = [each for each in pycolmap.CameraModelId.__members__ if each != "INVALID"]
    if model not in names:
        raise InputError(f"{name}: COLMAP knows no camera {model}; choose one of {', '.join(names)}.")
    _check_size(name, (width, height), size)
    camera = pycolmap.Camera(model=model, width=int(width), height=int(height), params=params)
    if not camera.verify_params():
        raise InputError(f"{name}: {model} takes the parameters {camera.params_info}; {len(params)} are given.")
    return camera


def _check_size(name: str, camera: tuple[float, float], image: tuple[int, int]) -> None:
    if camera != image:
        raise InputError(
            f"{name}: the camera's image has {camera[0]:g} x {camera[1]:g} px, the image {image[0]} x {image[1]}; "
            "give the camera of this very file."
        )


def _pycolmap(name: str) -> Any:
    try:
        import pycolmap
    except ImportError as error:
        raise LightGlueError(
            f"{name}: such a camera needs pycolmap; run `pip install pycolmap`, or give fx,fy,cx,cy."
        ) from error
    return pycolmap
