"""Never give up: from a pair that plain matching finds little of to matches, or to the same little."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping
from typing import cast

import numpy as np
import torch

from lightglue.pairs.hard.budget import Budget
from lightglue.pairs.hard.finish import Solved, finished, polished
from lightglue.pairs.hard.kinds import OWN, Kinds
from lightglue.pairs.hard.looks import Correspondences, Image, Kind, Looks
from lightglue.pairs.hard.models import affine, fit, support
from lightglue.pairs.hard.pool import pooled, without_duplicates
from lightglue.pairs.hard.search import (
    COUNT,
    EDGE,
    SMALLER,
    Trial,
    likely_trials,
    other_turns,
    trials,
    turned_trials,
)
from lightglue.pairs.hard.steps import EXACT, FEWEST, Rematched, Search, again, is_unlike, overlap_of

__all__ = ["is_good", "polish", "solve"]

# Set by hand on some 25 tilted pairs generated from training photographs: docs/decisions/035-hard.md.
GOOD_OVERLAP, GOOD_INLIERS, GOOD_SHARE = 0.9, 40, 0.4  # of plain matching, at which nothing else is tried
PROMISING = 10  # matches of a view that agree with one homography, at which it is looked at at once
WORTH = 8  # and at which it is looked at in the end; a search ends where no likely view of two kinds has so many,
HOPE = 9  # and after all views of both, where none that was looked at had so many in the frame of its model
LEFT = 3  # views that are looked at in the end, where none was promising
ACCEPTED = 0.5  # overlap, corrected for the number of trials, at which a model is believed
CLEAR = 2.0  # times what is found upright that must be found turned for all views to be tried turned first
FEW = 12  # inliers up to which a homography is too free: an affine map is fitted to them
ROUGH = 4.0  # px of the images as they are matched, up to which plain matches agree with a model
ENOUGH = 0.4  # of the keypoints: where plain matching has found so many, there is nothing to gain


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
    overlap: float | None = None,
) -> Solved:
    """Search for a model until one can be believed, then make it exact.

    plain: what plain matching has found. full: px of the longer side, and keypoints, of images as they are
    matched. device: the extractor's. overlap: what plain matching says of it.
    """
    search = Search(Looks(images, device), kinds, budget, full, overlap)
    for trial, name, rough in _rough(search, plain):
        found = _verified(search, rough, name)
        if found is not None:
            return finished(search, found, trial)
    missing = f"; {', '.join(kinds.missing)} could not be loaded" if kinds.missing else ""
    reason = "the time was over" if search.was_short else "no model can be believed"
    if search.is_hopeless:
        reason = "nothing agrees more than in pairs of different scenes"
    return Solved(tuple(search.stages), ended=f"{reason} after {search.tries} views{missing}")


def polish(
    plain: Correspondences,
    images: tuple[Image, Image],
    kinds: Kinds,
    budget: Budget,
    full: tuple[int, int],
    device: torch.device,
    overlap: float | None = None,
) -> Solved | None:
    """Good matches of a plane made exact where both images see it very differently; None where they stay as they are.

    Arguments as those of `solve`.
    """
    own = kinds.get(OWN)
    assert own is not None
    search = Search(Looks(images, device), kinds, budget, full, overlap)
    model = fit(plain, "homography", ROUGH * search.px)
    if (
        model is None
        or model.inliers.sum() < GOOD_SHARE * len(plain)
        or model.inliers.sum() >= ENOUGH * min(plain.counts)
    ):
        return None
    middle = np.median(plain.points0[model.inliers], axis=0)
    return polished(search, own, plain, model) if is_unlike(model.matrix, middle, images) else None


def _rough(search: Search, plain: Correspondences) -> Iterator[tuple[Trial | None, str, Correspondences]]:
    """Matches that may be right, the likeliest and cheapest first."""
    if fit(plain, "homography", ROUGH * search.px) is not None:
        yield None, OWN, plain
    order = search.kinds.order
    turns: dict[str, dict[float, float]] = {name: {} for name in order}  # support of each on very small images
    for name in order[:2]:
        yield from _round(search, name, turns[name], likely_trials)
    if _gives_up(search, search.most, WORTH):
        return
    for name in order[1::-1]:  # of the package's kinds the second takes less time
        yield from _round(search, name, turns[name], trials)
    if _gives_up(search, search.closest, HOPE):
        return
    for name in order[2:]:
        yield from _round(search, name, turns[name], trials)
    for name in order:
        yield from _round(search, name, turns[name], other_turns)


def _gives_up(search: Search, most: int, least: int) -> bool:
    """Whether both kinds of features have looked, and fewer agree than there must be for it to go on."""
    has_two = len({name for name, _ in search.done}) > 1
    search.is_hopeless = has_two and most < least and not search.was_short
    return search.is_hopeless


def _round(
    search: Search, name: str, turns: dict[float, float], ways: Callable[[float], Iterator[Trial]]
) -> Iterator[tuple[Trial | None, str, Correspondences]]:
    """What views of one kind give: each that is promising at once, then the best of the others, then all together."""
    seen: list[tuple[int, Trial, Correspondences]] = []
    begin = search.budget.spent
    kind = search.step(f"load {name}", lambda: search.kinds.get(name))
    search.stage(f"views {name}", begin, 0)
    for trial in itertools.chain(turned_trials(), _lazily(ways, turns)) if kind is not None else ():
        if (name, trial) in search.done:
            continue
        begin = search.budget.spent
        found = search.step(f"probe {name}", lambda: _probe(search, kind, trial))  # noqa: B023
        if found is None:
            break
        agreeing = _agreeing(search, found, trial.edge)
        search.stage(f"views {name}", begin, len(found))
        search.done.add((name, trial))
        search.most = max(search.most, agreeing)
        if trial.edge == SMALLER:
            turns[trial.view1.turn] = support(found.scores)
        if agreeing >= PROMISING:
            yield trial, name, found
        else:
            seen.append((agreeing, trial, found))
    seen.sort(key=lambda each: -each[0])
    for agreeing, trial, found in seen[:LEFT]:
        if agreeing >= WORTH:
            yield trial, name, found
    parts = search.weak.setdefault(name, [])
    parts += [found for _, _, found in seen if len(found)]
    if seen and parts:
        together = without_duplicates(pooled(parts))
        if _agreeing(search, together, EDGE) >= PROMISING:
            yield None, name, together


def _lazily(ways: Callable[[float], Iterator[Trial]], turns: Mapping[float, float]) -> Iterator[Trial]:
    """The views with the turn that is likely once the views before them were looked at."""
    yield from ways(_likely_turn(turns))


def _agreeing(search: Search, found: Correspondences, edge: int) -> int:
    """How many matches of a view agree with one homography."""
    model = fit(found, "homography", ROUGH * search.px * search.full[0] / min(edge, search.full[0]))
    return 0 if model is None else int(model.inliers.sum())


def _likely_turn(turns: Mapping[float, float]) -> float:
    """The turn of which most was found, where that is clearly more than upright."""
    best = max(turns, key=turns.__getitem__, default=0.0)
    return best if turns and turns[best] > max(1.0, CLEAR * turns[0.0]) else 0.0


def _probe(search: Search, kind: Kind, trial: Trial) -> Correspondences:
    search.tries += 1
    views = enumerate((trial.view0, trial.view1))
    seen = [search.looks.view(kind, side, view, trial.edge, trial.count) for side, view in views]
    return search.looks.match(kind, seen[0], seen[1])


def _verified(search: Search, rough: Correspondences, name: str) -> Rematched | None:
    """The matches of both images in the frame of a rough model, if they bear it out."""
    model = fit(rough, "homography", ROUGH * search.px * search.full[0] / min(EDGE, search.full[0]))
    if model is None:
        return None
    # A homography of few matches is too free.
    H = affine(rough, model.inliers) if model.inliers.sum() < FEW else model.matrix
    around = rough.points0[model.inliers]
    for kind in dict.fromkeys(search.kinds.get(each) for each in (OWN, name)):
        if H is None or kind is None:
            continue
        begin = search.budget.spent
        found = search.step(f"rematch {kind.name}", lambda: again(search, kind, H, around, EDGE, COUNT))  # noqa: B023
        search.stage(f"rematch {kind.name}", begin, 0 if found is None else len(found.found))
        if found is not None and _believed(search, found):
            return cast(Rematched, found)
        agreeing = 0 if found is None else int(found.model.inliers.sum())
        search.closest = max(search.closest, agreeing)
        if agreeing < HOPE:  # another kind has not once seen more there
            break
    return None


def _believed(search: Search, found: Rematched) -> bool:
    return bool(found.model.inliers.sum() >= FEWEST) and overlap_of(search, found) >= ACCEPTED
