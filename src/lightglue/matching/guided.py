"""Matches of all keypoints, guided by those that some of them have: near where neighbours point, on the epipolar line.

`reference_candidates` is the definition of what is compared with what: all pairs of keypoints, one by one.
`candidates` finds the same ones by way of rows of a grid, in a hundredth of the time.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from lightglue.geometry.points import transform
from lightglue.matching.seed_geometry import Model, residuals

__all__ = [
    "Evidence",
    "Guess",
    "GuidedOptions",
    "Keypoints",
    "Pairs",
    "candidates",
    "confidence",
    "guess_by",
    "guided_matches",
    "mutual_best",
    "predict",
    "reference_candidates",
    "scale_of",
]

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


@dataclass(frozen=True)
class GuidedOptions:
    """How keypoints without a match are looked for. Chosen on scenes of COLMAP models, none of those that judge."""

    neighbors: int = 8  # seeds that point to where a keypoint may be
    stiffness: float = 0.3  # of a local map towards that of the whole image
    least_radius: float = 12.0  # px at 1,024 px of image 1, around where a keypoint may be
    plane_radius: float = 6.0  # the same, once a homography is fitted to all matches
    per_residual: float = 3.0  # of the radius, in units of how much the neighbours disagree
    per_distance: float = 0.3  # and of their mean distance
    largest_radius: float = 0.15  # of the longer edge of image 1
    # px at 1,024 px: how far from the model a candidate may be. Wider than `error`, so that a wrong candidate is beaten
    # by others rather than taken because it is the only one on the line, which would draw all models to the first.
    band: float = 12.0
    error: float = 3.0  # px at 1,024 px: how far from the model a match may be
    least_confidence: float = 0.35


# Of the logarithm of the odds that the matcher, run on all keypoints, would match two keypoints alike: a constant, and
# what each piece of evidence adds. Fitted to 54 pairs of ALIKED keypoints, 34,000 candidates, of training scenes.
_ODDS = (1.453, 0.398, 2.399, -1.355, 1.001)


class Keypoints(NamedTuple):
    """The keypoints of an image."""

    points: Floats  # (N, 2) px
    descriptors: NDArray[np.float32]  # (N, D) L2-normalised
    extent: float  # px, the longer edge of the image

    @property
    def unit(self) -> float:
        """What is a pixel in an image of 1,024 px, to which larger ones are resized before extraction, px."""
        return max(1.0, self.extent / 1024)


class Guess(NamedTuple):
    """Where the keypoints of image 0 may be in image 1."""

    points: Floats  # (M, 2) px
    radii: Floats  # (M,) px


class Pairs(NamedTuple):
    """Pairs of keypoints, ordered by the first."""

    first: Ints  # (C,) rows of image 0
    second: Ints  # (C,) rows of image 1


class Evidence(NamedTuple):
    """What speaks for each of K matches, in units that do not depend on the kind of features."""

    similarity: Floats  # (K,) of the descriptors, in standard deviations from the median of the seeds' similarities
    margin: Floats  # (K,) over the next best candidate of either keypoint, in the same unit
    distance: Floats  # (K,) px at 1,024 px, from where neighbours point
    radius: Floats  # (K,) px at 1,024 px, in which candidates were looked for


def confidence(evidence: Evidence) -> Floats:
    """(K,) in [0, 1]: the probability that each match is what the matcher would find among all keypoints.

    How well a match fits the model is no part of it: what is chosen for agreeing with a model only confirms it.
    """
    terms = (
        np.clip(evidence.similarity, -6, 2),
        np.log1p(np.clip(evidence.margin, 0, 20)),
        np.log1p(evidence.distance / 2),
        np.log(evidence.radius / 20),
    )
    odds = _ODDS[0] + sum(factor * term for factor, term in zip(_ODDS[1:], terms, strict=True))
    return np.asarray(1 / (1 + np.exp(-odds)))


def guided_matches(
    image0: Keypoints, image1: Keypoints, seeds: Ints, model: Model, options: GuidedOptions
) -> tuple[Ints, Evidence]:
    """Matches (K, 2) of keypoints that are not in `seeds` (S, 2), and what speaks for them; many are wrong.

    Each is the most similar one of both its keypoints among the candidates, and within `options.error` of `model`.
    """
    free0, free1 = (
        np.flatnonzero(np.bincount(seeds[:, side], minlength=len(image.points)) == 0)
        for side, image in enumerate((image0, image1))
    )
    points0, points1 = image0.points[free0], image1.points[free1]
    guess = guess_by(model, points0, image0.points[seeds[:, 0]], image1.points[seeds[:, 1]], image1, options)
    unit = max(image0.unit, image1.unit)
    pairs = candidates(points0, points1, guess, model, options.band * unit)
    similarity = _similarity(image0, image1, free0[pairs.first], free1[pairs.second])
    typical = _similarity(image0, image1, *seeds.T)
    other = _similarity(image0, image1, seeds[:, 0], np.roll(seeds[:, 1], len(seeds) // 2))
    middle, deviation = scale_of(typical)
    kept, margin = mutual_best(pairs, similarity, float(np.median(other)))
    close = residuals(model, points0[pairs.first[kept]], points1[pairs.second[kept]]) <= options.error * unit
    kept, margin = kept[close], margin[close]
    first, second = pairs.first[kept], pairs.second[kept]
    evidence = Evidence(
        (similarity[kept] - middle) / deviation,
        margin / deviation,
        np.linalg.norm(points1[second] - guess.points[first], axis=1) / image1.unit,
        guess.radii[first] / image1.unit,
    )
    return np.stack([free0[first], free1[second]], 1), evidence


def scale_of(similarity: NDArray[np.floating]) -> tuple[float, float]:
    """The median of the similarities of right matches, and their deviation: the unit of what speaks for others."""
    middle = float(np.median(similarity))
    return middle, 1.4826 * float(np.median(np.abs(similarity - middle))) + 1e-6


def guess_by(
    model: Model, points0: Floats, seeds0: Floats, seeds1: Floats, image1: Keypoints, options: GuidedOptions
) -> Guess:
    """Where keypoints (M, 2) may be: where the homography sends them, else where the nearest seeds do."""
    if model.geometry == "fundamental":
        return predict(points0, seeds0, seeds1, image1, options)
    sent = transform(model.matrix, points0)
    radii = np.where(np.isfinite(sent).all(1), options.least_radius * image1.unit, 0.0)
    return Guess(np.where(np.isfinite(sent), sent, -1e9), radii)


def _similarity(image0: Keypoints, image1: Keypoints, first: Ints, second: Ints) -> Floats:
    """(C,) cosines of descriptors; some at a time, so that they stay in the cache."""
    found = np.empty(len(first))
    for begin in range(0, len(first), 2048):
        rows = slice(begin, begin + 2048)
        found[rows] = np.einsum("cd,cd->c", image0.descriptors[first[rows]], image1.descriptors[second[rows]])
    return found


def predict(points0: Floats, seeds0: Floats, seeds1: Floats, image1: Keypoints, options: GuidedOptions) -> Guess:
    """Where keypoints may be in image 1, by an affine map that is fitted to the nearest seeds of each.

    The map is drawn towards the one of all seeds, as few neighbours, or ones on a line, do not make one.
    points0: (M, 2) px; seeds0, seeds1: (S, 2) px, S at least 1.
    """
    count = min(options.neighbors, len(seeds0))
    whole = _affine(seeds0, seeds1)
    parts = [
        _predict(points0[begin : begin + 2048], seeds0, seeds1, whole, count, image1, options)
        for begin in range(0, max(len(points0), 1), 2048)
    ]
    points, radii = (np.concatenate(each) for each in zip(*parts, strict=True))
    return Guess(points, radii)


def _predict(
    points0: Floats,
    seeds0: Floats,
    seeds1: Floats,
    whole: Floats,
    count: int,
    image1: Keypoints,
    options: GuidedOptions,
) -> Guess:
    """`predict` for some of the keypoints, which bounds the memory."""
    squares = _squares(points0, seeds0)
    nearest = np.argpartition(squares, count - 1, axis=1)[:, :count]
    squares = np.take_along_axis(squares, nearest, 1)
    weights = 1 / (np.sqrt(squares) + 5.0)
    weights /= weights.sum(1, keepdims=True)
    x, y = seeds0[nearest], seeds1[nearest]  # (M, k, 2)
    mean_x, mean_y = (np.einsum("mk,mkd->md", weights, each) for each in (x, y))
    dx, dy = x - mean_x[:, None], y - mean_y[:, None]
    weighted = dx * weights[..., None]
    spread = np.einsum("mki,mkj->mij", weighted, dx)
    across = np.einsum("mki,mkj->mij", dy, weighted)
    stiff = options.stiffness * (spread[:, 0, 0] + spread[:, 1, 1] + 1.0)
    spread[:, 0, 0] += stiff
    spread[:, 1, 1] += stiff
    across += stiff[:, None, None] * whole
    maps = across @ _inverse(spread)
    points = mean_y + np.einsum("mij,mj->mi", maps, points0 - mean_x)
    apart = dy - np.einsum("mij,mkj->mki", maps, dx)
    residual = np.sqrt(np.einsum("mk,mkd,mkd->m", weights, apart, apart))
    scale = np.sqrt(np.abs(np.linalg.det(maps)))
    distance = np.sqrt(squares).mean(1) * scale
    radii = options.least_radius * image1.unit + options.per_residual * residual + options.per_distance * distance
    return Guess(points, np.minimum(radii, options.largest_radius * image1.extent))


def reference_candidates(points0: Floats, points1: Floats, guess: Guess, model: Model, error: float) -> Pairs:
    """All pairs that lie within the radius of the guess, and no farther than `error` px from the model."""
    found = []
    for i, (point, guessed, radius) in enumerate(zip(points0, guess.points, guess.radii, strict=True)):
        for j, other in enumerate(points1):
            near = np.square(guessed - other).sum() <= radius**2
            if near and residuals(model, point[None], other[None])[0] <= error:
                found.append((i, j))
    first, second = np.array(found, np.int64).reshape(-1, 2).T
    return Pairs(first, second)


def candidates(points0: Floats, points1: Floats, guess: Guess, model: Model, error: float) -> Pairs:
    """What `reference_candidates` finds, in the same order.

    The keypoints of image 1 are sorted by rows of a grid and by x in them. Those that a keypoint of image 0 is compared
    with are then a few runs of that list, whose ends a binary search finds: where its circle and the band along its
    epipolar line cross the rows.
    """
    if not len(points0) or not len(points1):
        return Pairs(np.zeros(0, np.int64), np.zeros(0, np.int64))
    low, high = points1.min(0), points1.max(0)
    height = max(float(np.median(guess.radii)) / 4, (high[1] - low[1]) / 256, 1e-3)
    rows = np.floor((points1[:, 1] - low[1]) / height).astype(np.int64)
    width = high[0] - low[0] + 1
    keys = rows * width + (points1[:, 0] - low[0])
    order = np.argsort(keys, kind="stable")
    keys = keys[order]
    reach = guess.radii + 1e-3  # wider than rounding, as is all that follows
    y = guess.points[:, 1] - low[1]
    top, bottom = (np.floor((y + sign * reach) / height).astype(np.int64) for sign in (-1, 1))
    top, bottom = np.maximum(top, 0), np.minimum(bottom, rows.max())
    spans = np.maximum(bottom - top + 1, 0)
    owner, row = np.repeat(np.arange(len(points0)), spans), _runs(top, spans)
    left, right = guess.points[owner, 0] - reach[owner], guess.points[owner, 0] + reach[owner]
    if model.geometry == "fundamental":
        band = _band(points0 @ model.matrix[:, :2].T + model.matrix[:, 2], error + 1e-3)
        crossing = band(owner, low[1] + row * height - 1e-3, low[1] + (row + 1) * height + 1e-3)
        left, right = np.maximum(left, crossing[0]), np.minimum(right, crossing[1])
    left, right = np.clip(left - low[0], 0, width), np.clip(right - low[0], -1, width - 0.5)
    begin, end = np.searchsorted(keys, row * width + left, "left"), np.searchsorted(keys, row * width + right, "right")
    counts = np.maximum(end - begin, 0)
    found = []
    for part in _parts(counts):
        first, second = np.repeat(owner[part], counts[part]), order[_runs(begin[part], counts[part])]
        near = np.square(points1[second] - guess.points[first]).sum(1) <= np.square(guess.radii[first])
        first, second = first[near], second[near]
        close = residuals(model, points0[first], points1[second]) <= error
        found.append((first[close], second[close]))
    first, second = (np.concatenate(each) for each in zip(*found, strict=True))
    sorting = np.lexsort((second, first))
    return Pairs(first[sorting], second[sorting])


def _band(lines: Floats, error: float) -> Callable[[Ints, Floats, Floats], tuple[Floats, Floats]]:
    """Where the bands along lines (M, 3) cross rows: a function of (C,) lines, and the edges of as many rows."""
    a, b, c = (lines / np.hypot(lines[:, 0], lines[:, 1])[:, None]).T
    a = np.where(np.abs(a) < 1e-9, 1e-9, a)  # NaN, of a line at infinity, stays

    def crossing(rows: Ints, top: Floats, bottom: Floats) -> tuple[Floats, Floats]:
        begin, end = (-(c[rows] + b[rows] * y) / a[rows] for y in (top, bottom))
        slack = error / np.abs(a[rows])
        return np.minimum(begin, end) - slack, np.maximum(begin, end) + slack

    return crossing


def mutual_best(pairs: Pairs, similarity: NDArray[np.floating], absent: float) -> tuple[Ints, Floats]:
    """The pairs that are the most similar ones of both their keypoints, and by how much.

    similarity: (C,); of equal ones the first is taken. absent: what stands for the second best where there is no other.
    Returns rows of `pairs`, in their order, and for each its similarity less that of the next best of either keypoint.
    """
    rows = np.arange(len(similarity))
    is_best, second = np.ones(len(similarity), np.bool_), np.full(len(similarity), absent)
    for own in pairs:
        order = np.lexsort((rows, -similarity, own))
        is_first = np.r_[True, own[order[1:]] != own[order[:-1]]][: len(order)]
        is_best[order[~is_first]] = False
        is_next = np.r_[False, is_first[:-1] & ~is_first[1:]][: len(order)]  # follows the best of its keypoint
        best = order[np.flatnonzero(is_next) - 1]
        second[best] = np.maximum(second[best], similarity[order[is_next]])
    kept = np.flatnonzero(is_best)
    return kept, np.asarray(similarity[kept] - second[kept])


def _squares(a: Floats, b: Floats) -> Floats:
    """(M, N) squared distances."""
    return np.asarray(np.square(a[:, None, 0] - b[:, 0]) + np.square(a[:, None, 1] - b[:, 1]))


def _affine(points0: Floats, points1: Floats) -> Floats:
    """(2, 2) the linear part of the affine map of all points."""
    dx, dy = points0 - points0.mean(0), points1 - points1.mean(0)
    spread = dx.T @ dx
    return np.asarray(dy.T @ dx @ np.linalg.inv(spread + 1e-9 * (np.trace(spread) + 1) * np.eye(2)))


def _inverse(matrices: Floats) -> Floats:
    """Of (M, 2, 2)."""
    a, b, c, d = (matrices[:, i, j] for i in (0, 1) for j in (0, 1))
    return np.asarray(np.stack([d, -b, -c, a], -1).reshape(-1, 2, 2) / (a * d - b * c)[:, None, None])


def _runs(begin: Ints, counts: Ints) -> Ints:
    """begin[0], begin[0] + 1, ... (counts[0] of them), begin[1], ..."""
    ends = np.cumsum(counts)
    return np.asarray(np.arange(ends[-1] if len(ends) else 0) + np.repeat(begin - (ends - counts), counts))


def _parts(counts: Ints, limit: int = 1 << 20) -> list[slice]:
    """Slices of about `limit` in all, which bound the memory; at least one."""
    ends = np.cumsum(counts)
    cuts = np.searchsorted(ends, np.arange(limit, ends[-1] if len(ends) else 0, limit), "left") + 1
    edges = np.unique(np.concatenate([[0], cuts, [len(counts)]]))
    return [slice(a, b) for a, b in pairwise(edges)] or [slice(0, 0)]
