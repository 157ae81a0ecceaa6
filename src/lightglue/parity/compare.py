"""From two outcomes to their differences, and from differences and limits to what is wrong: pure functions."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lightglue.parity.limits import FEW, Limits
from lightglue.parity.outcome import FoundFeatures, FoundMatches

__all__ = ["FeatureDifference", "MatchDifference", "compare_features", "compare_matches"]

NEAR = 0.1  # px; keypoints this close are the same
FEW_KEYPOINTS = 2  # that may differ however few there are: where nothing is seen, rounding makes the maxima
_BLOCK = 512  # rows whose distances to all others are held at once


@dataclass(frozen=True)
class MatchDifference:
    """How a file's matches differ from the reference's. Matches whose score is as close to the threshold as scores may
    differ are neither missing nor new: rounding decides there."""

    case: str
    keypoints: tuple[int, int]
    reference: int  # matches
    found: int
    missing: int  # matches of the reference that the file lacks
    new: int  # matches of the file that the reference lacks
    score_max: float  # largest difference of the scores of the matches that both have; 0 without any
    score_median: float
    stop: tuple[int | None, int | None]  # reference, file; None: it does not say
    prune: float | None  # share of keypoints that went through as many layers
    finite: bool  # whether every score is a number in [0, 1]
    keypoints_kept: float | None = None  # of pipelines: share of the reference's keypoints within NEAR

    @property
    def kept_share(self) -> float:
        """Share of the reference's matches that the file has; 1 without any."""
        return 1 - self.missing / self.reference if self.reference else 1.0

    @property
    def new_share(self) -> float:
        """Share of the file's matches that the reference lacks; 0 without any."""
        return self.new / self.found if self.found else 0.0

    def row(self) -> dict[str, str]:
        """Column -> cell of a table."""
        return {
            "case": self.case,
            "matches": f"{self.found} / {self.reference}",
            "kept": f"{self.kept_share:.1%}",
            "new": f"{self.new_share:.1%}",
            "score max": f"{self.score_max:.1e}",
            "median": f"{self.score_median:.1e}",
            "stop": " / ".join("-" if each is None else str(each) for each in self.stop[::-1]),
            "pruned alike": "-" if self.prune is None else f"{self.prune:.1%}",
            **({} if self.keypoints_kept is None else {"keypoints kept": f"{self.keypoints_kept:.1%}"}),
        }

    def faults(self, limits: Limits) -> Iterator[str]:
        """What is beyond the limits, in words."""
        if not self.finite:
            yield "scores are not all numbers from 0 to 1"
        allowed = _allowance(limits.new)
        if self.kept_share < limits.kept and self.missing > allowed:
            yield f"keeps {self.reference - self.missing} of {self.reference} matches (at least {limits.kept:.1%})"
        if self.new_share > limits.new and self.new > allowed:
            yield f"{self.new} of {self.found} matches are not the reference's (at most {limits.new:.1%})"
        for name in ("score_max", "score_median") if self.reference >= FEW else ("score_max",):
            if not getattr(self, name) <= getattr(limits, name):
                how = "by up to" if name == "score_max" else "in the median by"
                yield f"scores differ {how} {getattr(self, name):.2g} (at most {getattr(limits, name):g})"
        reference, found = self.stop
        if reference is not None and found is not None and abs(reference - found) > limits.stop:
            yield f"stops after {found} layers, the reference after {reference}"
        if self.prune is not None and self.prune < limits.prune:
            yield f"{self.prune:.1%} of the keypoints went through as many layers (at least {limits.prune:.1%})"
        if self.keypoints_kept is not None and self.keypoints_kept < limits.keypoints:
            yield f"has {self.keypoints_kept:.1%} of the reference's keypoints (at least {limits.keypoints:.1%})"


def _allowance(new: float) -> int:
    """Matches that may differ however few there are: none where none may differ at all."""
    return 0 if new == 0 else max(1, round(new * FEW / 2))


@dataclass(frozen=True)
class FeatureDifference:
    """How a file's features of an image differ from the reference's."""

    case: str
    reference: int  # keypoints
    found: int
    kept: float  # share of the reference's keypoints that the file has within NEAR; 1 without any
    position_max: float  # px, of these; 0 without any
    score_max: float
    descriptor_max: float
    descriptor_median: float  # of the largest of each descriptor
    finite: bool
    flat: bool = False  # where its keypoints are is rounding: neither their number nor the share of common ones counts

    def row(self) -> dict[str, str]:
        """Column -> cell of a table."""
        return {
            "case": self.case,
            "keypoints": f"{self.found} / {self.reference}",
            "kept": f"{self.kept:.1%}",
            "position max": f"{self.position_max:.1e} px",
            "score max": f"{self.score_max:.1e}",
            "descriptor max": f"{self.descriptor_max:.1e}",
            "median": f"{self.descriptor_median:.1e}",
        }

    def faults(self, limits: Limits) -> Iterator[str]:
        """What is beyond the limits, in words."""
        if not self.finite:
            yield "keypoints, scores or descriptors are not all numbers"
        allowed = max(FEW_KEYPOINTS, (1 - limits.keypoints) * self.reference)
        if not self.flat and (1 - self.kept) * self.reference > allowed:
            yield f"has {self.kept:.1%} of the reference's keypoints (at least {limits.keypoints:.1%})"
        if not self.flat and self.found - self.reference > allowed:
            yield f"finds {self.found} keypoints, the reference {self.reference}"
        if self.position_max > limits.position:
            yield f"keypoints differ by up to {self.position_max:.2g} px (at most {limits.position:g})"
        if self.descriptor_max > limits.descriptor:
            yield f"descriptors differ by up to {self.descriptor_max:.2g} (at most {limits.descriptor:g})"


def compare_matches(
    case: str, reference: FoundMatches, found: FoundMatches, threshold: float, tolerance: float
) -> MatchDifference:
    """The differences of a pair.

    Args:
        case: its name.
        reference: of torch.
        found: of the file; of a pipeline with its own keypoints, which are found again in the reference's by position.
        threshold: of a match's score.
        tolerance: how far scores may differ.
    """
    kept = None
    if found.keypoints0 is not None and found.keypoints1 is not None:
        assert reference.keypoints0 is not None
        assert reference.keypoints1 is not None
        found, shares = _renumbered(found, reference.keypoints0, reference.keypoints1)
        kept = min(shares)
    ours, theirs = reference.pairs(), found.pairs()
    both = ours.keys() & theirs.keys()
    scores = np.array([abs(ours[pair] - theirs[pair]) for pair in both])
    prunes = [(a, b) for a, b in ((reference.prune0, found.prune0), (reference.prune1, found.prune1)) if a is not None]
    same = [a == b for a, b in prunes if b is not None and len(a) == len(b)]

    def counted(these: dict[Any, float], others: dict[Any, float]) -> int:
        return sum(abs(these[pair] - threshold) > tolerance for pair in these.keys() - others.keys())

    values = found.scores0
    return MatchDifference(
        case=case,
        keypoints=(len(reference.scores0), _length1(reference)),
        reference=len(ours),
        found=len(theirs),
        missing=counted(ours, theirs),
        new=counted(theirs, ours),
        score_max=float(scores.max()) if len(scores) else 0.0,
        score_median=float(np.median(scores)) if len(scores) else 0.0,
        stop=(reference.stop, found.stop),
        prune=float(np.concatenate(same).mean()) if same and sum(map(len, same)) else None,
        finite=bool(np.isfinite(values).all() and (values >= 0).all() and (values <= 1 + 1e-3).all()),
        keypoints_kept=kept,
    )


def _length1(reference: FoundMatches) -> int:
    of_image1 = reference.keypoints1 if reference.prune1 is None else reference.prune1
    return 0 if of_image1 is None else len(of_image1)


def _renumbered(
    found: FoundMatches, keypoints0: NDArray[np.float32], keypoints1: NDArray[np.float32]
) -> tuple[FoundMatches, tuple[float, float]]:
    """The matches between the reference's keypoints; those of others get numbers that the reference does not have."""
    assert found.keypoints0 is not None
    assert found.keypoints1 is not None
    place0, place1 = _nearest(found.keypoints0, keypoints0), _nearest(found.keypoints1, keypoints1)
    extra = len(place0) - 1
    matches = np.full(len(keypoints0) + len(place0), -1, np.int64)
    scores = np.zeros(len(matches), np.float32)
    for i in np.flatnonzero(found.matches0 >= 0):
        j = int(found.matches0[i])
        row = place0[i] if place0[i] >= 0 else len(keypoints0) + min(int(i), extra)
        matches[row] = place1[j] if place1[j] >= 0 else len(keypoints1) + j
        scores[row] = found.scores0[i]
    shares = tuple(
        len(np.unique(place[place >= 0])) / len(other) if len(other) else 1.0
        for place, other in ((place0, keypoints0), (place1, keypoints1))
    )
    return FoundMatches(matches, scores, found.stop), (shares[0], shares[1])


def compare_features(
    case: str, reference: FoundFeatures, found: FoundFeatures, *, flat: bool = False
) -> FeatureDifference:
    """The differences of an image: keypoints are the same where they are within NEAR of each other."""
    place = _nearest(reference.keypoints, found.keypoints)
    rows = np.flatnonzero(place >= 0)
    other = place[rows]

    def largest(a: NDArray[Any], b: NDArray[Any]) -> float:
        return float(np.abs(a - b).max()) if len(a) and a.shape == b.shape else 0.0

    descriptors = np.abs(reference.descriptors[rows] - found.descriptors[other]).max(-1, initial=0)
    arrays = found.keypoints, found.scores, found.descriptors
    return FeatureDifference(
        case=case,
        reference=len(reference.keypoints),
        found=len(found.keypoints),
        kept=len(rows) / len(place) if len(place) else 1.0,
        position_max=largest(reference.keypoints[rows], found.keypoints[other]),
        score_max=largest(reference.scores[rows], found.scores[other]),
        descriptor_max=float(descriptors.max(initial=0)),
        descriptor_median=float(np.median(descriptors)) if len(descriptors) else 0.0,
        finite=all(bool(np.isfinite(array).all()) for array in arrays),
        flat=flat,
    )


def _nearest(points: NDArray[np.float32], others: NDArray[np.float32]) -> NDArray[np.int64]:
    """(K,) for each of (K, 2) points the index of the nearest of (L, 2) others, -1 where none is within NEAR."""
    found = np.full(len(points), -1, np.int64)
    if not len(others):
        return found
    for start in range(0, len(points), _BLOCK):
        block = np.abs(points[start : start + _BLOCK, None] - others[None]).max(-1)
        nearest = block.argmin(1)
        near = block[np.arange(len(block)), nearest] <= NEAR
        found[start : start + _BLOCK] = np.where(near, nearest, -1)
    return found
