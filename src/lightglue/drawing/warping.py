"""One image laid over another through their homography."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from lightglue.drawing.lettering import families, fitted
from lightglue.drawing.plotting import shrunk, to_bytes
from lightglue.errors import InputError
from lightglue.geometry.points import as_matrix

__all__ = ["align_image", "plot_overlay"]

_TILES = 8  # of the chequered picture, along the longer edge
_LARGEST = 32_767  # px of an edge that OpenCV warps
_NOTHING = 235  # grey level where the second image shows nothing


def align_image(image1: Any, H: Any, size: tuple[int, int]) -> NDArray[np.uint8]:
    """`image1` as seen from image 0: (height, width, 4) uint8 RGBA, transparent where image 1 shows nothing.

    Args:
        image1: (C, H, W) tensor in [0, 1], or (H, W, 3) or (H, W) array.
        H: (3, 3), px of image 0 to px of image 1, of any scale.
        size: width and height of image 0, px.

    Raises InputError.
    """
    H, pixels, size = as_matrix("H", H), to_bytes(image1), _checked_size(size)
    if max(*size, *pixels.shape[:2]) > _LARGEST:
        raise InputError(f"An image has an edge of more than {_LARGEST:,} px, which OpenCV cannot warp; shrink it.")
    largest = np.abs(H).max()
    if not largest > 0 or np.linalg.svd(H / largest, compute_uv=False)[-1] < 1e-15:
        raise InputError(f"H is {H.tolist()}, which maps the image to a line; give a matrix of rank 3.")
    opaque = np.full((*pixels.shape[:2], 1), 255, np.uint8)
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP  # H leads from the result to the source
    source = np.concatenate([pixels, opaque], axis=2)
    aligned = np.asarray(cv2.warpPerspective(source, H / largest, size, flags=flags), dtype=np.uint8)
    _clear_behind(aligned, H)
    return aligned


def _clear_behind(aligned: NDArray[np.uint8], H: NDArray[np.float64]) -> None:
    """Make transparent what lies behind the camera: beyond the horizon, a homography shows the image mirrored.

    The sign of H is free, so the side of the horizon where more of the image is shown is taken for the front.
    """
    height, width = aligned.shape[:2]
    across, down = H[2, 0] * np.arange(width), H[2, 1] * np.arange(height) + H[2, 2]
    corners = np.sign([x + y for x in across[[0, -1]] for y in down[[0, -1]]])
    if abs(corners.sum()) == len(corners):  # the horizon is not in sight
        return
    sides = [down[:, None] > -across, down[:, None] < -across]
    shown = [int((aligned[..., 3] > 0)[side].sum()) for side in sides]
    aligned[~sides[int(shown[1] > shown[0])]] = 0


def plot_overlay(
    image0: Any, aligned: NDArray[np.uint8], names: tuple[str, str] = ("", ""), dpi: float = 150
) -> Figure:
    """Image 0, the other aligned to it, and both in turn like a chequerboard, where a misfit shows at the edges.

    image0 as in `align_image`; aligned: (H, W, 4), what that gave. `figure.savefig(path)` writes it.

    Raises InputError.
    """
    first = to_bytes(image0)
    if aligned.shape != (*first.shape[:2], 4):
        raise InputError(f"The aligned image has shape {aligned.shape}, image 0 {first.shape}; align it to image 0.")
    first, second = shrunk(first), shrunk(aligned)
    is_shown = second[..., 3:] > 127
    tile = max(first.shape[:2]) / _TILES
    rows, columns = (np.arange(edge) // tile for edge in first.shape[:2])
    is_second = (rows[:, None] + columns[None]) % 2 > 0
    mixed = np.where(is_second[..., None] & is_shown, second[..., :3], first)
    shown = np.where(is_shown, second[..., :3], np.uint8(_NOTHING))
    titles = (names[0], names[1], "both in turn")
    return _three_in_a_row((first, shown, mixed), titles, ("", ", aligned", ""), dpi)


def _three_in_a_row(
    pictures: tuple[NDArray[np.uint8], ...], titles: tuple[str, ...], endings: tuple[str, ...], dpi: float
) -> Figure:
    """Pictures of one size beside each other, whatever shape they have, with a title above each."""
    height, width = pictures[0].shape[:2]
    above, margin, gap = 0.25, 0.05, 0.1  # inches
    scale = min(5 / width, 7.5 / height)  # inches a px
    pane_width, pane_height = max(width * scale, 2.0), max(height * scale, 0.3)
    total = 3 * pane_width + 2 * gap + 2 * margin, pane_height + above + margin
    figure = Figure(figsize=total, dpi=dpi, facecolor="white")
    for i, (picture, title, ending) in enumerate(zip(pictures, titles, endings, strict=True)):
        left = margin + i * (pane_width + gap)
        rectangle = left / total[0], margin / total[1], pane_width / total[0], pane_height / total[1]
        axes = figure.add_axes(rectangle)
        axes.set_axis_off()
        axes.set_anchor("W")  # below the title
        axes.imshow(picture, aspect="equal" if 0.02 < height / width < 50 else "auto")
        text = fitted(title, 9, pane_width - 0.6 * bool(ending)) + ending
        y = 1 - (above - 0.07) / total[1]
        figure.text(left / total[0], y, text, fontsize=9, family=families(), color="#6b6b6b", parse_math=False)
    return figure


def _checked_size(size: Any) -> tuple[int, int]:
    try:
        width, height = (int(edge) for edge in size)
    except (TypeError, ValueError, OverflowError):
        width = height = 0
    if min(width, height) < 1:
        raise InputError(f"size is {size!r}; give the width and height of image 0 in px.")
    return width, height
