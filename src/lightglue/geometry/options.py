"""How a model is estimated from matches, and how matches are refined. Importing it loads neither torch nor numpy."""

from __future__ import annotations

import math
import sys
from dataclasses import dataclass, replace
from typing import Literal, get_args

from lightglue.errors import InputError
from lightglue.options import option
from lightglue.support.checks import check_between, check_choice, check_int, check_integers, check_real

__all__ = [
    "CALIBRATED",
    "GEOMETRIES",
    "LARGEST_SEED",
    "METHODS",
    "ROBUST_METHODS",
    "THRESHOLD",
    "THRESHOLD_OF_HOMOGRAPHIES",
    "EstimatorOptions",
    "Geometry",
    "Method",
    "RefineOptions",
    "RobustMethod",
]

Geometry = Literal["homography", "fundamental", "essential", "relative_pose"]
GEOMETRIES: tuple[Geometry, ...] = get_args(Geometry)
CALIBRATED: tuple[Geometry, ...] = ("essential", "relative_pose")  # those that need cameras
RobustMethod = Literal["poselib", "opencv", "pycolmap"]
ROBUST_METHODS: tuple[RobustMethod, ...] = get_args(RobustMethod)
Method = Literal[RobustMethod, "dlt"]
METHODS: tuple[Method, ...] = get_args(Method)
THRESHOLD = 1.0  # px, for epipolar geometry
THRESHOLD_OF_HOMOGRAPHIES = 2.0  # px; docs/decisions/013-geometry.md has the figures
LARGEST_SEED = 2**31 - 1


@dataclass(frozen=True)
class EstimatorOptions:
    """Which estimator, and how hard it tries. The same options on the same points give the same result."""

    method: Method = "poselib"  # opencv is USAC with MAGSAC++; dlt, for homographies only, is not robust
    threshold: float | None = None  # px; the error up to which a match is an inlier. None: 1, for homographies 2
    max_iterations: int = 10_000
    confidence: float = 0.9999  # stop early once a better model is less likely than 1 minus this
    seed: int = 0

    def __post_init__(self) -> None:
        check_choice("The estimator's method", self.method, METHODS)
        if self.threshold is not None:
            check_real("The estimator's threshold", self.threshold, "a number of px above 0", sys.float_info.min)
        check_int("max_iterations", self.max_iterations, 1, "an integer from 1 to 1e9", 10**9)
        below_1 = 1 - sys.float_info.epsilon
        check_real(
            "The estimator's confidence", self.confidence, "a number between 0 and 1", sys.float_info.min, below_1
        )
        check_int("The estimator's seed", self.seed, 0, f"an integer from 0 to {LARGEST_SEED}", LARGEST_SEED)

    @property
    def label(self) -> str:
        """The name in tables: `poselib@1`, `opencv@0.5`, `dlt`."""
        return self.method if self.method == "dlt" or self.threshold is None else f"{self.method}@{self.threshold:g}"

    @property
    def pixels(self) -> float:
        """The threshold as a number, px."""
        return THRESHOLD if self.threshold is None else self.threshold

    def settled(self, usual: float) -> EstimatorOptions:
        """The options with a threshold: `usual` px where there is none."""
        return self if self.threshold is not None else replace(self, threshold=usual)


@dataclass(frozen=True)
class RefineOptions:
    """How matched points are refined. Raises InputError."""

    window: int = option(21, "px of image 0, odd: edge of the window that is aligned.")
    sigma: float = option(5.0, "px: standard deviation of the weights of the window's pixels.")
    neighbors: int = option(12, "Matches that the local affine map is fitted to, besides the match itself.")
    max_shift: float = option(6.0, "px of image 1: a point that moves farther stays.")
    max_deviation: float = option(0.4, "px of image 1: a point whose position is less certain stays.")
    max_residual: float = option(1.0, "px of image 1, from where its neighbours see it: a point beyond stays.")
    iterations: int = option(15, "At most, in each round.")
    tolerance: float = option(0.05, "px of image 0: a point whose step is shorter has converged.")
    rounds: int = option(2, "The maps of the second are fitted to the points that the first refined.")

    def __post_init__(self) -> None:
        check_integers(self, window=3, neighbors=3, iterations=1, rounds=1)
        if self.window % 2 == 0:
            raise InputError(f"window is {self.window}; give an odd number of px, so that a pixel is in its middle.")
        lengths = ("sigma", "max_shift", "max_deviation", "max_residual", "tolerance")
        check_between(self, "of px ", **dict.fromkeys(lengths, math.inf))
