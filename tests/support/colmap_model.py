"""A small COLMAP model with known numbers, as text: level cameras on an arc, all looking at a box of points."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

FOCAL, WIDTH, HEIGHT = 500.0, 640, 480
ERROR = 0.5  # px, of every observation
UP = np.array([0.0, 0.0, 1.0])


def rotation_towards(ahead: NDArray[np.float64], up: NDArray[np.float64] = UP) -> NDArray[np.float64]:
    """(3, 3) world to camera of a level camera that looks ahead."""
    ahead = ahead / np.linalg.norm(ahead)
    right = np.cross(ahead, up)
    right /= np.linalg.norm(right)
    return np.stack([right, np.cross(ahead, right), ahead])


def quaternion(rotation: NDArray[np.float64]) -> NDArray[np.float64]:
    """w x y z."""
    values, vectors = np.linalg.eigh(
        np.array(
            [
                [np.trace(rotation), *(rotation[[2, 0, 1], [1, 2, 0]] - rotation[[1, 2, 0], [2, 0, 1]])],
                *[[0.0] * 4] * 3,
            ]
        )
        + np.pad(rotation + rotation.T - np.eye(3) * np.trace(rotation), ((1, 0), (1, 0))),
        UPLO="U",
    )
    return vectors[:, values.argmax()]


def write_model(folder: Path, names: tuple[str, ...] = ("a.jpg", "b.jpg", "c.jpg"), points: int = 60) -> Path:
    """Every image observes every point, with an error of 0.5 px to the right, and has one keypoint more."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    xyz = rng.uniform(-1, 1, (points, 3))
    (folder / "cameras.txt").write_text(f"7 PINHOLE {WIDTH} {HEIGHT} {FOCAL} {FOCAL} {WIDTH / 2} {HEIGHT / 2}\n")
    lines = []
    for i, name in enumerate(names):
        angle = 0.5 * (i - (len(names) - 1) / 2)
        centre = np.array([6 * np.sin(angle), -6 * np.cos(angle), 1.0])
        rotation = rotation_towards(-centre)
        inside = (xyz - centre) @ rotation.T
        pixels = FOCAL * inside[:, :2] / inside[:, 2:] + (WIDTH / 2 + ERROR, HEIGHT / 2)
        pose = " ".join(f"{value:.17g}" for value in (*quaternion(rotation), *(-rotation @ centre)))
        lines.append(f"{i + 1} {pose} 7 {name}")
        lines.append(" ".join([f"{x:.17g} {y:.17g} {j + 1}" for j, (x, y) in enumerate(pixels)] + ["1 1 -1"]))
    (folder / "images.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    told = []
    for j, place in enumerate(xyz):
        track = " ".join(f"{i + 1} {j}" for i in range(len(names)))
        told.append(f"{j + 1} {place[0]:.17g} {place[1]:.17g} {place[2]:.17g} 200 100 50 {ERROR} {track}")
    (folder / "points3D.txt").write_text("\n".join(told) + "\n")
    return folder
