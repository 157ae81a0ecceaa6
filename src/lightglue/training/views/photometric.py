"""Other light, a moving camera, a cheap sensor: what may be done to a view without moving anything in it."""

from __future__ import annotations

import math
from typing import Any, cast

import cv2
import numpy as np
from numpy.typing import NDArray

from lightglue.training.draws import Draws
from lightglue.training.views.options import PhotometricOptions, Range

__all__ = ["augment"]

Pixels = NDArray[np.uint8]

_TILES = (8, 8)  # of the local equalization
_COLOUR_NOISE = 0.03  # of the hue circle, for each unit of the noise


def augment(image: Pixels, draws: Draws, options: PhotometricOptions) -> Pixels:
    """`image` (H, W, 3) uint8 RGB in other light, as the draws have it; the array itself stays as it is."""
    if not draws.chance(options.p):
        return image
    if draws.chance(options.p_gamma):
        image = _curve(image, lambda v: v ** _from(draws, options.gamma))
    if draws.chance(options.p_hue):
        image = _colours(
            image, _from(draws, options.hue), _from(draws, options.saturation), _from(draws, options.value)
        )
    if draws.chance(options.p_one_of):
        image = draws.one_of((_blurred, _moving, _noisy, _compressed))(image, draws, options)
    if draws.chance(options.p_blur):
        image = _blurred(image, draws, options)
    if draws.chance(options.p_motion):
        image = _moving(image, draws, options)
    if draws.chance(options.p_brightness):
        light, contrast = _from(draws, options.brightness), _from(draws, options.contrast)
        image = _curve(image, lambda v: v * (1 + contrast) + light)
    if draws.chance(options.p_clahe):
        image = _equalized(image, _from(draws, options.clahe))
    return image


def _from(draws: Draws, limits: Range) -> float:
    return draws.uniform(*limits)


def _odd(draws: Draws, limits: Range) -> int:
    """An odd number within the limits, each as likely; the next one where there is none."""
    low, high = math.ceil(limits[0]) | 1, math.floor(limits[1])
    return low + 2 * draws.below(max(1, (high - low) // 2 + 1))


def _curve(image: Pixels, curve: Any) -> Pixels:
    """Each value by a curve over [0, 1]."""
    table = np.clip(np.rint(255 * np.asarray(curve(np.arange(256) / 255))), 0, 255).astype(np.uint8)
    return cast(Pixels, cv2.LUT(image, table))


def _colours(image: Pixels, hue: float, saturation: float, value: float) -> Pixels:
    """Added in HSV; OpenCV has the hue in steps of two degrees."""
    h, s, v = cv2.split(cv2.cvtColor(image, cv2.COLOR_RGB2HSV))
    h = ((h.astype(np.int32) + round(hue / 2)) % 180).astype(np.uint8)
    s, v = (np.clip(c.astype(np.int32) + round(d), 0, 255).astype(np.uint8) for c, d in ((s, saturation), (v, value)))
    return cast(Pixels, cv2.cvtColor(cv2.merge([h, s, v]), cv2.COLOR_HSV2RGB))


def _blurred(image: Pixels, draws: Draws, options: PhotometricOptions) -> Pixels:
    side = _odd(draws, options.blur)
    return cast(Pixels, cv2.blur(image, (side, side)))


def _moving(image: Pixels, draws: Draws, options: PhotometricOptions) -> Pixels:
    """The mean along a line through the middle, in any direction."""
    side, angle = _odd(draws, options.motion), draws.uniform(0, math.pi)
    half = side // 2
    end = round(half * math.cos(angle)), round(half * math.sin(angle))
    kernel = np.zeros((side, side), np.uint8)
    cv2.line(kernel, (half - end[0], half - end[1]), (half + end[0], half + end[1]), 1)
    return cast(Pixels, cv2.filter2D(image, -1, kernel.astype(np.float32) / float(kernel.sum())))


def _noisy(image: Pixels, draws: Draws, options: PhotometricOptions) -> Pixels:
    """Of the light as much more as there is light, of the colours a little: in HLS."""
    strength = _from(draws, options.noise)
    hls = cv2.cvtColor(image.astype(np.float32) / 255, cv2.COLOR_RGB2HLS)
    count = image.shape[0] * image.shape[1]
    light, colour = draws.normals(2 * count).astype(np.float32).reshape(2, *image.shape[:2])
    deviation = float(hls[..., 1].std())
    hls[..., 0] = (hls[..., 0] + 360 * _COLOUR_NOISE * strength * colour) % 360
    hls[..., 1] = np.clip(hls[..., 1] + strength * deviation * np.sqrt(np.maximum(hls[..., 1], 0)) * light, 0, 1)
    return cast(Pixels, np.rint(255 * np.clip(cv2.cvtColor(hls, cv2.COLOR_HLS2RGB), 0, 1)).astype(np.uint8))


def _compressed(image: Pixels, draws: Draws, options: PhotometricOptions) -> Pixels:
    quality = round(_from(draws, options.jpeg))
    _, content = cv2.imencode(".jpg", cv2.cvtColor(image, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, quality])
    decoded: Any = cv2.imdecode(content, cv2.IMREAD_COLOR)
    return cast(Pixels, cv2.cvtColor(decoded, cv2.COLOR_BGR2RGB))


def _equalized(image: Pixels, limit: float) -> Pixels:
    lab = cv2.cvtColor(image, cv2.COLOR_RGB2LAB)
    lab[..., 0] = cv2.createCLAHE(limit, _TILES).apply(np.ascontiguousarray(lab[..., 0]))
    return cast(Pixels, cv2.cvtColor(lab, cv2.COLOR_LAB2RGB))
