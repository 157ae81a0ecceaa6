"""What a matcher or an extractor gave, in one form for the reference and for every kind of file."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["FoundFeatures", "FoundMatches"]


@dataclass(frozen=True, eq=False)
class FoundMatches:
    """Matches of one pair with M and N keypoints."""

    matches0: NDArray[np.int64]  # (M,) index into image 1 or -1
    scores0: NDArray[np.float32]  # (M,)
    stop: int | None = None  # None: the file does not say
    prune0: NDArray[np.int64] | None = None  # (M,)
    prune1: NDArray[np.int64] | None = None  # (N,)
    keypoints0: NDArray[np.float32] | None = None  # (M, 2) px, of pipelines, which have keypoints of their own
    keypoints1: NDArray[np.float32] | None = None  # (N, 2) px

    def pairs(self) -> dict[tuple[Any, ...], float]:
        """(index in image 0, index in image 1) -> score."""
        rows = np.flatnonzero(self.matches0 >= 0)
        return {(int(i), int(self.matches0[i])): float(self.scores0[i]) for i in rows}


@dataclass(frozen=True, eq=False)
class FoundFeatures:
    """Features of one image with K keypoints."""

    keypoints: NDArray[np.float32]  # (K, 2) px, the centre of the top-left pixel is (0, 0)
    scores: NDArray[np.float32]  # (K,)
    descriptors: NDArray[np.float32]  # (K, D)
