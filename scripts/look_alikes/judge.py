"""How far a model is from what is known of its images."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import combinations
from typing import Any

import numpy as np
from scenes import CUP_STEP, Scene, angle, centre, extent, number_of

Poses = Mapping[str, np.ndarray]  # world to camera (4, 4), by the image's name

MAX_ERROR = 2.0  # % of the extent: a map whose median is beyond, or an image, is wrong
MAX_ROTATION = 5.0  # degrees between two images: what few centres cannot tell
FEWEST = 4  # centres that a similarity can be tested with
MAX_TURN = 20.0  # degrees that a circle may lack
MIN_FORWARD = 0.97  # share of the steps of a circle that go its way


def judge(scene: Scene, poses: Poses) -> dict[str, Any]:
    """Figures of a model: `wrong`, and the names of the images that are `right`. scene: of the images mapped."""
    return _judge_circle(scene, poses) if scene.is_ordered else _judge_poses(scene, poses)


def _judge_poses(scene: Scene, poses: Poses) -> dict[str, Any]:
    """Centre errors after a similarity of each group of known cameras, and relative rotations inside the groups."""
    units: list[float] = []
    percent: list[float] = []
    rotations: list[float] = []
    right: list[str] = []
    for known in scene.groups:
        names = sorted(set(known) & set(poses))
        turned = {
            pair: angle(relative(poses, *pair)[:3, :3] @ relative(known, *pair)[:3, :3].T)
            for pair in combinations(names, 2)
        }
        rotations += turned.values()
        agree = _agreeing(names, turned)
        if len(names) < FEWEST:
            right += agree
            continue
        source, target = (np.stack([centre(each[name]) for name in names]) for each in (poses, known))
        size = extent(known)
        errors = aligned(similarity(source, target), source, target)
        units += errors.tolist()
        percent += (errors / size * 100).tolist()
        close = aligned(robust_similarity(source, target), source, target) / size * 100 <= MAX_ERROR
        right += [name for name, is_close in zip(names, close, strict=True) if is_close and name in agree]
    found = {
        "median": _median(percent),
        "worst": max(percent, default=None),
        "median_unit": _median(units),
        "worst_unit": max(units, default=None),
        "rotation_median": _median(rotations),
        "rotation_worst": max(rotations, default=None),
    }
    wrong = (found["median"] or 0) > MAX_ERROR or (found["rotation_median"] or 0) > MAX_ROTATION
    return {**found, "wrong": bool(wrong), "right": sorted(right)}


def _agreeing(names: list[str], turned: Mapping[tuple[str, str], float]) -> set[str]:
    """The images that are rotated rightly against at least half of the others."""
    found = set()
    for name in names:
        angles = [value for pair, value in turned.items() if name in pair]
        if angles and float(np.median(angles)) <= MAX_ROTATION:
            found.add(name)
    return found


def relative(poses: Poses, first: str, second: str) -> np.ndarray:
    """(4, 4) from the first camera to the second."""
    return np.asarray(poses[second] @ np.linalg.inv(poses[first]))


def _judge_circle(scene: Scene, poses: Poses) -> dict[str, Any]:
    """Whether the cameras go round once in the order of their names."""
    names = [name for name in scene.names if name in poses]
    if len(names) < FEWEST:
        return {"degrees": None, "forward": None, "wrong": False, "right": []}
    steps = turns(np.stack([centre(poses[name]) for name in names]))
    expected = CUP_STEP * (number_of(names[-1]) - number_of(names[0]))
    degrees, forward = float(steps.sum()), float((steps > 0).mean())
    wrong = abs(degrees - expected) > MAX_TURN or forward < MIN_FORWARD
    right = [] if wrong else names
    return {"degrees": degrees, "expected": expected, "forward": forward, "wrong": wrong, "right": right}


def turns(centres: np.ndarray) -> np.ndarray:
    """Degrees (N - 1,) from each centre (N, 3) to the next, about the axis of the circle that fits them all.

    Most are positive: which way round is not known.
    """
    flat = centres - centres.mean(0)
    plane = np.linalg.svd(flat, full_matrices=False)[2][:2]
    points = flat @ plane.T
    system = np.hstack((2 * points, np.ones((len(points), 1))))
    middle = np.linalg.lstsq(system, np.square(points).sum(1), rcond=None)[0][:2]
    angles = np.degrees(np.arctan2(*(points - middle).T[::-1]))
    steps = (np.diff(angles) + 180) % 360 - 180
    return np.asarray(steps if (steps > 0).mean() >= 0.5 else -steps)


# --- alignment ---------------------------------------------------------------------------------------------------

Similarity = tuple[float, np.ndarray, np.ndarray]  # scale, rotation (3, 3), shift (3,)


def similarity(source: np.ndarray, target: np.ndarray) -> Similarity:
    """target = scale turn source + shift, least squares (Umeyama, PAMI 1991)."""
    mean0, mean1 = source.mean(0), target.mean(0)
    left, values, right = np.linalg.svd((target - mean1).T @ (source - mean0))
    sign = np.diag([1, 1, np.sign(np.linalg.det(left @ right))])
    turn = left @ sign @ right
    scale = float((values * np.diag(sign)).sum() / max(np.square(source - mean0).sum(), 1e-12))
    return scale, turn, mean1 - scale * turn @ mean0


def aligned(found: Similarity, source: np.ndarray, target: np.ndarray) -> np.ndarray:
    """The distances (N,) that a similarity leaves."""
    scale, turn, shift = found
    return np.asarray(np.linalg.norm(scale * source @ turn.T + shift - target, axis=1))


def robust_similarity(source: np.ndarray, target: np.ndarray, most: int = 500) -> Similarity:
    """The similarity of the least median error over triples, of all that it brings close."""
    triples = list(combinations(range(len(source)), 3))
    if len(triples) > most:
        triples = [triples[i] for i in np.random.default_rng(0).choice(len(triples), most, replace=False)]
    candidates = [similarity(source[list(each)], target[list(each)]) for each in triples]
    best = min(candidates, key=lambda each: float(np.median(aligned(each, source, target))))
    errors = aligned(best, source, target)
    close = errors <= 3 * np.median(errors)
    return similarity(source[close], target[close])


def _median(values: list[float]) -> float | None:
    return float(np.median(values)) if values else None
