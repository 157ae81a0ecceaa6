"""One finished picture of a matched pair: images, keypoints, matches coloured by their score.

It is a figure of its own. Nothing here imports pyplot, so that no window system is looked for and pictures can be
written anywhere, whatever back end the surroundings ask for.

Arrays may be NumPy arrays or tensors on any device. Keypoints are (N, 2) x y in px of their image.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure

from lightglue.drawing.facts import counted
from lightglue.drawing.lettering import families, fitted, letter_width, printable
from lightglue.drawing.plotting import Array, shrunk, to_array, to_pixels, to_points
from lightglue.errors import InputError

__all__ = ["plot_match_summary"]

# Distinguished in daylight and by eyes that confuse red and green.
_SCORES = LinearSegmentedColormap.from_list("scores", ["#d6006f", "#ff8c1a", "#ffe14d", "#33f0c0"])
_GRAY, _BLACK = "#6b6b6b", "#1f1f1f"
_OUTLIER = (0.78, 0.78, 0.78)  # seen on dark and on light images


class _Pane(NamedTuple):
    """Where an image lies on the drawing surface, whose unit is the common edge of both; y points down."""

    x: float
    y: float
    width: float
    height: float
    scale: float  # units for one px of the image

    def put(self, points: Array) -> Array:
        """Where keypoints (N, 2) of the image lie; the centre of its top-left pixel is (0, 0)."""
        placed: Array = (points + 0.5) * self.scale + (self.x, self.y)
        return placed


def plot_match_summary(
    image0: Any,
    image1: Any,
    keypoints0: Any,
    keypoints1: Any,
    matches: Any,
    scores: Any,
    *,
    names: tuple[str, str] = ("", ""),
    texts: Sequence[str] = (),
    dpi: float = 150,
    inliers: Any = None,
) -> Figure:
    """One picture of a matched pair: both images, every keypoint, and the matches coloured by their score.

    `figure.savefig(path)` writes it in any format.

    Args:
        image0: (3, H, W) or (1, H, W) tensor, or (H, W, 3) or (H, W) array.
        image1: the second image, of any other size.
        keypoints0: (M, 2) x y, px of image 0.
        keypoints1: (N, 2) x y, px of image 1.
        matches: (K, 2) integers, rows of keypoints0 and keypoints1.
        scores: (K,) in [0, 1].
        names: what to write above each image.
        texts: what to write below them, after the number of matches: "6 of 9 layers", "1.2 s".
        dpi: resolution in dots per inch; the figure is up to 12 inches wide.
        inliers: (K,) bool; the other matches are drawn thin and grey, below.

    Raises:
        InputError: arrays of the wrong shape, or matches of keypoints that do not exist.
    """
    pictures = [to_pixels(image) for image in (image0, image1)]
    keypoints = [to_points(keypoints0), to_points(keypoints1)]
    pairs, values = _checked_matches(matches, scores, keypoints)
    agreed = np.ones(len(pairs), dtype=np.bool_) if inliers is None else to_array(inliers).reshape(-1).astype(np.bool_)
    if len(agreed) != len(pairs):
        raise InputError(f"There are {len(agreed)} inliers and {len(pairs)} matches; give one for each match.")
    order = np.argsort(values, kind="stable")  # the best matches lie on top
    pairs, values, agreed = pairs[order], values[order], agreed[order]

    panes = _side_by_side(pictures[0].shape[:2], pictures[1].shape[:2])
    figure, ax, unit = _summary_figure(panes, dpi)
    ends = []
    for i, (picture, pane) in enumerate(zip(pictures, panes, strict=True)):
        _draw_image(ax, picture, pane)
        name = fitted(names[i], 8, max(pane.width * unit, 0.5))
        ax.text(pane.x, pane.y, name, fontsize=8, family=families(), color=_GRAY, va="bottom", parse_math=False)
        placed = pane.put(keypoints[i])
        unmatched = np.ones(len(placed), bool)
        unmatched[pairs[:, i]] = False
        ax.scatter(placed[unmatched, 0], placed[unmatched, 1], s=2.5, c="white", alpha=0.5, linewidths=0)
        ends.append(placed[pairs[:, i]])
    if not agreed.all():
        _draw_outliers(ax, ends[0][~agreed], ends[1][~agreed])
    _draw_scored_lines(ax, ends[0][agreed], ends[1][agreed], values[agreed])
    _write_strip(figure, [*_counts(len(pairs), None if inliers is None else int(agreed.sum())), *texts])
    return figure


def _counts(matches: int, inliers: int | None) -> list[str]:
    found = [counted(matches, "match", "matches")]
    if inliers is not None:
        others = "" if inliers == matches else ", others grey" if inliers else ", all grey"
        found.append(counted(inliers, "inlier") + others)
    return found


def _checked_matches(matches: Any, scores: Any, keypoints: Sequence[Array]) -> tuple[Array, Array]:
    pairs, values = to_array(matches), to_array(scores).astype(np.float64).reshape(-1)
    pairs = pairs.reshape(-1, 2) if pairs.size == 0 else pairs
    if pairs.ndim != 2 or pairs.shape[1] != 2 or len(pairs) != len(values):
        raise InputError(f"Matches have shape {pairs.shape} and there are {len(values)} scores; give (K, 2) and (K,).")
    pairs = pairs.astype(np.int64)
    if len(pairs) and (pairs.min() < 0 or (pairs.max(axis=0) >= [len(points) for points in keypoints]).any()):
        sizes = " and ".join(str(len(points)) for points in keypoints)
        raise InputError(f"Matches reach from {pairs.min(axis=0)} to {pairs.max(axis=0)}, but keypoints are {sizes}.")
    return pairs, values


def _side_by_side(size0: Sequence[int], size1: Sequence[int], gap: float = 0.012) -> list[_Pane]:
    """Places of two images of (height, width) px, equally high; panoramas one above the other, equally wide."""
    (h0, w0), (h1, w1) = size0, size1
    if w0 / h0 + w1 / h1 <= 5:
        width0, width1 = w0 / h0, w1 / h1
        return [_Pane(0, 0, width0, 1, 1 / h0), _Pane(width0 + gap * (width0 + width1), 0, width1, 1, 1 / h1)]
    height0, height1 = h0 / w0, h1 / w1
    return [_Pane(0, 0, 1, height0, 1 / w0), _Pane(0, height0 + 8 * gap * (height0 + height1), 1, height1, 1 / w1)]


def _summary_figure(panes: Sequence[_Pane], dpi: float) -> tuple[Figure, Axes, float]:
    """A figure with room for both panes, a line of names above and the strip of text below.

    Returns the figure, the axes of the drawing surface, and the length of its unit in inches.
    """
    width = max(pane.x + pane.width for pane in panes)
    height = max(pane.y + pane.height for pane in panes)
    above, below, margin = 0.3, 0.45, 0.12  # inches
    inches = min(12 - 2 * margin, 9 * width / height)
    # At least 7 inches wide for the text, and half an inch high, whatever shape the images have.
    figure_width = max(inches + 2 * margin, 7.0)
    area_height = min(max(inches * height / width, 0.5), 9.0)
    figure_height = above + area_height + below
    figure = Figure(figsize=(figure_width, figure_height), dpi=dpi, facecolor="white")
    share = margin / figure_width
    ax = figure.add_axes((share, below / figure_height, 1 - 2 * share, area_height / figure_height))
    ax.set_axis_off()
    ax.set_xlim(0, width)
    ax.set_ylim(height, 0)
    ax.set_aspect("equal")
    ax.autoscale(enable=False)
    return figure, ax, min((figure_width - 2 * margin) / width, area_height / height)


def _draw_image(ax: Axes, picture: Array, pane: _Pane) -> None:
    """Draw an image with no more pixels than the picture can show."""
    full = {np.dtype(np.uint8): 255, np.dtype(np.uint16): 65535, np.dtype(np.float32): 1}.get(picture.dtype)
    if full is None:
        raise InputError(f"An image has dtype {picture.dtype}; give uint8, uint16, or floating point in [0, 1].")
    extent = (pane.x, pane.x + pane.width, pane.y + pane.height, pane.y)
    ax.imshow(shrunk(picture), extent=extent, cmap="gray", vmin=0, vmax=full)


def _draw_outliers(ax: Axes, ends0: Array, ends1: Array) -> None:
    """Thin grey lines between small grey points; the more there are, the fainter, but never out of sight."""
    faint = float(np.clip(np.sqrt(60 / len(ends0)), 0.3, 1))
    segments = list(np.stack([ends0, ends1], axis=1))
    ax.add_collection(LineCollection(segments, colors=[(*_OUTLIER, 0.7 * faint)], linewidths=0.4), autolim=False)
    for ends in (ends0, ends1):
        ax.scatter(ends[:, 0], ends[:, 1], s=3, color=[(*_OUTLIER, 0.9)], linewidths=0)


def _draw_scored_lines(ax: Axes, ends0: Array, ends1: Array, values: Array) -> None:
    """Lines and end points in the colour of their score; the more there are, the fainter and thinner."""
    thin = float(np.clip(np.sqrt(40 / max(len(values), 1)), 0.1, 1))
    opaque = _SCORES(np.clip(values, 0, 1))
    faint = opaque * (1, 1, 1, 0.8 * thin)
    segments = list(np.stack([ends0, ends1], axis=1))
    ax.add_collection(LineCollection(segments, colors=faint, linewidths=0.4 + 0.6 * thin), autolim=False)
    for ends in (ends0, ends1):
        ax.scatter(ends[:, 0], ends[:, 1], s=3 + 5 * thin, c=opaque, linewidths=0, zorder=3)


def _write_strip(figure: Figure, texts: Sequence[str]) -> None:
    """The facts below the images on the left, the scale of scores on the right."""
    width, height = figure.get_size_inches()
    y = 0.21 / height
    facts = "   ·   ".join(map(printable, texts))
    size = np.clip(11 * (width - 2.2) / (len(facts) * letter_width(11)), 5, 11)
    figure.text(0.12 / width, y, facts, va="center", fontsize=size, family=families(), color=_BLACK, parse_math=False)
    bar = figure.add_axes((1 - 1.5 / width, y - 0.05 / height, 1.1 / width, 0.1 / height))
    bar.imshow(np.linspace(0, 1, 256)[None], cmap=_SCORES, aspect="auto")
    bar.set_axis_off()
    for x, text, side in ((-0.05, "score  0", "right"), (1.05, "1", "left")):
        bar.text(x, 0.45, text, transform=bar.transAxes, ha=side, va="center", fontsize=9, color=_GRAY)
