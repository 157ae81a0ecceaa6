"""A picture of a model for those who have no browser: cameras and coloured points from three sides."""

from __future__ import annotations

import io
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib
import matplotlib.style
import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection, PolyCollection
from matplotlib.figure import Figure
from numpy.typing import NDArray

from lightglue.drawing.lettering import families, fitted
from lightglue.errors import InputError
from lightglue.sfm.colmap.model import Model
from lightglue.sfm.report.scene import Scene, camera_corners, scene_of
from lightglue.support.files import write_whole

__all__ = ["plot_model", "save_picture"]

Array = NDArray[np.float64]
_POINTS = 120_000  # more than a picture can show
_SIZE = (12.0, 7.2)  # inches
_ENDINGS = (".png", ".jpg", ".jpeg", ".pdf", ".svg")


@dataclass(frozen=True)
class _Look:
    paper: str
    ink: str
    soft: str
    line: str
    camera: str


_LIGHT = _Look("#ffffff", "#1d1d22", "#5d5d68", "#d9d6cf", "#d55e00")
_DARK = _Look("#16171b", "#ecebe6", "#a5a5b0", "#3c3e47", "#ff9447")


@dataclass(frozen=True)
class _Side:
    """A way to look at the scene: how far around it and how far above the ground."""

    title: str
    around: float  # degrees, to the right of where the cameras look
    above: float  # degrees


_OBLIQUE = _Side("", -28, 24)
_SIDES = (_Side("from above", 0, 90), _Side("from the front", 0, 0))


def plot_model(model: Model, *, title: str = "", dark: bool = False, dpi: float = 130) -> Figure:
    """Cameras and points from three sides, as a figure of its own: `figure.savefig(path)` writes it.

    Stray points are left out. Which way is up is guessed from the cameras.

    Args:
        title: what to write above; the numbers of the model stand beside it.
        dark: light on dark.
        dpi: dots per inch; the figure is 12 by 7.2 inches.

    Raises:
        InputError: the model has neither cameras nor points.
    """
    if not model.images and not len(model.points):
        raise InputError(f"The model in {model.folder} holds no image and no point; there is nothing to show.")
    look = _DARK if dark else _LIGHT
    scene = scene_of(model)
    with matplotlib.style.context("default"), matplotlib.rc_context({"text.parse_math": False}):
        figure = Figure(figsize=_SIZE, dpi=dpi, facecolor=look.paper)
        _head(figure, model, title, look)
        boxes = ((0.01, 0.02, 0.62, 0.89), (0.645, 0.475, 0.345, 0.435), (0.645, 0.02, 0.345, 0.435))
        for side, box in zip((_OBLIQUE, *_SIDES), boxes, strict=True):
            _draw_side(figure, box, model, scene, side, look)
    return figure


def save_picture(model: Model, path: str | os.PathLike[str], *, title: str = "", dark: bool = False) -> None:
    """Write the picture of a model, whole or not at all.

    Args:
        path: a .png, .jpg, .pdf or .svg file.

    Raises:
        InputError: another kind of file, or a model without cameras and points.
        StoreError: the file cannot be written.
    """
    path = Path(path)
    if path.suffix.lower() not in _ENDINGS:
        raise InputError(f"{path} has no ending that says what picture it is; give one of {', '.join(_ENDINGS)}.")
    buffer = io.BytesIO()
    figure = plot_model(model, title=title, dark=dark)
    figure.savefig(buffer, format=path.suffix[1:].lower().replace("jpeg", "jpg"))
    write_whole(path, buffer.getvalue())


def _head(figure: Figure, model: Model, title: str, look: _Look) -> None:
    numbers = [f"{len(model.images):,} images", f"{len(model.points):,} points"]
    if np.isfinite(model.mean_error):
        numbers.append(f"mean reprojection error {model.mean_error:.2f} px")
    right = "   ·   ".join(numbers)
    font: Any = {"family": families(), "va": "center"}
    shown = fitted(title, 13, 6.5)
    figure.text(0.015, 0.955, shown, color=look.ink, fontsize=13, fontweight="bold", **font)
    figure.text(0.985, 0.955, right, color=look.soft, fontsize=10, ha="right", **font)


def _draw_side(
    figure: Figure, box: tuple[float, float, float, float], model: Model, scene: Scene, side: _Side, look: _Look
) -> None:
    """One panel, drawn from the far to the near."""
    ax = figure.add_axes(box, facecolor=look.paper)
    ax.set_xticks([])
    ax.set_yticks([])
    for spine in ax.spines.values():
        spine.set_color(look.line)
        spine.set_visible(bool(side.title))
    points, colours = _sample(model, scene)
    flat, depth = _seen(scene.rotated(points), side)
    corners, _ = _seen(scene.rotated(camera_corners(model, scene.camera_size).reshape(-1, 3)), side)
    corners = corners.reshape(-1, 5, 2)
    ratio = box[2] * _SIZE[0] / (box[3] * _SIZE[1])
    unit = _frame(ax, flat, corners, ratio)  # the panel's width in the scene's unit
    order = np.argsort(-depth, kind="stable")
    area = _point_area(len(points), box[2] * _SIZE[0])
    ax.scatter(flat[order, 0], flat[order, 1], s=area, c=_legible(colours[order], look), linewidths=0, rasterized=True)
    _draw_cameras(ax, corners, look, wide=unit)
    if side.title:
        ax.text(0.02, 0.97, side.title, transform=ax.transAxes, va="top", fontsize=9, color=look.soft)


def _sample(model: Model, scene: Scene) -> tuple[Array, NDArray[np.uint8]]:
    """Points to draw: no strays, and of too many evenly some."""
    which = np.flatnonzero(scene.shown)
    which = which[:: max(1, -(-len(which) // _POINTS))]
    return model.points[which], model.colours[which]


def _seen(rotated: Array, side: _Side) -> tuple[Array, Array]:
    """Points (N, 3) to the right, ahead, up as they are seen without perspective: (N, 2) px-like, and how far."""
    around, above = np.radians(side.around), np.radians(side.above)
    right, ahead, up = rotated.T
    x, away = right * np.cos(around) - ahead * np.sin(around), right * np.sin(around) + ahead * np.cos(around)
    y, depth = up * np.cos(above) + away * np.sin(above), away * np.cos(above) - up * np.sin(above)
    return np.stack([x, y], axis=1), depth


def _frame(ax: Axes, flat: Array, corners: Array, ratio: float) -> float:
    """Limits with all cameras and nearly all points, in the panel's shape. Returns the width."""
    ends = [np.percentile(flat, [0.3, 99.7], axis=0)] if len(flat) else []
    if len(corners):
        ends.append(np.stack([corners.min(axis=(0, 1)), corners.max(axis=(0, 1))]))
    low, high = np.minimum.reduce(ends)[0], np.maximum.reduce(ends)[1]
    width, height = 1.06 * np.maximum(high - low, 1e-9)
    width, height = max(width, height * ratio), max(height, width / ratio)
    x, y = (low + high) / 2
    ax.set_xlim(x - width / 2, x + width / 2)
    ax.set_ylim(y - height / 2, y + height / 2)
    return float(width)


def _point_area(count: int, inches: float) -> float:
    """pt^2, so that points cover a good part of the panel, whatever their number."""
    return float(np.clip(0.6 * (72 * inches) ** 2 / max(count, 1) / 6, 0.25, 9))


def _legible(colours: NDArray[np.uint8], look: _Look) -> Array:
    """(N, 3) in [0, 1]: the images' colours, kept off that of the paper."""
    rgb = colours / 255
    light = rgb @ (0.299, 0.587, 0.114)
    if look is _LIGHT:
        scale = np.minimum(1, 0.82 / np.maximum(light, 1e-6))
        kept: Array = rgb * scale[:, None]
        return kept
    lift = np.clip(0.22 - light, 0, None)[:, None]
    return np.clip(rgb + lift, 0, 1)


def _draw_cameras(ax: Axes, corners: Array, look: _Look, wide: float) -> None:
    """Pyramids from the centre to the image plane, thinner where there are many."""
    if not len(corners):
        return
    thin = float(np.clip(np.sqrt(60 / len(corners)), 0.25, 1))
    lines = corners[:, [0, 1, 2, 0, 3, 4, 0, 1, 4, 3, 2]]
    ax.add_collection(PolyCollection(list(corners[:, 1:]), facecolors=[look.camera], alpha=0.16, linewidths=0))
    ax.add_collection(LineCollection(list(lines), colors=[look.camera], linewidths=0.3 + 0.7 * thin, alpha=0.95))
    size = np.linalg.norm(corners[:, 1] - corners[:, 3], axis=1).max()
    if size < 0.01 * wide:  # too small to be seen as pyramids
        ax.scatter(corners[:, 0, 0], corners[:, 0, 1], s=4, color=look.camera, linewidths=0, zorder=3)
