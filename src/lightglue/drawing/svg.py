"""Charts as SVG to be put into a page. Matplotlib without pyplot: nothing global, no window.

Colours are the page's variables, so that charts follow light and dark; text stays text in the page's letters; and the
same data give the same bytes.
"""

from __future__ import annotations

import hashlib
import io
import math
import re
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import matplotlib
import matplotlib.style
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from lightglue.drawing.page import COLOURS

__all__ = ["SHEET", "SOFT", "quiet", "round_values", "svg_chart"]

_SIZE = (4.7, 3.1)  # inches; as wide as a telephone shows, so that letters stay legible
_INK, SOFT, _GRID, SHEET = "#111112", "#555556", "#eeeeef", "#fffffe"  # turned into the page's variables
_VARIABLES = {_INK: "--ink", SOFT: "--soft", _GRID: "--grid", SHEET: "--sheet"}
_VARIABLES |= {light: f"--s{i}" for i, (light, _) in enumerate(COLOURS)}


@contextmanager
def quiet() -> Iterator[None]:
    """Without the warning for letters that no font here has: a browser has them, and a picture shows a square."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph")
        yield


def svg_chart(draw: Callable[[Axes], None]) -> str:
    """A chart in the page's colours, as an element to be put into HTML."""
    with matplotlib.style.context("default"), matplotlib.rc_context(_SETTINGS), quiet():
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
    "axes.edgecolor": SOFT,
    "axes.labelcolor": _INK,
    "text.color": _INK,
    "xtick.color": SOFT,
    "ytick.color": SOFT,
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


def round_values(low: float, high: float) -> list[float]:
    """1, 2 and 5 times powers of ten from low to high; only the powers where these are many."""
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    every = [step * 10.0**power for power in powers for step in (1, 2, 5)]
    found = [value for value in every if low <= value <= high]
    tens = [value for value in every[::3] if low <= value <= high]
    return tens if len(found) > 7 and len(tens) > 1 else found
