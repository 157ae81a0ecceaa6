"""Matches of several views as those of one pair: no two of the same two places."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from lightglue.pairs.hard.looks import Correspondences

__all__ = ["pooled", "without_duplicates"]

APART = 1.5  # px of the originals: matches that are nearer than this in both images are one


def pooled(parts: Sequence[Correspondences]) -> Correspondences:
    """All matches of `parts`, at least one, whose descriptors are of one length."""
    arrays: dict[str, Any] = {
        name: np.concatenate([getattr(part, name) for part in parts]) for name in ("points0", "points1", "scores")
    }
    names = ("keypoint_scores0", "keypoint_scores1", "descriptors0", "descriptors1")
    tensors: dict[str, Any] = {name: torch.cat([getattr(part, name) for part in parts]) for name in names}
    counts = max(part.counts[0] for part in parts), max(part.counts[1] for part in parts)
    return Correspondences(**arrays, **tensors, counts=counts)


def without_duplicates(found: Correspondences, apart: float = APART) -> Correspondences:
    """The best by score of matches that are nearer than `apart` px to each other in both images; best first."""
    order = np.argsort(-found.scores, kind="stable")
    places = np.hstack((found.points0, found.points1))[order]
    # Cells of that side in image 0: what is near is in the same one or beside it.
    cells = np.floor(places[:, :2] / apart).astype(np.int64)
    kept: dict[tuple[int, int], list[int]] = {}
    rows = []
    for row, (x, y) in enumerate(cells.tolist()):
        near = [other for dx in (-1, 0, 1) for dy in (-1, 0, 1) for other in kept.get((x + dx, y + dy), ())]
        gaps = places[near] - places[row]
        is_new = (
            not len(near)
            or not ((np.hypot(gaps[:, 0], gaps[:, 1]) < apart) & (np.hypot(gaps[:, 2], gaps[:, 3]) < apart)).any()
        )
        if is_new:
            kept.setdefault((x, y), []).append(row)
            rows.append(row)
    return found.only(order[rows])
