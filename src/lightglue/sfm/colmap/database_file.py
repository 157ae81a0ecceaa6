"""A COLMAP database that pycolmap has open."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lightglue.errors import LightGlueError, StoreError
from lightglue.geometry.colmap_cameras import camera_to_colmap
from lightglue.geometry.intrinsics import Intrinsics, to_colmap
from lightglue.sfm.colmap.with_pycolmap import RELEASE, pycolmap, quiet, short

__all__ = ["Database"]

_ROOM = 8 << 20  # bytes that must be free before something is written


class Database:
    """A COLMAP database that is open for writing. Raises StoreError, which names the file, for all that fails."""

    def __init__(self, path: Path) -> None:
        self.path = path
        _check_room(path)
        with self._named(), quiet():
            if RELEASE >= (3, 13):
                self._database: Any = pycolmap.Database.open(str(path))
            else:
                self._database = pycolmap.Database()
                self._database.open(str(path))

    def close(self) -> None:
        """Close it; after that it can be moved."""
        with self._named(), quiet():
            self._database.close()

    def __enter__(self) -> Database:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @contextmanager
    def writing(self) -> Iterator[None]:
        """For what is written together: COLMAP's log is still, and there is room for it.

        No transaction: COLMAP's, committed by a destructor, ends the process where the disk is full, and with its log
        written ahead and not synchronized SQLite is as fast without.
        """
        _check_room(self.path)
        with self._named(), quiet():
            yield

    def add_camera(self, camera_id: int, camera: Intrinsics) -> None:
        """Write a camera, and the rig that it is alone in."""
        made = camera_to_colmap(camera, camera_id)
        with self._named():
            self._database.write_camera(made, use_camera_id=True)
            if hasattr(self._database, "write_rig"):
                rig = pycolmap.Rig(rig_id=camera_id)
                rig.add_ref_sensor(_sensor(camera_id))
                self._database.write_rig(rig, use_rig_id=True)

    def add_image(self, image_id: int, name: str, camera_id: int, keypoints: NDArray[np.float32]) -> None:
        """Write an image, its frame and its keypoints (N, 2) px, (0, 0) being the centre of the top-left pixel."""
        with self._named():
            image = pycolmap.Image(name=name)
            image.camera_id, image.image_id = camera_id, image_id
            if hasattr(self._database, "write_frame"):
                frame = pycolmap.Frame(frame_id=image_id, rig_id=camera_id)
                frame.add_data_id(_datum(camera_id, image_id))
                self._database.write_frame(frame, use_frame_id=True)  # first: 4.x looks for it
                image.frame_id = image_id
            self._database.write_image(image, use_image_id=True)
            moved: Any = np.ascontiguousarray(to_colmap(keypoints.astype(np.float64)), dtype=np.float32)
            self._database.write_keypoints(image_id, moved.reshape(-1, 2))

    def put_matches(self, first: int, second: int, matches: NDArray[np.int32]) -> None:
        """Write the matches (K, 2) of two images replacing any that were there, and forget their geometry."""
        with self._named():
            self.remove_pair(first, second)
            self._database.write_matches(first, second, matches.astype(np.uint32))

    def remove_pair(self, first: int, second: int) -> None:
        """Forget the matches of two images and their geometry."""
        with self._named():
            if self._database.exists_matches(first, second):
                self._database.delete_matches(first, second)
            self.remove_geometry(first, second)

    def remove_geometry(self, first: int, second: int) -> None:
        """Forget the geometry of two images."""
        database = self._database
        with self._named():
            exists = getattr(database, "exists_two_view_geometry", None) or database.exists_inlier_matches
            remove = getattr(database, "delete_two_view_geometry", None) or database.delete_inlier_matches
            if exists(first, second):
                remove(first, second)

    def put_geometry(self, first: int, second: int, geometry: Any) -> None:
        """Write a `pycolmap.TwoViewGeometry` replacing any that was there."""
        with self._named():
            self.remove_geometry(first, second)
            self._database.write_two_view_geometry(first, second, geometry)

    def geometry(self, first: int, second: int) -> Any:
        """The `pycolmap.TwoViewGeometry` of two images."""
        with self._named():
            return self._database.read_two_view_geometry(first, second)

    def keypoints(self, image_id: int) -> NDArray[np.float64]:
        """(N, 2) px as COLMAP has them: the centre of the top-left pixel is (0.5, 0.5)."""
        with self._named():
            return np.asarray(self._database.read_keypoints(image_id), dtype=np.float64)[:, :2]

    def matches(self, first: int, second: int) -> NDArray[np.uint32]:
        """(K, 2)."""
        with self._named():
            return np.asarray(self._database.read_matches(first, second), dtype=np.uint32)

    def cameras(self) -> dict[int, Any]:
        """The `pycolmap.Camera` of each image, by the image's number."""
        with self._named():
            cameras = {camera.camera_id: camera for camera in self._database.read_all_cameras()}
            return {image.image_id: cameras[image.camera_id] for image in self._database.read_all_images()}

    @contextmanager
    def _named(self) -> Iterator[None]:
        """Raise what pycolmap says as a StoreError that names the file."""
        try:
            yield
        except LightGlueError:
            raise
        except (RuntimeError, ValueError, IndexError, OSError) as error:
            raise StoreError(
                f"{self.path} cannot be used ({short(error)}); see that there is room and that it may be written "
                "to, or, if it is damaged, remove it and make it again."
            ) from error


def _check_room(path: Path) -> None:
    """Raises StoreError where the disk is all but full: some versions end the process when it is."""
    try:
        free = shutil.disk_usage(path.absolute().parent).free
    except OSError:  # opening it will say so
        return
    if free < _ROOM:
        raise StoreError(
            f"{path} cannot be written: the disk has {free:,} bytes left; make room, or name another disk."
        )


def _sensor(camera_id: int) -> Any:
    sensor = pycolmap.sensor_t()
    sensor.type, sensor.id = pycolmap.SensorType.CAMERA, camera_id
    return sensor


def _datum(camera_id: int, image_id: int) -> Any:
    datum = pycolmap.data_t()
    datum.sensor_id, datum.id = _sensor(camera_id), image_id
    return datum
