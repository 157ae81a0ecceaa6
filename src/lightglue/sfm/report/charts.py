"""The charts of a map's report, as SVG: who was matched with whom, the graph of views, histograms.

Colours are the page's variables, so that charts follow light and dark.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, MaxNLocator
from numpy.typing import NDArray

from lightglue.drawing.page import COLOURS
from lightglue.drawing.svg import SHEET, svg_chart
from lightglue.support.printable import printable

__all__ = ["MARKS", "MATRIX_IMAGES", "Node", "histogram", "length_histogram", "match_matrix", "view_graph"]

Array = NDArray[np.float64]
MARKS = {"dropped": 1, "doubtful": 4, "contradicting": 3}  # and which of `COLOURS` stands for each
MATRIX_IMAGES = 300  # more have no room for a cell each
_WIDE = 720.0  # units of a drawing's width
_NAMED = 30  # more images are not named
_TITLED = 60  # of a matrix with more images, cells have no tooltip
_NUMBERED = 34  # units; cells that are at least as wide hold their number
_LEVELS = 12  # shades of a large matrix
_EDGES = 4000


@dataclass(frozen=True)
class Node:
    """An image, or several that are drawn as one."""

    name: str
    position: tuple[float, float] | None  # seen from above, to the right and ahead; None if it is not known
    count: int = 1


def histogram(values: Array, label: str, things: str) -> str:
    """How many have which value, from 0 on; the last bar holds all that is beyond."""
    most = float(np.percentile(values, 99.5)) if len(values) else 1.0
    edges = np.linspace(0, most or 1.0, 31)
    counts, _ = np.histogram(np.minimum(values, edges[-1]), edges)

    def draw(ax: Axes) -> None:
        ax.bar(edges[:-1], counts, np.diff(edges), align="edge", color=COLOURS[0][0], edgecolor=SHEET, linewidth=0.6)
        ax.set(xlim=(0, edges[-1]), xlabel=label, ylabel=things)
        _count_axis(ax)

    return svg_chart(draw)


def length_histogram(lengths: NDArray[np.int64], label: str, things: str) -> str:
    """How many have which length, a bar for each; the last bar holds all that is beyond 30."""
    last = int(np.clip(lengths.max(initial=3), 3, 30))
    counts = np.bincount(np.minimum(lengths, last), minlength=last + 1)[2:]

    def draw(ax: Axes) -> None:
        ax.bar(np.arange(2, last + 1), counts, 0.86, color=COLOURS[0][0])
        ax.set(xlim=(1.3, last + 0.7), xlabel=label, ylabel=things)
        ax.xaxis.set_major_locator(MaxNLocator(8, integer=True))
        _count_axis(ax)

    return svg_chart(draw)


def _count_axis(ax: Axes) -> None:
    ax.yaxis.set_major_locator(MaxNLocator(5, integer=True))
    ax.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))


def match_matrix(
    names: Sequence[str],
    counts: Mapping[tuple[int, int], tuple[int | None, int | None]],
    marks: Mapping[tuple[int, int], str] | None = None,
) -> str:
    """A cell for each two images: matches that were verified above the diagonal, all of them below.

    Args:
        names: of the images, in the order of rows and columns.
        counts: (i, j), i < j -> matches, verified matches; None where it is not known.
        marks: (i, j), i < j -> one of `MARKS`: what a verified pair is taken for, where it is not simply true.
    """
    marks = marks or {}
    n = len(names)
    named = n <= _NAMED
    left = 128.0 if named else 12.0
    side = (_WIDE - left - 8) / max(n, 1)
    both = [
        [(i, j, pair[1]) for (i, j), pair in counts.items() if pair[1] and marks.get((i, j)) == mark]
        for mark in (None, *MARKS)
    ]
    both.append([(j, i, pair[0]) for (i, j), pair in counts.items() if pair[0]])
    parts = [f'<g transform="translate({left:.0f},8)">']
    parts.append(f'<rect width="{n * side:.1f}" height="{n * side:.1f}" style="fill:var(--grid);fill-opacity:.45"/>')
    colours = ("--s0", *(f"--s{colour}" for colour in MARKS.values()), "--s5")
    verified = max((count for cells in both[:-1] for _, _, count in cells), default=1)
    for cells, colour in zip(both, colours, strict=True):
        most = verified if colour != "--s5" else max((count for _, _, count in cells), default=1)
        strength = 0.62 if side >= _NUMBERED else 1  # so that numbers are legible in the strongest cell
        parts.append(f'<g style="fill:var({colour});opacity:{strength}">')
        parts += _titled_cells(cells, names, side, most, marks) if n <= _TITLED else _plain_cells(cells, side, most)
        parts.append("</g>")
    if side >= _NUMBERED:
        parts += _cell_numbers(both, side)
    parts.append(f'<path d="M0 0L{n * side:.1f} {n * side:.1f}" style="stroke:var(--soft);stroke-width:.8"/></g>')
    height = 8 + n * side + (112 if named else 8)
    if named:
        parts += _matrix_names(names, left, side)
    return _svg("".join(parts), height)


def _titled_cells(
    cells: Sequence[tuple[int, int, int]],
    names: Sequence[str],
    side: float,
    most: int,
    marks: Mapping[tuple[int, int], str],
) -> list[str]:
    return [
        f'<rect x="{column * side + 0.4:.1f}" y="{row * side + 0.4:.1f}" width="{side - 0.8:.1f}" '
        f'height="{side - 0.8:.1f}" fill-opacity="{_shade(count, most):.2f}">'
        f"<title>{_text(names[row])} – {_text(names[column])}: {count:,} "
        f"{'verified matches' if row < column else 'matches'}{_marked(marks.get((row, column)))}</title></rect>"
        for row, column, count in cells
    ]


def _marked(mark: str | None) -> str:
    return f", {mark}" if mark else ""


def _plain_cells(cells: Sequence[tuple[int, int, int]], side: float, most: int) -> list[str]:
    """One path for each shade, so that a matrix of a hundred thousand cells stays a small file."""
    levels: dict[int, list[str]] = {}
    for row, column, count in cells:
        level = max(1, round(_shade(count, most) * _LEVELS))
        levels.setdefault(level, []).append(f"M{column * side:.1f} {row * side:.1f}h{side:.2f}v{side:.2f}h-{side:.2f}z")
    return [f'<path fill-opacity="{level / _LEVELS:.2f}" d="{"".join(levels[level])}"/>' for level in sorted(levels)]


def _cell_numbers(both: Sequence[Sequence[tuple[int, int, int]]], side: float) -> list[str]:
    size = min(13.0, side / 3)
    head = f'<g text-anchor="middle" style="fill:var(--ink);font-size:{size:.1f}px;pointer-events:none">'
    texts = [
        f'<text x="{(column + 0.5) * side:.1f}" y="{(row + 0.5) * side + size / 3:.1f}">{count}</text>'
        for cells in both
        for row, column, count in cells
    ]
    return [head, *texts, "</g>"]


def _matrix_names(names: Sequence[str], left: float, side: float) -> list[str]:
    size = float(np.clip(side * 0.7, 9, 14))
    parts = [f'<g style="fill:var(--ink);font-size:{size:.1f}px">']
    bottom = 8 + len(names) * side + 8
    for i, name in enumerate(names):
        middle = (i + 0.5) * side
        short = _text(_shortened(name, 15))
        parts.append(f'<text text-anchor="end" x="{left - 8:.1f}" y="{8 + middle + size / 3:.1f}">{short}</text>')
        parts.append(
            f'<text text-anchor="end" transform="translate({left + middle + size / 3:.1f},{bottom:.1f}) rotate(-90)">'
            f"{short}</text>"
        )
    return [*parts, "</g>"]


def view_graph(nodes: Sequence[Node], edges: Mapping[tuple[int, int], int]) -> str:
    """Images as dots where they were taken, seen from above, and lines between those with common matches.

    Where no position is known at all, they stand in a circle in their order; where some are, the others stand in rows
    below. Of too many lines, the strongest of each node are drawn.

    Args:
        nodes: images or groups of them.
        edges: (i, j), i < j -> how many matches; those without any are left out.
    """
    positions, height = _positions(nodes)
    shown = _strongest(edges, len(nodes))
    most = max(shown.values(), default=1)
    parts = ['<g style="stroke:var(--s0)">']
    for (i, j), count in sorted(shown.items(), key=lambda item: item[1]):
        (x0, y0), (x1, y1) = positions[i], positions[j]
        shade = _shade(count, most)
        title = f"<title>{_text(nodes[i].name)} – {_text(nodes[j].name)}: {count:,} matches</title>"
        parts.append(
            f'<path d="M{x0:.1f} {y0:.1f}L{x1:.1f} {y1:.1f}" stroke-opacity="{0.75 * shade:.2f}" '
            f'stroke-width="{0.5 + 3 * shade:.1f}">{title if len(shown) <= 1000 else ""}</path>'
        )
    parts.append('</g><g style="stroke:var(--sheet);stroke-width:1.2">')
    known = any(node.position is not None for node in nodes)
    for node, (x, y) in zip(nodes, positions, strict=True):
        colour = "--s1" if node.position is not None or not known else "--s5"
        radius = (
            float(np.clip(5.5 * np.sqrt(node.count) if node.count > 1 else 5.5, 3, 22)) if len(nodes) < 150 else 3.5
        )
        parts.append(
            f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{radius:.1f}" style="fill:var({colour})">'
            f"<title>{_text(node.name)}</title></circle>"
        )
    parts.append("</g>")
    if len(nodes) <= _NAMED:
        parts += _node_names(nodes, positions)
    return _svg("".join(parts), height)


def _positions(nodes: Sequence[Node]) -> tuple[list[tuple[float, float]], float]:
    """Where each node lies in the drawing, and how high that is."""
    margin = 104.0 if len(nodes) <= _NAMED else 24.0  # names stand beside the dots
    room = _WIDE - 2 * margin
    known = np.array([node.position for node in nodes if node.position is not None], np.float64).reshape(-1, 2)
    if len(known) == 0:
        angles = 2 * np.pi * np.arange(len(nodes)) / max(len(nodes), 1)
        radius = 0.36 * _WIDE
        circle = np.stack([_WIDE / 2 + radius * np.sin(angles), margin + radius - radius * np.cos(angles)], axis=1)
        return [(float(x), float(y)) for x, y in circle], 2 * (margin + radius)
    low, high = known.min(axis=0), known.max(axis=0)
    span = np.maximum(high - low, 1e-9)
    scale = min(room / span[0], 0.75 * room / span[1])
    tall = scale * span[1] if len(known) > 1 else 0.0
    left = margin + (room - scale * span[0]) / 2
    positions, others = [], 0
    aside = max(1, int(room // 26))  # nodes in a row below
    for node in nodes:
        if node.position is None:
            row, column = divmod(others, aside)
            positions.append((margin + 26.0 * column, margin / 2 + tall + 50 + 26.0 * row))
            others += 1
        else:
            x, y = (np.array(node.position) - low) * scale
            positions.append((float(left + x), float(margin / 2 + tall - y)))
    rows = -(-others // aside)
    return positions, margin / 2 + tall + margin / 2 + (30 + 26.0 * rows if rows else 0)


def _strongest(edges: Mapping[tuple[int, int], int], count: int) -> dict[tuple[int, int], int]:
    found = {pair: matches for pair, matches in edges.items() if matches > 0}
    if len(found) <= _EDGES:
        return found
    each = max(2, _EDGES // max(count, 1))
    left = dict.fromkeys(range(count), each)
    kept: dict[tuple[int, int], int] = {}
    for (i, j), matches in sorted(found.items(), key=lambda item: (-item[1], item[0])):
        if left[i] > 0 or left[j] > 0:
            left[i] -= 1
            left[j] -= 1
            kept[i, j] = matches
            if len(kept) == _EDGES:
                break
    return kept


def _node_names(nodes: Sequence[Node], positions: Sequence[tuple[float, float]]) -> list[str]:
    """Beside the dots, on the side away from the middle."""
    middle_x, middle_y = np.mean(positions, axis=0)
    parts = ['<g style="fill:var(--ink);font-size:13px;pointer-events:none">']
    for node, (x, y) in zip(nodes, positions, strict=True):
        right = x > _WIDE / 2 if abs(x - middle_x) > 0.2 * _WIDE else None
        anchor = "middle" if right is None else "start" if right else "end"
        dx = 0 if right is None else 11 if right else -11
        dy = 4 if right is not None else 22 if y >= middle_y else -12
        parts.append(
            f'<text text-anchor="{anchor}" x="{x + dx:.1f}" y="{y + dy:.1f}">{_text(_shortened(node.name, 12))}</text>'
        )
    return [*parts, "</g>"]


def _shade(count: int, most: int) -> float:
    return 0.08 + 0.92 * float(np.sqrt(count / max(most, 1)))


def _shortened(name: str, longest: int) -> str:
    """The end of a long name, which says more than its beginning."""
    return name if len(name) <= longest else f"…{name[1 - longest :]}"


def _text(text: str) -> str:
    return escape(printable(text), quote=True)


def _svg(content: str, height: float) -> str:
    return f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDE:.0f} {height:.0f}" role="img">{content}</svg>'
