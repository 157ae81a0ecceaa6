"""What a model is made of: whether its points are held by enough rays, and how far apart these are."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lightglue.sfm.colmap.models import cam_from_world, registered

__all__ = ["Shape", "has_likely_cameras", "is_of_pairs", "shape_of"]

Floats = NDArray[np.float64]

FEWEST_POINTS = 15  # that an image sees: as many as a geometry of two views takes
_SMALLEST_ANGLE = 1.0  # degrees between two rays, below which they hardly tell a depth; COLMAP's filter has 1.5
_NARROW = 3.0  # degrees; COLMAP begins with 16
_FLAT = 0.025  # of the extent of the points
_IN_PLANE = 0.8  # of the points of a flat model: wrong matches make up the others
_ROUNDS = 20
_SAMPLE = 5000  # points that are looked at, evenly
_FOCALS = (0.1, 10.0)  # of the longer edge: beyond, a focal length is made up, as for COLMAP
_MAX_DISTORTION = 1.0


@dataclass(frozen=True, eq=False)
class Shape:
    """A model in the figures that say how far it is to be believed."""

    images: tuple[int, ...]  # how many points each registered image sees
    pairs_only: bool  # no point is seen by more than two images
    points: Floats  # (P, 3), up to 5,000
    angles: Floats  # (P,) degrees, the widest between two rays of each

    @property
    def is_sound(self) -> bool:
        """Whether at least half of the images, and two, see enough points that two rays fix."""
        held = float((self.angles >= _SMALLEST_ANGLE).mean()) if len(self.angles) else 0.0
        enough = sum(held * count >= FEWEST_POINTS for count in self.images)
        return enough >= max(2, len(self.images) / 2)

    @cached_property
    def angle(self) -> float:
        """The median of the angles, degrees."""
        return float(np.median(self.angles)) if len(self.angles) else 0.0

    @property
    def is_narrow(self) -> bool:
        """Whether the cameras stood so close together that depths are uncertain."""
        return self.angle < _NARROW

    @cached_property
    def is_flat(self) -> bool:
        """Whether the points lie in a plane, but for outliers."""
        if len(self.points) < FEWEST_POINTS:
            return False
        count = int(_IN_PLANE * len(self.points))
        off = np.linalg.norm(self.points - np.median(self.points, axis=0), axis=1)
        for _ in range(_ROUNDS):  # least trimmed squares: each time a plane through those nearest to the one before
            kept = self.points[np.argsort(off, kind="stable")[:count]]
            axes = np.linalg.svd(kept - kept.mean(axis=0), full_matrices=False)[2]
            off = np.abs((self.points - kept.mean(axis=0)) @ axes[2])
        extent = np.quantile(np.abs((kept - kept.mean(axis=0)) @ axes[0]), 0.9)
        return bool(np.quantile(off, _IN_PLANE) <= _FLAT * extent)

    @property
    def remarks(self) -> tuple[str, ...]:
        """What a user of the model should know of it, in sentences."""
        unsure = "unless it was given"
        said = []
        if len(self.images) == 2:
            said.append(
                "The model is of two views: no third image confirms its points, so that wrong ones do not show, and "
                f"the focal length is uncertain {unsure}."
            )
        elif self.pairs_only:
            said.append(
                "No point is seen by more than two images: nothing confirms the points, and wrong ones do not show."
            )
        if self.is_flat:
            said.append(
                "The points lie in a plane: the focal length, and with it where the cameras stood, is uncertain "
                f"{unsure}."
            )
        if self.is_narrow:
            said.append(
                f"The images were taken close together: the rays to a point are {self.angle:.1f} degrees apart "
                "(median), and depths are uncertain."
            )
        return tuple(said)


def shape_of(model: Any) -> Shape:
    """The shape of a `pycolmap.Reconstruction`."""
    images = registered(model)
    centres = {}
    for image in images:
        T = cam_from_world(image)
        centres[image.image_id] = -T[:3, :3].T @ T[:3, 3]
    numbers = sorted(model.point3D_ids())
    some = [model.point3D(number) for number in numbers[:: -(-len(numbers) // _SAMPLE) or 1]]
    points = np.array([point.xyz for point in some], np.float64).reshape(-1, 3)
    seen_from = [
        [centres[each.image_id] for each in point.track.elements if each.image_id in centres] for point in some
    ]
    counts = np.array([len(each) for each in seen_from], np.int64)
    angles = np.zeros(len(points))
    for count in np.unique(counts[counts > 1]).tolist():  # all that as many images see at once
        rows = np.flatnonzero(counts == count)
        angles[rows] = _widest(np.array([seen_from[row] for row in rows]) - points[rows, None])
    return Shape(tuple(int(image.num_points3D) for image in images), is_of_pairs(model), points, angles)


def is_of_pairs(model: Any) -> bool:
    """Whether no point of a model is seen by more than two images, so that nothing confirms it."""
    return model.num_points3D() > 0 and float(model.compute_mean_track_length()) <= 2


def has_likely_cameras(model: Any, fixed: Collection[int] = ()) -> bool:
    """Whether the intrinsics that were estimated are those of some camera. fixed: the numbers of the known ones."""
    used = {image.camera_id for image in registered(model)}.difference(fixed)
    return not any(model.camera(number).has_bogus_params(*_FOCALS, _MAX_DISTORTION) for number in used)


def _widest(rays: Floats) -> Floats:
    """(P,) degrees between the two of the N rays of each point, (P, N, 3), that are farthest apart."""
    unit = rays / np.maximum(np.linalg.norm(rays, axis=2, keepdims=True), 1e-12)
    cosines = (unit @ unit.transpose(0, 2, 1)).min(axis=(1, 2))
    widest: Floats = np.degrees(np.arccos(np.clip(cosines, -1, 1)))
    return widest
