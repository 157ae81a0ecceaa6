"""COLMAP models as pycolmap has them."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lightglue.errors import StoreError
from lightglue.geometry.colmap_cameras import camera_from_colmap
from lightglue.geometry.colmap_models import read_reconstruction
from lightglue.geometry.intrinsics import Intrinsics
from lightglue.sfm.colmap.model_files import check_checksums, check_model_files
from lightglue.sfm.colmap.with_pycolmap import quiet, short

__all__ = [
    "cam_from_world",
    "deregister",
    "image_camera",
    "open_model",
    "point_ids",
    "principal_points",
    "registered",
    "write_model",
]


_NO_POINT = 2**64 - 1  # COLMAP's number for none


def open_model(folder: Path, is_accepted: bool = False) -> Any:
    """The `pycolmap.Reconstruction` in a folder. Raises StoreError where there is none, or it is damaged.

    is_accepted: also one of a map that has other files than the map's stage wrote.
    """
    if not (folder / "images.bin").exists() and not (folder / "images.txt").exists():
        raise StoreError(f"There is no COLMAP model in {folder} (no images.bin); run the reconstruction first.")
    if not is_accepted:
        check_checksums(folder)
    try:
        check_model_files(folder)
        with quiet():
            return read_reconstruction(folder)
    except (RuntimeError, ValueError, IndexError, OSError, MemoryError) as error:
        raise StoreError(f"The model in {folder} is damaged ({short(error)}); reconstruct it again.") from error


def write_model(model: Any, folder: Path) -> None:
    """Write a model into a new folder. Raises StoreError for what COLMAP says, OSError for a folder that cannot be."""
    folder.mkdir(parents=True)
    try:
        with quiet():
            model.write(str(folder))
    except (RuntimeError, ValueError) as error:
        raise StoreError(f"{folder} cannot be written ({short(error)}); make room.") from error


def registered(model: Any) -> list[Any]:
    """The `pycolmap.Image`s of a model that have a pose, by name."""
    images = [model.image(number) for number in model.reg_image_ids()]
    return sorted(images, key=lambda image: str(image.name))


def deregister(model: Any, names: Collection[str]) -> None:
    """Take the poses of images out of a model, and the points that fewer than two others see."""
    for image in registered(model):
        if str(image.name) in names:
            if hasattr(model, "deregister_frame"):  # 3.12
                model.deregister_frame(image.frame_id)
            else:
                model.deregister_image(image.image_id)


def cam_from_world(image: Any) -> NDArray[np.float64]:
    """The pose T (4, 4) of a registered image, from the world to its camera."""
    pose = image.cam_from_world
    pose = pose() if callable(pose) else pose
    T = np.eye(4)
    T[:3] = pose.matrix()
    return T


def point_ids(image: Any) -> NDArray[np.int64]:
    """(N,), the point of the model that each keypoint of an image is of; -1 where it is of none."""
    points = np.array([point.point3D_id for point in image.points2D], np.uint64)
    ids: NDArray[np.int64] = np.where(points == _NO_POINT, 0, points).astype(np.int64)
    ids[points == _NO_POINT] = -1
    return ids


def image_camera(model: Any, image: Any) -> Intrinsics:
    """The camera of an image of a model, as we have it."""
    return camera_from_colmap(model.camera(image.camera_id), is_fixed=True)


def principal_points(model: Any) -> dict[int, tuple[float, float]]:
    """Of each camera of a model, px, COLMAP's convention."""
    found = {}
    for number, camera in model.cameras.items():
        x, y = camera.principal_point_idxs() if callable(camera.principal_point_idxs) else camera.principal_point_idxs
        found[number] = (float(camera.params[x]), float(camera.params[y]))
    return found
