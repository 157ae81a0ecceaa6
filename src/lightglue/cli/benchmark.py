"""`lightglue benchmark`: how fast this package is, alone or beside the published one."""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperCommand

from lightglue.benchmark.plan import FEATURES, STAGES, Settings
from lightglue.benchmark.report import MEASURES, headline, to_json, to_tables
from lightglue.cli import parsing
from lightglue.cli.outputs import fault_of
from lightglue.support.files import write_files

__all__ = ["BenchmarkCommand", "benchmark"]

PLOT_ENDINGS = (".png", ".jpg", ".jpeg", ".pdf", ".svg")
SEVERAL = ("--num-keypoints", "--stage")  # options that take several values at once
LARGEST = 1_000_000
PRECISIONS = ("highest", "high", "medium")


class BenchmarkCommand(TyperCommand):
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


def _one_of(names: Sequence[str]) -> Callable[[str], str]:
    return lambda value: parsing.known(value, names)


def _number(meaning: str) -> Callable[[object], int]:
    def parse(value: object) -> int:
        if number := parsing.integer(value, LARGEST):
            return number
        raise typer.BadParameter(f"'{value}' is not {meaning} from 1 to {LARGEST}.")

    return parse


def _seconds(value: object) -> float:
    try:
        number = float(str(value))
    except ValueError:
        number = -1
    if 0 < number < 1e6:
        return number
    raise typer.BadParameter(f"'{value}' is not a number of seconds above 0.")


def _words(value: str) -> Any:
    try:
        return shlex.split(value)
    except ValueError as error:
        raise typer.BadParameter(f"{value!r} cannot be cut into words: {error}.") from None


def benchmark(
    stage: Annotated[
        list[str] | None,
        typer.Option(
            parser=_one_of([*STAGES, "all"]), metavar="|".join([*STAGES, "all"]), help="What to measure. Repeatable."
        ),
    ] = None,
    num_keypoints: Annotated[
        list[int] | None,
        typer.Option(
            "--num-keypoints",
            parser=parsing.count,
            metavar="N ...",
            help="Keypoints of each image; several values at once, or repeated.",
        ),
    ] = None,
    features: Annotated[
        str, typer.Option(parser=_one_of([*FEATURES]), metavar="|".join(FEATURES), help="Kind of keypoints.")
    ] = "aliked",
    device: Annotated[
        str, typer.Option(parser=parsing.device_name, metavar="auto|cpu|cuda|mps", help="Where to compute.")
    ] = "auto",
    against: Annotated[
        str | None,
        typer.Option(parser=_one_of(["published"]), metavar="published", help="Run the published package in turn."),
    ] = None,
    published_python: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Interpreter of an environment that has the published package."),
    ] = None,
    pip_args: Annotated[
        Any,
        typer.Option(parser=_words, metavar="WORDS", help="For pip, where the environment has to be made."),
    ] = "",
    mp: Annotated[
        bool | None, typer.Option("--mp/--no-mp", help="Ours in reduced precision.", show_default=False)
    ] = None,
    compile_: Annotated[bool, typer.Option("--compile", help="Run everything compiled, too.")] = False,
    no_flash: Annotated[bool, typer.Option("--no-flash", help="Without FlashAttention.")] = False,
    no_prune_thresholds: Annotated[
        bool,
        typer.Option("--no-prune-thresholds", help="Prune at any number of keypoints."),
    ] = False,
    add_superglue: Annotated[bool, typer.Option("--add-superglue", help="Run SuperGlue, too.")] = False,
    superglue_weights: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Weights of SuperGlue; random ones without.")
    ] = None,
    measure: Annotated[
        str | None,
        typer.Option(parser=_one_of(MEASURES), metavar="|".join(MEASURES), help="What to print and to plot."),
    ] = None,
    memory: Annotated[bool, typer.Option("--memory", help="Measure memory instead, in fresh processes.")] = False,
    repeat: Annotated[
        int | None,
        typer.Option("--repeat", "--r", parser=_number("a number of rounds"), metavar="N", help="Rounds of each row."),
    ] = None,
    budget: Annotated[
        float, typer.Option(parser=_seconds, metavar="S", help="Seconds for the rounds of a row; 5 to 100 rounds.")
    ] = 20,
    threads: Annotated[
        int | None, typer.Option(parser=_number("a number of threads"), metavar="N", help="Threads of each side.")
    ] = None,
    matmul_precision: Annotated[
        str,
        typer.Option(
            "--matmul-precision",
            parser=_one_of(PRECISIONS),
            metavar="|".join(PRECISIONS),
            help="Of torch's float32 products.",
        ),
    ] = "highest",
    images: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Folder with the photographs.", show_default=False)
    ] = None,
    resize: Annotated[
        int, typer.Option(parser=parsing.edge, metavar="N|none", help="px of the longer side for extraction.")
    ] = Settings.resize or 0,
    image_size: Annotated[
        int | None, typer.Option(parser=parsing.edge, metavar="N", help="Stretch the photographs to N x N px first.")
    ] = None,
    batch_size: Annotated[
        int, typer.Option(parser=_number("a number of pairs"), metavar="N", help="Pairs of stage batch.")
    ] = Settings.batch_size,
    timeout: Annotated[
        float, typer.Option(parser=_seconds, metavar="S", help="Seconds after which a worker counts as hung.")
    ] = Settings.timeout,
    json_file: Annotated[
        Path | None, typer.Option("--json", metavar="FILE", help="Write every time and what it was measured on.")
    ] = None,
    plot: Annotated[
        Path | None,
        typer.Option("--plot", "--save", metavar="FILE", help=f"Draw the curves: {' '.join(PLOT_ENDINGS)}."),
    ] = None,
) -> None:
    """Measure time or memory, alone or beside the published package.

    Each implementation runs in a process of its own; they run strictly in turn.
    """
    outputs = _checked_outputs(json_file, plot)
    if memory and plot:
        raise typer.BadParameter("memory is not plotted; leave --plot or --memory away.", param_hint="--plot")
    if published_python and not against:
        raise typer.BadParameter("it belongs to --against published.", param_hint="--published-python")
    if superglue_weights and not add_superglue:
        raise typer.BadParameter("it belongs to --add-superglue.", param_hint="--superglue-weights")
    if superglue_weights and not superglue_weights.is_file():
        raise typer.BadParameter(f"there is no file {superglue_weights}.", param_hint="--superglue-weights")
    stages = tuple(dict.fromkeys(stage or ("match",)))
    settings = Settings(
        stages=tuple(STAGES) if "all" in stages else stages,
        features=features,
        num_keypoints=tuple(dict.fromkeys(num_keypoints or ())),
        device=device,
        mp=mp,
        compile=compile_,
        flash=not no_flash,
        prune_thresholds=not no_prune_thresholds,
        add_superglue=add_superglue,
        superglue_weights=superglue_weights,
        resize=resize or None,
        image_size=image_size or None,
        batch_size=batch_size,
        threads=threads,
        matmul_precision=matmul_precision,
        memory=memory,
        repeat=repeat,
        budget=budget,
        timeout=timeout,
        against=against is not None,
    )
    record = _run(settings, images, published_python, pip_args or ())
    _print(record, measure or "time")
    _write(record, json_file, plot, measure)
    for path in outputs:
        _tell(f"written: {path}")


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
    from lightglue.benchmark.photographs import find_pairs
    from lightglue.benchmark.session import run_benchmark

    pairs = find_pairs(images)
    for name, files in pairs.items():
        _tell(f"{name}: {files[0]} and {files[1].name}")
    if settings.against:
        python = python or published_python(pip_args, _tell)
        if settings.mp:
            _tell("the published package stays in float32 on a CPU: its mp is for CUDA only")
    return run_benchmark(settings, pairs, python if settings.against else None, _tell)


def _print(record: dict[str, Any], measure: str) -> None:
    from rich.console import Console

    # Piped output is for files and other programs: wide enough that no row is folded.
    console = Console(width=None if sys.stdout.isatty() else 160)
    console.print(headline(record), markup=False, highlight=False)
    for table in to_tables(record, measure):
        console.print(table)


def _tell(message: str) -> None:
    typer.echo(message, err=True)
