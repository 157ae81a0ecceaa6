"""Matches of all keypoints, guided by those that some of them have: near where neighbours point, on the epipolar line.

`reference_candidates` is the definition of what is compared with what: all pairs of keypoints, one by one.
`candidates` finds the same ones by way of rows of a grid, in a hundredth of the time.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "Guess",
    "GuidedOptions",
    "Model",
    "Pairs",
    "candidates",
    "mutual_best",
    "predict",
    "reference_candidates",
    "residuals",
]

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


@dataclass(frozen=True)
class GuidedOptions:
    """How keypoints without a match are looked for."""

    neighbors: int = 8  # seeds that point to where a keypoint may be
    stiffness: float = 0.3  # of a local map towards that of the whole image
    least_radius: float = 12.0  # px of image 1, around where a keypoint may be
    per_residual: float = 3.0  # of the radius, in units of how much the neighbours disagree
    per_distance: float = 0.3  # and of their mean distance
    largest_radius: float = 0.15  # of the longer edge of the keypoints' extent in image 1
    error: float = 3.0  # px, the larger one of both images, from the model


class Model(NamedTuple):
    """What all matches agree with."""

    geometry: Literal["fundamental", "homography"]
    matrix: Floats  # (3, 3)


class Guess(NamedTuple):
    """Where the keypoints of image 0 may be in image 1."""

    points: Floats  # (M, 2) px
    radii: Floats  # (M,) px


class Pairs(NamedTuple):
    """Pairs of keypoints, ordered by the first."""

    first: Ints  # (C,) rows of image 0
    second: Ints  # (C,) rows of image 1


def predict(points0: Floats, seeds0: Floats, seeds1: Floats, extent: float, options: GuidedOptions) -> Guess:
    """Where keypoints may be in image 1, by an affine map that is fitted to the nearest seeds of each.

    The map is drawn towards the one of all seeds, as few neighbours, or ones on a line, do not make one.
    points0: (M, 2) px; seeds0, seeds1: (S, 2) px, S at least 3; extent: px, the longer edge of image 1.
    """
    count = min(options.neighbors, len(seeds0))
    squares = _squares(points0, seeds0)
    nearest = np.argpartition(squares, count - 1, axis=1)[:, :count]
    squares = np.take_along_axis(squares, nearest, 1)
    weights = 1 / (np.sqrt(squares) + 5.0)
    weights /= weights.sum(1, keepdims=True)
    x, y = seeds0[nearest], seeds1[nearest]  # (M, k, 2)
    mean_x, mean_y = (np.einsum("mk,mkd->md", weights, each) for each in (x, y))
    dx, dy = x - mean_x[:, None], y - mean_y[:, None]
    whole = _affine(seeds0, seeds1)
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
    radii = options.least_radius + options.per_residual * residual + options.per_distance * distance
    return Guess(points, np.minimum(radii, options.largest_radius * extent))


def residuals(model: Model, points0: Floats, points1: Floats) -> Floats:
    """How far matches (K, 2) are from a model, (K,) px: the larger one of the distances in both images.

    Of a homography in image 1, and in image 0 by its inverse; of a fundamental matrix from the epipolar lines.
    """
    x0, x1 = (np.concatenate([each, np.ones((len(each), 1))], 1) for each in (points0, points1))
    with np.errstate(divide="ignore", invalid="ignore"):
        if model.geometry == "homography":
            there, back = x0 @ model.matrix.T, x1 @ np.linalg.inv(model.matrix).T
            errors = (there[:, :2] / there[:, 2:] - points1, back[:, :2] / back[:, 2:] - points0)
            found = np.maximum(*(np.hypot(each[:, 0], each[:, 1]) for each in errors))
        else:
            lines1, lines0 = x0 @ model.matrix.T, x1 @ model.matrix
            product = np.abs(np.einsum("ki,ki->k", lines1, x1))
            shorter = np.minimum(*(np.hypot(each[:, 0], each[:, 1]) for each in (lines0, lines1)))
            found = product / shorter
    return np.where(np.isnan(found), np.inf, found)


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
    with are then a few runs of that list, whose ends a binary search finds.
    """
    none = Pairs(np.zeros(0, np.int64), np.zeros(0, np.int64))
    if not len(points0) or not len(points1):
        return none
    height = max(float(np.median(guess.radii)), 1e-3)
    low, high = points1.min(0), points1.max(0)
    rows = np.floor((points1[:, 1] - low[1]) / height).astype(np.int64)
    width = high[0] - low[0] + 1
    order = np.argsort(rows * width + (points1[:, 0] - low[0]), kind="stable")
    keys = (rows * width + (points1[:, 0] - low[0]))[order]
    reach = guess.radii + 1e-3  # wider than rounding
    top, bottom = (np.floor((guess.points[:, 1] + sign * reach - low[1]) / height).astype(np.int64) for sign in (-1, 1))
    top, bottom = np.maximum(top, 0), np.minimum(bottom, rows.max())
    spans = np.maximum(bottom - top + 1, 0)
    owner = np.repeat(np.arange(len(points0)), spans)
    row = _runs(top, spans)
    left = np.clip(guess.points[owner, 0] - reach[owner] - low[0], 0, width)
    right = np.clip(guess.points[owner, 0] + reach[owner] - low[0], -1, width - 0.5)
    begin, end = np.searchsorted(keys, row * width + left, "left"), np.searchsorted(keys, row * width + right, "right")
    counts = np.maximum(end - begin, 0)
    found = []
    for part in _parts(counts):
        first, second = np.repeat(owner[part], counts[part]), order[_runs(begin[part], counts[part])]
        apart = points1[second] - guess.points[first]
        near = np.square(apart).sum(1) <= np.square(guess.radii[first])
        first, second = first[near], second[near]
        close = residuals(model, points0[first], points1[second]) <= error
        found.append((first[close], second[close]))
    if not found:
        return none
    first, second = (np.concatenate(each) for each in zip(*found, strict=True))
    sorting = np.lexsort((second, first))
    return Pairs(first[sorting], second[sorting])


def mutual_best(pairs: Pairs, similarity: NDArray[np.floating], count0: int, count1: int) -> NDArray[np.bool_]:
    """(C,) whether each pair is the most similar one of both its keypoints; of equal ones the first."""
    best = np.ones(len(similarity), np.bool_)
    order = np.argsort(-similarity, kind="stable")
    for rows, count in ((pairs.first, count0), (pairs.second, count1)):
        leader = np.full(count, -1)
        leader[rows[order][::-1]] = order[::-1]
        best &= leader[rows] == np.arange(len(similarity))
    return best


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
    """Slices of about `limit` in all, which bound the memory."""
    ends = np.cumsum(counts)
    cuts = np.searchsorted(ends, np.arange(limit, (ends[-1] if len(ends) else 0) + limit, limit), "left") + 1
    edges = np.unique(np.concatenate([[0], np.minimum(cuts, len(counts))]))
    return [slice(a, b) for a, b in pairwise(edges)]
