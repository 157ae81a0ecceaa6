"""Latency and throughput against the number of keypoints, one line for each contestant. The room's only matplotlib.

The figure is one of its own, without pyplot: nothing global, no window.
"""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter, NullLocator

__all__ = ["ENDINGS", "draw", "encode"]

ENDINGS = (".png", ".jpg", ".jpeg", ".pdf", ".svg")
# Ours are blue, others warm: distinguished by eyes that confuse red and green, and in gray by their brightness.
OURS = ("#0b5fa5", "#2ca6a4", "#7a5195", "#86b6e0", "#1b9e5a")
OTHERS = ("#e07b00", "#b3261e", "#8c8c8c", "#c9a400", "#d6719b")
DASHES = {"full": "-", "adaptive": (0, (4, 1.6)), "": "-"}
MARKERS = {"full": "o", "adaptive": "D", "": "o"}
PANEL = (4.2, 3.4)  # inches


def draw(record: Mapping[str, Any], measure: str | None) -> Figure:
    """A column of panels for each stage and pair; above latency, below throughput, or one of them by `measure`."""
    groups = _groups(record)
    measures = [measure] if measure else ["time", "throughput"]
    size = (PANEL[0] * max(len(groups), 1) + 0.3, PANEL[1] * len(measures) + 0.9)
    figure = Figure(figsize=size, dpi=150, layout="constrained")
    panels = figure.subplots(len(measures), len(groups), squeeze=False, sharex="col")
    stages, colours = [stage for stage, _ in groups], _colours(record)
    for line, each in enumerate(measures):
        for column, ((stage, pair), rows) in enumerate(groups.items()):
            ax, first = panels[line][column], stages.index(stage)
            if first < column:
                ax.sharey(panels[line][first])  # pairs of one stage compare
            else:
                ax.set_ylabel(_quantity(stage, each))
            _draw_lines(ax, rows, each, colours)
            if line == 0:
                ax.set_title(f"{stage}: {pair}", fontsize=10)
            if line == len(measures) - 1:
                ax.set_xlabel("keypoints in each image")
    for line, each in enumerate(measures):  # once all lines are there
        for ax, rows in zip(panels[line], groups.values(), strict=True):
            _axes(ax, sorted({row["keypoints"] for row in rows}), each)
    _legend(figure, panels[0])
    figure.suptitle(_title(record), fontsize=8, color="#555555")
    return figure


def encode(record: Mapping[str, Any], measure: str | None, ending: str) -> bytes:
    """The figure as the content of a file with one of `ENDINGS`."""
    buffer = io.BytesIO()
    draw(record, measure).savefig(buffer, format=ending.removeprefix("."))
    return buffer.getvalue()


def _groups(record: Mapping[str, Any]) -> dict[tuple[str, str], list[Mapping[str, Any]]]:
    groups: dict[tuple[str, str], list[Mapping[str, Any]]] = {}
    for row in record["rows"]:
        groups.setdefault((row["stage"], row["pair"]), []).append(row)
    return groups


def _colours(record: Mapping[str, Any]) -> dict[str, str]:
    """Label -> colour, the same in all panels."""
    colours: dict[str, str] = {}
    counts = {True: 0, False: 0}
    for row in record["rows"]:
        for result in row["results"]:
            if result["label"] in colours:
                continue
            ours = result["label"].startswith("ours")
            palette = OURS if ours else OTHERS
            colours[result["label"]] = palette[counts[ours] % len(palette)]
            counts[ours] += 1
    return colours


def _draw_lines(ax: Axes, rows: Sequence[Mapping[str, Any]], measure: str, colours: Mapping[str, str]) -> None:
    lines: dict[tuple[str, str], list[tuple[int, float, float, float]]] = {}
    for row in rows:
        for result in row["results"]:
            values = [_value(row, result[key], measure) for key in ("median", "q1", "q3")]
            lines.setdefault((result["label"], row["mode"]), []).append((row["keypoints"], *values))
    for (label, mode), points in lines.items():
        x, median, q1, q3 = zip(*sorted(points), strict=True)
        style: dict[str, Any] = {"color": colours[label], "linestyle": DASHES[mode]}
        name = " ".join(filter(None, (label, mode)))
        ax.plot(x, median, marker=MARKERS[mode], markersize=4, linewidth=1.6, label=name, **style)
        ax.fill_between(x, q1, q3, color=colours[label], alpha=0.15, linewidth=0)


def _quantity(stage: str, measure: str) -> str:
    if measure == "throughput":
        return "images / s" if stage == "extract" else "pairs / s"
    return "latency, ms"


def _value(row: Mapping[str, Any], seconds: float, measure: str) -> float:
    return row["size"] / seconds if measure == "throughput" else 1000 * seconds


def _axes(ax: Axes, ticks: Sequence[int], measure: str) -> None:
    ax.set_xscale("log", base=2)
    ax.set_xticks(ticks, [f"{tick:,}" for tick in ticks])
    ax.xaxis.set_minor_locator(NullLocator())
    if len(ticks) == 1:
        ax.set_xlim(ticks[0] / 1.5, ticks[0] * 1.5)
    if measure == "log-time":
        ax.set_yscale("log")
        ax.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        ax.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        ax.yaxis.set_minor_formatter(NullFormatter())
    else:
        ax.set_ylim(bottom=0)
    ax.grid(color="#dddddd", linewidth=0.6)
    ax.set_axisbelow(True)
    ax.spines[["top", "right"]].set_visible(False)
    ax.tick_params(labelsize=8)


def _legend(figure: Figure, panels: Sequence[Axes]) -> None:
    """One legend below for the lines of all panels."""
    found: dict[str, Any] = {}
    for ax in panels:
        handles, labels = ax.get_legend_handles_labels()
        found |= dict(zip(labels, handles, strict=True))
    width = max(1, min(4, len(found), round(figure.get_size_inches()[0] / 2.4)))
    figure.legend(
        found.values(),
        found.keys(),
        loc="outside lower center",
        ncols=width,
        fontsize=8,
        frameon=False,
        handlelength=3.5,
    )


def _title(record: Mapping[str, Any]) -> str:
    machine, ours = record["machine"], record["versions"]["ours"]
    where = machine["gpu"] or machine["cpu"]
    threads = f"{machine['threads']} thread{'s' * (machine['threads'] != 1)}"
    return f"{record['settings']['features']}, {where}, {threads}, torch {ours['torch']}, {record['date'][:10]}"
