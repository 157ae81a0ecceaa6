"""The charts and pictures of a report. The room's only matplotlib, without pyplot: nothing global, no window."""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib
import matplotlib.style
import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator, NullLocator
from numpy.typing import NDArray

from lightglue.drawing.matches import plot_match_summary
from lightglue.drawing.page import COLOURS
from lightglue.drawing.svg import SHEET, SOFT, quiet, round_values, svg_chart
from lightglue.evaluation.matches import Matches
from lightglue.geometry.curves import recall_curve
from lightglue.images import read_image

__all__ = [
    "error_histogram",
    "match_jpeg",
    "precision_curve",
    "precision_scatter",
    "recall_chart",
    "time_chart",
]

Array = NDArray[np.float64]
_DASHES = ("-", (0, (6, 2)), (0, (2, 1.5)), (0, (7, 2, 1.5, 2)))
_MARKERS = "oDs^vPX*"
_JPEG_DPI = 100


def recall_chart(curves: Sequence[Array], limit: float, thresholds: Sequence[float], label: str) -> str:
    """Recall against error, up to `limit`, a line for each list of errors; in the order of the page's colours."""

    def draw(ax: Axes) -> None:
        for threshold in thresholds:
            ax.axvline(threshold, color=SOFT, linewidth=0.8, linestyle=(0, (1, 2)))
        for i, errors in enumerate(curves):
            x, y = recall_curve(errors, limit)
            ax.plot(x, 100 * y, **_line(i))
        ax.set(xlim=(0, limit), ylim=(0, 100), xlabel=label, ylabel="pairs below, %")
        ax.xaxis.set_major_locator(MaxNLocator(6, steps=[1, 2, 5, 10]))

    return svg_chart(draw)


def error_histogram(errors: Array, thresholds: Sequence[float], label: str) -> str:
    """How many pairs have which error, in steps that grow by the same factor; failures stand apart on the right."""
    finite = errors[np.isfinite(errors)]
    positive = finite[finite > 0]
    low, high = (float(positive.min()), float(positive.max())) if len(positive) else (0.1, 1.0)
    low, high = max(low, high / 1e6), high * 1.0001
    steps = int(np.clip(4 * math.log2(max(high / low, 2)), 6, 24))
    edges = np.geomspace(low, max(high, 2 * low), steps + 1)
    counts, _ = np.histogram(finite.clip(low, None), edges)

    def draw(ax: Axes) -> None:
        left, wide = np.log10(edges), np.log10(edges[1] / edges[0])
        ax.bar(left[:-1], counts, width=wide, align="edge", color=COLOURS[0][0], edgecolor=SHEET, linewidth=0.6)
        failed, end = len(errors) - len(finite), left[-1] + 2.5 * wide
        ax.bar([end], [failed], width=1.6 * wide, color=COLOURS[1][0])
        for threshold in thresholds:
            if left[0] <= math.log10(threshold) <= left[-1]:
                ax.axvline(math.log10(threshold), color=SOFT, linewidth=0.8, linestyle=(0, (1, 2)))
        ticks = round_values(edges[0], edges[-1])
        ax.set_xticks([*np.log10(ticks), end], [*(f"{tick:g}" for tick in ticks), "failed"])
        ax.set(xlim=(left[0] - wide / 2, end + 2 * wide), xlabel=label, ylabel="pairs")
        ax.set_ylim(0, max(1.0, 1.08 * max(*counts, failed)))
        ax.yaxis.set_major_locator(MaxNLocator(5, integer=True))

    return svg_chart(draw)


def precision_scatter(precision: Array, correct: Array, label: str) -> str:
    """A point for each pair: the share of its matches that is correct, against how many are. Shares are 0 to 1."""

    def draw(ax: Axes) -> None:
        ax.scatter(correct, 100 * precision, s=18, color=COLOURS[0][0], alpha=0.8, linewidths=0, clip_on=False)
        most = max(10.0, float(correct.max(initial=0)))
        ax.set_xscale("symlog", linthresh=10, linscale=0.5)
        ticks = [0, *round_values(1, most)] if most < 50 else [0, *(10.0**i for i in range(1, 9) if 10**i <= most)]
        ax.xaxis.set_major_locator(FixedLocator(ticks))
        ax.xaxis.set_minor_locator(NullLocator())
        ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
        ax.set(xlim=(-0.5, 1.2 * most), ylim=(0, 100), xlabel="correct matches of the pair", ylabel=label)

    return svg_chart(draw)


def precision_curve(scores: Array, correct: NDArray[np.bool_]) -> str:
    """Precision against recall as the score that a match must reach falls, over the matches of all pairs."""
    order = np.argsort(-scores, kind="stable")
    right = np.cumsum(correct[order])
    ends = np.flatnonzero(np.diff(scores[order], append=-np.inf))  # equal scores come together
    ends = ends[np.unique(np.linspace(0, len(ends) - 1, 400).round().astype(int))] if len(ends) else ends
    recall, precision = right[ends] / max(int(correct.sum()), 1), right[ends] / (ends + 1)

    def draw(ax: Axes) -> None:
        ax.plot(100 * recall, 100 * precision, **_line(0))
        ax.set(
            xlim=(0, 100), ylim=(0, 101), xlabel="correct matches kept, %", ylabel="kept matches that are correct, %"
        )

    return svg_chart(draw)


def time_chart(points: Sequence[tuple[float, float, float | None]], label: str) -> str:
    """Points of (seconds a pair, figure, its standard error), in the order of the page's colours."""

    def draw(ax: Axes) -> None:
        for i, (seconds, value, error) in enumerate(points):
            colour = COLOURS[i % len(COLOURS)][0]
            marker = _MARKERS[i % len(_MARKERS)]
            ax.errorbar(seconds, value, yerr=error, color=colour, marker=marker, markersize=8, capsize=3, linewidth=1.2)
        least, most = (pick(seconds for seconds, _, _ in points) for pick in (min, max))
        ax.set_xscale("log")
        ax.set_xlim(least / 2, 2 * most)
        ax.xaxis.set_major_locator(FixedLocator(round_values(least / 2, 2 * most)))
        ax.xaxis.set_minor_locator(NullLocator())
        ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        ax.set(xlabel="seconds a pair", ylabel=label)
        ax.margins(y=0.25)

    return svg_chart(draw)


def match_jpeg(images: Sequence[Path], matches: Matches, texts: Sequence[str]) -> bytes:
    """Both images of a pair with its matches, coloured by score.

    Args:
        images: both files.
        matches: in px of these.
        texts: what to write below, after the number of matches.

    Raises:
        ImageError: a file is missing or damaged.
    """
    pixels0, pixels1 = (read_image(image) for image in images)
    rows = np.repeat(np.arange(len(matches.points0))[:, None], 2, axis=1)
    names = (images[0].name, images[1].name)
    buffer = io.BytesIO()
    with matplotlib.style.context("default"), quiet():
        figure = plot_match_summary(
            pixels0,
            pixels1,
            matches.points0,
            matches.points1,
            rows,
            matches.scores,
            names=names,
            texts=texts,
            dpi=_JPEG_DPI,
        )
        figure.savefig(buffer, format="jpeg", pil_kwargs={"quality": 82, "optimize": True})
    return buffer.getvalue()


def _line(i: int) -> dict[str, Any]:
    return {"color": COLOURS[i % len(COLOURS)][0], "linestyle": _DASHES[i % len(_DASHES)], "linewidth": 1.8}
