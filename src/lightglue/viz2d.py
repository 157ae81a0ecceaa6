"""Pictures of images, keypoints and matches with Matplotlib.

The published functions draw on pyplot's current figure: `plot_images`, then any number of `plot_keypoints`,
`plot_matches` and `add_text`, then `save_plot`. `plot_match_summary` draws one finished figure by itself and leaves
pyplot's state alone.

Arrays may be NumPy arrays or tensors on any device. Keypoints are (N, 2) x y in px of their image.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any, NamedTuple

import cv2
import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.colors import LinearSegmentedColormap, to_rgba_array
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties, findfont, get_font
from matplotlib.patches import ConnectionPatch
from matplotlib.patheffects import Normal, Stroke
from matplotlib.transforms import IdentityTransform
from numpy.typing import ArrayLike, NDArray

from lightglue.errors import InputError

__all__ = [
    "add_text",
    "cm_BlRdGn",
    "cm_RdGn",
    "cm_grad2d",
    "cm_prune",
    "plot_images",
    "plot_keypoints",
    "plot_match_summary",
    "plot_matches",
    "save_plot",
]

Array = NDArray[Any]

# --- colours ------------------------------------------------------------------------------------------------------


def cm_RdGn(x: ArrayLike) -> Array:  # noqa: N802
    """Colours (..., 3) of values in [0, 1]: red at 0, yellow at 0.5, green at 1."""
    return cm_BlRdGn(_array(x).clip(0, 1))[..., :3]


def cm_BlRdGn(x_: ArrayLike) -> Array:  # noqa: N802
    """Colours (..., 4) of values in [-1, 1]: blue at -1, red at 0, green at 1."""
    x = np.clip(_array(x_).astype(np.float64), -1, 1)
    near, far = np.minimum(2 - 2 * np.abs(x), 1), np.minimum(2 * np.abs(x), 1)  # shares of red and of the end
    # The blue end has a tenth of green in it, unlike the rest not saturated.
    green, blue = np.where(x < 0, 0.2 * np.abs(x), far), np.where(x < 0, far, 0.0)
    return np.stack([near, green, blue, np.ones_like(x)], axis=-1)


def cm_prune(x_: ArrayLike) -> Array:
    """Colours (N, 4) of LightGlue's `prune0` or `prune1`: blue for keypoints that were never pruned.

    The others go from red (dropped after the first layer) towards green (kept for long).
    """
    layers = _array(x_).astype(np.float64)
    last = layers.max() if layers.size else 0.0
    return cm_BlRdGn(np.where(layers == last, -1.0, (layers - 1) / 9))


def cm_grad2d(xy: ArrayLike) -> Array:
    """Colours (..., 3) of points (..., 2) in the unit square: a gradient that tells positions apart.

    Yellow at (0, 0), green at (1, 0), red at (0, 1), blue at (1, 1).
    """
    points = _array(xy).astype(np.float64).clip(0, 1)
    x, y = points[..., :1], points[..., 1:2]
    yellow, green, red, blue = np.array([[1, 1, 0], [0, 1, 0], [1, 0, 0], [0, 0, 1]], float)
    colours: Array = (1 - y) * ((1 - x) * yellow + x * green) + y * ((1 - x) * red + x * blue)
    return colours


def _rgba(colours: Any, count: int, alpha: Any = None) -> Array:
    """(count, 4) RGBA from one colour or `count` of them, each in a form that Matplotlib knows."""
    if isinstance(colours, torch.Tensor):
        colours = _array(colours)
    if count == 0:
        return np.zeros((0, 4))
    try:
        rgba = to_rgba_array(colours)
    except (ValueError, TypeError) as error:
        raise InputError(f"These are not colours: {error}") from error
    if len(rgba) not in (1, count):
        raise InputError(f"There are {len(rgba)} colours for {count} keypoints; give one, or one for each.")
    rgba = np.broadcast_to(rgba, (count, 4)).copy()
    opacity = rgba[:, 3] if alpha is None else _array(alpha)
    if opacity.shape not in ((), (count,)):
        raise InputError(f"There are {len(opacity)} opacities for {count} keypoints; give one, or one for each.")
    rgba[:, 3] = opacity
    return rgba


# --- inputs -------------------------------------------------------------------------------------------------------


def _array(values: Any) -> Array:
    if isinstance(values, torch.Tensor):
        values = values.detach().cpu()
        return np.asarray(values.float() if values.dtype == torch.bfloat16 else values)
    return np.asarray(values)


def _points(keypoints: Any) -> Array:
    points = _array(keypoints)
    if points.size == 0:
        return np.zeros((0, 2))
    if points.ndim != 2 or points.shape[1] != 2:
        raise InputError(f"Keypoints have shape {points.shape}; give (N, 2) (rbd removes a batch dimension).")
    return points.astype(np.float64)


def _pixels(image: Any) -> Array:
    """(H, W, 3) or (H, W) of any image: tensors are channels first, arrays channels last unless they cannot be."""
    pixels = _array(image)
    if pixels.ndim == 3:
        first, last = pixels.shape[0] in (1, 3), pixels.shape[2] in (1, 3, 4)
        if first and (isinstance(image, torch.Tensor) or not last):
            pixels, last = pixels.transpose(1, 2, 0), True
        if last:
            pixels = pixels[..., 0] if pixels.shape[2] == 1 else pixels
    if pixels.size == 0 or not (pixels.ndim == 2 or (pixels.ndim == 3 and pixels.shape[2] in (3, 4))):
        raise InputError(f"An image has shape {_array(image).shape}; give (3, H, W), (1, H, W), (H, W, 3) or (H, W).")
    if pixels.dtype.kind == "f":
        pixels = pixels.astype(np.float32)
        return pixels if pixels.ndim == 2 else pixels.clip(0, 1)
    if pixels.dtype == np.uint16 and pixels.ndim == 3:
        return (pixels >> 8).astype(np.uint8)  # Matplotlib draws integer colours up to 255
    return pixels


def _figure_axes(axes: Sequence[Axes] | None, count: int) -> list[Axes]:
    found: list[Axes] = list(plt.gcf().axes if axes is None else axes)
    if len(found) < count:
        raise InputError(f"There are {len(found)} axes where {count} are needed; call plot_images first.")
    return found


# --- the published functions --------------------------------------------------------------------------------------


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
        titles: one for each image.
        cmaps: colour map of one-channel images, or a list with one for each.
        dpi: resolution of the figure.
        pad: space around it, in font sizes.
        adaptive: give each image room after its own aspect ratio rather than 4:3.
    """
    pictures = [_pixels(image) for image in imgs]
    if not pictures:
        raise InputError("There is no image to plot; give at least one.")
    maps = list(cmaps) if isinstance(cmaps, (list, tuple)) else [cmaps] * len(pictures)
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
        points = _points(keypoints)
        values = _array(colour) if isinstance(colour, (np.ndarray, torch.Tensor)) else None
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
    points0, points1 = _points(kpts0), _points(kpts1)
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
    """Lines between two axes, placed anew at each draw, so that layout, zoom and file format do not part them.

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


# --- one finished figure ------------------------------------------------------------------------------------------

_PHOTO_PX = 1600  # photographs are shrunk to this edge before they are drawn
# Told apart in daylight and by eyes that confuse red and green.
_SCORES = LinearSegmentedColormap.from_list("scores", ["#d6006f", "#ff8c1a", "#ffe14d", "#33f0c0"])
_GRAY, _BLACK = "#6b6b6b", "#1f1f1f"


class _Place(NamedTuple):
    """Where a photograph lies on the drawing surface, whose unit is the common edge of both; y points down."""

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
) -> Figure:
    """One picture of a matched pair: both photographs, every keypoint, and the matches coloured by their score.

    Unlike the functions above it draws on a figure of its own, which `figure.savefig(path)` writes in any format.

    Args:
        image0: (3, H, W) or (1, H, W) tensor, or (H, W, 3) or (H, W) array.
        image1: the second image, of any other size.
        keypoints0: (M, 2) x y, px of image 0.
        keypoints1: (N, 2) x y, px of image 1.
        matches: (K, 2) integers, rows of keypoints0 and keypoints1.
        scores: (K,) in [0, 1].
        names: what to write above each photograph.
        texts: what to write below them, after the number of matches: "6 of 9 layers", "1.2 s".
        dpi: resolution in dots per inch; the figure is up to 12 inches wide.

    Raises:
        InputError: arrays of the wrong shape, or matches of keypoints that do not exist.
    """
    photos = [_pixels(image) for image in (image0, image1)]
    keypoints = [_points(keypoints0), _points(keypoints1)]
    pairs, values = _checked_matches(matches, scores, keypoints)
    order = np.argsort(values, kind="stable")  # the best matches lie on top
    pairs, values = pairs[order], values[order]

    places = _side_by_side(photos[0].shape[:2], photos[1].shape[:2])
    figure, ax, unit = _summary_figure(places, dpi)
    ends = []
    for i, (photo, place) in enumerate(zip(photos, places, strict=True)):
        _draw_photo(ax, photo, place)
        name = _printable(names[i], longest=int(place.width * unit / _letter_width(8)))
        ax.text(place.x, place.y, name, fontsize=8, color=_GRAY, va="bottom", parse_math=False)
        placed = place.put(keypoints[i])
        unmatched = np.ones(len(placed), bool)
        unmatched[pairs[:, i]] = False
        ax.scatter(placed[unmatched, 0], placed[unmatched, 1], s=2.5, c="white", alpha=0.5, linewidths=0)
        ends.append(placed[pairs[:, i]])
    _draw_scored_lines(ax, ends[0], ends[1], values)
    _write_strip(figure, [f"{len(pairs):,} match{'es' * (len(pairs) != 1)}", *texts])
    return figure


def _checked_matches(matches: Any, scores: Any, keypoints: Sequence[Array]) -> tuple[Array, Array]:
    pairs, values = _array(matches), _array(scores).astype(np.float64).reshape(-1)
    pairs = pairs.reshape(-1, 2) if pairs.size == 0 else pairs
    if pairs.ndim != 2 or pairs.shape[1] != 2 or len(pairs) != len(values):
        raise InputError(f"Matches have shape {pairs.shape} and there are {len(values)} scores; give (K, 2) and (K,).")
    pairs = pairs.astype(np.int64)
    if len(pairs) and (pairs.min() < 0 or (pairs.max(axis=0) >= [len(points) for points in keypoints]).any()):
        sizes = " and ".join(str(len(points)) for points in keypoints)
        raise InputError(f"Matches reach from {pairs.min(axis=0)} to {pairs.max(axis=0)}, but keypoints are {sizes}.")
    return pairs, values


def _side_by_side(size0: Sequence[int], size1: Sequence[int], gap: float = 0.012) -> list[_Place]:
    """Places of two images of (height, width) px, equally high; panoramas one above the other, equally wide."""
    (h0, w0), (h1, w1) = size0, size1
    if w0 / h0 + w1 / h1 <= 5:
        width0, width1 = w0 / h0, w1 / h1
        return [_Place(0, 0, width0, 1, 1 / h0), _Place(width0 + gap * (width0 + width1), 0, width1, 1, 1 / h1)]
    height0, height1 = h0 / w0, h1 / w1
    return [_Place(0, 0, 1, height0, 1 / w0), _Place(0, height0 + 8 * gap * (height0 + height1), 1, height1, 1 / w1)]


def _summary_figure(places: Sequence[_Place], dpi: float) -> tuple[Figure, Axes, float]:
    """A figure with room for both places, a line of names above and the strip of text below.

    Returns the figure, the axes of the drawing surface, and the length of its unit in inches.
    """
    width = max(place.x + place.width for place in places)
    height = max(place.y + place.height for place in places)
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


def _draw_photo(ax: Axes, photo: Array, place: _Place) -> None:
    """Draw a photograph with no more pixels than the picture can show."""
    full = {np.dtype(np.uint8): 255, np.dtype(np.uint16): 65535, np.dtype(np.float32): 1}.get(photo.dtype)
    if full is None:
        raise InputError(f"An image has dtype {photo.dtype}; give uint8, uint16, or floating point in [0, 1].")
    scale = _PHOTO_PX / max(photo.shape[:2])
    if scale < 1:
        size = [max(1, round(edge * scale)) for edge in photo.shape[1::-1]]
        photo = cv2.resize(photo, size, interpolation=cv2.INTER_AREA)
    extent = (place.x, place.x + place.width, place.y + place.height, place.y)
    ax.imshow(photo, extent=extent, cmap="gray", vmin=0, vmax=full)


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
    """The facts below the photographs on the left, the scale of scores on the right."""
    width, height = figure.get_size_inches()
    y = 0.21 / height
    facts = "   ·   ".join(map(_printable, texts))
    size = np.clip(11 * (width - 2.2) / (len(facts) * _letter_width(11)), 5, 11)
    figure.text(0.12 / width, y, facts, va="center", fontsize=size, color=_BLACK, parse_math=False)
    bar = figure.add_axes((1 - 1.5 / width, y - 0.05 / height, 1.1 / width, 0.1 / height))
    bar.imshow(np.linspace(0, 1, 256)[None], cmap=_SCORES, aspect="auto")
    bar.set_axis_off()
    for x, text, side in ((-0.05, "score  0", "right"), (1.05, "1", "left")):
        bar.text(x, 0.45, text, transform=bar.transAxes, ha=side, va="center", fontsize=9, color=_GRAY)


def _letter_width(fontsize: float) -> float:
    """Inches that a letter takes on average."""
    return 0.53 * fontsize / 72


def _printable(text: str, longest: int = 100) -> str:
    """`text` on one line, not too long, with a square for each letter that the font does not have."""
    text = " ".join(str(text).split())
    if len(text) > longest:
        half = max(longest // 2, 2)
        text = f"{text[:half]}…{text[-half + 1 :]}"
    font = get_font(findfont(FontProperties()))
    return "".join(letter if font.get_char_index(ord(letter)) else "□" for letter in text)
