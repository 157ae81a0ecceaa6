"""A round room with the same picture on two opposite walls, as stores of features and matches.

Whoever walks round it sees one picture at the beginning and the other at the end, and something else in between.
Pairs of images that share nothing but the look of the pictures are matched by it, falsely.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from lightglue.stores import FeatureStore, MatchStore, PairMatches
from support.colmap_scene import SIZE, K, features_at, put

PICTURE = 70  # points of each picture
ROUND = 800  # points of the room
STEP = np.radians(14)  # between two images
FEW = 20  # matches, below which a pair has none


@dataclass(frozen=True)
class TwinScene:
    features: FeatureStore
    matches: MatchStore
    poses: dict[str, NDArray[np.float64]]  # (4, 4), world to camera
    false: set[tuple[str, str]]

    @property
    def names(self) -> list[str]:
        return sorted(self.poses)


def make_twins(
    folder: Path, count: int = 14, names: list[str] | None = None, leave_out: tuple[int, ...] = ()
) -> TwinScene:
    """`count` images; those numbered in `leave_out` are missing."""
    rng = np.random.default_rng(3)
    points = _points(rng)
    features = FeatureStore.open(folder / "features", {"made": 1})
    matches = MatchStore.open(folder / "matches.db", {"matcher": "lightglue"})
    poses = {f"{number:02d}.jpg": _pose(number) for number in range(count)}
    seen = {name: _seen(points, T, rng) for name, T in poses.items()}
    for name, (_, pixels) in seen.items():
        put(features, name, features_at(pixels.astype(np.float32)))
    false, found = set(), []
    for name0, name1 in combinations(sorted(poses), 2):
        rows, is_false = _matched(seen[name0][0], seen[name1][0])
        if len(rows) < FEW:
            continue
        false |= {(name0, name1)} if is_false else set()
        heads = features.head(name0), features.head(name1)
        assert heads[0] is not None
        assert heads[1] is not None
        scores = np.full(len(rows), 0.3 if is_false else 0.9, np.float32)
        found.append(PairMatches(name0, name1, rows, scores, digests=(heads[0].digest, heads[1].digest)))
    matches.put(found)
    return TwinScene(features, matches, poses, false)


def _points(rng: np.random.Generator) -> NDArray[np.float64]:
    """(P, 3): the room, a picture, and the same turned by half a circle."""
    angle, height = rng.uniform(0, 2 * np.pi, ROUND), rng.uniform(-3, 3, ROUND)
    distance = rng.uniform(9, 11, ROUND)
    room = np.stack((distance * np.cos(angle), height, distance * np.sin(angle)), axis=1)
    angle = rng.uniform(-0.35, 0.35, PICTURE)
    picture = np.stack((9 * np.cos(angle), rng.uniform(-2, 2, PICTURE), 9 * np.sin(angle)), axis=1)
    picture[:, [0, 2]] *= rng.uniform(0.85, 1.15, (PICTURE, 1))
    return np.concatenate((room, picture, picture * (-1, 1, -1)))


def _pose(number: int) -> NDArray[np.float64]:
    """From the world to a camera that looks across the room."""
    angle = STEP * number
    ahead = np.array([np.cos(angle), 0, np.sin(angle)])
    T = np.eye(4)
    T[:3, :3] = [np.cross((0, 1, 0), ahead), (0, 1, 0), ahead]
    T[:3, 3] = T[:3, :3] @ (3 * ahead)
    return T


def _seen(
    points: NDArray[np.float64], T: NDArray[np.float64], rng: np.random.Generator
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Which points an image sees, and where, px."""
    there = points @ T[:3, :3].T + T[:3, 3]
    pixels = (there @ K.T)[:, :2] / there[:, 2:] + rng.normal(0, 0.2, (len(points), 2))
    inside = (there[:, 2] > 0.5) & (pixels > 0).all(axis=1) & (pixels < np.array(SIZE) - 1).all(axis=1)
    ids = np.flatnonzero(inside & (rng.uniform(size=len(points)) < 0.9))
    return ids, pixels[ids]


def _matched(first: NDArray[np.int64], second: NDArray[np.int64]) -> tuple[NDArray[np.int32], bool]:
    """Matches (K, 2) of what both see or, where that is nothing, of what looks alike; and whether they are false."""
    _, rows0, rows1 = np.intersect1d(first, second, return_indices=True)
    if len(rows0) >= FEW:
        return np.stack((rows0, rows1), axis=1).astype(np.int32), False
    twin = np.where(second >= ROUND + PICTURE, second - PICTURE, np.where(second >= ROUND, second + PICTURE, -1))
    _, rows0, rows1 = np.intersect1d(first, twin, return_indices=True)
    return np.stack((rows0, rows1), axis=1).astype(np.int32), True
