"""Matches made exact to a fraction of a px: what lies around both ends is laid over each other in their common frame.

Keypoints are found in each image by itself, and where one of them is squeezed or blurred, up to some px beside the same
place. In the frame both images look alike, so the patches around two ends tell how far apart they are (Lucas, Kanade,
"An iterative image registration technique", 1981).
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from lightglue.pairs.hard.looks import Correspondences, Looks
from lightglue.pairs.hard.rematch import Frame
from lightglue.pairs.hard.warping import inverse_of, moved

__all__ = ["sharpened"]

WINDOW = 21  # px of the frame, side of the patches
FARTHEST = 2.5  # px of the frame by which an end is moved at most
STEPS, ENOUGH = 30, 0.01  # at most so many, until one is shorter (px)
AROUND = 12.0  # px: standard deviation of the neighbourhood by whose light a pixel is measured


def sharpened(looks: Looks, found: Correspondences, frame: Frame) -> Correspondences:
    """`found` with ends in image 1 where the patches around those in image 0 fit best; others stay as they are."""
    if not len(found):
        return found
    first, second = (_even(looks.pixels(side, frame.matrices[side], frame.size, frame.at[side])) for side in (0, 1))
    at0, at1 = (moved(H, p) for H, p in zip(frame.matrices, (found.points0, found.points1), strict=True))
    ahead = np.asarray(np.isfinite(np.hstack((at0, at1))).all(axis=1))
    begin, guess = (
        np.ascontiguousarray(np.where(ahead[:, None], at, 0)[:, None], dtype=np.float32) for at in (at0, at1)
    )
    moved_to: Any
    status: Any
    moved_to, status, _ = cv2.calcOpticalFlowPyrLK(
        first,
        second,
        begin,
        guess,
        winSize=(WINDOW, WINDOW),
        maxLevel=0,
        criteria=(cv2.TERM_CRITERIA_EPS | cv2.TERM_CRITERIA_COUNT, STEPS, ENOUGH),
        flags=cv2.OPTFLOW_USE_INITIAL_FLOW,
    )
    better = ahead & (status[:, 0] == 1) & (np.linalg.norm(moved_to[:, 0] - at1, axis=1) < FARTHEST)
    points1 = found.points1.copy()
    points1[better] = moved(inverse_of(frame.matrices[1]), moved_to[better, 0])
    return replace(found, points1=points1)


def _even(pixels: NDArray[np.float32]) -> NDArray[np.uint8]:
    """(H, W) grey values by the light and the contrast around them."""
    grey = pixels if pixels.ndim == 2 else pixels.mean(axis=2)
    light = cv2.GaussianBlur(grey, (0, 0), AROUND)
    contrast = np.sqrt(np.maximum(cv2.GaussianBlur(grey * grey, (0, 0), AROUND) - light * light, 0)) + 0.01
    return np.asarray(np.clip(128 + 40 * (grey - light) / contrast, 0, 255), np.uint8)
