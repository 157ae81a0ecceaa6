"""Sets of photographs whose cameras, or whose order, are known."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np

Pair = tuple[str, str]

LOCALIZATION = {"courtyard": "courtyard20", "fountain": "loc_fountain", "herzjesu": "loc_herzjesu"}
POSE = {"temple": "temple18", "tum": "tum18"}
CUP = "ambiguous/cup"
BOTH = "both"  # how the names of images begin that show both places of a twin
CUP_STEP = 351 / 63  # degrees from an image of the cup to the next
NAMES = (*LOCALIZATION, *POSE, "cup")


@dataclass(frozen=True)
class Scene:
    """Photographs, and what is known of them."""

    name: str
    folder: Path
    names: tuple[str, ...]  # of the images, sorted
    K: Mapping[str, np.ndarray] = field(default_factory=dict)  # (3, 3), pixel centres at integers
    groups: tuple[Mapping[str, np.ndarray], ...] = ()  # world to camera (4, 4); each group has a world of its own

    def relative(self, first: str, second: str) -> np.ndarray | None:
        """(4, 4) from the first camera to the second; None where it is not known."""
        for poses in self.groups:
            if first in poses and second in poses:
                return poses[second] @ np.linalg.inv(poses[first])
        return None

    @property
    def is_ordered(self) -> bool:
        """The order of the names is all that is known: once round, one after another."""
        return not self.groups

    def subset(self, names: tuple[str, ...]) -> Scene:
        """The same with some of the images."""
        groups = tuple({name: poses[name] for name in names if name in poses} for poses in self.groups)
        return Scene(self.name, self.folder, names, self.K, tuple(poses for poses in groups if poses))


def load(name: str, data: Path, doubles: Path) -> Scene:
    """A set of `../shared/data`, or one of those that `doubles.py` made in the folder `doubles`."""
    if name in LOCALIZATION:
        return _localization(name, data, data / f"{LOCALIZATION[name]}.json")
    if name in POSE:
        return _pose(name, data, data / f"{POSE[name]}.json")
    if name == "cup":
        return Scene(name, data / CUP, tuple(sorted(path.name for path in (data / CUP).iterdir())))
    return _localization(name, doubles, doubles / f"{name}.json")


def _localization(name: str, data: Path, manifest: Path) -> Scene:
    entries = json.loads(manifest.read_text())["images"]
    names = [Path(entry["image"]).name for entry in entries]
    poses = {name: np.array(entry["T_w2c"]) for name, entry in zip(names, entries, strict=True)}
    K = {name: np.array(entry["K"]) for name, entry in zip(names, entries, strict=True)}
    return Scene(name, (data / entries[0]["image"]).parent, tuple(sorted(names)), K, (poses,))


def _pose(name: str, data: Path, manifest: Path) -> Scene:
    pairs = json.loads(manifest.read_text())["pairs"]
    K: dict[str, np.ndarray] = {}
    edges: dict[Pair, np.ndarray] = {}
    for pair in pairs:
        first, second = Path(pair["image0"]).name, Path(pair["image1"]).name
        K[first], K[second] = np.array(pair["K0"]), np.array(pair["K1"])
        edges[first, second] = np.array(pair["T_0to1"])
    folder = (data / pairs[0]["image0"]).parent
    names = tuple(sorted(path.name for path in folder.iterdir()))
    return Scene(name, folder, names, K, chained(edges))


def chained(edges: Mapping[Pair, np.ndarray]) -> tuple[dict[str, np.ndarray], ...]:
    """Poses from relative ones, a group for each part that hangs together; its first camera is its world."""
    steps: dict[str, dict[str, np.ndarray]] = {}
    for (first, second), T in edges.items():
        steps.setdefault(first, {})[second] = T
        steps.setdefault(second, {})[first] = np.linalg.inv(T)
    groups: list[dict[str, np.ndarray]] = []
    for start in sorted(steps):
        if any(start in group for group in groups):
            continue
        group, waiting = {start: np.eye(4)}, [start]
        while waiting:
            at = waiting.pop()
            for other, T in steps[at].items():
                if other not in group:
                    group[other] = T @ group[at]
                    waiting.append(other)
        groups.append(group)
    return tuple(groups)


def subsets(scene: Scene) -> dict[str, tuple[str, ...]]:
    """All images, every second, every third, and ten at random: 7 to 15 of the courtyard, half of other sets.

    Images that show both places of a twin are in all of them: without any, nothing tells the places apart.
    """
    both = tuple(name for name in scene.names if name.startswith(BOTH))
    names = tuple(name for name in scene.names if name not in both)
    found = {"all": names, "second": names[::2], "third": names[::3]}
    for seed in range(10):
        random = np.random.default_rng(seed)
        count = int(random.integers(7, 16)) if scene.name == "courtyard" else max(4, (len(names) + 1) // 2)
        chosen = random.choice(len(names), count, replace=False)
        found[f"random{seed}"] = tuple(names[i] for i in sorted(chosen))
    return {kind: (*chosen, *both) for kind, chosen in found.items()}


def number_of(name: str) -> int:
    """The number that an image of the cup has for a name."""
    return int(name.partition(".")[0])


def centre(T: np.ndarray) -> np.ndarray:
    """The centre (3,) of a camera, world to camera (4, 4)."""
    return np.asarray(-T[:3, :3].T @ T[:3, 3])


def extent(poses: Mapping[str, np.ndarray]) -> float:
    """The largest distance between two centres."""
    centres = [centre(T) for T in poses.values()]
    return max((float(np.linalg.norm(a - b)) for a, b in combinations(centres, 2)), default=0.0)


def angle(R: Any) -> float:
    """Degrees that a rotation (3, 3) turns by."""
    return float(np.degrees(2 * np.arcsin(np.clip(np.linalg.norm(R - np.eye(3)) / np.sqrt(8), 0, 1))))
