"""What the commands that make maps share: whose work it is, and what they print."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lightglue.cli.from_options import Only
from lightglue.cli.printing import echo
from lightglue.errors import LightGlueError
from lightglue.extractors.options import ViewOptions
from lightglue.sfm.options import EngineOptions
from lightglue.support.printable import escaped, printable

if TYPE_CHECKING:
    from lightglue.sfm.folder import StageRecord
    from lightglue.sfm.skipped import Skipped
    from lightglue.sfm.stages.dataset import DatasetResult
    from lightglue.workers.work import Engine

__all__ = [
    "LIST_HELP",
    "Root",
    "Strict",
    "Views",
    "dataset_record",
    "engine_of",
    "print_doubt",
    "print_skipped",
    "print_stage",
    "skipped_record",
    "starting",
]

_COMPUTING = "lightglue.sfm.stages.extract", "lightglue.sfm.stages.match"  # what processes load
SHOWN = 20  # reasons for which inputs were left out
LIST_HELP = "a name a line, or hloc's NAME MODEL W H PARAMS, or a COLMAP model."
Root = Annotated[
    Path | None,
    typer.Option(
        metavar="DIR",
        show_default=False,
        rich_help_panel="Data",
        help="The folder that the names of a list are relative to; by default the list's own.",
    ),
]
Strict = Annotated[
    bool,
    typer.Option(
        "--strict", metavar="", help="Exit with 1 where the model may be wrong, too.", rich_help_panel="Output"
    ),
]
Views = Annotated[ViewOptions, Only(("resize", "tile"))]


def engine_of(options: EngineOptions) -> Engine:
    """Who does the work."""
    from lightglue.sfm.engines.choice import make_engine

    if options.engine == "local":
        return make_engine("local", workers=options.workers)
    return make_engine(options.engine, address=options.address)


@contextmanager
def starting(options: EngineOptions, is_new: bool) -> Iterator[Engine]:
    """Who makes a map. Processes start before this one has loaded torch, and load it at the same time.

    is_new: there is no map yet; one that is there may have nothing left to do.
    """
    from lightglue.workers.engine import started

    with started(engine_of(options), _COMPUTING if is_new else ()) as engine:
        yield engine


def print_stage(stage: str, record: StageRecord, as_json: bool) -> None:
    """Print what came of a stage, and what it left out."""
    if as_json:
        made = {"stage": stage, "seconds": record.seconds, **record.counts}
        echo(json.dumps({**made, "skipped": skipped_record(record.skipped)}))
        return
    counts = ", ".join(f"{name.replace('_', ' ')} {value:,}" for name, value in record.counts.items())
    echo(f"{stage}: {counts or 'done'} ({record.seconds:.1f} s)")
    print_skipped(record.skipped)


def print_doubt(doubt: str | None, folder: Path, strict: bool = False) -> None:
    """Say on stderr why a map may be wrong, if it may. strict: raise a LightGlueError that says so."""
    if doubt is None:
        return
    report = folder / "report.html"
    see = f"See the pairs in {report}." if report.exists() else "`lightglue map report` shows the pairs."
    message = f"The map may be wrong: {doubt}. {see}"
    if strict:
        raise LightGlueError(message)
    echo(f"warning: {escaped(message, keep='')}", err=True)


def skipped_record(skipped: Sequence[Skipped]) -> list[dict[str, Any]]:
    """What was left out, for JSON; `used` where it was not the image itself."""
    return [{"name": each.name, "reason": each.reason, "used": each.is_used} for each in skipped]


def dataset_record(done: DatasetResult | None) -> dict[str, Any] | None:
    """What there is for other programs, for JSON; None where nothing is."""
    if done is None or done.folder is None:
        return None
    counts = {"linked": done.linked, "turned": done.turned, "converted": done.converted}
    return {"folder": str(done.folder), **counts}


def print_skipped(skipped: Sequence[Skipped]) -> None:
    """Name what was left out, then what was used and has a fault, on stderr, once for each reason."""
    from lightglue.sfm.skipped import by_reason, names_of

    for used, said, many in ((False, "left out ", "were left out"), (True, "", "have a fault")):
        reasons = by_reason(each for each in skipped if each.is_used == used)
        for reason, names in list(reasons.items())[:SHOWN]:
            echo(f"warning: {said}{escaped(names_of(names), keep='')}: {printable(reason)}", err=True)
        if more := sum(len(names) for names in list(reasons.values())[SHOWN:]):
            echo(f"warning: and {more:,} more {many}; the report names all.", err=True)
