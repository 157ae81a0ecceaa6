"""Images of a map whose places look alike: a query of one of them is matched with the others, too."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from lightglue.sfm.colmap.judged import read_judgements
from lightglue.sfm.colmap.pair_ids import pair_of
from lightglue.sfm.colmap.state import read_state

__all__ = ["far_apart", "is_as_likely", "read_look_alikes", "twins_of"]

Array = NDArray[np.float64]

_AS_LIKELY = 0.6  # times as many keypoints as the best place has: the views of one may lie nearer the query's
_TURNED = 10.0  # degrees between two poses of one place, at the most
_MOVED = 0.1  # of the depth of what is seen, likewise


def read_look_alikes(database: Path) -> dict[str, tuple[str, ...]]:
    """Of each image, those that it has a dropped pair with, the one with most inliers first.

    Empty where there is no database, or none of its pairs was dropped. Raises StoreError where it is damaged.
    """
    if not database.exists():
        return {}
    names = read_state(database).names
    dropped = [each for each in read_judgements(database).values() if each.reason is not None]
    found: dict[str, list[str]] = {}
    for each in sorted(dropped, key=lambda each: (-each.inliers, each.number)):
        first, second = (names[number - 1] for number in pair_of(each.number))
        found.setdefault(first, []).append(second)
        found.setdefault(second, []).append(first)
    return {name: tuple(others) for name, others in found.items()}


def twins_of(names: Iterable[str], look_alikes: Mapping[str, tuple[str, ...]]) -> list[str]:
    """Images that look like these and show another place: one of each in turn, those of the first names first."""
    lists = [look_alikes.get(name, ()) for name in names]
    deepest = max((len(each) for each in lists), default=0)
    return list(dict.fromkeys(each[rank] for rank in range(deepest) for each in lists if rank < len(each)))


def far_apart(first: Array, second: Array, points: Array) -> bool:
    """Whether two cameras (4, 4) of one world stand so that it is not one pose. points: (N, 3) that the first sees."""
    turned = np.degrees(np.arccos(np.clip((np.trace(first[:3, :3] @ second[:3, :3].T) - 1) / 2, -1, 1)))
    centres = [-T[:3, :3].T @ T[:3, 3] for T in (first, second)]
    depth = float(np.median(points @ first[2, :3] + first[2, 3]))
    return bool(turned > _TURNED or np.linalg.norm(centres[0] - centres[1]) > _MOVED * depth)


def is_as_likely(count: int, other: int) -> bool:
    """Whether a place that `count` keypoints of a query fit is as likely as one that `other` fit, or likelier."""
    return count >= _AS_LIKELY * other
