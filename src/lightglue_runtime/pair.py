"""What is known of a matched pair."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["MatchedPair"]


@dataclass(frozen=True, eq=False, repr=False)
class MatchedPair:
    """Two images' keypoints and their matches; the names are those of `lightglue.match_pair`."""

    features0: Mapping[str, NDArray[Any]]  # see `Extractor.extract`
    features1: Mapping[str, NDArray[Any]]
    matches01: Mapping[str, Any]  # see `Matcher.match`
    seconds: Mapping[str, float] = field(default_factory=dict)  # of load, extraction, matching

    @property
    def keypoints0(self) -> NDArray[np.float32]:
        """(M, 2) float32, x y, px of image 0 as it was given; the centre of its top-left pixel is (0, 0)."""
        return self.features0["keypoints"]

    @property
    def keypoints1(self) -> NDArray[np.float32]:
        """(N, 2) float32, px of image 1."""
        return self.features1["keypoints"]

    @property
    def matches(self) -> NDArray[np.int64]:
        """(K, 2) int64, rows of keypoints0 and keypoints1."""
        found: NDArray[np.int64] = self.matches01["matches"]
        return found

    @property
    def scores(self) -> NDArray[np.float32]:
        """(K,) float32 in [0, 1]."""
        found: NDArray[np.float32] = self.matches01["scores"]
        return found

    @property
    def points0(self) -> NDArray[np.float32]:
        """(K, 2) float32, px of image 0: the ends of the matches."""
        return self.keypoints0[self.matches[:, 0]]

    @property
    def points1(self) -> NDArray[np.float32]:
        """(K, 2) float32, px of image 1."""
        return self.keypoints1[self.matches[:, 1]]

    @property
    def stop(self) -> int:
        """The number of the matcher's layers that were run."""
        return int(self.matches01["stop"])

    @property
    def overlap(self) -> float | None:
        """The probability that both images show the same thing; None where it was not fitted for the features."""
        return float(self.matches01["overlap"]) if "overlap" in self.matches01 else None

    def arrays(self) -> dict[str, NDArray[Any]]:
        """The pair as files hold it, under the names of `lightglue match`."""
        sizes = [np.rint(features["image_size"]).astype(np.int64) for features in (self.features0, self.features1)]
        found: dict[str, Any] = {
            "keypoints0": self.keypoints0,
            "keypoints1": self.keypoints1,
            "matches": self.matches,
            "scores": self.scores,
            "points0": self.points0,
            "points1": self.points1,
            "image_size0": sizes[0],  # (2,) width height, px
            "image_size1": sizes[1],
            **self.numbers(),
        }
        return {name: np.asarray(value) for name, value in found.items()}

    def numbers(self) -> dict[str, float]:
        """stop and overlap, as far as they are known."""
        return {"stop": self.stop} | ({} if self.overlap is None else {"overlap": self.overlap})

    def __repr__(self) -> str:
        overlap = "" if self.overlap is None else f", overlap {self.overlap:.2f}"
        number = len(self.matches)
        counts = f"{len(self.keypoints0)} and {len(self.keypoints1)} keypoints"
        return f"{number} match{'es' * (number != 1)} of {counts}{overlap}"
