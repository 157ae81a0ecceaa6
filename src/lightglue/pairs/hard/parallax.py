"""The epipolar geometry of a scene that is mostly one plane: from that plane, and what lies off it.

Matches of one plane leave the fundamental matrix open: F = [e]x H for any epipole e. Each match off the plane says that
the epipole lies on the line from where the plane would be seen to where the match is, so that two of them say where
(Chum, Werner and Matas, "Two-view geometry estimation unaffected by a dominant plane", 2005).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from lightglue.pairs.hard.warping import Floats

__all__ = ["with_parallax"]

DRAWS = 500  # pairs of matches at most
SEED = 0


def with_parallax(
    H: Floats, points0: Floats, points1: Floats, pixels: float
) -> tuple[Floats, NDArray[np.bool_]] | None:
    """F (3, 3) of a plane's H and matches (K, 2) off the plane, and which of those agree up to `pixels` in image 1.

    None where fewer than three do: two always agree.
    """
    if len(points0) < 3:
        return None
    before = np.column_stack((points0, np.ones(len(points0)))) @ H.T
    before /= np.linalg.norm(before, axis=1, keepdims=True)
    there = np.column_stack((points1, np.ones(len(points1))))
    lines = np.cross(before, there)
    lines /= np.maximum(np.linalg.norm(lines[:, :2], axis=1, keepdims=True), 1e-12)
    rows = np.column_stack(np.triu_indices(len(lines), 1))
    if len(rows) > DRAWS:
        rows = rows[np.random.default_rng(SEED).choice(len(rows), DRAWS, replace=False)]
    epipoles = np.cross(lines[rows[:, 0]], lines[rows[:, 1]])
    epipoles /= np.maximum(np.linalg.norm(epipoles, axis=1, keepdims=True), 1e-12)
    agree = _distances(epipoles, before, there) < pixels
    best = agree[agree.sum(axis=1).argmax()]
    for _ in range(3):  # the epipole that is nearest to the lines of all that agree
        if best.sum() < 3:
            return None
        epipole = np.linalg.svd(lines[best])[2][-1]
        better = _distances(epipole[None], before, there)[0] < pixels
        if better.sum() <= best.sum():
            break
        best = better
    epipole = np.linalg.svd(lines[best])[2][-1]
    x, y, z = epipole
    F = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]]) @ H
    return F / np.abs(F).max(), _distances(epipole[None], before, there)[0] < pixels


def _distances(epipoles: Floats, before: Floats, there: Floats) -> Floats:
    """(E, K) px from each match in image 1 to the line through where the plane would be seen, for each of E."""
    lines = np.cross(epipoles[:, None], before[None])
    lengths = np.maximum(np.linalg.norm(lines[..., :2], axis=-1), 1e-12)
    return np.asarray(np.abs((lines * there[None]).sum(axis=-1)) / lengths)
