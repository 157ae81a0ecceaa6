"""The charts and pictures of a report. The room's only matplotlib, without pyplot: nothing global, no window.

Charts are SVG to be put into a page: colours are the page's variables, so that they follow light and dark, text stays
text in the page's letters, and the same data give the same bytes.
"""

from __future__ import annotations

import hashlib
import io
import math
import re
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import matplotlib
import matplotlib.style
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator, NullLocator
from numpy.typing import NDArray

from lightglue.evaluation.matches import Matches
from lightglue.evaluation.page import COLOURS
from lightglue.geometry.curves import recall_curve
from lightglue.images import read_image
from lightglue.match_picture import plot_match_summary

__all__ = [
    "error_histogram",
    "match_jpeg",
    "precision_curve",
    "precision_scatter",
    "recall_chart",
    "time_chart",
]

Array = NDArray[np.float64]
_SIZE = (4.7, 3.1)  # inches; as wide as a telephone shows, so that letters stay legible
_INK, _SOFT, _GRID, _SHEET = "#111112", "#555556", "#eeeeef", "#fffffe"  # turned into the page's variables
_VARIABLES = {_INK: "--ink", _SOFT: "--soft", _GRID: "--grid", _SHEET: "--sheet"}
_VARIABLES |= {light: f"--s{i}" for i, (light, _) in enumerate(COLOURS)}
_DASHES = ("-", (0, (6, 2)), (0, (2, 1.5)), (0, (7, 2, 1.5, 2)))
_MARKERS = "oDs^vPX*"
_JPEG_DPI = 100


def recall_chart(curves: Sequence[Array], limit: float, thresholds: Sequence[float], label: str) -> str:
    """Recall against error, up to `limit`, a line for each list of errors; in the order of the page's colours."""

    def draw(ax: Axes) -> None:
        for threshold in thresholds:
            ax.axvline(threshold, color=_SOFT, linewidth=0.8, linestyle=(0, (1, 2)))
        for i, errors in enumerate(curves):
            x, y = recall_curve(errors, limit)
            ax.plot(x, 100 * y, **_line(i))
        ax.set(xlim=(0, limit), ylim=(0, 100), xlabel=label, ylabel="pairs below, %")
        ax.xaxis.set_major_locator(MaxNLocator(6, steps=[1, 2, 5, 10]))

    return _svg(draw)


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
        place, wide = np.log10(edges), np.log10(edges[1] / edges[0])
        ax.bar(place[:-1], counts, width=wide, align="edge", color=COLOURS[0][0], edgecolor=_SHEET, linewidth=0.6)
        failed, end = len(errors) - len(finite), place[-1] + 2.5 * wide
        ax.bar([end], [failed], width=1.6 * wide, color=COLOURS[1][0])
        for threshold in thresholds:
            if place[0] <= math.log10(threshold) <= place[-1]:
                ax.axvline(math.log10(threshold), color=_SOFT, linewidth=0.8, linestyle=(0, (1, 2)))
        ticks = _round_values(edges[0], edges[-1])
        ax.set_xticks([*np.log10(ticks), end], [*(f"{tick:g}" for tick in ticks), "failed"])
        ax.set(xlim=(place[0] - wide / 2, end + 2 * wide), xlabel=label, ylabel="pairs")
        ax.set_ylim(0, max(1.0, 1.08 * max(*counts, failed)))
        ax.yaxis.set_major_locator(MaxNLocator(5, integer=True))

    return _svg(draw)


def precision_scatter(precision: Array, correct: Array, label: str) -> str:
    """A point for each pair: the share of its matches that is correct, against how many are. Shares are 0 to 1."""

    def draw(ax: Axes) -> None:
        ax.scatter(correct, 100 * precision, s=18, color=COLOURS[0][0], alpha=0.8, linewidths=0, clip_on=False)
        most = max(10.0, float(correct.max(initial=0)))
        ax.set_xscale("symlog", linthresh=10, linscale=0.5)
        ticks = [0, *_round_values(1, most)] if most < 50 else [0, *(10.0**i for i in range(1, 9) if 10**i <= most)]
        ax.xaxis.set_major_locator(FixedLocator(ticks))
        ax.xaxis.set_minor_locator(NullLocator())
        ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
        ax.set(xlim=(-0.5, 1.2 * most), ylim=(0, 100), xlabel="correct matches of the pair", ylabel=label)

    return _svg(draw)


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

    return _svg(draw)


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
        ax.xaxis.set_major_locator(FixedLocator(_round_values(least / 2, 2 * most)))
        ax.xaxis.set_minor_locator(NullLocator())
        ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        ax.set(xlabel="seconds a pair", ylabel=label)
        ax.margins(y=0.25)

    return _svg(draw)


def match_jpeg(images: Sequence[Path], matches: Matches, texts: Sequence[str]) -> bytes:
    """Both photographs of a pair with its matches, coloured by score.

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
    with matplotlib.style.context("default"), _quiet():
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


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the warning for letters that no font here has: a browser has them, and a picture shows a square."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph")
        yield


def _line(i: int) -> dict[str, Any]:
    return {"color": COLOURS[i % len(COLOURS)][0], "linestyle": _DASHES[i % len(_DASHES)], "linewidth": 1.8}


def _svg(draw: Callable[[Axes], None]) -> str:
    """A chart in the page's colours, as an element to be put into HTML."""
    with matplotlib.style.context("default"), matplotlib.rc_context(_SETTINGS), _quiet():
        figure = Figure(figsize=_SIZE, layout="constrained")
        ax = figure.subplots()
        draw(ax)
        ax.grid(color=_GRID, linewidth=0.8)
        ax.set_axisbelow(True)
        ax.spines[["top", "right"]].set_visible(False)
        buffer = io.BytesIO()
        figure.savefig(buffer, format="svg", transparent=True, metadata=dict.fromkeys(_METADATA))
    return _embedded(buffer.getvalue().decode())


_METADATA = ("Date", "Creator", "Format", "Type")
_SETTINGS: Any = {
    "svg.fonttype": "none",  # text, not outlines
    "svg.hashsalt": "lightglue",
    "text.parse_math": False,
    "font.size": 9,
    "axes.edgecolor": _SOFT,
    "axes.labelcolor": _INK,
    "text.color": _INK,
    "xtick.color": _SOFT,
    "ytick.color": _SOFT,
    "xtick.labelcolor": _INK,
    "ytick.labelcolor": _INK,
}


def _embedded(svg: str) -> str:
    """A whole SVG file as an element: no header, no size but its proportions, no names that another one may have."""
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"\s*<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    head, rest = svg.split(">", 1)
    box = re.search(r'viewBox="[^"]*"', head)
    head = f'<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" {box[0] if box else ""}'
    used = set(re.findall(r'(?:url\(#|href="#)([^)"]+)', rest))
    mark = hashlib.sha256(svg.encode()).hexdigest()[:8]
    rest = re.sub(r' id="([^"]+)"', lambda found: f' id="{mark}{found[1]}"' if found[1] in used else "", rest)
    rest = re.sub(r'(url\(#|href="#)', rf"\g<1>{mark}", rest)
    rest = re.sub(r"#[0-9a-f]{6}\b", lambda found: _variable(found[0]), rest)
    return f'{head} role="img">{rest}'.strip()


def _variable(colour: str) -> str:
    return f"var({_VARIABLES[colour]})" if colour in _VARIABLES else colour


def _round_values(low: float, high: float) -> list[float]:
    """1, 2 and 5 times powers of ten from low to high; only the powers where these are many."""
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    every = [step * 10.0**power for power in powers for step in (1, 2, 5)]
    found = [value for value in every if low <= value <= high]
    tens = [value for value in every[::3] if low <= value <= high]
    return tens if len(found) > 7 and len(tens) > 1 else found
