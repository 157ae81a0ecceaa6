"""Nearest neighbours of descriptors, seen from both images, and the tests that a neighbour must pass to be a match.

`dense_neighbors` is the definition. `blocked_neighbors` finds the same ones some rows of the (M, N) matrix at a time,
so that 100,000 x 100,000 descriptors, of which the matrix would take 40 GB, need no more than a block of it.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from lightglue.matching.assignment import Assignment, row_blocks
from lightglue.support.products import similarities

__all__ = ["Neighbors", "blocked_neighbors", "dense_neighbors", "keep_matches"]


class Neighbors(NamedTuple):
    """For each descriptor of one image those of the other that are nearest to it, by Euclidean distance."""

    nearest: Tensor  # (M,) int64, index into the other image
    distance: Tensor  # (M,) to the nearest
    second: Tensor  # (M,) distance to the second nearest; infinite where the other image has one descriptor only


def dense_neighbors(a: Tensor, b: Tensor) -> tuple[Neighbors, Neighbors]:
    """The neighbours of a (M, D) in b (N, D), and of b in a; M and N at least 1. Of equals the first position wins."""
    distances = torch.linalg.vector_norm(a[:, None] - b, dim=-1)
    return _neighbors_in_rows(distances), _neighbors_in_rows(distances.T)


def _neighbors_in_rows(distances: Tensor) -> Neighbors:
    distance, nearest = distances.min(1)
    others = distances.scatter(1, nearest[:, None], torch.inf)
    return Neighbors(nearest, distance, others.amin(1))


def blocked_neighbors(a: Tensor, b: Tensor, seconds: bool) -> tuple[Neighbors, Neighbors]:
    """`dense_neighbors(a, b)`, some rows at a time; without `seconds` the distances to the second nearest are infinite.

    What is compared is -|a - b|^2 / 2 = a.b - |a|^2 / 2 - |b|^2 / 2, one matrix product. Its rounding is relative to
    the squared lengths of the descriptors; the distances that are returned are taken of the differences themselves.
    """
    left, right = _factors(a, b)
    found0 = [_two_best(left[:0] @ right.T[:, :1], 1, seconds)]
    values = right.new_full((2, len(b)), -torch.inf)
    indices = torch.zeros_like(values, dtype=torch.int64)
    for rows in row_blocks(len(a), len(b), a.device):
        closeness = similarities(left[rows], right)
        found0.append(_two_best(closeness, 1, seconds))
        block_values, block_indices = _two_best(closeness, 0, seconds)
        # What was found before comes first, so that of equals the first position goes on winning.
        values, kept = _two_best(torch.cat((values, block_values)), 0, seconds)
        indices = torch.cat((indices, block_indices + rows.start)).gather(0, kept)
    values0, indices0 = (torch.cat(parts).T for parts in zip(*found0, strict=True))
    return _measured(a, b, values0, indices0), _measured(b, a, values, indices)


def _factors(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """(M, D + 2) and (N, D + 2), whose products are -|a - b|^2 / 2."""
    half_a, half_b = (x.square().sum(1, keepdim=True) / -2 for x in (a, b))
    return torch.cat((a, half_a, torch.ones_like(half_a)), 1), torch.cat((b, torch.ones_like(half_b), half_b), 1)


def _two_best(x: Tensor, dim: int, seconds: bool) -> tuple[Tensor, Tensor]:
    """The two greatest values along `dim` (0 or 1) and their indices; -inf for a second that there is not.

    `topk` promises nothing about the order of equals, so this takes the maximum twice.
    """
    value, index = x.max(dim, keepdim=True)
    if not seconds:
        return torch.cat((value, torch.full_like(value, -torch.inf)), dim), torch.cat((index, index), dim)
    x.scatter_(dim, index, -torch.inf)
    second, second_index = x.max(dim, keepdim=True)
    x.scatter_(dim, index, value)
    return torch.cat((value, second), dim), torch.cat((index, second_index), dim)


def _measured(a: Tensor, b: Tensor, values: Tensor, indices: Tensor) -> Neighbors:
    """The neighbours at `indices` (2, M) in b, with exact distances. values: (2, M), -inf where there is no second."""
    distance = torch.linalg.vector_norm(a - b[indices[0]], dim=1)
    second = torch.full_like(distance, torch.inf)
    there = values[1] > -torch.inf
    second[there] = torch.linalg.vector_norm(a[there] - b[indices[1][there]], dim=1)
    return Neighbors(indices[0], distance, second)


def keep_matches(
    a: Tensor,  # (M, D) descriptors of image 0
    b: Tensor,  # (N, D) of image 1
    found: tuple[Neighbors, Neighbors],
    mutual: bool,
    ratios: tuple[float | None, float | None],  # seen from image 0, from image 1
    limit: float | None,
) -> Assignment:
    """The neighbours that pass: distance <= ratio * second, distance <= limit; with `mutual` seen from both images.

    The score is 1 - |a - b|^2 / (2 |a|^2 + 2 |b|^2): 1 for equal descriptors, 0 for opposite ones, and (1 + cos) / 2
    where both have the same length.
    """
    matches0, matches1 = (_passing(each, ratio, limit) for each, ratio in zip(found, ratios, strict=True))
    if mutual:
        matches0, matches1 = _agreeing(matches0, matches1), _agreeing(matches1, matches0)
    scores0, scores1 = _scores(a, b, found[0], matches0), _scores(b, a, found[1], matches1)
    return Assignment(matches0, matches1, scores0, scores1)


def _passing(neighbors: Neighbors, ratio: float | None, limit: float | None) -> Tensor:
    """(M,) the nearest, or -1 where it fails a test. Where there is no second, the ratio test has nothing to fail."""
    passes = torch.ones_like(neighbors.nearest, dtype=torch.bool)
    if ratio is not None:
        passes &= neighbors.distance <= ratio * neighbors.second
    if limit is not None:
        passes &= neighbors.distance <= limit
    return torch.where(passes, neighbors.nearest, -1)


def _agreeing(matches0: Tensor, matches1: Tensor) -> Tensor:
    """`matches0` where the partner's match in `matches1` leads back, else -1."""
    back = matches1[matches0]  # -1 reads the last one, which is not kept
    own = torch.arange(len(matches0), device=matches0.device)
    return torch.where((matches0 >= 0) & (back == own), matches0, -1)


def _scores(a: Tensor, b: Tensor, neighbors: Neighbors, matches: Tensor) -> Tensor:
    """(M,) the score of each match, 0 where there is none."""
    lengths = a.square().sum(1) + b.square().sum(1)[neighbors.nearest]
    tiny = torch.finfo(lengths.dtype).tiny  # two descriptors of zeros are equal
    scores = 1 - neighbors.distance.square() / (2 * lengths).clamp_min(tiny)
    return torch.where(matches >= 0, scores.clamp(0, 1), 0)
