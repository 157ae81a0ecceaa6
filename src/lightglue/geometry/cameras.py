"""Cameras: from px to rays and back, with and without lens distortion.

A camera here is what the user has: a calibration matrix K (3, 3) whose (0, 0) is the centre of the top-left pixel, or
a `pycolmap.Camera` of any model, whose pixel centres are at +0.5. Distortion is COLMAP's own code.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lightglue.errors import InputError

__all__ = ["COLMAP_OFFSET", "Camera", "as_camera"]

COLMAP_OFFSET = 0.5  # px; COLMAP's position of the centre of the top-left pixel, on both axes


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

    def undistort(self, points: NDArray[np.float64]) -> NDArray[np.float64]:
        """Points (N, 2) px as the pinhole camera K would see them, px; NaN where the lens sees no ray."""
        if self.colmap is None or not len(points):
            return points
        rays = np.asarray(self.colmap.cam_from_img(points + COLMAP_OFFSET), dtype=np.float64)
        return np.asarray(rays @ self.K[:2, :2].T + self.K[:2, 2])

    def normalize(self, points: NDArray[np.float64]) -> NDArray[np.float64]:
        """Points (N, 2) px as directions (x/z, y/z), (N, 2)."""
        centred = self.undistort(points) - self.K[:2, 2]
        y = centred[:, 1] / self.K[1, 1]
        return np.stack([(centred[:, 0] - self.K[0, 1] * y) / self.K[0, 0], y], axis=1)

    def project(self, directions: NDArray[np.float64]) -> NDArray[np.float64]:
        """Directions (N, 2) (x/z, y/z) as px of the image, (N, 2): the opposite of `normalize`."""
        if self.colmap is not None and len(directions):
            rays = np.concatenate([directions, np.ones((len(directions), 1))], axis=1)
            return np.asarray(self.colmap.img_from_cam(rays), dtype=np.float64) - COLMAP_OFFSET
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
    (x, y), centre = scale, 0.5
    return np.array([[x, 0, centre * (x - 1)], [0, y, centre * (y - 1)], [0, 0, 1]])


def as_camera(camera: Any) -> Camera:
    """A `Camera` from one, from K (3, 3), or from a `pycolmap.Camera`.

    Raises InputError.
    """
    if isinstance(camera, Camera):
        return camera
    if hasattr(camera, "calibration_matrix") and hasattr(camera, "cam_from_img"):
        return _from_colmap(camera)
    return Camera(_as_array(camera))


def _as_array(matrix: ArrayLike | Any) -> Any:
    if isinstance(matrix, np.ndarray | list | tuple):
        return matrix
    if hasattr(matrix, "detach"):  # a tensor, on any device
        return matrix.detach().cpu().numpy()
    raise InputError(f"The camera is a {type(matrix).__name__}; give K (3, 3) or a pycolmap.Camera.")


def _from_colmap(camera: Any) -> Camera:
    """A `Camera` from a `pycolmap.Camera`; a lens without distortion needs pycolmap no more."""
    params = np.asarray(camera.params, dtype=np.float64)
    if not np.isfinite(params).all():
        raise InputError(f"The camera has the parameters {params.tolist()}; give finite ones.")
    try:
        K = np.array(camera.calibration_matrix(), dtype=np.float64)
    except ValueError:  # a panorama
        raise InputError(f"The camera is {camera.model.name}, which has no focal length; give one that has.") from None
    K[:2, 2] -= COLMAP_OFFSET
    has_lens = camera.model.name not in ("SIMPLE_PINHOLE", "PINHOLE")
    return Camera(K, camera if has_lens else None)
