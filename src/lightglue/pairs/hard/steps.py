"""What a search of one pair has done so far, and its one step: matching both images in the frame of a rough model."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from lightglue.matching.effort import EffortStage
from lightglue.matching.overlap import COEFFICIENTS, Coefficients, coefficients_of
from lightglue.pairs.hard.budget import Budget
from lightglue.pairs.hard.kinds import Kinds
from lightglue.pairs.hard.looks import Correspondences, Image, Kind, Looks
from lightglue.pairs.hard.models import Model, fit, support
from lightglue.pairs.hard.rematch import Frame, common_frame, rematch
from lightglue.pairs.hard.search import Trial
from lightglue.pairs.hard.warping import Floats, linear_at

__all__ = ["EXACT", "FEWEST", "Rematched", "Search", "again", "is_unlike", "overlap_of", "reported_overlap"]

# Set by hand on some 25 tilted pairs generated from training photographs: docs/decisions/035-hard.md.
LOOKING = 0.7  # of the time, that goes to looking at views; the remainder is for what was not promising at once
FEWEST = 20  # inliers of a model that is believed
UNLIKE_TILT, UNLIKE_SIZE, UNLIKE_TURN = 1.5, 1.5, 30.0  # tilt, times, degrees between images
EXACT = 3.0  # px of the images as they are matched, up to which matches agree with a model


@dataclass(frozen=True, eq=False)
class Rematched:
    """What came of matching in a frame."""

    found: Correspondences
    model: Model
    frame: Frame
    kind: Kind


@dataclass(eq=False)
class Search:
    """One pair."""

    looks: Looks
    kinds: Kinds
    budget: Budget
    full: tuple[int, int]  # px of the longer side, and keypoints, of images as they are usually matched
    plain_overlap: float | None = None  # what plain matching says
    stages: list[EffortStage] = field(default_factory=list)
    tries: int = 0
    was_short: bool = False  # of time: something was left out
    is_hopeless: bool = False  # no view shows anything
    most: int = 0  # matches of a view that agree with one homography
    closest: int = 0  # the same in the frame of a model that was not believed
    weak: dict[str, list[Correspondences]] = field(default_factory=dict)  # what views show that were not promising
    done: set[tuple[str, Trial]] = field(default_factory=set)

    @property
    def px(self) -> float:
        """Px of the originals for one of the images as they are usually matched."""
        return max(1.0, *(1 / min(image.scale) for image in self.looks.images))

    def stage(self, name: str, begin: float, matches: int) -> None:
        """Something is done that began at `begin`: a stage, or more of the last one where that is of this name."""
        seconds = self.budget.spent - begin
        if self.stages and self.stages[-1].name == name:
            last = self.stages.pop()
            seconds, matches = last.seconds + seconds, max(last.matches, matches)
        self.stages.append(EffortStage(name, seconds, matches))

    def step(self, kind: str, do: Callable[[], Any]) -> Any:
        """What `do` gives, if there is time for it."""
        if not self.budget.allows(kind, LOOKING if kind.startswith(("load", "probe")) else 1.0):
            self.was_short = True
            return None
        begin = self.budget.spent
        found = do()
        self.budget.took(kind, begin)
        return found


def again(search: Search, kind: Kind, H: Floats, around: Floats, edge: int, count: int) -> Rematched | None:
    """The matches in the frame of H, and their model."""
    frame = common_frame(H, search.looks.images, edge, around=around)
    if frame is None:
        return None
    found = rematch(search.looks, kind, frame, count)
    model = fit(found, "homography", EXACT, frame)
    return None if model is None else Rematched(found, model, frame, kind)


def overlap_of(search: Search, found: Rematched, *, distinct: bool = False) -> float:
    """The probability that both images show the same thing, from the matches that agree with a model.

    Of many views the best one is looked at: its odds are those of one view divided by their number. distinct: without
    matches whose ends resemble another place of their own image as much as each other.
    """
    fitted = _coefficients(found.kind)
    good = found.model.support
    if distinct and found.found.distinct is not None:
        good = support(found.found.scores[found.model.inliers & found.found.distinct])
    share = (good + 0.5) / max(1, min(found.found.counts))
    odds = fitted.odds(math.log1p(good), math.log(share)) - math.log(max(1, search.tries))
    return 1 / (1 + math.exp(-odds))


def _coefficients(kind: Kind) -> Coefficients:
    """Those of the matcher, or where it has none, of its feature type, at last of ALIKED.

    A search cannot do without: they say whether a model is believed, also where the pair's record has no overlap.
    """
    own = coefficients_of(kind.matcher)
    if own is not None:
        return own
    return COEFFICIENTS.get(getattr(kind.matcher, "feature_type", None) or "", COEFFICIENTS["aliked"])


def reported_overlap(search: Search, rough: Rematched, full: Rematched | None) -> float:
    """The overlap of a model: what both looks at it bear out, the small one that it is believed for and full size.

    No more than plain matching says where that has seen both images as well, or where full size shows nothing: the
    parts of a façade that repeat look alike in any frame, and matching them again is no new evidence. For the same
    reason only distinct matches count at full size; in a small frame of a steep view few of the right ones are.
    """
    overlaps, is_new = [overlap_of(search, rough)], False
    if full is not None:
        overlaps.append(overlap_of(search, full, distinct=True))
        is_new = _is_unlike(search, rough) and _is_unlike(search, full)
    if search.plain_overlap is not None and not is_new:
        overlaps.append(search.plain_overlap)
    return min(overlaps)


def _is_unlike(search: Search, found: Rematched) -> bool:
    middle = np.median(found.found.points0[found.model.inliers], axis=0)
    return is_unlike(found.model.matrix, middle, search.looks.images)


def is_unlike(H: Floats, at: Floats, images: tuple[Image, Image]) -> bool:
    """Whether images look so unlike under H, `at` (2,) px of image 0, that plain matching misses much."""
    J = linear_at(H, at)
    if not np.isfinite(J).all():
        return True
    left, stretch, right = np.linalg.svd(J)
    turn = left @ right
    degrees = abs(math.degrees(math.atan2(turn[1, 0], turn[0, 0])))
    size = math.sqrt(stretch.prod()) * float(np.mean(images[1].scale) / np.mean(images[0].scale))
    return bool(
        stretch[0] > UNLIKE_TILT * stretch[1] or degrees > UNLIKE_TURN or abs(math.log(size)) > math.log(UNLIKE_SIZE)
    )
