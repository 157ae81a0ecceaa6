"""What commands print, and what they say where there is not enough memory."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Annotated, Any, cast

import typer

from lightglue.errors import LightGlueError
from lightglue.models.choice import Models
from lightglue.support.memory import is_out_of_memory
from lightglue.support.printable import escaped
from lightglue.weights import LicenceNotice, OwnWeightsNotice

__all__ = ["AsJson", "echo", "memory_named", "notices_as_lines", "precision_text", "print_rows"]

AsJson = Annotated[
    bool, typer.Option("--json", rich_help_panel="Output", metavar="", help="Print JSON instead of text.")
]


def echo(text: object, err: bool = False) -> None:
    """Print text, without what a name of a file in it could do to the terminal. Commands print by it alone."""
    typer.echo(escaped(text), err=err)


@contextmanager
def notices_as_lines() -> Iterator[None]:
    """Meanwhile, what is said of weights is a line on stderr, not a warning with a place in the source, nor an error
    where warnings are errors (`python -W error`)."""
    kinds, usual = (LicenceNotice, OwnWeightsNotice), warnings.showwarning

    def show(message: Warning | str, category: type[Warning], *place: Any) -> None:
        if issubclass(category, kinds):
            echo(f"warning: {message}", err=True)
        else:
            usual(message, category, *place)

    with warnings.catch_warnings():  # which puts back what shows them, too
        for kind in kinds:
            warnings.simplefilter("default", kind)
        warnings.showwarning = cast(Any, show)
        yield


def precision_text(precision: str) -> str:
    """The precision of a matcher's products, with the way to another."""
    return f"{precision} (--no-mp for float32)" if precision.endswith("products") else precision


def say_backend(models: Models, pairs: int) -> None:
    """Where it was left to the package, say on stderr what LightGlue computes in, and why."""
    if models.backend == "auto":
        echo(f"backend: {models.found_backend(pairs)}", err=True)


def print_rows(rows: Mapping[str, str]) -> None:
    """Print a table of two columns: names and values."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(show_header=False, box=None, padding=(0, 2, 0, 0))
    for name, value in rows.items():
        table.add_row(Text(name, style="bold"), Text(escaped(value), overflow="fold"))
    Console().print(table)


@contextmanager
def memory_named(has_tiles: bool = True) -> Iterator[None]:
    """Turn running out of memory into an error with a remedy. has_tiles: whether the command has --tile."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        remedy = "--tile, or a smaller --resize or --max-keypoints." if has_tiles else "fewer --max-keypoints."
        raise LightGlueError(f"there is not enough memory; use {remedy}") from error
