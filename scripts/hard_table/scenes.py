"""Pairs of photographs of a plane seen at an extreme angle, generated with their exact homography.

A poster, of one photograph or of four side by side, hangs before two other photographs; one camera sees it nearly from
the front, the other at a tilt of 2, 4, 6 or 8 (1 over the cosine of the angle to the normal), or turned and near by,
both with perspective, blur, noise and light of their own. The same number gives the same pair on every machine.

The photographs are in two halves: of one the table is made, on the other `effort="hard"` was tuned.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

__all__ = ["TILTS", "TiltedPair", "generate", "negatives", "photographs", "turned"]

TILTS = (2, 4, 6, 8)
SIZE = (800, 600)  # px, width height of every picture
OVERSAMPLED = 3  # each pixel is the mean of so many squared
# Numbers of the photographs of DATA/train/images that show scenes: not groceries, clothes, drones' fields or cars.
SCENES = (*range(239), *range(265, 300), *range(313, 568), *range(638, 723), *range(814, 897))
BLOCK = 20  # photographs that follow each other may show one place: so many stay in one half

Floats = NDArray[np.float64]
Picture = NDArray[np.uint8]


@dataclass(frozen=True, eq=False)
class TiltedPair:
    """Two pictures, RGB, and where the first's plane is in the second."""

    image0: Picture  # (H, W, 3)
    image1: Picture
    H: Floats | None  # (3, 3), px of image 0 to px of image 1; None where they show different things
    tilt: float
    name: str


def photographs(train: Path, half: str, *, places: bool = True) -> list[Path]:
    """Those of one half: "table" or "tuning". places: with `open_scenes`, many of one place."""
    odd = half == "tuning"
    found = [train / "images" / f"{number:05}.jpg" for number in SCENES if (number // BLOCK) % 2 == odd]
    folders = sorted(path for path in (train / "open_scenes").iterdir() if path.is_dir())[odd::2] if places else []
    return found + [path for folder in folders for path in sorted(folder.rglob("*.jpg"))]


def generate(photos: list[Path], seed: int, tilt: float) -> TiltedPair:
    """A pair of `photos`; in every other one both cameras are oblique, to different sides."""
    rng = np.random.default_rng(seed)
    poster = _poster(photos, rng)
    both = seed % 2 == 1 and tilt > 2
    # Tilts multiply where the directions are at right angles: there is no more between the images than in the others.
    first, second = (math.sqrt(tilt), math.sqrt(tilt)) if both else (rng.uniform(1, 1.2), tilt)
    direction = rng.uniform(0, math.pi)
    turn = rng.normal(0, 15) if rng.random() < 0.75 else rng.uniform(-180, 180)
    cameras = [
        _camera(poster, rng, first, direction + math.pi / 2, 0.0, rng.uniform(0.8, 1.1)),
        _camera(poster, rng, second, direction, turn, rng.uniform(0.9, 1.6)),
    ]
    return _pair(photos, poster, cameras, rng, tilt, f"tilt {tilt:g}, {seed}")


def turned(photos: list[Path], seed: int) -> TiltedPair:
    """A pair of `photos` seen nearly from the front, one of them turned by any angle and 1.5 to 4 times as near."""
    rng = np.random.default_rng(seed)
    poster = _poster(photos, rng)
    zoom, turn = rng.uniform(1.5, 4), rng.uniform(-180, 180)
    tilts, directions = rng.uniform(1, 1.15, 2), rng.uniform(0, math.pi, 2)
    cameras = [
        _camera(poster, rng, tilts[0], directions[0], 0.0, rng.uniform(0.8, 1.1)),
        _camera(poster, rng, tilts[1], directions[1], turn, zoom),
    ]
    return _pair(photos, poster, cameras, rng, float(tilts.max()), f"zoom {zoom:.1f}, turn {turn:.0f}, {seed}")


def negatives(photos: list[Path], seed: int) -> TiltedPair:
    """Two different posters at a tilt of 1 to 4, before different backgrounds."""
    first, second = generate(photos, seed, 4), generate(photos, seed + 500_000, 4)
    return TiltedPair(first.image0, second.image1, None, 4, f"different, {seed}")


def _pair(
    photos: list[Path], poster: Picture, cameras: list[Floats], rng: np.random.Generator, tilt: float, name: str
) -> TiltedPair:
    pictures = [_photograph(poster, camera, _read(photos, rng), rng) for camera in cameras]
    if rng.random() < 0.5:
        cameras, pictures = cameras[::-1], pictures[::-1]
    H = cameras[1] @ np.linalg.inv(cameras[0])
    return TiltedPair(pictures[0], pictures[1], H / H[2, 2], tilt, name)


def _read(photos: list[Path], rng: np.random.Generator) -> Picture:
    """A photograph that shows something: with corners in most of it."""
    while True:
        path = photos[int(rng.integers(len(photos)))]
        picture = cv2.imread(str(path))
        if picture is None:
            raise FileNotFoundError(path)
        corners = cv2.goodFeaturesToTrack(cv2.cvtColor(picture, cv2.COLOR_BGR2GRAY), 1000, 0.02, 5)
        if corners is not None and len(corners) > 300:
            return cv2.cvtColor(picture, cv2.COLOR_BGR2RGB)


def _poster(photos: list[Path], rng: np.random.Generator) -> Picture:
    """One photograph, or four in a square."""
    if rng.random() < 0.5:
        return _read(photos, rng)
    parts = [cv2.resize(_read(photos, rng), (480, 360), interpolation=cv2.INTER_AREA) for _ in range(4)]
    return np.vstack((np.hstack(parts[:2]), np.hstack(parts[2:])))


def _camera(
    poster: Picture, rng: np.random.Generator, tilt: float, direction: float, turn: float, share: float
) -> Floats:
    """The homography (3, 3) from px of the poster to px of the picture, of which the poster takes about `share`."""
    h, w = poster.shape[:2]
    angle = math.acos(1 / max(tilt, 1))
    # Unit plane -> camera: a rotation about `direction` in the plane, then one about the optical axis.
    axis = np.array([math.cos(direction), math.sin(direction), 0.0])
    R = cv2.Rodrigues(np.array([0.0, 0.0, math.radians(turn)]))[0] @ cv2.Rodrigues(axis * angle)[0]
    to_plane = np.array([[1 / w, 0, -(w - 1) / (2 * w)], [0, 1 / w, -(h - 1) / (2 * w)], [0, 0, 1]])
    distance = rng.uniform(2.2, 4)
    H = np.column_stack((R[:, 0], R[:, 1], (0, 0, distance))) @ to_plane
    corners = np.array([[0, 0, 1], [w - 1, 0, 1], [w - 1, h - 1, 1], [0, h - 1, 1]], float).T
    seen = H @ corners
    x = seen[:2] / seen[2]
    low, high = x.min(axis=1), x.max(axis=1)
    zoom = share * min(SIZE[0] / (high[0] - low[0]), SIZE[1] / (high[1] - low[1]))
    middle = (low + high) / 2
    K = np.array(
        [[zoom, 0, (SIZE[0] - 1) / 2 - zoom * middle[0]], [0, zoom, (SIZE[1] - 1) / 2 - zoom * middle[1]], [0, 0, 1]]
    )
    return K @ H


def _photograph(poster: Picture, camera: Floats, background: Picture, rng: np.random.Generator) -> Picture:
    k = OVERSAMPLED
    finer = np.array([[k, 0, (k - 1) / 2], [0, k, (k - 1) / 2], [0, 0, 1.0]])
    large = SIZE[0] * k, SIZE[1] * k
    over = cv2.warpPerspective(poster, finer @ camera, large, flags=cv2.INTER_LINEAR)
    inside = cv2.warpPerspective(np.full(poster.shape[:2], 255, np.uint8), finer @ camera, large)
    behind = cv2.resize(background, SIZE, interpolation=cv2.INTER_LINEAR).astype(np.float32)
    share = cv2.resize(inside, SIZE, interpolation=cv2.INTER_AREA)[..., None].astype(np.float32) / 255
    picture = cv2.resize(over, SIZE, interpolation=cv2.INTER_AREA).astype(np.float32) + (1 - share) * behind
    picture = cv2.GaussianBlur(picture, (0, 0), rng.uniform(0.3, 1.2))
    picture = 255 * (np.clip(picture, 0, 255) / 255) ** rng.uniform(0.7, 1.4)
    picture = picture * rng.uniform(0.75, 1.1) * rng.uniform(0.93, 1.07, 3) + rng.normal(
        0, rng.uniform(1, 5), picture.shape
    )
    return np.clip(np.round(picture), 0, 255).astype(np.uint8)
