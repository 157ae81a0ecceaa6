"""Which values of an image stand for black and white, where its type does not say.

Sensors of 10, 12 or 14 bits are stored in 16, thermal cameras use a sliver of them, floating point has no range at all.
Taken as they are, such images are nearly black, and detectors find little in them.
"""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["eight_bits", "narrow_range", "stretched", "value_range", "warn_of_narrow_range"]

_TAILS = 0.1, 99.9  # percentiles: what lies beyond is dead pixels and glints
_SAMPLE = 1_000_000  # pixels of which percentiles are taken
_COVERED = 0.25  # of the whole range: an image that covers so much of it is left as it is
_ROWS = 256  # that are converted at once
_FULL = 65535
_FEWEST = 1024  # samples: smaller images have no keypoints in any case


def value_range(image: NDArray[Any]) -> tuple[float, float]:
    """The values that stand for black and for white in an image, of any number type; NaN and infinities count for none.

    Whole numbers from 0 up are as many bits as they use: 0 to 4,095 for a sensor of 12 bits, 0 to 4,080 where these
    are 8 bits moved up by 4. Floating point in [0, 1] is that. Where an image covers less than a quarter of this
    range, and for all other numbers, it is what lies between the outer thousandths.
    """
    step = max(1, int(np.sqrt(image.shape[0] * image.shape[1] / _SAMPLE)))
    finite = image[::step, ::step]
    least, most = _extremes(image)
    if not least < most:
        return least, most
    low, high = (float(value) for value in np.percentile(finite[np.isfinite(finite)], _TAILS))
    if low == high:
        low, high = least, most
    if least < 0:
        return low, high
    whites = [1.0] if most <= 1 else []
    if image.dtype.kind in "iu" or bool(np.all(finite[np.isfinite(finite)] % 1 == 0)):
        whites = [_white(image, most), _white(image, high)]  # a dead pixel has all bits
    return next(((0.0, white) for white in whites if high - low >= _COVERED * white), (low, high))


def _extremes(image: NDArray[Any]) -> tuple[float, float]:
    """The least and the largest finite value; 0, 0 where there is none."""
    if image.dtype.kind != "f":
        return float(image.min()), float(image.max())
    least, most = np.inf, -np.inf
    for start in range(0, len(image), _ROWS):
        rows = image[start : start + _ROWS]
        finite = rows[np.isfinite(rows)]
        if finite.size:
            least, most = min(least, float(finite.min())), max(most, float(finite.max()))
    return (least, most) if least <= most else (0.0, 0.0)


def _white(image: NDArray[Any], largest: float) -> float:
    """The largest value of so many bits as an image's whole numbers up to `largest` use."""
    used = 0
    for start in range(0, len(image), _ROWS):
        rows = image[start : start + _ROWS]
        rows = rows[np.isfinite(rows) & (rows <= largest)].astype(np.int64)
        used |= int(np.bitwise_or.reduce(rows, axis=None)) if rows.size else 0
    unused = (used & -used) - 1  # below the lowest bit
    return float(((1 << used.bit_length()) - 1) & ~unused)


def stretched(image: NDArray[Any]) -> NDArray[np.uint8] | NDArray[np.uint16]:
    """An image with its range spread over that of its type: uint8 or, for all else, uint16.

    image: (H, W) or (H, W, 3) of any number type. What lies outside of the range is black or white, and NaN is black;
    all channels have one range, so that colours stay.
    """
    low, high = value_range(image)
    if image.dtype == np.uint8 and (low, high) == (0, 255):
        return image
    full = 255 if image.dtype == np.uint8 else _FULL
    found = np.zeros(image.shape, np.uint8 if image.dtype == np.uint8 else np.uint16)
    if not low < high:
        return found
    for start in range(0, len(image), _ROWS):
        rows = image[start : start + _ROWS].astype(np.float64)
        np.nan_to_num(rows, copy=False, nan=low, posinf=high, neginf=low)
        found[start : start + _ROWS] = np.rint((np.clip(rows, low, high) - low) * (full / (high - low)))
    return found


def eight_bits(image: NDArray[Any], rounded: bool) -> NDArray[np.uint8]:
    """A uint8 image as it is; of a uint16 image the high byte, or the nearest of 256 values."""
    if image.dtype == np.uint8:
        return image
    found = np.empty(image.shape, np.uint8)
    for start in range(0, len(image), _ROWS):
        rows = image[start : start + _ROWS]
        found[start : start + _ROWS] = (rows.astype(np.uint32) + 128) // 257 if rounded else rows >> 8
    return found


def narrow_range(image: NDArray[Any]) -> tuple[int, int] | None:
    """The least and the largest value of a uint16 image that uses less than a quarter of its range; else None."""
    if image.dtype != np.uint16 or image.size < _FEWEST:
        return None
    least, most = int(image.min()), int(image.max())
    if least == most:
        return None
    if most >= _COVERED * _FULL:  # unless only dead pixels do
        low, high = value_range(image)
        return (least, most) if high - low < _COVERED * _FULL else None
    return least, most


def warn_of_narrow_range(image: Any, name: str) -> None:
    """Warn of a uint16 array that uses a small part of its range; of nothing else."""
    found = narrow_range(image) if isinstance(image, np.ndarray) else None
    if found is not None:
        warnings.warn(
            f"{name} has 16 bits, but its values lie from {found[0]:,} to {found[1]:,} of {_FULL:,}, so "
            "that few keypoints will be found; --stretch (stretch=True) spreads them.",
            stacklevel=3,
        )
