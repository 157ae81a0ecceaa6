"""A map as numbers that a browser draws. Without torch, and no image is decoded.

Positions are in the map's own coordinates and unit. The binary points are float32 relative to
`scene.centre`, since a map of geographic coordinates is far from its origin.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lightglue.errors import ImageNotFoundError
from lightglue.geometry.cameras import Camera, as_camera
from lightglue.geometry.intrinsics import Intrinsics
from lightglue.sfm.colmap.model import Model, RegisteredImage
from lightglue.sfm.folder import MapFolder, MapRecord
from lightglue.sfm.report.scene import Scene, scene_of
from lightglue.sfm.skipped import told_once
from lightglue.support.printable import printable

__all__ = ["POINT_BYTES", "OpenMap", "image_plane"]

POINT_BYTES = 16  # x, y, z float32; red, green, blue, and the number of images that see it up to 255, uint8
_CELLS = 16  # of the mesh of a distorted image plane, each way
_STEEPEST = 4.0  # tangent beyond which the plane of a fisheye is not drawn


@dataclass(frozen=True, eq=False)
class OpenMap:
    """A map in memory. Images and points are known by their rows in `model`."""

    name: str
    version: str  # of the files; rows of another version mean something else
    paths: MapFolder
    record: MapRecord
    model: Model

    @property
    def size(self) -> int:
        """Bytes that it holds, about."""
        own = self.model.points.nbytes * 3
        return own + sum(image.points.nbytes * 4 for image in self.model.images)

    @cached_property
    def scene(self) -> Scene:
        """Which way is up, and where its middle is."""
        return scene_of(self.model)

    @cached_property
    def _seen_by(self) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
        """Rows of points, ascending, with the image and the observation in it that each is of."""
        points = [image.points for image in self.model.images]
        lengths = [len(each) for each in points]
        rows = np.concatenate([np.zeros(0, np.int64), *points])
        images = np.repeat(np.arange(len(points)), lengths)
        within = np.concatenate([np.zeros(0, np.int64), *map(np.arange, lengths)]).astype(np.int64)
        order = np.argsort(rows, kind="stable")
        return rows[order], images[order], within[order]

    def described(self) -> dict[str, Any]:
        """Cameras, images with poses, statistics, and how to look at it; arrays are flat."""
        model, scene = self.model, self.scene
        numbers = {key: row for row, key in enumerate(model.cameras)}
        return {
            "name": self.name,
            "version": self.version,
            "cameras": [_camera(camera) for camera in model.cameras.values()],
            "images": [self._image(image, numbers[image.camera_id]) for image in model.images],
            "points": len(model.points),
            "point_bytes": POINT_BYTES,
            "scene": {
                "axes": scene.axes.ravel().tolist(),
                "centre": scene.centre.tolist(),
                "extent": scene.extent,
                "camera_size": scene.camera_size,
            },
            "statistics": self._statistics(),
            "left_out": [{"name": each.name, "reason": printable(each.reason)} for each in self._left_out()],
            "has_report": self.paths.report.is_file(),
        }

    def _image(self, image: RegisteredImage, camera: int) -> dict[str, Any]:
        pose = np.column_stack([image.rotation, image.translation])
        return {
            "name": image.name,
            "camera": camera,
            "cam_from_world": pose.ravel().tolist(),
            "points": len(image.points),
            "error": _number(image.mean_error),
            "has_file": self._has_file(image.name),
        }

    def _statistics(self) -> dict[str, Any]:
        model = self.model
        images = sum(
            int(stage.counts.get("images", 0)) for name, stage in self.record.stages.items() if name == "extract"
        )
        return {
            "images": len(model.images),
            "images_in_all": max(images, len(model.images)),
            "points": len(model.points),
            "observations": model.num_observations,
            "mean_track_length": _number(model.mean_track_length),
            "mean_error": _number(model.mean_error),
            "other_models": len(self.paths.other_models()),
        }

    def _left_out(self) -> Sequence[Any]:
        stages: Mapping[str, Any] = self.record.stages
        return told_once([each for stage in stages.values() for each in stage.skipped if not each.is_used])

    def points(self) -> bytes:
        """`POINT_BYTES` for each point: float32 x, y, z from `scene.centre`, uint8 red, green, blue, images."""
        model = self.model
        found = np.zeros(len(model.points), [("position", "<f4", 3), ("colour", "u1", 3), ("images", "u1")])
        found["position"] = model.points - self.scene.centre
        found["colour"] = model.colours
        found["images"] = np.minimum(model.track_lengths, 255)
        return found.tobytes()

    def image_points(self, number: int) -> dict[str, Any]:
        """The points that an image sees, by their rows, and where it sees each. Raises IndexError."""
        image = self.model.images[_row(number, len(self.model.images))]
        return {"points": image.points.tolist(), "pixels": _rounded(image.pixels), "errors": _rounded(image.errors)}

    def point(self, number: int) -> dict[str, Any]:
        """A point: where it is, and where each of its images sees it. Raises IndexError."""
        row = _row(number, len(self.model.points))
        rows, images, within = self._seen_by
        begin, end = np.searchsorted(rows, [row, row + 1])
        seen = []
        for image, i in zip(images[begin:end].tolist(), within[begin:end].tolist(), strict=True):
            observed = self.model.images[image]
            seen.append({"image": image, "pixel": _rounded(observed.pixels[i]), "error": _number(observed.errors[i])})
        return {
            "position": self.model.points[row].tolist(),
            "colour": self.model.colours[row].tolist(),
            "error": _number(self.model.errors[row]),
            "images": seen,
        }

    def image_file(self, number: int) -> Path:
        """The file of an image. Raises IndexError; ImageNotFoundError where it is gone or not in the images' folder."""
        name = self.model.images[_row(number, len(self.model.images))].name
        path = self._place(name)
        if path is None or not path.is_file():
            raise ImageNotFoundError(f"The file of {printable(name)} is no longer where it was when the map was made.")
        return path

    def rows_of(self, point_ids: Sequence[int]) -> list[int]:
        """The rows of points that COLMAP's numbers name; -1 for those that are none of this model's."""
        rows = {number: row for row, number in enumerate(self.model.point_ids.tolist())}
        return [rows.get(number, -1) for number in point_ids]

    def _place(self, name: str) -> Path | None:
        """Where an image of this name lies; None for a name that leads out of the folder: models come from anywhere."""
        parts = PurePosixPath(name).parts
        is_within = bool(parts) and ".." not in parts and not PurePosixPath(name).is_absolute()
        if not is_within or PureWindowsPath(name).drive or "\0" in name:
            return None
        return self.record.images / name

    def _has_file(self, name: str) -> bool:
        path = self._place(name)
        return path is not None and path.is_file()


def image_plane(camera: Intrinsics | Camera, size: tuple[int, int]) -> list[float] | None:
    """Where a picture of (width, height) px lies one unit ahead of its camera, so that points are seen in their places.

    Flat x, y of (n + 1) x (n + 1) corners row by row, n = 1 for a lens without distortion. None for a lens whose
    picture is no plane.
    """
    if isinstance(camera, Intrinsics) and camera.is_panorama:
        return None
    known = as_camera(camera)
    cells = 1 if known.colmap is None else _CELLS
    x, y = (np.linspace(-0.5, edge - 0.5, cells + 1) for edge in size)
    corners = known.normalize(np.stack(np.meshgrid(x, y), axis=-1).reshape(-1, 2))
    if not np.isfinite(corners).all() or np.abs(corners).max() > _STEEPEST:
        return None
    plane: list[float] = _rounded(corners, 6)
    return plane


def _camera(camera: Intrinsics) -> dict[str, Any]:
    size = camera.width, camera.height
    return {
        "model": camera.model,
        "size": list(size),
        "params": list(camera.params),
        "focal": list(camera.focal),
        "plane": image_plane(camera, size),
    }


def _row(number: int, count: int) -> int:
    if not 0 <= number < count:
        raise IndexError(number)
    return number


def _number(value: float) -> float | None:
    """JSON has no NaN."""
    return float(value) if math.isfinite(value) else None


def _rounded(values: NDArray[Any], digits: int = 3) -> Any:
    """Flat numbers for JSON; None where one is not known."""
    flat = np.round(np.asarray(values, np.float64).ravel(), digits).tolist()
    return [None if each != each else each for each in flat]
