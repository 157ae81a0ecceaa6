"""`lightglue benchmark`: how fast this package is, alone or beside the published one."""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import typer

from lightglue.benchmark.plan import Settings
from lightglue.benchmark.report import MEASURES, headline, to_json, to_tables
from lightglue.cli.from_options import Command
from lightglue.cli.printing import echo
from lightglue.errors import InputError
from lightglue.options import option
from lightglue.pairs.outputs import fault_of
from lightglue.support.files import write_files
from lightglue.support.printable import escaped

__all__ = ["BenchmarkCommand", "benchmark"]

PLOT_ENDINGS = (".png", ".jpg", ".jpeg", ".pdf", ".svg")
SEVERAL = ("--num-keypoints", "--stage")  # options that take several values at once


class BenchmarkCommand(Command):
    """A command that also takes the published spelling: `--num_keypoints 512 1024`."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Parse the published spelling as the usual one."""
        return super().parse_args(ctx, usual_spelling(args))


def usual_spelling(args: Sequence[str]) -> list[str]:
    """`--num_keypoints 512 1024` as `--num-keypoints 512 --num-keypoints 1024`; the command has no arguments."""
    found: list[str] = []
    option, values = "", 0
    for word in args:
        if word.startswith("--"):
            name, equals, value = word.partition("=")
            word = name.replace("_", "-") + equals + value
        if word.startswith("-"):
            option, values = word, 0
        else:
            values += 1
            if values > 1 and option in SEVERAL:
                found.append(option)
        found.append(word)
    return found


def _words(text: str) -> tuple[str, ...]:
    try:
        return tuple(shlex.split(text))
    except ValueError as error:
        raise InputError(f"{text!r} cannot be cut into words: {error}.") from None


@dataclass(frozen=True)
class SessionOptions:
    """What is measured against what, and what is shown and written of it."""

    images: Path | None = option(None, "Folder with the images.", metavar="DIR", group="Features")
    published_python: Path | None = option(
        None, "Interpreter of an environment that has the published package.", group="Comparison"
    )
    pip_args: tuple[str, ...] = option(
        (), "Words for pip, where the environment has to be made.", metavar="WORDS", parse=_words, group="Comparison"
    )
    measure: str | None = option(None, "What to print and to plot.", choices=tuple(MEASURES), group="Output")
    json: Path | None = option(None, "Write every time and what it was measured on.", group="Output")
    plot: Path | None = option(
        None, f"Draw the curves: {' '.join(PLOT_ENDINGS)}.", flag="--plot --save", group="Output"
    )


def benchmark(settings: Settings, session: SessionOptions) -> None:
    """Measure time or memory, alone or beside the published package.

    Each implementation runs in a process of its own; they run strictly in turn.
    """
    outputs = _checked_outputs(session.json, session.plot)
    if settings.memory and session.plot:
        raise typer.BadParameter("memory is not plotted; leave --plot or --memory away.", param_hint="--plot")
    if session.published_python and not settings.against:
        raise typer.BadParameter("it belongs to --against published.", param_hint="--published-python")
    weights = settings.superglue_weights
    if weights and not settings.add_superglue:
        raise typer.BadParameter("it belongs to --add-superglue.", param_hint="--superglue-weights")
    if weights and not weights.is_file():
        raise typer.BadParameter(f"there is no file {weights}.", param_hint="--superglue-weights")
    record = _run(settings, session.images, session.published_python, session.pip_args)
    _print(record, session.measure or "time")
    _write(record, session.json, session.plot, session.measure)
    for path in outputs:
        _report(f"written: {path}")


def _write(record: dict[str, Any], json_file: Path | None, plot: Path | None, measure: str | None) -> None:
    contents = {}
    if json_file:
        contents[json_file] = to_json(record)
    if plot:
        os.environ.pop("MPLBACKEND", None)  # no window is opened, and an unknown one stops the import
        from lightglue.benchmark.chart import encode

        contents[plot] = encode(record, measure, plot.suffix.lower())
    write_files(contents)


def _checked_outputs(json_file: Path | None, plot: Path | None) -> list[Path]:
    """The files to write; BadParameter, before any work, for one that cannot be written."""
    found: list[Path] = []
    for path, endings, hint in ((json_file, (".json",), "--json"), (plot, PLOT_ENDINGS, "--plot")):
        if path is None:
            continue
        if fault := fault_of(path, (), found, endings):
            raise typer.BadParameter(fault, param_hint=hint)
        found.append(path)
    return found


def _run(settings: Settings, images: Path | None, python: Path | None, pip_args: Sequence[str]) -> dict[str, Any]:
    from lightglue.benchmark.environment import published_python
    from lightglue.benchmark.image_pairs import find_pairs
    from lightglue.benchmark.session import run_benchmark

    pairs = find_pairs(images)
    for name, files in pairs.items():
        _report(f"{name}: {files[0]} and {files[1].name}")
    if settings.against:
        python = python or published_python(pip_args, _report)
        if settings.mp:
            _report("the published package stays in float32 on a CPU: its mp is for CUDA only")
    return run_benchmark(settings, pairs, python if settings.against else None, _report)


def _print(record: dict[str, Any], measure: str) -> None:
    from rich.console import Console

    # Piped output is for files and other programs: wide enough that no row is folded.
    console = Console(width=None if sys.stdout.isatty() else 160)
    console.print(escaped(headline(record)), markup=False, highlight=False)
    for table in to_tables(record, measure):
        console.print(table)


def _report(message: str) -> None:
    echo(message, err=True)
