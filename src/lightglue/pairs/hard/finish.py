"""From a model that is believed to exact matches: at full size, on other planes, and off all planes."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import cast

import numpy as np

from lightglue.matching.effort import EffortStage
from lightglue.pairs.hard.exact import sharpened
from lightglue.pairs.hard.looks import Correspondences, Kind, Seen
from lightglue.pairs.hard.models import Model, errors_of, fit, support
from lightglue.pairs.hard.parallax import with_parallax
from lightglue.pairs.hard.pool import pooled, without_duplicates
from lightglue.pairs.hard.rematch import Frame
from lightglue.pairs.hard.search import Trial
from lightglue.pairs.hard.steps import EXACT, FEWEST, Rematched, Search, again, overlap_of, reported_overlap
from lightglue.pairs.hard.views import View
from lightglue.pairs.hard.warping import Floats, inverse_of, linear_at

__all__ = ["Solved", "finished", "polished"]

FEW = 12  # inliers of another plane
SHARP = 1.5  # px of the images as they are matched, up to which matches that were made exact agree with a model
ARE_SHARP = 0.6  # of the matches of a model within EXACT must be within SHARP, for these to count
PART = 0.1  # of the matches, that another plane must have
PLANES = 3  # parts of a scene, each with a homography of its own, that are matched again
COVERED = 0.03  # of the longer side: so near to matches of a plane, keypoints show nothing else
OFF = 60  # keypoints of each image away from the planes, with which there is something else to look for
OFF_FEWEST, OFF_SHARE = 15, 0.4  # matches off the plane that agree with a fundamental matrix, and of all of them


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


def polished(search: Search, kind: Kind, plain: Correspondences, model: Model) -> Solved | None:
    """Plain matches of a plane made exact by matching in the frame of their model; None where there are fewer."""
    better = _at_full_size(search, kind, model.matrix, plain.points0[model.inliers], "full size")
    if better is None or better.model.support < model.support:
        return None
    return _made_exact(search, better, None, overlap_of(search, better))


def finished(search: Search, rough: Rematched, trial: Trial | None) -> Solved:
    """A believed model made exact at full size, with the other parts of a scene that is not plane.

    What full size does not bear out is not reported.
    """
    around = rough.found.points0[rough.model.inliers]
    better = _at_full_size(search, rough.kind, rough.model.matrix, around, "full size")
    first = better if better is not None and better.model.support >= rough.model.support else rough
    return _made_exact(search, first, trial, reported_overlap(search, rough, better))


def _at_full_size(search: Search, kind: Kind, matrix: Floats, around: Floats, name: str) -> Rematched | None:
    begin = search.budget.spent
    found = search.step("full size", lambda: again(search, kind, matrix, around, *search.full))
    search.stage(name, begin, 0 if found is None else int(found.model.inliers.sum()))
    return cast(Rematched | None, found)


def _made_exact(search: Search, first: Rematched, trial: Trial | None, overlap: float) -> Solved:
    parts, planes = _planes(search, first)
    plane = without_duplicates(pooled([sharpened(search.looks, part.found, part.frame) for part in parts]))
    scene = _scene_frame(search, first)
    beside = _beside(search, first.kind, plane.only(_near(planes, plane, first.frame, 2 * EXACT)), scene)
    found = (
        plane
        if beside is None
        else without_duplicates(pooled([plane, beside.only(~_near(planes, beside, first.frame, 2 * EXACT))]))
    )
    chosen = _chosen(found, first.frame, scene)
    if chosen is None:
        final, chosen = first.found.only(first.model.inliers), first.model
    else:
        final = found.only(chosen.inliers)
    chosen = replace(chosen, inliers=np.ones(len(final), np.bool_), support=support(final.scores))
    return Solved(tuple(search.stages), final, chosen, overlap, first.kind, trial)


def _planes(search: Search, first: Rematched) -> tuple[list[Rematched], list[Model]]:
    """What was matched, and the same for further planes that it shows."""
    parts, planes = [first], [first.model]
    for _ in range(PLANES - 1):
        last = parts[-1].found
        rest = last.only(~_near(planes, last, first.frame, 2 * EXACT))
        plane = fit(rest, "homography", EXACT, first.frame)
        if plane is None or plane.inliers.sum() < max(FEW, PART * len(last)):
            break
        other = _at_full_size(search, first.kind, plane.matrix, rest.points0[plane.inliers], "another plane")
        if other is None or other.model.inliers.sum() < FEWEST:
            break
        parts.append(other)
        planes.append(other.model)
    return parts, planes


def _near(planes: list[Model], found: Correspondences, frame: Frame, pixels: float = EXACT) -> np.ndarray:
    """Which matches agree with one of the planes."""
    return np.asarray(np.min([errors_of(plane, found, frame) for plane in planes], axis=0) < pixels)


def _scene_frame(search: Search, first: Rematched) -> Frame:
    """Both images turned and sized like each other, as far as the model says, but not stretched.

    In it, what is off the model's plane looks alike. Its px are those of the coarser image, as it is matched.
    """
    middle = first.found.points0[first.model.inliers].mean(axis=0)
    J = linear_at(first.model.matrix, middle)
    left, _, right = np.linalg.svd(J)
    size = math.sqrt(max(float(np.linalg.det(J)), 1e-12))
    own = [float(np.mean(image.scale)) for image in search.looks.images]
    unit = min(own[0], own[1] * size)
    to1 = np.eye(3)
    to1[:2, :2] = unit / size * (left @ right).T
    return Frame((np.diag([unit, unit, 1.0]), to1), (0, 0), (middle, middle))


def _beside(search: Search, kind: Kind, plane: Correspondences, scene: Frame) -> Correspondences | None:
    """Matches of keypoints away from those of a plane; None where there is nothing else in both images."""
    images, turn = search.looks.images, scene.matrices[1][:2, :2]
    degrees = round(math.degrees(math.atan2(turn[1, 0], turn[0, 0]))) % 360
    begin = search.budget.spent

    def look() -> Correspondences | None:
        ends = []
        for side, points in enumerate((plane.points0, plane.points1)):
            image = images[side]
            share = math.sqrt(abs(np.linalg.det(scene.matrices[side][:2, :2]))) / float(np.mean(image.scale))
            view = View(turn=float(degrees if side else 0), scale=min(1.0, round(share, 2)))
            edge, count = search.full
            ends.append(_away(search.looks.view(kind, side, view, edge, 2 * count), points, image.size, image.scale))
            if len(ends[-1]) < OFF:
                return None
        return search.looks.match(kind, ends[0], ends[1])

    found = search.step("beside", look)
    search.stage("off the plane", begin, 0 if found is None else len(found))
    return cast(Correspondences | None, found)


def _away(seen: Seen, points: Floats, size: tuple[int, int], scale: tuple[float, float]) -> Seen:
    """The keypoints that are not near any of `points` (K, 2)."""
    cell = COVERED * max(size) / min(scale)
    taken = {(x + dx, y + dy) for x, y in np.floor(points / cell).astype(int) for dx in (-1, 0, 1) for dy in (-1, 0, 1)}
    cells = np.floor(seen.points / cell).astype(int)
    return seen.only(np.array([(x, y) not in taken for x, y in cells], bool))


def _chosen(found: Correspondences, frame: Frame, scene: Frame) -> Model | None:
    """A homography where the scene is a plane, else a fundamental matrix."""
    plane, loose = (fit(found, "homography", pixels, frame) for pixels in (SHARP, EXACT))
    if plane is None or (loose is not None and plane.inliers.sum() < ARE_SHARP * loose.inliers.sum()):
        plane = loose  # of blurred images not many matches can be made exact
    spaces = [fit(found, "fundamental", EXACT, scene)]
    if plane is None:
        return spaces[0]
    off = ~_near([plane], found, frame, 2 * EXACT)
    spaces.append(_space_of(plane, found, off, scene))
    best = max((each for each in spaces if each is not None), key=lambda each: int(each.inliers.sum()), default=None)
    if best is None or (best.inliers & off).sum() < max(OFF_FEWEST, OFF_SHARE * off.sum()):
        return plane
    return best


def _space_of(plane: Model, found: Correspondences, off: np.ndarray, scene: Frame) -> Model | None:
    """The fundamental matrix of a plane and of what lies off it."""
    to0, to1 = scene.matrices
    H = to1 @ plane.matrix @ inverse_of(to0)
    points = found.points0[off] @ to0[:2, :2].T, found.points1[off] @ to1[:2, :2].T
    space = with_parallax(H / np.abs(H).max(), *points, EXACT)
    if space is None:
        return None
    F = to1.T @ space[0] @ to0
    model = Model("fundamental", F / np.abs(F).max(), np.zeros(len(found), np.bool_), 0.0)
    inliers = errors_of(model, found, scene) < EXACT
    return replace(model, inliers=inliers, support=support(found.scores[inliers]))
