"""What estimating gives: the model, the matches that agree with it, and how it came about."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from lightglue.geometry.cameras import Camera
from lightglue.geometry.options import EstimatorOptions, Geometry

__all__ = ["Estimate", "Found", "Library", "Statistics", "unit_motion"]

Floats = NDArray[np.float64]
FEW = 0.5  # share of the matches below which a homography hardly explains the scene; of flat ones it is near 1


@dataclass(frozen=True)
class Statistics:
    """How an estimate came about."""

    num_matches: int
    num_inliers: int
    iterations: int | None  # None where the library does not say
    seconds: float
    options: EstimatorOptions
    failure: str | None = None  # why there is no model


@dataclass(frozen=True, eq=False)
class Estimate:
    """A model and the matches that agree with it."""

    model: Floats | None  # (3, 3), or (4, 4) for a relative pose; None where there is none
    inliers: NDArray[np.bool_]  # (K,)
    statistics: Statistics
    geometry: Geometry | None = None  # what was estimated

    def __str__(self) -> str:
        """One line: the motion of a relative pose, and how many matches agree."""
        name = (self.geometry or "model").replace("_", " ") + " matrix" * (
            self.geometry in ("fundamental", "essential")
        )
        found, options = self.statistics, self.statistics.options
        if self.model is None:
            return f"no {name}: {found.failure}"
        agree = f"{found.num_inliers} of {found.num_matches} matches agree within {options.pixels:g} px"
        if options.method == "dlt":
            agree = f"fitted to all {found.num_matches} matches"
        elif self.geometry == "homography" and found.num_inliers < FEW * found.num_matches:
            agree += "; few inliers for a homography: the scene is hardly flat"
        return f"{name}: {_motion(self.model)}{agree}" if self.geometry == "relative_pose" else f"{name}: {agree}"


def _motion(T: Floats) -> str:
    """A relative pose (4, 4) in words."""
    R, (x, y, z) = T[:3, :3], T[:3, 3]
    axis = np.array([R[2, 1] - R[1, 2], R[0, 2] - R[2, 0], R[1, 0] - R[0, 1]])  # 2 sin(angle) long
    angle = np.degrees(np.arctan2(np.linalg.norm(axis), np.trace(R) - 1))
    return f"rotation {angle:.1f}°, translation direction ({x:.2f}, {y:.2f}, {z:.2f}), scale unknown; "


class Found(NamedTuple):
    """What a library gives."""

    model: Floats
    inliers: NDArray[np.bool_] | None = None  # None: those within the threshold
    iterations: int | None = None


def unit_motion(R: Floats, t: Floats) -> Floats | None:
    """T (4, 4) of a rotation (3, 3) and a translation (3,), which gets length 1; None where it has no length."""
    length = np.linalg.norm(t)
    if not length > 0:
        return None
    T = np.eye(4)
    T[:3, :3], T[:3, 3] = R, t / length
    return T


class Library(Protocol):
    """A module that estimates. Points are (K, 2) px, enough of them; None where nothing was found."""

    def homography(self, points0: Floats, points1: Floats, options: EstimatorOptions) -> Found | None:
        """H (3, 3)."""

    def fundamental(self, points0: Floats, points1: Floats, options: EstimatorOptions) -> Found | None:
        """F (3, 3)."""

    def relative_pose(
        self, points0: Floats, points1: Floats, camera0: Camera, camera1: Camera, options: EstimatorOptions
    ) -> Found | None:
        """T (4, 4), unit translation, from points without distortion."""
