"""Never give up: from a pair that plain matching finds little of to matches, or to the same little."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, cast

import numpy as np
import torch

from lightglue.matching.effort import EffortStage
from lightglue.matching.overlap import COEFFICIENTS
from lightglue.pairs.hard.budget import Budget
from lightglue.pairs.hard.kinds import OWN, Kinds
from lightglue.pairs.hard.looks import Correspondences, Image, Kind, Looks
from lightglue.pairs.hard.models import Model, affine, errors_of, fit, support
from lightglue.pairs.hard.pool import pooled, without_duplicates
from lightglue.pairs.hard.rematch import Frame, common_frame, rematch
from lightglue.pairs.hard.search import COUNT, EDGE, SMALLER, Trial, trials, turned_trials
from lightglue.pairs.hard.warping import Floats

__all__ = ["Solved", "is_good", "solve"]

# Set by hand on some 25 tilted pairs generated from training photographs: docs/decisions/035-hard.md.
GOOD_OVERLAP, GOOD_INLIERS, GOOD_SHARE = 0.9, 40, 0.4  # of plain matching, at which nothing else is tried
PROMISING = 4.0  # support of a view's matches at which its model is looked at at once
LOOKING = 0.7  # of the time, that goes to looking at views; the remainder is for what was not promising at once
LEFT = 3  # views that are looked at in the end, where none was promising
ACCEPTED = 0.5  # overlap, corrected for the number of trials, at which a model is believed
FEWEST = 20  # inliers of a model that is believed
CLEAR = 2.0  # times what is found upright that must be found turned for all views to be tried turned first
FEW = 12  # inliers up to which a homography is too free: an affine map is fitted to them
ROUGH, EXACT = 4.0, 3.0  # px of the images as they are matched, up to which matches agree with a model
PART = 0.1  # of the matches, that another plane must have
PLANES = 3  # parts of a scene, each with a homography of its own, that are matched again
NON_PLANAR = 1.15  # times the inliers of the homography that a fundamental matrix must have


@dataclass(frozen=True, eq=False)
class Solved:
    """What came of a pair."""

    stages: tuple[EffortStage, ...]
    found: Correspondences | None = None  # None: nothing that can be believed
    model: Model | None = None
    overlap: float | None = None
    kind: Kind | None = None
    trial: Trial | None = None  # that led to it; None: plain matching
    ended: str | None = None  # why the search ended without a model


@dataclass(frozen=True, eq=False)
class _Rematched:
    """What came of matching in a frame."""

    found: Correspondences
    model: Model
    frame: Frame
    kind: Kind


@dataclass(eq=False)
class _Search:
    looks: Looks
    kinds: Kinds
    budget: Budget
    full: tuple[int, int]  # px of the longer side, and keypoints, of images as they are usually matched
    stages: list[EffortStage] = field(default_factory=list)
    tries: int = 0
    was_short: bool = False  # of time: something was left out
    candidates: list[tuple[float, Trial, str, Correspondences]] = field(default_factory=list)

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


def is_good(found: Correspondences, overlap: float | None, pixels: float) -> bool:
    """Whether plain matching has done it: matches enough that agree with one geometry, of images that overlap."""
    if overlap is not None and overlap < GOOD_OVERLAP:
        return False
    for geometry in ("homography", "fundamental"):
        model = fit(found, geometry, ROUGH * pixels if geometry == "homography" else EXACT * pixels)
        if model is not None and model.inliers.sum() >= max(GOOD_INLIERS, GOOD_SHARE * len(found)):
            return True
    return False


def solve(
    plain: Correspondences,
    images: tuple[Image, Image],
    kinds: Kinds,
    budget: Budget,
    full: tuple[int, int],
    device: torch.device,
) -> Solved:
    """Search for a model until one can be believed, then make it exact.

    plain: what plain matching has found. full: px of the longer side, and keypoints, of images as they are
    matched. device: the extractor's.
    """
    own = kinds.get(OWN)
    assert own is not None
    looks = Looks(images, device)
    search = _Search(looks, kinds, budget, full)
    for trial, name, rough in _rough(search, plain):
        found = _verified(search, rough, name)
        if found is not None:
            return _finished(search, found, trial)
    missing = f"; {', '.join(kinds.missing)} could not be loaded" if kinds.missing else ""
    reason = "no model can be believed" if not search.was_short else "the time was over"
    return Solved(tuple(search.stages), ended=f"{reason} after {search.tries} views{missing}")


def _rough(search: _Search, plain: Correspondences) -> Iterator[tuple[Trial | None, str, Correspondences]]:
    """Matches that may be right, the likeliest and cheapest first."""
    if fit(plain, "homography", ROUGH * search.px) is not None:
        yield None, OWN, plain
    for name in search.kinds.order:
        yield from _views(search, name)
        search.candidates.sort(key=lambda each: -each[0])
        for _, trial, kind, found in search.candidates[:LEFT]:
            yield trial, kind, found
        parts = [found for _, _, kind, found in search.candidates if kind == name and len(found)]
        if parts:
            yield None, name, without_duplicates(pooled(parts))
        search.candidates.clear()


def _views(search: _Search, name: str) -> Iterator[tuple[Trial, str, Correspondences]]:
    """What each view gives that is promising at once; the others become candidates."""
    begin = search.budget.spent
    kind = search.step(f"load {name}", lambda: search.kinds.get(name))
    search.stage(f"views {name}", begin, 0)
    if kind is None:
        return
    turns: dict[float, float] = {}  # turn -> support on very small images
    for first in (True, False):
        for trial in turned_trials() if first else trials(_likely_turn(turns)):
            begin = search.budget.spent
            found = search.step(f"probe {name}", lambda: _probe(search, kind, trial))  # noqa: B023
            if found is None:
                return
            search.stage(f"views {name}", begin, len(found))
            strength = support(found.scores)
            if trial.edge == SMALLER:
                turns[trial.view1.turn] = strength
            if strength >= PROMISING:
                yield trial, name, found
            else:
                search.candidates.append((strength, trial, name, found))


def _likely_turn(turns: Mapping[float, float]) -> float:
    """The turn of which most was found, where that is clearly more than upright."""
    best = max(turns, key=turns.__getitem__, default=0.0)
    return best if turns and turns[best] > max(1.0, CLEAR * turns[0.0]) else 0.0


def _probe(search: _Search, kind: Kind, trial: Trial) -> Correspondences:
    search.tries += 1
    views = enumerate((trial.view0, trial.view1))
    seen = [search.looks.view(kind, side, view, trial.edge, trial.count) for side, view in views]
    return search.looks.match(kind, seen[0], seen[1])


def _verified(search: _Search, rough: Correspondences, name: str) -> _Rematched | None:
    """The matches of both images in the frame of a rough model, if they bear it out."""
    model = fit(rough, "homography", ROUGH * search.px * search.full[0] / min(EDGE, search.full[0]))
    if model is None:
        return None
    # A homography of few matches is too free.
    H = affine(rough, model.inliers) if model.inliers.sum() < FEW else model.matrix
    around = rough.points0[model.inliers]
    for kind_name in dict.fromkeys((OWN, name)):
        kind = search.kinds.get(kind_name)
        if H is None or kind is None:
            continue
        begin = search.budget.spent
        again = search.step(f"rematch {kind_name}", lambda: _again(search, kind, H, around, EDGE, COUNT))  # noqa: B023
        search.stage(f"rematch {kind_name}", begin, 0 if again is None else len(again.found))
        if again is not None and _believed(search, again):
            return cast(_Rematched, again)
    return None


def _again(search: _Search, kind: Kind, H: Floats, around: Floats, edge: int, count: int) -> _Rematched | None:
    """The matches in the frame of H, and their model."""
    frame = common_frame(H, search.looks.images, edge, around=around)
    if frame is None:
        return None
    found = rematch(search.looks, kind, frame, count)
    model = fit(found, "homography", EXACT, frame)
    return None if model is None else _Rematched(found, model, frame, kind)


def _believed(search: _Search, again: _Rematched) -> bool:
    inliers = again.model.inliers
    return bool(inliers.sum() >= FEWEST) and _overlap(search, again) >= ACCEPTED


def _overlap(search: _Search, again: _Rematched) -> float:
    """The probability that both images show the same thing, from the matches that agree with a model.

    Of many views the best one is looked at: its odds are those of one view divided by their number.
    """
    fitted = COEFFICIENTS.get(getattr(again.kind.matcher, "feature_type", None) or "", COEFFICIENTS["aliked"])
    good = again.model.support
    share = (good + 0.5) / max(1, min(again.found.counts))
    odds = fitted.odds(math.log1p(good), math.log(share)) - math.log(max(1, search.tries))
    return 1 / (1 + math.exp(-odds))


def _finished(search: _Search, again: _Rematched, trial: Trial | None) -> Solved:
    """A believed model made exact at full size, with the other parts of a scene that is not plane."""
    edge, count = search.full

    def at_full_size(matrix: Floats, around: Floats, name: str) -> _Rematched | None:
        begin = search.budget.spent
        found = search.step("full size", lambda: _again(search, again.kind, matrix, around, edge, count))
        search.stage(name, begin, 0 if found is None else int(found.model.inliers.sum()))
        return cast(_Rematched | None, found)

    better = at_full_size(again.model.matrix, again.found.points0[again.model.inliers], "full size")
    first = better if better is not None and better.model.support >= again.model.support else again
    parts, planes = [first.found], [first.model]
    for _ in range(PLANES - 1):
        last = parts[-1]
        far = np.min([errors_of(plane, last, first.frame) for plane in planes], axis=0) > 2 * EXACT
        rest = last.only(far)
        plane = fit(rest, "homography", EXACT, first.frame)
        if plane is None or plane.inliers.sum() < max(FEW, PART * len(last)):
            break
        other = at_full_size(plane.matrix, rest.points0[plane.inliers], "another plane")
        if other is None or other.model.inliers.sum() < FEWEST:
            break
        parts.append(other.found)
        planes.append(other.model)
    found = without_duplicates(pooled(parts))
    chosen = _chosen(found, first.frame) or first.model
    final = found.only(errors_of(chosen, found, first.frame) < EXACT)
    chosen = replace(chosen, inliers=np.ones(len(final), np.bool_), support=support(final.scores))
    return Solved(tuple(search.stages), final, chosen, _overlap(search, first), first.kind, trial)


def _chosen(found: Correspondences, frame: Frame) -> Model | None:
    """A homography where the scene is a plane, else a fundamental matrix."""
    plane, space = fit(found, "homography", EXACT, frame), fit(found, "fundamental", EXACT, frame)
    if plane is None or space is None:
        return plane or space
    return space if space.inliers.sum() > NON_PLANAR * plane.inliers.sum() else plane
