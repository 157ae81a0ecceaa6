"""Photographs of a place that is known: the corner between two walls, papered with a picture of the project's own."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import numpy as np

from support import ASSETS

if TYPE_CHECKING:
    from lightglue.sfm.options import SfmOptions

SIZE = (320, 240)  # px
K = np.array([[300.0, 0, 160], [0, 300, 120], [0, 0, 1]])


@cache
def paper(name: str) -> np.ndarray:
    """What a wall is papered with, (400, 400, 3) uint8. Not to be changed."""
    return cv2.resize(cv2.imread(str(ASSETS / name)), (400, 400), interpolation=cv2.INTER_AREA)


def photograph(number: float) -> np.ndarray:
    """What a camera sees that goes past the corner, (240, 320, 3) uint8; it is 3 units away, steps are of 0.25."""
    angle = np.radians(4.0 * number)
    R = np.array([[np.cos(angle), 0, np.sin(angle)], [0, 1, 0], [-np.sin(angle), 0, np.cos(angle)]])
    t = R @ np.array([0.25 * number, 0.05 * number, 0]) + np.array([0, 0, 3.0])
    seen = np.zeros((SIZE[1], SIZE[0], 3), np.uint8)
    for side, name in ((-1, "montmartre_close.jpg"), (1, "montmartre_far.jpg")):
        # From px of the paper, 400 on 3 units, to the wall: along it, down, and to where it begins.
        along = np.array([0.8, 0, -0.6]) if side > 0 else np.array([0.8, 0, 0.6])
        begins = np.array([0.0, -1.5, 0]) if side > 0 else np.array([-2.4, -1.5, -1.8])
        wall = np.stack([along * 3 / 400, np.array([0, 3 / 400, 0]), begins], axis=1)
        H = K @ (R @ wall + np.outer(t, [0, 0, 1]))
        mask = cv2.warpPerspective(np.full((400, 400), 255, np.uint8), H, SIZE)
        seen = np.where(mask[..., None] > 127, cv2.warpPerspective(paper(name), H, SIZE, flags=cv2.INTER_AREA), seen)
    return seen


def take_photographs(folder: Path, count: int = 5) -> list[str]:
    """Write `count` photographs into a folder; their names."""
    folder.mkdir(parents=True, exist_ok=True)
    names = [f"{number}.png" for number in range(count)]
    for number, name in enumerate(names):
        cv2.imwrite(str(folder / name), photograph(number))
    return names


def map_options(count: int = 400) -> SfmOptions:
    """Of a map without weights."""
    from lightglue.models.choice import Models
    from lightglue.sfm.options import ExtractOptions, MatchOptions, PairOptions, ReconstructOptions, SfmOptions

    models = Models("sift", count, "cpu", False, matcher="nearest", thresholds={"ratio_threshold": 0.8})
    return SfmOptions(
        models,
        ExtractOptions(models, {"resize": None}),
        MatchOptions(models),
        PairOptions(("exhaustive", "retrieval"), retrieved=3),
        reconstruct=ReconstructOptions(threads=1),
    )
