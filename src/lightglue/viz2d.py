"""Pictures of images, keypoints and matches with Matplotlib.

The published functions draw on pyplot's current figure: `plot_images`, then any number of `plot_keypoints`,
`plot_matches` and `add_text`, then `save_plot`. For one finished picture, which leaves pyplot's state alone, see
`lightglue.drawing.matches`.

Arrays may be NumPy arrays or tensors on any device. Keypoints are (N, 2) x y in px of their image.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.colors import to_rgba_array
from matplotlib.patches import ConnectionPatch
from matplotlib.patheffects import Normal, Stroke
from matplotlib.transforms import IdentityTransform
from numpy.typing import ArrayLike

from lightglue.drawing.plotting import Array, to_array, to_pixels, to_points
from lightglue.errors import InputError

__all__ = [
    "add_text",
    "cm_BlRdGn",
    "cm_RdGn",
    "cm_grad2d",
    "cm_prune",
    "plot_images",
    "plot_keypoints",
    "plot_matches",
    "save_plot",
]

# --- colours ------------------------------------------------------------------------------------------------------


def cm_RdGn(x: ArrayLike) -> Array:  # noqa: N802
    """Colours (..., 3) of values in [0, 1]: red at 0, yellow at 0.5, green at 1."""
    return cm_BlRdGn(to_array(x).clip(0, 1))[..., :3]


def cm_BlRdGn(x_: ArrayLike) -> Array:  # noqa: N802
    """Colours (..., 4) of values in [-1, 1]: blue at -1, red at 0, green at 1."""
    x = np.clip(to_array(x_).astype(np.float64), -1, 1)
    near, far = np.minimum(2 - 2 * np.abs(x), 1), np.minimum(2 * np.abs(x), 1)  # shares of red and of the end
    # The blue end has a tenth of green in it, unlike the rest not saturated.
    green, blue = np.where(x < 0, 0.2 * np.abs(x), far), np.where(x < 0, far, 0.0)
    return np.stack([near, green, blue, np.ones_like(x)], axis=-1)


def cm_prune(x_: ArrayLike) -> Array:
    """Colours (N, 4) of LightGlue's `prune0` or `prune1`: blue for keypoints that were never pruned.

    The others go from red (dropped after the first layer) towards green (kept for long).
    """
    layers = to_array(x_).astype(np.float64)
    last = layers.max() if layers.size else 0.0
    return cm_BlRdGn(np.where(layers == last, -1.0, (layers - 1) / 9))


def cm_grad2d(xy: ArrayLike) -> Array:
    """Colours (..., 3) of points (..., 2) in the unit square: a gradient that tells positions apart.

    Yellow at (0, 0), green at (1, 0), red at (0, 1), blue at (1, 1).
    """
    points = to_array(xy).astype(np.float64).clip(0, 1)
    x, y = points[..., :1], points[..., 1:2]
    yellow, green, red, blue = np.array([[1, 1, 0], [0, 1, 0], [1, 0, 0], [0, 0, 1]], float)
    colours: Array = (1 - y) * ((1 - x) * yellow + x * green) + y * ((1 - x) * red + x * blue)
    return colours


def _rgba(colours: Any, count: int, alpha: Any = None) -> Array:
    """(count, 4) RGBA from one colour or `count` of them, each in a form that Matplotlib knows."""
    if isinstance(colours, torch.Tensor):
        colours = to_array(colours)
    if count == 0:
        return np.zeros((0, 4))
    try:
        rgba = to_rgba_array(colours)
    except (ValueError, TypeError) as error:
        raise InputError(f"These are not colours: {error}") from error
    if len(rgba) not in (1, count):
        raise InputError(f"There are {len(rgba)} colours for {count} keypoints; give one, or one for each.")
    rgba = np.broadcast_to(rgba, (count, 4)).copy()
    opacity = rgba[:, 3] if alpha is None else to_array(alpha)
    if opacity.shape not in ((), (count,)):
        raise InputError(f"There are {len(opacity)} opacities for {count} keypoints; give one, or one for each.")
    rgba[:, 3] = opacity
    return rgba


# --- the published functions --------------------------------------------------------------------------------------


def _figure_axes(axes: Sequence[Axes] | None, count: int) -> list[Axes]:
    found: list[Axes] = list(plt.gcf().axes if axes is None else axes)
    if len(found) < count:
        raise InputError(f"There are {len(found)} axes where {count} are needed; call plot_images first.")
    return found


def plot_images(
    imgs: Sequence[Any],
    titles: Sequence[str] | None = None,
    cmaps: Any = "gray",
    dpi: float = 100,
    pad: float = 0.5,
    adaptive: bool = True,
) -> None:
    """Show images side by side in a new pyplot figure.

    Args:
        imgs: (3, H, W), (1, H, W) or (H, W) tensors, or (H, W, 3) or (H, W) arrays.
        titles: one for each image, or None.
        cmaps: colour map of one-channel images, or a list with one for each.
        dpi: resolution of the figure.
        pad: space around it, in font sizes.
        adaptive: give each image room after its own aspect ratio rather than 4:3.

    Raises:
        InputError: no image, something else than an image, or fewer titles or colour maps than images.
    """
    pictures = [to_pixels(image) for image in imgs]
    if not pictures:
        raise InputError("There is no image to plot; give at least one.")
    maps = list(cmaps) if isinstance(cmaps, (list, tuple)) else [cmaps] * len(pictures)
    for name, given in (("titles", titles or maps), ("cmaps", maps)):
        if len(given) < len(pictures):
            raise InputError(f"There are {len(given)} {name} for {len(pictures)} images; give one for each.")
    # Bounded: a figure for an image of one row would not fit into memory.
    ratios = [float(np.clip(p.shape[1] / p.shape[0], 0.1, 10)) if adaptive else 4 / 3 for p in pictures]
    figure, axes = plt.subplots(
        1,
        len(pictures),
        figsize=(4.5 * sum(ratios), 4.5),
        dpi=dpi,
        gridspec_kw={"width_ratios": ratios},
        squeeze=False,
    )
    for i, (ax, picture) in enumerate(zip(axes[0], pictures, strict=True)):
        ax.imshow(picture, cmap=maps[i])
        ax.set_axis_off()
        if titles:
            ax.set_title(titles[i])
    figure.tight_layout(pad=pad)


def plot_keypoints(
    kpts: Sequence[Any],
    colors: Any = "lime",
    ps: float = 4,
    axes: Sequence[Axes] | None = None,
    a: Any = 1.0,
) -> None:
    """Draw keypoints onto the images of the current figure.

    Args:
        kpts: for each image (N, 2).
        colors: one colour, or a list with, for each image, one colour, one for each keypoint, or (N,) values.
        ps: area of a point in pt^2.
        axes: where to draw, instead of the current figure's axes.
        a: opacity, or a list with one for each image.
    """
    each = colors if isinstance(colors, list) else [colors] * len(kpts)
    opacity = a if isinstance(a, list) else [a] * len(kpts)
    if not len(kpts) == len(each) == len(opacity):
        raise InputError(f"There are {len(kpts)} images' keypoints, {len(each)} colours and {len(opacity)} opacities.")
    for ax, keypoints, colour, alpha in zip(_figure_axes(axes, len(kpts)), kpts, each, opacity, strict=False):
        points = to_points(keypoints)
        values = to_array(colour) if isinstance(colour, (np.ndarray, torch.Tensor)) else None
        if values is None or values.shape != (len(points),) or values.dtype.kind not in "iuf":
            values = _rgba(colour, len(points))  # else numbers, for Matplotlib's colour map
        ax.scatter(points[:, 0], points[:, 1], c=values, s=ps, linewidths=0, alpha=alpha)


def plot_matches(
    kpts0: Any,
    kpts1: Any,
    color: Any = None,
    lw: float = 1.5,
    ps: float = 4,
    a: Any = 1.0,
    labels: Sequence[str] | None = None,
    axes: Sequence[Axes] | None = None,
) -> None:
    """Draw a line from each keypoint of the first image to its match in the second.

    Args:
        kpts0: matched keypoints of the first image, (K, 2).
        kpts1: those of the second, row by row.
        color: one colour, or K of them; None for a gradient over the first image.
        lw: width of the lines in pt, 0 for none.
        ps: area of the end points in pt^2, 0 for none.
        a: opacity of the lines, one number or K of them.
        labels: K texts. Each line is then an artist of its own with its label, to be picked with the mouse; without
            labels, all lines are one artist, which draws thousands of them faster.
        axes: the axes of both images, instead of the current figure's first two.
    """
    ax0, ax1 = _figure_axes(axes, 2)[:2]
    points0, points1 = to_points(kpts0), to_points(kpts1)
    if len(points0) != len(points1):
        raise InputError(f"There are {len(points0)} and {len(points1)} keypoints; matches need as many in each image.")
    count = len(points0)
    if labels is not None and len(labels) != count:
        raise InputError(f"There are {len(labels)} labels for {count} matches.")
    if color is None and count:
        extent = np.ptp(points0, axis=0)
        color = cm_grad2d((points0 - points0.min(axis=0)) / np.where(extent > 0, extent, 1))
    lines = _rgba(color, count, a)
    if lw > 0 and count:
        figure = ax0.figure
        if labels is None:
            figure.add_artist(_MatchLines(ax0, ax1, points0, points1, lines, lw))
        else:
            for i in range(count):
                figure.add_artist(_labelled_line(ax0, ax1, points0[i], points1[i], lines[i], lw, labels[i]))
    # What is drawn from here on must not move the pictures under the lines.
    for ax, points in ((ax0, points0), (ax1, points1)):
        ax.autoscale(enable=False)
        if ps > 0:
            ax.scatter(points[:, 0], points[:, 1], c=_rgba(color, count), s=ps)


class _MatchLines(LineCollection):
    """Lines between two axes, placed again at each draw, so that layout, zoom and file format do not part them.

    Like `ConnectionPatch` with `annotation_clip`, a line is left out while one of its ends is outside its axes.
    """

    def __init__(self, ax0: Axes, ax1: Axes, points0: Array, points1: Array, rgba: Array, width: float) -> None:
        super().__init__([], linewidths=width, zorder=1, picker=5.0, transform=IdentityTransform())
        self._ends = ((ax0, points0), (ax1, points1))
        self._rgba = rgba
        self.set_in_layout(False)  # the lines lie within the axes, whose room is reserved already
        self._place()

    def _place(self) -> None:
        shown = np.ones(len(self._rgba), bool)
        ends = []
        for ax, points in self._ends:
            end = ax.transData.transform(points)
            shown &= ((end >= ax.bbox.min) & (end <= ax.bbox.max)).all(axis=1)
            ends.append(end)
        self.set_segments(list(np.stack(ends, axis=1)[shown]))
        self.set_color(list(map(tuple, self._rgba[shown])))

    def draw(self, renderer: Any) -> None:
        self._place()
        super().draw(renderer)


def _labelled_line(
    ax0: Axes, ax1: Axes, point0: Array, point1: Array, rgba: Array, width: float, label: str
) -> ConnectionPatch:
    line = ConnectionPatch(
        xyA=tuple(point0),
        xyB=tuple(point1),
        coordsA=ax0.transData,
        coordsB=ax1.transData,
        axesA=ax0,
        axesB=ax1,
        zorder=1,
        color=tuple(rgba),
        linewidth=width,
        label=label,
        picker=5.0,
    )
    line.set_annotation_clip(True)
    return line


def add_text(
    idx: int,
    text: str,
    pos: tuple[float, float] = (0.01, 0.99),
    fs: float = 15,
    color: Any = "w",
    lcolor: Any = "k",
    lwidth: float = 2,
    ha: str = "left",
    va: str = "top",
) -> None:
    """Write onto image `idx` of the current figure.

    Args:
        idx: which of the figure's axes.
        text: what to write.
        pos: where, as a share of the axes' width and height from the bottom left.
        fs: font size in pt.
        color: of the letters.
        lcolor: of their outline, None for no outline.
        lwidth: width of the outline in pt.
        ha: which side of the text is at `pos`: left, center or right.
        va: top, center, baseline or bottom.
    """
    axes = plt.gcf().axes
    if not -len(axes) <= idx < len(axes):
        raise InputError(f"There is no image {idx} in a figure of {len(axes)}; call plot_images first.")
    ax = axes[idx]
    written = ax.text(*pos, text, fontsize=fs, ha=ha, va=va, color=color, transform=ax.transAxes)
    if lcolor is not None:
        written.set_path_effects([Stroke(linewidth=lwidth, foreground=lcolor), Normal()])


def save_plot(path: str | os.PathLike[str], **kw: Any) -> None:
    """Save the current figure without margins; `kw` goes to `matplotlib.pyplot.savefig`."""
    plt.savefig(path, **{"bbox_inches": "tight", "pad_inches": 0, **kw})
