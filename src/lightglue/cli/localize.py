"""`lightglue localize`: the poses of images in a map."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from lightglue.cli.from_options import Given, Only
from lightglue.cli.printing import AsJson, echo, memory_named, say_backend
from lightglue.cli.stages import LIST_HELP, Root, print_skipped, skipped_record
from lightglue.errors import LightGlueError
from lightglue.models.choice import Models
from lightglue.runtime.backends import MANY
from lightglue.sfm.options import CameraOptions, LocalizeOptions
from lightglue.sfm.skipped import Skipped
from lightglue.support.progress import progress_display

__all__ = ["localize"]


def localize(
    folder: Annotated[Path, typer.Argument(metavar="MAP", show_default=False, help="The map's folder.")],
    queries: Annotated[
        Path,
        typer.Argument(
            metavar="QUERIES", show_default=False, help=f"One image, a folder of images, or a list: {LIST_HELP}"
        ),
    ],
    output: Annotated[
        Path,
        typer.Option(
            "--output",
            "-o",
            metavar="DIR",
            show_default=False,
            rich_help_panel="Output",
            help="The folder of the results.",
        ),
    ],
    options: LocalizeOptions,
    cameras: Annotated[CameraOptions, Only(("params", "table"))],
    machine: Annotated[Models, Only(("device", "mp", "backend", "effort", "weights"))],
    given: Given,
    root: Root = None,
    as_json: AsJson = False,
) -> None:
    """Find the poses of images in a map.

    DIR/poses.txt gets a line for each: name qw qx qy qz tx ty tz, from the world to the camera; DIR/failures.txt those
    that were not found, and why. The same command goes on where it was stopped. The exit code is 1 only where none
    was found.
    """
    from lightglue.sfm.folder import MapFolder
    from lightglue.sfm.localization.localize import localize as run

    models = _chosen(MapFolder(folder).read().models, machine, given)
    with memory_named(has_tiles=False), progress_display(quiet=as_json, leave=True) as progress:
        done = run(
            folder,
            queries,
            output,
            options,
            models=models,
            cameras=cameras.known if cameras.table is None else cameras.table,
            root=root,
            progress=lambda count, total: progress("localize", count, total),
        )
    if as_json:
        counts = {"queries": done.queries, "localized": done.localized, "seconds": done.seconds}
        left_out = {name: skipped_record(getattr(done, name)) for name in ("failures", "faults", "skipped")}
        echo(json.dumps({**counts, "output": str(output), **left_out, "remarks": done.remarks}))
    else:
        remarks = (Skipped("model", remark, is_used=True) for remark in done.remarks)
        print_skipped((*done.skipped, *done.failures, *done.faults, *remarks))
        echo(f"{done.localized} of {done.queries} localized in {done.seconds:.1f} s: {output / 'poses.txt'}")
    if not done.localized:
        raise LightGlueError(f"None of the {done.queries} was localized; see {output / 'failures.txt'}.")


def _chosen(models: Models, machine: Models, given: Given) -> Models:
    """The models of a map, on another device or in another precision where that is asked for."""
    if "backend" in given:
        models = replace(models, backend=machine.backend)
    if "effort" in given:
        models = replace(models, effort=machine.effort)
    if "weights" in given:
        models = replace(models, weights=machine.weights)
    if "device" in given:
        models = replace(models, device=machine.device, mp=machine.mp)  # what is fast on the map's need not be on this
    elif "mp" in given:
        models = replace(models, mp=machine.mp)
    say_backend(models, MANY)
    return replace(models, backend=models.found_backend(MANY).backend)
