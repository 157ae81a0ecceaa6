"""How a model is estimated from matches: the options that every estimator takes."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Literal, get_args

from lightglue.errors import InputError

__all__ = ["METHODS", "THRESHOLD", "THRESHOLD_OF_HOMOGRAPHIES", "EstimatorOptions", "Method"]

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
        if self.threshold is not None and not (_is_number(self.threshold) and 0 < self.threshold < math.inf):
            raise InputError(f"The estimator's threshold is {self.threshold!r}; give a number of px above 0.")
        if not (_is_integer(self.max_iterations) and 1 <= self.max_iterations <= 10**9):
            raise InputError(f"max_iterations is {self.max_iterations!r}; give an integer from 1 to 1e9.")
        if not (_is_number(self.confidence) and 0 < self.confidence < 1):
            raise InputError(f"The estimator's confidence is {self.confidence!r}; give a number between 0 and 1.")
        if not (_is_integer(self.seed) and 0 <= self.seed <= _LARGEST_SEED):
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


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _is_integer(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)
