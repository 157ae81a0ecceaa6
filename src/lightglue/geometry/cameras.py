"""Cameras: from px to rays and back, with and without lens distortion.

A camera here is what the user has: a calibration matrix K (3, 3) whose (0, 0) is the centre of the top-left pixel, or
`Intrinsics` of any of COLMAP's models, or a `pycolmap.Camera`. Distortion is COLMAP's own code.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lightglue.errors import InputError
from lightglue.geometry.intrinsics import Intrinsics, from_colmap, to_colmap

__all__ = ["Camera", "as_camera", "scaling"]


@dataclass(frozen=True, eq=False)
class Camera:
    """A camera whose points can be laid out as a pinhole's.

    Raises InputError for a matrix that is no calibration.
    """

    K: NDArray[np.float64]  # (3, 3), px; (0, 0) is the centre of the top-left pixel
    colmap: Any = None  # pycolmap.Camera where the lens distorts

    def __post_init__(self) -> None:
        try:
            K = np.array(self.K, dtype=np.float64)
        except (TypeError, ValueError, OverflowError):
            raise InputError(f"K is {self.K!r:.80}; give a calibration matrix (3, 3) in px.") from None
        if K.shape != (3, 3) or not np.isfinite(K).all():
            raise InputError(f"K is {K.tolist()}; give a calibration matrix (3, 3) of finite numbers, in px.")
        if K[0, 0] <= 0 or K[1, 1] <= 0 or np.abs(K[2] - (0, 0, 1)).max() > 1e-9 or K[1, 0] != 0:
            raise InputError(f"K is {K.tolist()}; focal lengths must be above 0 and the last row 0 0 1.")
        object.__setattr__(self, "K", K)

    @property
    def focal(self) -> float:
        """Mean focal length, px."""
        return float((self.K[0, 0] + self.K[1, 1]) / 2)

    @property
    def pinhole(self) -> tuple[float, float, float, float]:
        """Focal lengths and principal point, fx fy cx cy, px: K without its skew."""
        return float(self.K[0, 0]), float(self.K[1, 1]), float(self.K[0, 2]), float(self.K[1, 2])

    def undistort(self, points: NDArray[np.float64]) -> NDArray[np.float64]:
        """Points (N, 2) px as the pinhole camera K would see them, px; NaN where the lens sees no ray."""
        if self.colmap is None or not len(points):
            return points
        rays = np.asarray(self.colmap.cam_from_img(to_colmap(points)), dtype=np.float64)
        return np.asarray(rays @ self.K[:2, :2].T + self.K[:2, 2])

    def normalize(self, points: NDArray[np.float64]) -> NDArray[np.float64]:
        """Points (N, 2) px as directions (x/z, y/z), (N, 2)."""
        centred = self.undistort(points) - self.K[:2, 2]
        y = centred[:, 1] / self.K[1, 1]
        return np.stack([(centred[:, 0] - self.K[0, 1] * y) / self.K[0, 0], y], axis=1)

    def unskewed(self, points: NDArray[np.float64]) -> NDArray[np.float64]:
        """Points (N, 2) px as the camera `pinhole` would see them, px: libraries know neither lens nor skew."""
        return np.asarray(self.normalize(points) * self.pinhole[:2] + self.pinhole[2:])

    def project(self, directions: NDArray[np.float64]) -> NDArray[np.float64]:
        """Directions (N, 2) (x/z, y/z) as px of the image, (N, 2): the opposite of `normalize`."""
        if self.colmap is not None and len(directions):
            rays = np.concatenate([directions, np.ones((len(directions), 1))], axis=1)
            return from_colmap(np.asarray(self.colmap.img_from_cam(rays), dtype=np.float64))
        return np.asarray(directions @ self.K[:2, :2].T + self.K[:2, 2])

    def scaled(self, scale: tuple[float, float]) -> Camera:
        """The camera of the image resized by `scale` (x, y): pixel areas, not pixel centres, are scaled."""
        S = scaling(scale)
        colmap = None
        if self.colmap is not None:
            colmap = type(self.colmap)(self.colmap.todict())
            colmap.rescale(max(1, round(colmap.width * scale[0])), max(1, round(colmap.height * scale[1])))
        return Camera(S @ self.K, colmap)


def scaling(scale: tuple[float, float]) -> NDArray[np.float64]:
    """What resizing by `scale` (x, y) does to px whose (0, 0) is the centre of the top-left pixel, (3, 3)."""
    (x, y), (x0, y0) = scale, (from_colmap(to_colmap(0.0) * factor) for factor in scale)
    return np.array([[x, 0, x0], [0, y, y0], [0, 0, 1]])


def as_camera(camera: Any) -> Camera:
    """A `Camera` from one, from K (3, 3), from `Intrinsics`, or from a `pycolmap.Camera`.

    Raises InputError; another LightGlueError where the lens distorts and pycolmap is not installed.
    """
    if isinstance(camera, Camera):
        return camera
    if isinstance(camera, Intrinsics):
        return _from_intrinsics(camera)
    if hasattr(camera, "calibration_matrix") and hasattr(camera, "cam_from_img"):
        return _from_colmap(camera)
    matrix: Any = camera.detach().cpu().numpy() if hasattr(camera, "detach") else camera
    if not isinstance(matrix, np.ndarray | list | tuple):
        raise InputError(f"The camera is a {type(matrix).__name__}; give K (3, 3) or a pycolmap.Camera.")
    return Camera(matrix)  # type: ignore[arg-type]  # which it checks


def _from_intrinsics(camera: Intrinsics) -> Camera:
    if camera.model in ("SIMPLE_PINHOLE", "PINHOLE"):
        (fx, fy), named = camera.focal, camera.named
        return Camera(np.array([[fx, 0, named["cx"]], [0, fy, named["cy"]], [0, 0, 1]]))
    from lightglue.geometry.colmap_cameras import camera_to_colmap  # lenses alone need pycolmap

    return _from_colmap(camera_to_colmap(camera))


def _from_colmap(camera: Any) -> Camera:
    """A `Camera` from a `pycolmap.Camera`; a lens without distortion needs pycolmap no more."""
    params = np.asarray(camera.params, dtype=np.float64)
    if not np.isfinite(params).all():
        raise InputError(f"The camera has the parameters {params.tolist()}; give finite ones.")
    try:
        K = np.array(camera.calibration_matrix(), dtype=np.float64)
    except ValueError:  # a panorama
        raise InputError(f"The camera is {camera.model.name}, which has no focal length; give one that has.") from None
    K[:2, 2] = from_colmap(K[:2, 2])
    has_lens = camera.model.name not in ("SIMPLE_PINHOLE", "PINHOLE")
    return Camera(K, camera if has_lens else None)
