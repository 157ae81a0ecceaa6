"""From matches at any positions to matches of keypoints that are fixed: which of them show the same.

Matches that were found in warped images lie where no keypoint is. Around each of them its neighbours give the local
affine map from image 0 to image 1, and a keypoint of image 0 near it is carried by that to where image 1 shows it. The
keypoint of image 1 that is nearest to there, and for which no other one lands nearer, is its match, if both
images are off by no more than a few px: what a map shrinks is measured where it is large.

K stands for the matches, N and M for the keypoints of image 0 and image 1.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from lightglue.geometry.refine import fit_local_maps

__all__ = ["Carried", "Transferred", "carry", "transfer", "transfer_one_by_one"]

Floats = NDArray[np.float64]

_NEIGHBORS = 13  # of a match, itself among them: as when matches are refined
_FEWEST = 4  # matches: fewer determine no map with a residual
_EXACT = "donot_use_mm_for_euclid_dist"
_BLOCK = 1024  # keypoints whose distances to all others are in memory at once


class Carried(NamedTuple):
    """Keypoints of image 0 as image 1 shows them."""

    positions: Floats  # (N, 2) px of image 1; NaN where no match is near
    matrices: Floats  # (N, 2, 2), d px of image 0 to px of image 1
    match: NDArray[np.int64]  # (N,) the match that carried it; -1


class Transferred(NamedTuple):
    """Matches of keypoints."""

    matches: NDArray[np.int64]  # (L, 2) rows of keypoints, by those of image 0
    scores: Floats  # (L,) of the match that carried each


def carry(keypoints0: Floats, points0: Floats, points1: Floats, reach: float) -> Carried:
    """Keypoints (N, 2) where image 1 shows them, by the nearest match (K, 2), (K, 2) within `reach` px of image 0."""
    count = len(keypoints0)
    positions, matrices = np.full((count, 2), np.nan), np.full((count, 2, 2), np.nan)
    match = np.full(count, -1)
    if len(points0) < _FEWEST or not count:
        return Carried(positions, matrices, match)
    near = _nearest(points0, points0, min(_NEIGHBORS, len(points0)))[0]
    first, second = (torch.from_numpy(np.ascontiguousarray(each)) for each in (points0, points1))
    trusted = torch.ones(len(points0), dtype=torch.bool)
    maps = [each.numpy() for each in fit_local_maps(first, second, torch.from_numpy(near), trusted)]
    rows, distances = (each[:, 0] for each in _nearest(keypoints0, points0, 1))
    around = maps[0][rows]
    carried = maps[1][rows] + np.einsum("nij,nj->ni", around, keypoints0 - points0[rows])
    is_no_mirror = around[:, 0, 0] * around[:, 1, 1] > around[:, 0, 1] * around[:, 1, 0]
    usable = (distances <= reach) & np.isfinite(carried).all(axis=1) & is_no_mirror
    positions[usable], matrices[usable], match[usable] = carried[usable], around[usable], rows[usable]
    return Carried(positions, matrices, match)


def transfer(
    keypoints0: Floats, keypoints1: Floats, points0: Floats, points1: Floats, scores: Floats, reach: float, error: float
) -> Transferred:
    """The matches of fixed keypoints (N, 2) and (M, 2) px that matches at points (K, 2), (K, 2) say.

    Args:
        scores: (K,) of the matches.
        reach: px of image 0, within which a match tells of a keypoint.
        error: px of either image, by which what is carried may miss a keypoint.
    """
    carried = carry(keypoints0, points0, points1, reach)
    rows = (carried.match >= 0).nonzero()[0]
    if not len(rows) or not len(keypoints1):
        return Transferred(np.zeros((0, 2), np.int64), np.zeros(0))
    there = carried.positions[rows]
    forth, back = _nearest(there, keypoints1, 1)[0][:, 0], _nearest(keypoints1, there, 1)[0][:, 0]
    kept = back[forth] == np.arange(len(rows))
    off = keypoints1[forth] - there
    own = np.linalg.solve(carried.matrices[rows], off[..., None])[..., 0]
    kept &= np.maximum(np.linalg.norm(off, axis=1), np.linalg.norm(own, axis=1)) <= error
    matches = np.stack([rows[kept], forth[kept]], axis=1)
    return Transferred(matches, scores[carried.match[matches[:, 0]]])


def transfer_one_by_one(
    keypoints0: Floats, keypoints1: Floats, points0: Floats, points1: Floats, scores: Floats, reach: float, error: float
) -> Transferred:
    """The same keypoint by keypoint, for tests and for reading."""
    carried = carry(keypoints0, points0, points1, reach)
    matches, found = [], []
    for i, (there, matrix, match) in enumerate(zip(*carried, strict=True)):
        if match < 0 or not len(keypoints1):
            continue
        j = int(np.linalg.norm(keypoints1 - there, axis=1).argmin())
        if np.nanargmin(np.linalg.norm(carried.positions - keypoints1[j], axis=1)) != i:
            continue  # another keypoint of image 0 lands nearer
        off = keypoints1[j] - there
        if max(np.linalg.norm(off), np.linalg.norm(np.linalg.inv(matrix) @ off)) <= error:
            matches.append((i, j))
            found.append(scores[match])
    return Transferred(np.array(matches, np.int64).reshape(-1, 2), np.array(found, np.float64))


def _nearest(points: Floats, others: Floats, count: int) -> tuple[NDArray[np.int64], Floats]:
    """Of each point (N, 2) the nearest others, rows (N, count), nearest first, and how far these are, px."""
    rows, far = np.empty((len(points), count), np.int64), np.empty((len(points), count))
    for start in range(0, len(points), _BLOCK):
        block = points[start : start + _BLOCK]
        distances = torch.cdist(torch.from_numpy(block), torch.from_numpy(others), compute_mode=_EXACT)
        found = distances.topk(count, dim=1, largest=False)
        rows[start : start + _BLOCK], far[start : start + _BLOCK] = found.indices.numpy(), found.values.numpy()
    return rows, far
