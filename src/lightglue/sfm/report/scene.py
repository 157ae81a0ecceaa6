"""How a model lies in space: which way is up, where its middle is, how large it and its cameras are to be drawn."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lightglue.sfm.colmap.model import Model

__all__ = ["Scene", "camera_corners", "scene_of"]

Array = NDArray[np.float64]
_NEAR = 0.3  # how evenly the images must look one way for that way to count as ahead


@dataclass(frozen=True, eq=False)
class Scene:
    """Directions and sizes of a model, for whoever draws it. In the model's own coordinates and unit."""

    axes: Array  # (3, 3), rows are unit vectors: to the right, ahead, up
    centre: Array  # (3,) of what is drawn
    extent: float  # radius of a ball around the centre with the cameras and all but stray points
    shown: NDArray[np.bool_]  # (P,) points that are no strays
    camera_size: float  # distance from a camera's centre to its drawn image plane

    def rotated(self, points: Array) -> Array:
        """Points (N, 3) along the axes, from the centre: to the right, ahead, up."""
        rotated: Array = (points - self.centre) @ self.axes.T
        return rotated


def scene_of(model: Model) -> Scene:
    """Where things are, guessed from the cameras and robustly from the points."""
    centres = model.centres
    up = _up(model)
    shown = _without_strays(model.points, centres)
    seen = np.concatenate([model.points[shown], centres])
    axes = _axes(up, _looking(model), seen)
    if len(seen) == 0:
        return Scene(axes, np.zeros(3), 1.0, shown, 0.1)
    rotated = seen @ axes.T
    low, high = np.percentile(rotated, [1, 99], axis=0)
    stood = centres @ axes.T if len(centres) else rotated
    low, high = np.minimum(low, stood.min(axis=0)), np.maximum(high, stood.max(axis=0))
    extent = float(np.linalg.norm(high - low) / 2) or 1.0
    return Scene(axes, (low + high) / 2 @ axes, extent, shown, _camera_size(centres, extent))


def camera_corners(model: Model, size: float) -> Array:
    """(I, 5, 3) in space for each camera: its centre, then the corners of an image plane `size` ahead of it."""
    found = np.zeros((len(model.images), 5, 3))
    for i, image in enumerate(model.images):
        camera = image.camera
        x, y = (min(edge / 2 / f, 2.0) for edge, f in zip((camera.width, camera.height), camera.focal, strict=True))
        plane = size * np.array([(0, 0, 0), (-x, -y, 1), (x, -y, 1), (x, y, 1), (-x, y, 1)])
        found[i] = plane @ image.rotation + image.centre
    return found


def _looking(model: Model) -> Array:
    """(I, 3) unit vectors along which the images were taken."""
    return np.stack([image.rotation[2] for image in model.images]) if model.images else np.zeros((0, 3))


def _up(model: Model) -> Array:
    """(3,) away from the ground, if people and drones took the images.

    Whoever holds a camera keeps its horizon level, however it is tilted: up is across all x axes. Where these leave it
    open, since all images look one way, up is what the images' tops point to on average.
    """
    if not model.images:
        return np.array([0.0, -1.0, 0.0])
    across = np.stack([image.rotation[0] for image in model.images])
    tops = -np.stack([image.rotation[1] for image in model.images])
    top = tops.mean(axis=0)
    weights = np.ones(len(across))
    up = top
    for _ in range(5):  # portraits are rotated by a quarter: what does not agree counts less and less
        spread = (across * weights[:, None]).T @ across / weights.sum() - 0.05 * np.outer(top, top)
        up = np.linalg.eigh(spread)[1][:, 0]
        weights = 1 / (0.05 + np.abs(across @ up))
    sign = float(up @ top)
    if abs(sign) < 0.1:  # seen from above, tops point everywhere along the ground
        sign = -float(up @ _looking(model).mean(axis=0))
    found: Array = up if sign >= 0 else -up
    return found


def _without_strays(points: Array, centres: Array) -> NDArray[np.bool_]:
    """(P,) which points are not far off. A few wrong ones may lie a thousand times farther than all others."""
    if len(points) == 0:
        return np.zeros(0, np.bool_)
    middle = np.median(np.concatenate([points, centres]), axis=0)
    away = np.linalg.norm(points - middle, axis=1)
    far = 2.5 * float(np.percentile(away, 90))
    if len(centres):
        far = max(far, float(np.linalg.norm(centres - middle, axis=1).max()))
    shown: NDArray[np.bool_] = away <= far
    return shown


def _axes(up: Array, looking: Array, seen: Array) -> Array:
    """(3, 3): to the right, ahead, up. Ahead is where most images look; else across the scene's longest side."""
    ahead = looking.mean(axis=0) if len(looking) else np.zeros(3)
    level = ahead - up * (up @ ahead)
    if np.linalg.norm(level) < _NEAR:
        flat = seen - seen.mean(axis=0) if len(seen) else np.zeros((1, 3))
        flat = flat - np.outer(flat @ up, up)
        longest = np.linalg.eigh(flat.T @ flat)[1][:, 2]
        level = np.cross(up, longest)
    if np.linalg.norm(level) == 0:  # a single point, or all along the vertical
        level = np.cross(up, np.eye(3)[np.abs(up).argmin()])
    level = level / np.linalg.norm(level)
    return np.stack([np.cross(level, up), level, up])


def _camera_size(centres: Array, extent: float) -> float:
    """So that neighbours do not overlap, but neither too small to be seen nor larger than the scene."""
    smallest, largest = 0.02 * extent, 0.12 * extent
    if len(centres) < 2:
        return largest
    some = centres[:: max(1, len(centres) // 500)]
    away = np.linalg.norm(some[:, None] - some[None], axis=2)
    away[np.diag_indices(len(some))] = np.inf
    return float(np.clip(0.6 * np.median(away.min(axis=1)), smallest, largest))
