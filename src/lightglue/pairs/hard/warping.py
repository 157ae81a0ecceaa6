"""Images under a homography, without aliasing, and where their pixels go."""

from __future__ import annotations

import math
from typing import Any, cast

import cv2
import numpy as np
from numpy.typing import NDArray

__all__ = ["Floats", "Pixels", "covered", "inverse_of", "linear_at", "mask_of", "moved", "scaling", "turning", "warp"]

Floats = NDArray[np.float64]
Pixels = NDArray[np.float32]  # (H, W) or (H, W, C)

# Blur, px of the image before, for each pixel that it is sampled at: 0.8 sqrt(t^2 - 1), so that an image with a blur of
# 0.8 px has one of 0.8 px afterwards, too (Morel and Yu, "ASIFT", 2009).
BLUR = 0.8
STEP = 4  # px
RIM = 2.0  # px along the sides of an image that are half outside of it, after warping


def moved(H: Floats, points: Any) -> Floats:
    """`points` (..., 2) under H (3, 3), which mirrors nothing; infinite beyond the horizon."""
    points = np.asarray(points, np.float64)
    x = points @ H[:, :2].T + H[:, 2]
    # The area element is det(H) / z^3: what is seen from the same side has the sign of the determinant.
    ahead = x[..., 2:] * np.sign(np.linalg.det(H) or 1.0) > 1e-12
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(ahead, x[..., :2] / x[..., 2:], np.inf)


def inverse_of(H: Floats) -> Floats:
    """The inverse (3, 3)."""
    return np.asarray(np.linalg.inv(H), np.float64)


def linear_at(H: Floats, point: Any) -> Floats:
    """The linear part (2, 2) of H at `point` (2,)."""
    x = H @ np.array([*point, 1.0])
    return np.asarray((H[:2, :2] - np.outer(x[:2] / x[2], H[2, :2])) / x[2])


def turning(degrees: float) -> Floats:
    """The rotation (2, 2) by so many degrees, clockwise as one sees it."""
    radians = math.radians(degrees)
    cos, sin = math.cos(radians), math.sin(radians)
    return np.array([[cos, -sin], [sin, cos]])


def scaling(x: float, y: float) -> Floats:
    """From px of an image to px of one that is resized by these factors (3, 3)."""
    return np.array([[x, 0, (x - 1) / 2], [0, y, (y - 1) / 2], [0, 0, 1]])


def warp(image: Pixels, H: Floats, size: tuple[int, int], at: Any = None) -> Pixels:
    """`image` under H (3, 3), from its px to those of the result, of width and height `size`.

    Where H shrinks, it is blurred first along the directions in which it does, as it does `at` this point (2,), by
    default the middle. Beyond its sides it is continued by their colours, so that they make no edge.
    """
    h, w = image.shape[:2]
    middle = np.array([(w - 1) / 2, (h - 1) / 2])
    _, sizes, directions = np.linalg.svd(linear_at(H, middle if at is None else at))
    sigmas = [BLUR * math.sqrt(max(1 / max(s, 1e-3) ** 2 - 1, 0)) for s in sizes]
    if max(sigmas) > 0.25:
        image, frame = _framed(image, directions)
        x, y = (max(sigma, 1e-3) for sigma in sigmas)
        blurred: Any = cv2.GaussianBlur(image, _kernel(x, y), sigmaX=x, sigmaY=y, borderType=cv2.BORDER_REPLICATE)
        image, H = blurred, H @ np.linalg.inv(frame)
    warped: Any = cv2.warpPerspective(image, H, size, flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    return cast(Pixels, warped)


def _kernel(*sigmas: float) -> tuple[int, int]:
    x, y = (2 * math.ceil(3 * sigma) + 1 if sigma > 0.01 else 1 for sigma in sigmas)
    return x, y


def _framed(image: Pixels, directions: Floats) -> tuple[Pixels, Floats]:
    """`image` turned so that `directions` (2, 2), row by row, lie along its axes; and the matrix (3, 3) that did it."""
    h, w = image.shape[:2]
    whole = np.abs(directions).round(9)
    if np.array_equal(whole, np.eye(2)):
        return image, np.eye(3)
    if np.linalg.det(directions) < 0:
        directions = directions * [[1], [-1]]
    corners = np.array([[0, 0], [w - 1, 0], [w - 1, h - 1], [0, h - 1]]) @ directions.T
    low, high = np.floor(corners.min(axis=0)), np.ceil(corners.max(axis=0))
    frame = np.eye(3)
    frame[:2, :2], frame[:2, 2] = directions, -low
    width, height = (int(edge) for edge in high - low + 1)
    turned = cv2.warpPerspective(image, frame, (width, height), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    return cast(Pixels, turned), frame


def mask_of(H: Floats, size: tuple[int, int], image_size: tuple[int, int]) -> NDArray[np.bool_]:
    """(H, W) of the warped image, of width and height `size`: `covered`, looked at for each square of 4 px."""
    x, y = (np.minimum(np.arange(0, edge, STEP) + (STEP - 1) / 2, edge - 1) for edge in size)
    coarse = covered(H, np.stack(np.meshgrid(x, y), axis=-1), image_size)
    return np.repeat(np.repeat(coarse, STEP, axis=0), STEP, axis=1)[: size[1], : size[0]]


def covered(H: Floats, points: Any, image_size: tuple[int, int]) -> NDArray[np.bool_]:
    """Which `points` (..., 2) of the warped image show some of the image, of this width and height, and not its rim."""
    inverse = inverse_of(H)
    before = moved(inverse, points)
    limits = np.array(image_size, float) - 1
    with np.errstate(invalid="ignore"):
        inside = ((before >= 0) & (before <= limits)).all(axis=-1)
        # A step of the rim to each side, so that it is as wide where the image has shrunk.
        for step in ((RIM, 0), (-RIM, 0), (0, RIM), (0, -RIM)):
            beside = moved(inverse, np.asarray(points, np.float64) + step)
            inside &= ((beside >= -0.5) & (beside <= limits + 0.5)).all(axis=-1)
    return np.asarray(inside)
