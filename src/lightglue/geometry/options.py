"""How a model is estimated from matches, and how matches are refined. Importing it loads neither torch nor numpy."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal, get_args

from lightglue.errors import InputError
from lightglue.options import option
from lightglue.support.checks import check_int, is_int, is_real

__all__ = ["METHODS", "THRESHOLD", "THRESHOLD_OF_HOMOGRAPHIES", "EstimatorOptions", "Method", "RefineOptions"]

Method = Literal["poselib", "opencv", "pycolmap", "dlt"]
METHODS: tuple[Method, ...] = get_args(Method)
THRESHOLD = 1.0  # px, for epipolar geometry
THRESHOLD_OF_HOMOGRAPHIES = 2.0  # px; docs/decisions/013-geometry.md has the figures
_LARGEST_SEED = 2**31 - 1


@dataclass(frozen=True)
class EstimatorOptions:
    """Which estimator, and how hard it tries. The same options on the same points give the same result."""

    method: Method = "poselib"  # opencv is USAC with MAGSAC++; dlt, for homographies only, is not robust
    threshold: float | None = None  # px; the error up to which a match is an inlier. None: 1, for homographies 2
    max_iterations: int = 10_000
    confidence: float = 0.9999  # stop early once a better model is less likely than 1 minus this
    seed: int = 0

    def __post_init__(self) -> None:
        if self.method not in METHODS:
            raise InputError(f"The estimator's method is {self.method!r}; choose one of {', '.join(METHODS)}.")
        if self.threshold is not None and not (is_real(self.threshold, 0) and self.threshold > 0):
            raise InputError(f"The estimator's threshold is {self.threshold!r}; give a number of px above 0.")
        if not is_int(self.max_iterations, 1, 10**9):
            raise InputError(f"max_iterations is {self.max_iterations!r}; give an integer from 1 to 1e9.")
        if not (is_real(self.confidence, 0, 1) and 0 < self.confidence < 1):
            raise InputError(f"The estimator's confidence is {self.confidence!r}; give a number between 0 and 1.")
        if not is_int(self.seed, 0, _LARGEST_SEED):
            raise InputError(f"The estimator's seed is {self.seed!r}; give an integer from 0 to {_LARGEST_SEED}.")

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
        for name, least in (("window", 3), ("neighbors", 3), ("iterations", 1), ("rounds", 1)):
            check_int(name, getattr(self, name), least, f"an integer of at least {least}")
        if self.window % 2 == 0:
            raise InputError(f"window is {self.window}; give an odd number of px, so that a pixel is in its middle.")
        for name in ("sigma", "max_shift", "max_deviation", "max_residual", "tolerance"):
            value = getattr(self, name)
            if not is_real(value, 0) or value <= 0:
                raise InputError(f"{name} is {value!r}; give a positive number of px.")
