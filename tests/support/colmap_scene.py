"""A synthetic scene as stores of features and matches: points seen by a camera that moves around them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from lightglue.stores import FeatureStore, ImageFeatures, MatchStore, PairMatches, Source

FOCAL, SIZE = 600.0, (640, 480)  # px
K = np.array([[FOCAL, 0, 319.5], [0, FOCAL, 239.5], [0, 0, 1]])  # the centre of the top-left pixel is (0, 0)
POINTS = 200


@dataclass(frozen=True)
class Scene:
    folder: Path
    features: FeatureStore
    matches: MatchStore
    poses: Mapping[str, NDArray[np.float64]]  # (4, 4), from the world to the camera

    @property
    def names(self) -> list[str]:
        return sorted(self.poses)


def pose(number: int) -> NDArray[np.float64]:
    angle = 0.12 * (number - 3)
    T = np.eye(4)
    T[:3, :3] = [[np.cos(angle), 0, -np.sin(angle)], [0, 1, 0], [np.sin(angle), 0, np.cos(angle)]]
    T[:3, 3] = [0.05 * number, 0.02 * number, 4]
    return T


def features_of(T: NDArray[np.float64], seed: int, noise: float = 0.2) -> ImageFeatures:
    X = np.random.default_rng(7).uniform(-1, 1, (POINTS, 3))
    seen = (X @ T[:3, :3].T + T[:3, 3]) @ K.T
    points = seen[:, :2] / seen[:, 2:] + np.random.default_rng(seed).normal(0, noise, (POINTS, 2))
    return features_at(points.astype(np.float32))


def features_at(points: NDArray[np.float32], size: tuple[int, int] = SIZE) -> ImageFeatures:
    count = len(points)
    return ImageFeatures(points, np.zeros((count, 4), np.float16), np.ones(count, np.float32), size, "made")


def put(features: FeatureStore, name: str, image: ImageFeatures) -> None:
    features.put(name, image, Source(1, 1, "0"))


def all_matches(features: FeatureStore, name0: str, name1: str) -> PairMatches:
    heads = features.head(name0), features.head(name1)
    assert heads[0] is not None
    assert heads[1] is not None
    matches = np.stack([np.arange(POINTS, dtype=np.int32)] * 2, axis=1)
    return PairMatches(name0, name1, matches, np.ones(POINTS, np.float32), digests=(heads[0].digest, heads[1].digest))


def make_scene(folder: Path, count: int = 5) -> Scene:
    """`count` images; every pair of them is matched."""
    features = FeatureStore.open(folder / "features", {"made": 1})
    matches = MatchStore.open(folder / "matches.db", {"made": 2})
    poses = {f"left wing/{number}.jpg": pose(number) for number in range(count)}
    for number, (name, T) in enumerate(poses.items()):
        put(features, name, features_of(T, number))
    names = sorted(poses)
    matches.put(all_matches(features, a, b) for i, a in enumerate(names) for b in names[i + 1 :])
    return Scene(folder, features, matches, poses)
