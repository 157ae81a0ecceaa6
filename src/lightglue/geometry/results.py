"""What estimating gives: the model, the matches that agree with it, and how it came about."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from lightglue.geometry.cameras import Camera
from lightglue.geometry.options import EstimatorOptions

__all__ = ["Estimate", "Found", "Library", "Statistics"]

Floats = NDArray[np.float64]


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


class Found(NamedTuple):
    """What a library gives."""

    model: Floats
    inliers: NDArray[np.bool_] | None = None  # None: those within the threshold
    iterations: int | None = None


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
