"""What is known of a matched pair: the one record, and the one place that unpacks what a matcher gives."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple, TypedDict, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lightglue.containers import batch_to_device, rbd
from lightglue.errors import InputError
from lightglue.geometry.results import Estimate
from lightglue.matching.effort import EffortRecord
from lightglue.pairs.cameras import KnownCamera
from lightglue.types import Features

__all__ = ["LIKELY", "MatchedPair", "PairFeatures", "PairMatches", "geometry_numbers", "matches_of"]

LIKELY = 0.5  # overlap below which the images probably show different things


class _RequiredPairFeatures(TypedDict):
    keypoints: Tensor  # (N, 2) float32, x y, px of the original image
    descriptors: Tensor  # (N, D) float32


class PairFeatures(_RequiredPairFeatures, total=False):
    """The features of one image: `Features` without batch dimension."""

    keypoint_scores: Tensor  # (N,) float32
    image_size: Tensor  # (2,) float32, width height, px
    scales: Tensor  # (N,) float32, px (SIFT-like features only)
    oris: Tensor  # (N,) float32, radians (SIFT-like features only)


class PairMatches(TypedDict, total=False):
    """The matches of one pair of M and N keypoints: what the matcher gives without batch dimension, and what follows.

    A matcher of the user's own may give less, and other keys.
    """

    matches0: Tensor  # (M,) int64, index into image 1 or -1
    matches1: Tensor  # (N,) int64
    matching_scores0: Tensor  # (M,) float32 in [0, 1]
    matching_scores1: Tensor  # (N,) float32
    matches: Tensor  # (K, 2) int64, index in image 0, index in image 1
    scores: Tensor  # (K,) float32
    stop: int  # number of layers run
    prune0: Tensor  # (M,) number of layers that each keypoint went through
    prune1: Tensor  # (N,)
    overlap: Tensor  # () float32, the probability that both images show the same thing
    points0: Tensor  # (K, 2) float32, px: the matched keypoints, row by row, or their refined positions
    points1: Tensor  # (K, 2)
    rotation: float  # with auto_rotate: degrees, clockwise, by which image 1 was rotated to match image 0
    geometry: Estimate  # where one was asked for
    inliers: Tensor  # (K,) bool, likewise
    effort: EffortRecord  # what was done, with an effort other than the usual one
    cameras: tuple[KnownCamera, KnownCamera]  # for a calibrated geometry, and how each is known


def matches_of(result: Mapping[str, Any], device: str | torch.device = "cpu") -> PairMatches:
    """What a matcher gives for one pair, its batch of one removed, on `device`."""
    return cast(PairMatches, batch_to_device(rbd(result), device))


class MatchedPair(NamedTuple):
    """Two images' features and their matches: unpacked as published, `feats0, feats1, matches01 = match_pair(...)`.

    Printed, it says in two lines what was found.
    """

    features0: PairFeatures
    features1: PairFeatures
    matches01: PairMatches

    @classmethod
    def of(
        cls,
        features0: Features | Mapping[str, Any],
        features1: Features | Mapping[str, Any],
        result: Mapping[str, Any],
        device: str | torch.device = "cpu",
    ) -> MatchedPair:
        """The record of one pair on `device`: features with batch dimension, and what the matcher gives for them."""
        first, second = (cast(PairFeatures, batch_to_device(rbd(each), device)) for each in (features0, features1))
        found = matches_of(result, device)
        if "matches" in found:  # a matcher of the user's own may do without
            found["points0"] = first["keypoints"][found["matches"][..., 0]]
            found["points1"] = second["keypoints"][found["matches"][..., 1]]
        return cls(first, second, found)

    @property
    def keypoints0(self) -> Tensor:
        """(M, 2) float32, x y, px of image 0."""
        return self.features0["keypoints"]

    @property
    def keypoints1(self) -> Tensor:
        """(N, 2) float32, x y, px of image 1."""
        return self.features1["keypoints"]

    @property
    def matches(self) -> Tensor:
        """(K, 2) int64, rows of keypoints0 and keypoints1. Raises InputError where the matcher gives none."""
        if "matches" not in self.matches01:
            raise InputError("The matcher gives no `matches`, which refine and geometry need; leave them out.")
        return self.matches01["matches"]

    @property
    def scores(self) -> Tensor:
        """(K,) float32 in [0, 1]."""
        return self.matches01["scores"]

    @property
    def points0(self) -> Tensor:
        """(K, 2) float32, px of image 0: the ends of the matches, refined where that was asked for."""
        return self.matches01["points0"]

    @property
    def points1(self) -> Tensor:
        """(K, 2) float32, px of image 1."""
        return self.matches01["points1"]

    @property
    def overlap(self) -> float | None:
        """The probability that both images show the same thing; None where the matcher does not say."""
        return float(self.matches01["overlap"]) if "overlap" in self.matches01 else None

    @property
    def stop(self) -> int | None:
        """The number of the matcher's layers that were run; None where it has none."""
        return int(self.matches01["stop"]) if "stop" in self.matches01 else None

    @property
    def rotation(self) -> float | None:
        """Degrees, clockwise, by which image 1 was rotated to match image 0; None without auto_rotate."""
        return float(self.matches01["rotation"]) if "rotation" in self.matches01 else None

    @property
    def effort(self) -> EffortRecord | None:
        """What was done for the pair; None with the usual effort."""
        return self.matches01.get("effort")

    @property
    def geometry(self) -> Estimate | None:
        """What was estimated of the geometry; None where none was asked for."""
        return self.matches01.get("geometry")

    @property
    def inliers(self) -> Tensor | None:
        """(K,) bool: the matches that agree with the geometry; None where none was asked for."""
        return self.matches01.get("inliers")

    def with_matches(self, **changes: Any) -> MatchedPair:
        """The same with other values in `matches01`."""
        return self._replace(matches01=cast(PairMatches, {**self.matches01, **changes}))

    def arrays(self) -> dict[str, NDArray[Any]]:
        """The pair as NumPy arrays, as files hold it."""
        found: dict[str, Any] = {
            "keypoints0": self.keypoints0,
            "keypoints1": self.keypoints1,
            "matches": self.matches,
            "scores": self.scores,
            "points0": self.points0,
            "points1": self.points1,
            "inliers": self.inliers,
            "model": None if self.geometry is None else self.geometry.model,
        }
        for i, features in enumerate((self.features0, self.features1)):
            size = features.get("image_size")
            found[f"image_size{i}"] = None if size is None else size.round().long()  # (2,) width height, px
        found |= self.numbers()
        return {name: _as_array(value) for name, value in found.items() if value is not None}

    def numbers(self) -> dict[str, float]:
        """stop (layers run), overlap and rotation, as far as they are known."""
        known = {"stop": self.stop, "overlap": self.overlap, "rotation": self.rotation}
        return {name: value for name, value in known.items() if value is not None}

    def __repr__(self) -> str:
        return str(self)

    def __str__(self) -> str:
        counts = f"of {len(self.keypoints0)} and {len(self.keypoints1)} keypoints"
        if "matches" not in self.matches01:
            return f"A matcher's own result {counts}:\n{', '.join(self.matches01) or 'nothing'}"
        number, overlap = len(self.matches), self.overlap
        first = f"{number} match{'es' * (number != 1)}"
        if overlap is None:
            first = f"{first} {counts}"
        elif overlap < LIKELY:
            first += f", but the images probably do not overlap ({overlap:.2f})"
        else:
            first = f"{first} {counts}, overlap {overlap:.2f}"
        return f"{first}\n{self._second_line()}"

    def _second_line(self) -> str:
        rotated = f"image 1 rotated by {self.rotation:g}° clockwise; " if self.rotation else ""
        if self.geometry is not None:
            guessed = [i for i, known in enumerate(self.matches01.get("cameras", ())) if known.source == "guessed"]
            note = "; both focal lengths are guessed" if len(guessed) > 1 else ""
            if len(guessed) == 1:
                note = f"; the focal length of image {guessed[0]} is guessed"
            return f"{rotated}{self.geometry}{note}"
        if not len(self.matches) or "scores" not in self.matches01:
            return f"{rotated}no scores"
        low, high = self.scores.min().item(), self.scores.max().item()
        return f"{rotated}scores from {low:.2f} to {high:.2f}, positions in px of the images as they were given"


def geometry_numbers(pair: MatchedPair) -> dict[str, Any]:
    """What is known of the geometry of a pair, as JSON holds it; nothing where none was asked for."""
    estimate = pair.geometry
    if estimate is None:
        return {}
    found: dict[str, Any] = {"geometry": estimate.geometry, "estimator": estimate.statistics.options.label}
    if "cameras" in pair.matches01:
        found["cameras"] = [{"K": each.K, "source": each.source} for each in pair.matches01["cameras"]]
    found["num_inliers"] = estimate.statistics.num_inliers
    found["model"] = None if estimate.model is None else estimate.model.tolist()
    if estimate.statistics.failure:
        found["failure"] = estimate.statistics.failure
    return found


def _as_array(value: Any) -> NDArray[Any]:
    return value.cpu().numpy() if isinstance(value, Tensor) else np.asarray(value)
