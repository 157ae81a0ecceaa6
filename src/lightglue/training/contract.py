"""What the parts of training hand to each other."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from lightglue.errors import InputError
from lightglue.stores.features import ImageFeatures

__all__ = ["IGNORED", "UNMATCHABLE", "Judge", "Judgement", "Sample", "Samples", "Truth"]

UNMATCHABLE = -1  # the keypoint has no partner in the other image
IGNORED = -2  # nothing is known: it is in the softmax' denominators, and in no sum of the loss


@dataclass(frozen=True, eq=False)
class Truth:
    """The true matches of a pair of M and N keypoints, seen from both images.

    Raises InputError for arrays that contradict each other: a match must be one from either side.
    """

    matches0: NDArray[np.int64]  # (M,) index in image 1, UNMATCHABLE or IGNORED
    matches1: NDArray[np.int64]  # (N,) index in image 0, likewise

    def __post_init__(self) -> None:
        for side, (own, other) in enumerate(((self.matches0, self.matches1), (self.matches1, self.matches0))):
            if own.ndim != 1 or own.dtype != np.int64:
                raise InputError(f"matches{side} is {own.dtype} {own.shape}; give int64 (N,).")
            if len(own) and (own.min() < IGNORED or own.max() >= len(other)):
                raise InputError(f"matches{side} lies in {own.min()}..{own.max()}; there are {len(other)} partners.")
            rows = np.flatnonzero(own >= 0)
            if not np.array_equal(other[own[rows]], rows):
                raise InputError(f"matches{side} is not what the other side says; a match is one from both sides.")

    @property
    def positives(self) -> NDArray[np.int64]:
        """(K, 2) rows of the matches, ordered by the first."""
        rows = np.flatnonzero(self.matches0 >= 0)
        return np.stack([rows, self.matches0[rows]], 1)

    def swapped(self) -> Truth:
        """That of the two images in the other order."""
        return Truth(self.matches1, self.matches0)


@dataclass(frozen=True, eq=False)
class Sample:
    """A pair of views and what is true of their keypoints."""

    views: tuple[str, str]  # names, for reports and errors
    features0: ImageFeatures
    features1: ImageFeatures
    truth: Truth  # of as many keypoints

    def __post_init__(self) -> None:
        counts = len(self.truth.matches0), len(self.truth.matches1)
        if counts != (len(self.features0), len(self.features1)):
            raise InputError(
                f"{' and '.join(self.views)} have {len(self.features0)} and {len(self.features1)} keypoints, "
                f"their truth {counts[0]} and {counts[1]}."
            )


class Samples(Protocol):
    """Pairs to learn from, each a pure function of the seed that this was made with and of its number.

    Any number of processes may hold one; what it gives depends on nothing else, so that a run can be resumed anywhere.
    """

    @property
    def feature_type(self) -> str:
        """That of all features, such as "aliked"."""
        ...

    @property
    def descriptor_dim(self) -> int:
        """Length of the descriptors."""
        ...

    @property
    def has_scale_ori(self) -> bool:
        """Whether all features have scales and orientations."""
        ...

    @property
    def epoch(self) -> int:
        """Number of samples after which all pairs were drawn once."""
        ...

    @property
    def fingerprint(self) -> str:
        """Digest of all that decides the samples: images, views, features, truth, seed."""
        ...

    def sample(self, k: int) -> Sample:
        """The k-th sample, k >= 0. Raises InputError or StoreError for what is damaged on the disk."""
        ...

    @property
    def num_validation(self) -> int:
        """Number of validation samples, of images (or scenes) that no `sample` shows."""
        ...

    def validation_sample(self, i: int) -> Sample:
        """The i-th validation sample, 0 <= i < `num_validation`, the same ones for every seed of a training run."""
        ...

    def picture(self, view: str) -> NDArray[Any]:
        """(H, W, 3) uint8 RGB of a view named in a sample; for reports."""
        ...


@dataclass(frozen=True)
class Judgement:
    """How good weights are on pairs that they were not trained on."""

    metric: str  # such as "pose AUC@5"
    value: float  # the more the better
    figures: Mapping[str, float] = field(default_factory=dict)  # others, for the report


class Judge(Protocol):
    """Decides which weights of a run are the best."""

    @property
    def every(self) -> int:
        """Steps between judgements; 0: at the end alone."""
        ...

    def __call__(self, weights: Path, step: int) -> Judgement:
        """Judge a weights file, the same one always alike. Raises LightGlueError where it cannot."""
        ...
