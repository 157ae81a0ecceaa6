"""`lightglue export check`: whether an exported file is what it should be."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lightglue.cli.from_options import Command
from lightglue.cli.printing import AsJson, echo, memory_named, print_rows
from lightglue.parity.options import CheckOptions
from lightglue.support.printable import escaped

if TYPE_CHECKING:
    from lightglue.parity.report import Report, RuntimeReport

__all__ = ["CheckCommand", "check"]


class CheckCommand(Command):
    """A command whose `--images` takes all words up to the next option."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Parse `FILE --images A B` as `FILE --images A --images B`."""
        return super().parse_args(ctx, each_with_its_flag(args, "--images"))


def each_with_its_flag(args: Sequence[str], flag: str) -> list[str]:
    """The words with `flag` before each value of it but the first, which has it."""
    found: list[str] = []
    values: int | None = None  # of the flag so far; None: these are another's
    for word in args:
        if word.startswith("-"):
            values = 0 if word == flag else None
        elif values is not None:
            if values:
                found.append(flag)
            values += 1
        found.append(word)
    return found


def check(
    file: Annotated[
        Path,
        typer.Argument(metavar="FILE", show_default=False, help="What `lightglue export` wrote, a file or a folder."),
    ],
    options: CheckOptions,
    as_json: AsJson = False,
) -> None:
    """Compare an exported file with the torch network that it was made of.

    Matches, scores, stop layer, pruning, keypoints, descriptors, time and memory, on photographs and with hardly any
    keypoints. Exit code 0: all within the limits of the file's precision, 1: not.
    """
    with memory_named(has_tiles=False):
        from lightglue.parity.checking import check as checked

        report = checked(file, options)
    if as_json:
        echo(json.dumps(report.to_json(), allow_nan=False))
    else:
        _print(report)
    raise typer.Exit(0 if report.passed else 1)


def _print(report: Report) -> None:
    about = report.description
    print_rows(
        {
            "file": f"{report.file}, {report.bytes / 1e6:.1f} MB",
            "what": f"{about['kind']}, format {about['format']}, {about['precision']}, for {about['features']}",
            "weights": f"{about['weights']} ({about['licence']})",
            "reference": report.reference,
            "threads": str(report.threads),
        }
    )
    for part in report.parts or (report,):
        if report.parts:
            echo(f"\n{Path(part.file).name}")
        for each in part.runtimes:
            _print_runtime(each)
    echo("")
    for fault in report.faults:
        echo(f"beyond the limits: {fault}")
    if report.passed:
        echo("within the limits")


def _print_runtime(report: RuntimeReport) -> None:
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    rows = [each.row() for each in report.differences]
    if not rows:
        return
    table = Table(title=report.runtime, title_justify="left", box=SIMPLE_HEAD, show_edge=False, padding=(0, 1, 0, 0))
    for i, name in enumerate(rows[0]):
        table.add_column(name, justify="right" if i else "left")
    for row in rows:
        table.add_row(*(Text(escaped(value), overflow="fold") for value in row.values()))
    # Piped output is for grep and awk: wide enough that no row is folded.
    Console(width=None if sys.stdout.isatty() else 140).print(table)
    if cost := report.cost:
        size = " + ".join(map(str, cost.keypoints))
        echo(
            f"{size} keypoints: {cost.milliseconds:.0f} ms, torch {cost.torch_milliseconds:.0f} ms "
            f"({cost.speedup:.2f} x as fast, {cost.rounds} rounds in turn)"
        )
        if cost.megabytes is not None:
            than = f", torch {cost.torch_megabytes:.0f} MB" if cost.torch_megabytes is not None else ""
            echo(f"memory of the whole process: {cost.megabytes:.0f} MB{than}")
