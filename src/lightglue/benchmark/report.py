"""The record of a benchmark as tables for people and as JSON for machines."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from lightglue.support.printable import escaped

__all__ = ["MEASURES", "headline", "to_json", "to_tables"]

MEASURES = ("time", "log-time", "throughput")
MIB = 1 << 20


def to_json(record: Mapping[str, Any]) -> bytes:
    """The record as it is kept in a file."""
    return json.dumps(record, indent=1).encode() + b"\n"


def headline(record: Mapping[str, Any]) -> str:
    """What ran where, in one line."""
    machine, versions = record["machine"], record["versions"]
    words = [machine["cpu"], f"{machine['usable_cores']} cores", machine["capability"]]
    words += [f"threads {machine['threads']}", machine["gpu"] or f"device {machine['device']}"]
    words.append(f"mp is {machine['reduced_precision'] or 'float32, as nothing is faster here'}")
    words += [f"python {versions['ours']['python']}", f"torch {versions['ours']['torch']}"]
    words += [f"{name} {side['version']} ({side['package']})" for name, side in versions.items() if name in _SIDES]
    return ", ".join(words)


_SIDES = ("ours", "published")


def to_tables(record: Mapping[str, Any], measure: str) -> list[Any]:
    """One rich table: what was measured of each contestant in each row."""
    from rich.box import SIMPLE_HEAD
    from rich.table import Table
    from rich.text import Text

    memory = record["settings"]["memory"]
    measured = _MEMORY if memory else ("pairs/s" if measure == "throughput" else "ms", "quartiles", "n", "ratio")
    columns = ["stage", "pair", "keypoints", "mode", "who", *measured, "found", "equal"]
    table = Table(box=SIMPLE_HEAD, show_edge=False, padding=(0, 1, 0, 0))
    words = ("stage", "pair", "mode", "who", "ratio")
    for name in columns:
        table.add_column(name, justify="left" if name in words else "right", overflow="fold")
    for row in record["rows"]:
        head = [row["stage"], row["pair"], _keypoints(row), row["mode"]]
        for result in row["results"]:
            cells = _bytes_cells(result) if memory else [*_time_cells(row, result, measure), _ratios(result)]
            table.add_row(*(Text(escaped(cell)) for cell in (*head, _who(result), *cells, *_found(result))))
            head = [""] * 4
        if len(row["results"]) > 1:
            table.add_section()
    return [table]


def _who(result: Mapping[str, Any]) -> str:
    """The label; with `mp` in it where that was the default."""
    return f"{result['label']} mp" if result["mp"] and "mp" not in result["label"].split() else str(result["label"])


_MEMORY = ("base MiB", "peak MiB", "over base", "GPU peak")


def _time_cells(row: Mapping[str, Any], result: Mapping[str, Any], measure: str) -> list[str]:
    """Median, quartiles and number of rounds: ms, or pairs (for stage extract images) a second."""
    each = [result[key] for key in ("median", "q1", "q3")]
    if measure == "throughput":
        count = row["size"]
        median, q3, q1 = (count / seconds for seconds in each)
    else:
        median, q1, q3 = (1000 * seconds for seconds in each)
    return [_number(median), f"{_number(q1)}-{_number(q3)}", str(result["n"])]


def _ratios(result: Mapping[str, Any]) -> str:
    """How many times as fast as each base: median and quartiles of the rounds."""
    return "\n".join(
        f"{_two(spread['median'])} ({_two(spread['q1'])}-{_two(spread['q3'])}) x {base}"
        for base, spread in result["ratios"].items()
    )


def _bytes_cells(result: Mapping[str, Any]) -> list[str]:
    """MiB; for a process that died, what it had used when it was last seen."""
    cells = ["" if (value := result[key]) is None else f"{value / MIB:.0f}" for key in _BYTES]
    if result["failed"]:
        cells[1] = f"died at {cells[1]}" if cells[1] else "died"
    return cells


_BYTES = ("base", "peak", "over_base", "gpu_peak")


def _found(result: Mapping[str, Any]) -> tuple[str, str]:
    """The number of matches or keypoints, and the share that is equal to each base's."""
    count = "" if result["count"] is None else str(result["count"])
    return count, "\n".join(f"{100 * share:.1f} %" for share in result["equal"].values())


def _keypoints(row: Mapping[str, Any]) -> str:
    """The number asked for, and where it is less the numbers that there are."""
    counts = row["counts"]
    if counts is None or counts == [row["keypoints"]] * 2:
        return str(row["keypoints"])
    return f"{row['keypoints']} ({counts[0]} + {counts[1]})"


def _number(value: float) -> str:
    return f"{value:.0f}" if value >= 1000 else f"{value:.3g}" if value < 100 else f"{value:.1f}"


def _two(value: float) -> str:
    return f"{value:.2f}"
