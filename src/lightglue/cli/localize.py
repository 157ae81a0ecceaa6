"""`lightglue localize`: where photographs were taken, in a map."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lightglue.cli import parsing
from lightglue.cli.models import Device, ReducedPrecision, asked_for, memory_named
from lightglue.cli.stages import AsJson, CameraParams, print_skipped
from lightglue.errors import InputError
from lightglue.support.progress import progress_display

if TYPE_CHECKING:
    from lightglue.models.choice import Models

__all__ = ["localize"]


def _candidates(value: object) -> int:
    if number := parsing.integer(value, 999_999):
        return number
    raise typer.BadParameter(f"'{value}' is not a number of images of at least 1.")


def localize(
    context: typer.Context,
    folder: Annotated[Path, typer.Argument(metavar="MAP", show_default=False, help="The map's folder.")],
    queries: Annotated[
        Path,
        typer.Argument(
            metavar="QUERIES", show_default=False, help="A folder of photographs, one, or a list with a path a line."
        ),
    ],
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="DIR", show_default=False, help="The folder of the results.")
    ],
    camera: CameraParams = None,
    candidates: Annotated[
        int, typer.Option(parser=_candidates, metavar="N", help="Images of the map to match with, at the most.")
    ] = 10,
    device: Device = "auto",
    mp: ReducedPrecision = None,
    as_json: AsJson = False,
) -> None:
    """Find where photographs were taken in a map.

    DIR/poses.txt gets a line for each: name qw qx qy qz tx ty tz, from the world to the camera; DIR/failures.txt those
    that were not found, and why. The same command goes on where it was stopped. The exit code is 1 only where none
    was found.
    """
    from lightglue.errors import LightGlueError
    from lightglue.sfm.folder import MapFolder
    from lightglue.sfm.localization.localize import localize as run
    from lightglue.sfm.localization.localizer import LocalizeOptions

    models = _chosen(MapFolder(folder).read().models, asked_for(context, "device", "mp"))
    with memory_named(has_tiles=False), progress_display(quiet=as_json, leave=True) as progress:
        done = run(
            folder,
            queries,
            output,
            LocalizeOptions(candidates=candidates),
            models=models,
            cameras=_camera(camera),
            progress=lambda count, total: progress("localize", count, total),
        )
    if as_json:
        failures = [{"name": each.name, "reason": each.reason} for each in done.failures]
        counts = {"queries": done.queries, "localized": done.localized, "seconds": done.seconds}
        typer.echo(json.dumps({**counts, "output": str(output), "failures": failures}))
    else:
        print_skipped(done.failures)
        typer.echo(f"{done.localized} of {done.queries} localized in {done.seconds:.1f} s: {output / 'poses.txt'}")
    if not done.localized:
        raise LightGlueError(f"None of the {done.queries} was localized; see {output / 'failures.txt'}.")


def _chosen(models: Models, asked: dict[str, Any]) -> Models:
    """The models of a map, on another device or in another precision where that is asked for."""
    if "device" in asked and "mp" not in asked:
        asked["mp"] = None  # what is fast on the map's device need not be on this one
    return replace(models, **asked)


def _camera(known: tuple[str, tuple[float, ...]] | None) -> Any:
    """Intrinsics; of any size, as the queries' are not known yet. Raises InputError."""
    if known is None:
        return None
    from lightglue.geometry.intrinsics import Intrinsics

    model, params = known
    try:
        return Intrinsics(model, None, params).check()
    except InputError as error:
        raise typer.BadParameter(f"--camera: {error}") from None
