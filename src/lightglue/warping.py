"""One image laid over another through their homography."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from lightglue._plotting import to_pixels
from lightglue.errors import InputError
from lightglue.geometry.points import as_matrix

__all__ = ["align_image", "plot_overlay"]

_TILES = 8  # of the chequered picture, along the longer edge
_LARGEST = 32_767  # px of an edge that OpenCV warps


def align_image(image1: Any, H: Any, size: tuple[int, int]) -> NDArray[np.uint8]:
    """`image1` as seen from image 0: (height, width, 4) uint8 RGBA, transparent where image 1 shows nothing.

    Args:
        image1: (C, H, W) tensor in [0, 1], or (H, W, 3) or (H, W) array.
        H: (3, 3), px of image 0 to px of image 1.
        size: width and height of image 0, px.

    Raises InputError.
    """
    H, pixels = as_matrix("H", H), _to_bytes(image1)
    if max(*size, *pixels.shape[:2]) > _LARGEST:
        raise InputError(f"An image has an edge of more than {_LARGEST:,} px, which OpenCV cannot warp; shrink it.")
    opaque = np.full((*pixels.shape[:2], 1), 255, np.uint8)
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP  # H leads from the result to the source
    warped = cv2.warpPerspective(np.concatenate([pixels, opaque], axis=2), H, size, flags=flags)
    return np.asarray(warped, dtype=np.uint8)


def plot_overlay(
    image0: Any, aligned: NDArray[np.uint8], names: tuple[str, str] = ("", ""), dpi: float = 150
) -> Figure:
    """Image 0, the other aligned to it, and both in turn like a chequerboard, where a misfit shows at the edges.

    image0 as in `align_image`; aligned: (H, W, 4), what that gave. `figure.savefig(path)` writes it.
    """
    first = _to_bytes(image0)
    shown = np.where(aligned[..., 3:] > 127, aligned[..., :3], 0).astype(np.uint8)
    tile = max(first.shape[:2]) / _TILES
    rows, columns = (np.arange(edge) // tile for edge in first.shape[:2])
    is_second = ((rows[:, None] + columns[None]) % 2 > 0) & (aligned[..., 3] > 127)
    mixed = np.where(is_second[..., None], shown, first)
    height, width = first.shape[:2]
    inches = 5.0 * min(1.0, 1.5 * width / height)
    figure = Figure(
        figsize=(3 * inches, inches * height / width + 0.35), dpi=dpi, facecolor="white", layout="constrained"
    )
    titles = (names[0], f"{names[1]}, aligned", "both in turn")
    for axes, picture, title in zip(figure.subplots(1, 3), (first, shown, mixed), titles, strict=True):
        axes.imshow(picture)
        axes.set_title(title.replace("$", r"\$"), fontsize=9, color="#6b6b6b", loc="left")
        axes.set_axis_off()
    return figure


def _to_bytes(image: Any) -> NDArray[np.uint8]:
    """(H, W, 3) uint8 of any image. Raises InputError."""
    pixels = to_pixels(image)
    pixels = pixels[..., None].repeat(3, axis=2) if pixels.ndim == 2 else pixels[..., :3]
    if pixels.dtype == np.uint16:
        pixels = pixels >> 8
    if pixels.dtype != np.uint8:
        pixels = np.round(pixels.clip(0, 1) * 255)
    return np.asarray(pixels, dtype=np.uint8)
