"""Random homographies of an image that show nothing beyond its sides."""

from __future__ import annotations

from typing import Any, cast

import cv2
import numpy as np
from numpy.typing import NDArray

from lightglue.pairs.hard.warping import turning, warp
from lightglue.training.draws import Draws
from lightglue.training.views.options import HomographyOptions

__all__ = ["between_views", "homography_of", "reduced", "sample_corners", "warp_view"]

Floats = NDArray[np.float64]
Pixels = NDArray[np.uint8]

_SQUARE = np.array([[0, 0], [1, 0], [1, 1], [0, 1]], np.float64)
_TRIES = 1000  # of corners that are convex: nearly all are
_REDUCED = 2  # times the longer edge of a view: images are made as small before they are warped


def sample_corners(draws: Draws, image_size: tuple[int, int], options: HomographyOptions) -> Floats:
    """(4, 2) corners of a view, px of an image of that width and height; clockwise, all inside of it.

    As published: the corners of the image are pulled inwards, each along x and y; one of several angles that leaves
    them inside is taken; they are moved within the room there is.
    """
    size = np.array(image_size, np.float64)
    corners = _pulled_in(draws, options) * size
    corners = _turned(draws, corners, size, options)
    low, high = -corners.min(0), size - corners.max(0)
    room = low + (high - low) * draws.uniforms(2)
    return np.asarray(corners + room * options.translation * options.difficulty - 0.5)  # (0, 0) is a pixel's centre


def _pulled_in(draws: Draws, options: HomographyOptions) -> Floats:
    """(4, 2) in the unit square, their mean in its middle where that is possible."""
    inwards = options.difficulty * (0.5 - _SQUARE)
    for _ in range(_TRIES):
        corners = _SQUARE + inwards * draws.uniforms(8).reshape(4, 2)
        if _convexity(corners) >= options.min_convexity:
            break
    else:
        corners = _SQUARE + inwards / 2
    corners = corners - corners.mean(0) + 0.5
    return np.asarray(corners - np.minimum(corners.min(0), 0) - np.maximum(corners.max(0) - 1, 0))


def _convexity(corners: Floats) -> float:
    """The smallest cross product of two sides that meet; negative where a corner is turned inside out."""
    sides = np.roll(corners, -1, 0) - corners
    following = np.roll(sides, -1, 0)
    return float((sides[:, 0] * following[:, 1] - sides[:, 1] * following[:, 0]).min())


def _turned(draws: Draws, corners: Floats, size: Floats, options: HomographyOptions) -> Floats:
    most = options.max_angle * options.difficulty
    angles = np.linspace(-most, most, options.angles)
    middle = corners.mean(0)
    for angle in angles[draws.permutation(len(angles))]:
        turned: Floats = (corners - middle) @ turning(float(angle)).T + middle
        if (turned >= 0).all() and (turned <= size).all():
            return turned
    return corners


def homography_of(corners: Floats, view_size: tuple[int, int]) -> Floats:
    """H (3, 3) from px of the image to px of the view whose corners these (4, 2) are; H[2, 2] is 1."""
    there = _SQUARE * view_size - 0.5
    rows, right = [], []
    for (x, y), (u, v) in zip(corners, there, strict=True):
        rows += [[x, y, 1, 0, 0, 0, -u * x, -u * y], [0, 0, 0, x, y, 1, -v * x, -v * y]]
        right += [u, v]
    return np.append(np.linalg.solve(np.array(rows), np.array(right)), 1.0).reshape(3, 3)


def between_views(H0: Any, H1: Any) -> Floats:
    """From px of one view of an image to px of another, (3, 3), by the homographies of both."""
    return np.asarray(np.asarray(H1, np.float64) @ np.linalg.inv(np.asarray(H0, np.float64)))


def reduced(image: Pixels, longest: int) -> Pixels:
    """An image with no edge longer than so many px, by the mean of what a pixel covers; smaller ones stay."""
    height, width = image.shape[:2]
    factor = longest / max(height, width)
    if factor >= 1:
        return image
    size = max(1, round(width * factor)), max(1, round(height * factor))
    return cast(Pixels, cv2.resize(image, size, interpolation=cv2.INTER_AREA))


def warp_view(
    image: Pixels, draws: Draws, view_size: tuple[int, int], options: HomographyOptions
) -> tuple[Pixels, Floats]:
    """A view of `image` (H, W, 3), of width and height `view_size`, and the homography (3, 3) from the image's px.

    Large images are made smaller first; the homography is from the px of the image as it was given.
    """
    small = reduced(image, _REDUCED * max(view_size))
    height, width = small.shape[:2]
    corners = sample_corners(draws, (width, height), options)
    H = homography_of(corners, view_size)
    view = warp(cast(Any, small), H, view_size, at=corners.mean(0))
    x, y = width / image.shape[1], height / image.shape[0]
    shrink = np.array([[x, 0, (x - 1) / 2], [0, y, (y - 1) / 2], [0, 0, 1]])
    return cast(Pixels, np.ascontiguousarray(view)), np.asarray(H @ shrink)
