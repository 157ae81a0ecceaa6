"""Resize images for extraction, with the result that published features were made with.

The published package resizes with `kornia.geometry.transform.resize(..., antialias=True)`: a Gaussian blur with
reflected borders, then bilinear interpolation. Both are linear and separable, so blur and interpolation along one axis
are together one banded matrix: each position of the result is a weighted sum of a few of the input's. Here stand these
sums; `resize` takes them in NumPy, `lightglue.images.resampling` in torch.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import DTypeLike, NDArray

from lightglue_runtime.checks import is_int
from lightglue_runtime.errors import InputError

__all__ = ["MAX_EDGE", "SIDES", "Axis", "bands", "blur_kernel", "blur_width", "reflect", "resize", "target_size"]

MAX_EDGE = 65_536  # px; a size beyond is a slip, and would only fail for want of memory
SIDES = ("long", "short", "vert", "horz")

# Rows of the banded matrix that are multiplied at once: few, so that the band stays narrow; enough for BLAS.
_BLOCK = 16


class Axis(NamedTuple):
    """How one axis is resampled: its length before and after, and in which way."""

    n_in: int
    n_out: int
    align_corners: bool = False
    blur: bool = True  # before shrinking; an axis that grows is never blurred


def resize(
    image: NDArray[np.float32], size: int | tuple[int, int] | None, side: str = "long"
) -> tuple[NDArray[np.float32], tuple[float, float]]:
    """Resize `image` as the published package does before it extracts features.

    Args:
        image: (H, W, C) float32.
        size: px of the edge that `side` names, the other following the aspect ratio (rounded down, at least 1 px); or
            (height, width) in px; or None to leave the image as it is.
        side: "long", "short", "vert" or "horz"; unused where `size` is a pair.

    Returns:
        The image (h, w, C) float32, and the scales (w / W, h / H): a pixel at x in the input lies at
        (x + 0.5) * scale - 0.5 in the result. Raises InputError for a size or a side that has no meaning.
    """
    height, width, channels = image.shape
    new_height, new_width = (height, width) if size is None else target_size(height, width, size, side)
    scales = new_width / width, new_height / height
    if (new_height, new_width) == (height, width):
        return image, scales
    # Rows first: what is left for the second product is short.
    lines = np.empty((new_height, width * channels), np.float32)
    for row, start, stop, band in bands(Axis(height, new_height)):
        np.matmul(band, image[start:stop].reshape(stop - start, -1), out=lines[row : row + len(band)])
    planes = np.ascontiguousarray(lines.reshape(new_height, width, channels).transpose(0, 2, 1)).reshape(-1, width)
    found = np.empty((new_height * channels, new_width), np.float32)
    for row, start, stop, band in bands(Axis(width, new_width)):
        found[:, row : row + len(band)] = planes[:, start:stop] @ band.T
    return np.ascontiguousarray(found.reshape(new_height, channels, new_width).transpose(0, 2, 1)), scales


def target_size(height: int, width: int, size: int | tuple[int, int], side: str = "long") -> tuple[int, int]:
    """Edges (height, width) in px of a `height` x `width` image after `resize` with this `size`.

    The free edge is rounded down, from the aspect ratio in double precision, as in kornia's `resize`. An edge
    that would vanish keeps one pixel. Raises InputError also for an edge of more than 65,536 px.
    """
    if side not in SIDES:
        raise InputError(f"side is {side!r}; choose one of {', '.join(SIDES)}.")
    edges = tuple(size) if isinstance(size, (tuple, list)) else (size,)
    is_pair = isinstance(size, (tuple, list))
    if len(edges) != 1 + is_pair or not all(is_int(edge, 1) for edge in edges):
        raise InputError(f"resize is {size!r}; give a positive integer in px, or a pair (height, width) of them.")
    given = [min(int(edge), MAX_EDGE + 1) for edge in edges]
    target = (given[0], given[1]) if is_pair else _in_proportion(height, width, given[0], side)
    if max(target) > MAX_EDGE:
        made = f"makes an edge of this image, {width} x {height} px, longer than {MAX_EDGE:,} px"
        raise InputError(f"resize is {size!r}, which {made}; give a smaller one.")
    return target


def _in_proportion(height: int, width: int, edge: int, side: str) -> tuple[int, int]:
    """Edges (height, width) where the one that `side` names is `edge` px."""
    aspect = width / height
    height_is_given = {"vert": True, "horz": False, "long": aspect < 1, "short": aspect >= 1}[side]
    return (edge, max(1, int(edge * aspect))) if height_is_given else (max(1, int(edge / aspect)), edge)


def bands(axis: Axis, dtype: DTypeLike = np.float32) -> Iterator[tuple[int, int, int, NDArray[Any]]]:
    """The matrix that resamples one axis, in blocks of at most _BLOCK rows.

    Yields `row, start, stop, weights`: the first row of the block, the input range [start, stop), and its weights
    (rows, stop - start) in `dtype`, float32 or float64.
    """
    index, weight = _taps(axis, np.dtype(dtype))
    for row in range(0, axis.n_out, _BLOCK):
        taps, values = index[row : row + _BLOCK], weight[row : row + _BLOCK]
        start, stop = int(taps.min()), int(taps.max()) + 1
        band = np.zeros((len(taps), stop - start), dtype)
        np.add.at(band, (np.arange(len(taps))[:, None], taps - start), values)
        yield row, start, stop, band


def _taps(axis: Axis, dtype: np.dtype[Any]) -> tuple[NDArray[np.int64], NDArray[Any]]:
    """For each output position its input positions (n_out, T) and their weights (n_out, T)."""
    n_in, n_out = axis.n_in, axis.n_out
    # Rounded as torch does: the ratio to the image's precision, then the position, once.
    ratio = (n_in - 1) / max(n_out - 1, 1) if axis.align_corners else n_in / n_out
    step = float(dtype.type(ratio))
    position = np.arange(n_out, dtype=np.float64)
    position = position * step if axis.align_corners else (position + 0.5) * step - 0.5
    position = position.astype(dtype).clip(0, n_in - 1)
    left = position.astype(np.int64)
    right = (left + 1).clip(max=n_in - 1)
    fraction = (position - left.astype(dtype))[:, None]
    offset, kernel = blur_kernel(n_in, n_out if axis.blur else n_in)
    kernel = kernel.astype(dtype)
    index = np.concatenate([left[:, None] + offset, right[:, None] + offset], 1)
    return reflect(index, n_in), np.concatenate([(1 - fraction) * kernel, fraction * kernel], 1)


def blur_width(n_in: int, n_out: int) -> tuple[float, int]:
    """sigma and radius, px, of the blur before an axis shrinks from `n_in` to `n_out`.

    sigma = (n_in / n_out - 1) / 2 px and about 4 sigma taps, an odd number, at least 3: what kornia's `resize`
    chooses (kornia/geometry/transform/affwarp.py).
    """
    sigma = max((n_in / n_out - 1) / 2, 0.001)
    return sigma, int(max(4 * sigma, 3)) // 2


def blur_kernel(n_in: int, n_out: int) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Offsets (T,) and weights (T,) of the blur of `blur_width`; of an axis that does not shrink 0 and 1."""
    if n_in <= n_out:
        return np.zeros(1, np.int64), np.ones(1)
    sigma, radius = blur_width(n_in, n_out)
    offset = np.arange(-radius, radius + 1)
    weight = np.exp(-(offset.astype(np.float64) ** 2) / (2 * sigma**2))
    return offset, weight / weight.sum()


def reflect(index: NDArray[np.int64], length: int) -> NDArray[np.int64]:
    """Fold positions outside [0, length) back at the centres of the border pixels: -1 becomes 1."""
    period = max(2 * (length - 1), 1)
    folded: NDArray[np.int64] = np.abs(index) % period
    return np.where(folded < length, folded, period - folded)
