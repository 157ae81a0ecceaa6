"""A COLMAP model as plain, typed, read-only records: cameras, poses of images, points."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lightglue.errors import InputError, StoreError
from lightglue.geometry.colmap_cameras import camera_from_colmap
from lightglue.geometry.intrinsics import Intrinsics, from_colmap
from lightglue.sfm.colmap.models import cam_from_world, open_model, registered

__all__ = ["Model", "RegisteredImage", "model_folder", "read_model"]

Array = NDArray[np.float64]
_PARTS = ("cameras", "images", "points3D")


@dataclass(frozen=True, eq=False)
class RegisteredImage:
    """An image whose pose is known."""

    name: str
    camera: Intrinsics
    camera_id: int
    rotation: Array  # (3, 3), world to camera; x to the right, y down, z ahead
    translation: Array  # (3,), world to camera
    num_keypoints: int
    points: NDArray[np.int64]  # (O,) which of the model's points it observes
    pixels: Array  # (O, 2) px, where; (0, 0) is the centre of the top-left pixel
    errors: Array  # (O,) px, reprojection error of each observation

    @property
    def centre(self) -> Array:
        """(3,) where the camera stood."""
        centre: Array = -self.rotation.T @ self.translation
        return centre

    @property
    def mean_error(self) -> float:
        """Of its observations, px; NaN where there is none."""
        known = self.errors[np.isfinite(self.errors)]
        return float(known.mean()) if len(known) else math.nan


@dataclass(frozen=True, eq=False)
class Model:
    """What was reconstructed."""

    folder: Path
    cameras: Mapping[int, Intrinsics]  # by COLMAP's number
    images: tuple[RegisteredImage, ...]  # by name
    points: Array  # (P, 3)
    point_ids: NDArray[np.int64]  # (P,) COLMAP's number of each, as `Localization.point_ids` has them
    colours: NDArray[np.uint8]  # (P, 3) red, green, blue
    errors: Array  # (P,) px, mean reprojection error over the point's track; NaN where it is not known
    track_lengths: NDArray[np.int64]  # (P,) how many images observe it

    @property
    def num_observations(self) -> int:
        """Keypoints that belong to a point."""
        return int(self.track_lengths.sum())

    @property
    def mean_error(self) -> float:
        """COLMAP's mean reprojection error, the mean over points, px; NaN without points."""
        known = self.errors[np.isfinite(self.errors)]
        return float(known.mean()) if len(known) else math.nan

    @property
    def mean_track_length(self) -> float:
        """Images a point; NaN without points."""
        return float(self.track_lengths.mean()) if len(self.track_lengths) else math.nan

    @property
    def centres(self) -> Array:
        """(I, 3) where the cameras stood, in the order of `images`."""
        return np.stack([image.centre for image in self.images]) if self.images else np.zeros((0, 3))


def model_folder(path: str | os.PathLike[str]) -> Path:
    """The folder of a model: `path` itself, or `path`/model where `path` is a map's folder.

    Raises InputError where neither holds cameras, images and points3D as .bin or .txt.
    """
    path = Path(path)
    for folder in (path, path / "model"):
        for ending in (".bin", ".txt"):
            if all((folder / f"{part}{ending}").is_file() for part in _PARTS):
                return folder
    raise InputError(
        f"There is no COLMAP model at {path} ({', '.join(_PARTS)} as .bin or .txt); give a model's or a map's folder."
    )


def read_model(path: str | os.PathLike[str]) -> Model:
    """Read a COLMAP model, binary or text.

    Args:
        path: the model's folder, or that of a map with the model in it.

    Raises:
        InputError: there is none.
        StoreError: it is damaged.
        LightGlueError: pycolmap is not installed.
    """
    folder = model_folder(path)
    found = open_model(folder)
    try:
        return _converted(folder, found)
    except (IndexError, KeyError, RuntimeError, ValueError, OSError, MemoryError) as error:
        raise StoreError(f"The model in {folder} is damaged ({error}); reconstruct it again.") from error


def _converted(folder: Path, found: Any) -> Model:
    cameras = {int(key): camera_from_colmap(camera) for key, camera in sorted(found.cameras.items())}
    # In one pass: each access builds a new object in Python.
    seen = [(key, p.xyz, p.color, p.error, p.track.length()) for key, p in found.points3D.items()]
    rows = {int(key): row for row, (key, *_) in enumerate(seen)}
    points = np.array([each[1] for each in seen], np.float64).reshape(-1, 3)
    errors = np.array([each[3] for each in seen], np.float64)
    images = tuple(_image(image, found, cameras, rows, points) for image in registered(found))
    return Model(
        folder,
        cameras,
        images,
        points,
        np.array([each[0] for each in seen], np.int64),
        np.array([each[2] for each in seen], np.uint8).reshape(-1, 3),
        np.where(errors >= 0, errors, np.nan),  # COLMAP writes -1 where it has not measured
        np.array([each[4] for each in seen], np.int64),
    )


def _image(
    image: Any, found: Any, cameras: Mapping[int, Intrinsics], rows: Mapping[int, int], points: Array
) -> RegisteredImage:
    pose = cam_from_world(image)
    rotation, translation = pose[:3, :3], pose[:3, 3]
    observed = [(point.xy, rows[int(point.point3D_id)]) for point in image.get_observation_points2D()]
    which = np.array([row for _, row in observed], np.int64)
    pixels = np.array([xy for xy, _ in observed], np.float64).reshape(-1, 2)
    inside = points[which] @ rotation.T + translation
    errors = np.full(len(which), np.nan)
    ahead = inside[:, 2] > 0
    if ahead.any():
        errors[ahead] = np.linalg.norm(
            _projected(found.cameras[image.camera_id], inside[ahead]) - pixels[ahead], axis=1
        )
    return RegisteredImage(
        str(image.name),
        cameras[int(image.camera_id)],
        int(image.camera_id),
        rotation,
        translation,
        int(image.num_points2D()) if callable(image.num_points2D) else int(image.num_points2D),
        which,
        from_colmap(pixels),
        errors,
    )


def _projected(camera: Any, inside: Array) -> Array:
    """(O, 2) px of points (O, 3) in the camera's frame; NaN for what it cannot see."""
    found = camera.img_from_cam(inside)
    if isinstance(found, list):  # some versions give None for what cannot be projected
        found = [(math.nan, math.nan) if each is None else each for each in found]
    projected: Array = np.asarray(found, np.float64).reshape(-1, 2)
    return projected
