"""Pairs of training photographs that `effort="hard"` searches: true ones, and parts that only look alike.

Parts of one photograph, each as another camera sees it, from the side, from nearer or turned, in its own light: where
the parts have a region in common the homography between them is known, where they have none every model is false.
Photographs in which things repeat give the negatives that matter. No photograph is one of the half that
`scripts/hard_table` makes its table of.
"""

from __future__ import annotations

import math
import zlib
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from lightglue.pairs.hard.warping import moved, turning, warp

__all__ = ["Part", "PartsPair", "parts_pair", "photographs"]

# Numbers of the photographs of DATA/train/images: of those of scenes of all kinds the blocks of 20 on which
# `effort="hard"` was tuned, and those of many cameras, which no table is made of.
SCENES = (*range(239), *range(265, 300), *range(313, 568), *range(638, 723), *range(814, 897))
CAMERAS = range(897, 1099)
BLOCK = 20
GAP = 0.03  # of the width or height, between parts that have nothing in common
LONGEST, SHORTEST = 800, 240  # px, sides of pictures

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Part:
    """Shares of width and height."""

    left: float
    top: float
    right: float
    bottom: float


@dataclass(frozen=True, eq=False)
class PartsPair:
    """Two pictures, RGB, and the homography between them."""

    image0: NDArray[np.float32]  # (H, W, 3) in [0, 1]
    image1: NDArray[np.float32]
    H: Floats | None  # (3, 3), px of image 0 to px of image 1; None where they have nothing in common
    name: str


def photographs(train: Path) -> list[Path]:
    """Those that negatives and positives are made of."""
    numbers = [n for n in SCENES if (n // BLOCK) % 2 == 1]
    return [train / "images" / f"{number:05}.jpg" for number in (*numbers, *CAMERAS)]


def parts_pair(photos: list[Path], photo: Path, seed: int, *, common: bool, tilted: bool = True) -> PartsPair:
    """Two parts of a photograph, before others of `photos`. common: with a region that both have.

    tilted: by up to 6, else up to 2.5.
    """
    number = int(photo.stem) if photo.stem.isdigit() else zlib.crc32(photo.name.encode())
    rng = np.random.default_rng([seed, number, int(common)])
    picture = _read(photo)
    boxes = _common(rng) if common else _apart(rng)
    tilts = np.exp(rng.uniform(0, math.log(6 if tilted else 2.5), 1).repeat(2) * rng.dirichlet([1, 1]))
    if rng.random() < 0.5:
        tilts[:] = 1.05, float(tilts.prod())
    seen = []
    for side, (box, tilt) in enumerate(zip(boxes, tilts, strict=True)):
        behind = _read(photos[int(rng.integers(len(photos)))])
        seen.append(_seen(picture, behind, box, float(tilt), rng, side))
    H = seen[1][1] @ np.linalg.inv(seen[0][1]) if common else None
    return PartsPair(seen[0][0], seen[1][0], H, f"{photo.stem} {'common' if common else 'apart'} {seed}")


def _read(photo: Path) -> NDArray[np.float32]:
    return np.asarray(cv2.cvtColor(cv2.imread(str(photo)), cv2.COLOR_BGR2RGB), np.float32) / 255


def _apart(rng: np.random.Generator) -> tuple[Part, Part]:
    cut, side = rng.uniform(0.35, 0.65), rng.random() < 0.75
    low, high = rng.uniform(0, 0.2, 2)
    far = rng.uniform(0.8, 1, 2)
    if side:
        parts = Part(0, low, cut - GAP / 2, far[0]), Part(cut + GAP / 2, high, 1, far[1])
    else:
        parts = Part(low, 0, far[0], cut - GAP / 2), Part(high, cut + GAP / 2, far[1], 1)
    return parts if rng.random() < 0.5 else parts[::-1]


def _common(rng: np.random.Generator) -> tuple[Part, Part]:
    width = rng.uniform(0.45, 0.75)
    shift = width * (1 - rng.uniform(0.25, 0.9))
    shift = min(shift, 1 - width)
    begin = rng.uniform(0, 1 - width - shift)
    low, high = rng.uniform(0, 0.2, 2)
    far = rng.uniform(0.8, 1, 2)
    if rng.random() < 0.6:
        parts = Part(begin, low, begin + width, far[0]), Part(begin + shift, high, begin + shift + width, far[1])
    else:
        parts = Part(low, begin, far[0], begin + width), Part(high, begin + shift, far[1], begin + shift + width)
    return parts if rng.random() < 0.5 else parts[::-1]


def _seen(
    picture: NDArray[np.float32],
    behind: NDArray[np.float32],
    part: Part,
    tilt: float,
    rng: np.random.Generator,
    side: int,
) -> tuple[NDArray[np.float32], Floats]:
    """The part as a camera sees it, and from px of the photograph to px of that (3, 3)."""
    h, w = picture.shape[:2]
    box = np.array([part.left * w, part.top * h, part.right * w, part.bottom * h]).round().astype(int)
    crop = np.ascontiguousarray(picture[box[1] : box[3], box[0] : box[2]])
    h, w = crop.shape[:2]
    turn = 0.0
    if side:
        turn = rng.choice([0.0, 90.0, 180.0, 270.0]) * (rng.random() < 0.2) + rng.normal(0, 12)
    direction = rng.uniform(0, 180)
    along = turning(direction)
    linear = turning(turn) @ along @ np.diag([1 / tilt, 1.0]) @ along.T
    to_view = np.eye(3)
    to_view[:2, :2] = linear
    # Perspective: one side of the part is up to 1.25 times as far as the other.
    to_view[2, :2] = rng.uniform(-0.12, 0.12, 2) / np.array([w, h])
    corners = moved(to_view, np.array([[0, 0], [w - 1, 0], [w - 1, h - 1], [0, h - 1]]))
    low, high = corners.min(axis=0), corners.max(axis=0)
    zoom = rng.uniform(0.8, 1.6) * tilt**0.5
    zoom = min(max(zoom, SHORTEST / (high - low).min()), LONGEST / (high - low).max())
    place = np.array([[zoom, 0, -zoom * low[0]], [0, zoom, -zoom * low[1]], [0, 0, 1]])
    to_view = place @ to_view
    size = tuple(int(edge) for edge in np.ceil((high - low) * zoom) + 1)
    inside = cv2.warpPerspective(np.ones((h, w), np.float32), to_view, (size[0], size[1]))[..., None]
    behind = cv2.resize(behind, (size[0], size[1]), interpolation=cv2.INTER_AREA)
    seen = inside * warp(crop, to_view, (size[0], size[1])) + (1 - inside) * behind
    seen = cv2.GaussianBlur(seen, (0, 0), rng.uniform(0.3, 1.2))
    seen = np.clip(seen, 0, 1) ** rng.uniform(0.6, 1.6) * rng.uniform(0.75, 1.1) * rng.uniform(0.93, 1.07, 3)
    seen = np.clip(seen + rng.normal(0, rng.uniform(0.004, 0.02), seen.shape), 0, 1).astype(np.float32)
    from_photo = np.array([[1, 0, -box[0]], [0, 1, -box[1]], [0, 0, 1.0]])
    return seen, to_view @ from_photo
