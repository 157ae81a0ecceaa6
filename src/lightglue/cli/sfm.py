"""`lightglue sfm`: from a folder of images to a map."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lightglue.cli.printing import AsJson, echo, memory_named, say_backend
from lightglue.cli.stages import (
    LIST_HELP,
    Root,
    Strict,
    Views,
    dataset_record,
    print_doubt,
    print_skipped,
    skipped_record,
    starting,
)
from lightglue.drawing.facts import counted
from lightglue.errors import LightGlueError
from lightglue.runtime.backends import MANY
from lightglue.sfm.options import EngineOptions, SfmOptions
from lightglue.support.loading import uncollected
from lightglue.support.progress import progress_display

if TYPE_CHECKING:
    from lightglue.sfm.pipeline import MapResult
    from lightglue.sfm.stages.reconstruct import ModelSummary

__all__ = ["Images", "Output", "sfm"]

Images = Annotated[
    Path,
    typer.Argument(
        metavar="IMAGES",
        show_default=False,
        help=f"The folder of images, read with its subfolders; a video; or a list: {LIST_HELP}",
    ),
]
Output = Annotated[
    Path,
    typer.Option(
        "--output", "-o", metavar="MAP", show_default=False, rich_help_panel="Output", help="The map's folder."
    ),
]


def sfm(
    images: Images,
    output: Output,
    options: SfmOptions,
    views: Views,
    engine: EngineOptions,
    root: Root = None,
    strict: Strict = False,
    as_json: AsJson = False,
) -> None:
    """Make a map of a folder of images, or of a video: cameras and points, in COLMAP's format.

    MAP/model is the largest model, MAP/database.db COLMAP's database, MAP/report.html says how it went. The same
    command goes on where it was stopped. Images that cannot be used are reported on stderr, and why the model may be
    wrong, where it may. The exit code is 1 where there is no model and, with --strict, where it may be wrong.
    """
    from lightglue.sfm.folder import MapFolder

    with starting(engine, is_new=not MapFolder(output).record.exists()) as who:
        with uncollected():
            from lightglue.sfm.pipeline import build_map  # torch and all, as the processes do

        say_backend(options.models, MANY)
        options = replace(options, extract=replace(options.extract, extract=views.keywords()))
        with memory_named(), progress_display(quiet=as_json, leave=True) as progress:
            result = build_map(images, output, options, root=root, engine=who, progress=progress)
    print_skipped([each for each in result.skipped if each.reason != result.model.reason])  # that is the last line
    echo(_as_json(output, result) if as_json else _as_text(output, result))
    if not result.model.models:
        raise LightGlueError(f"There is no model: {result.model.reason} See {output / 'report.html'}.")
    print_doubt(result.model.models[0].doubt, output, strict)


def _as_json(output: Path, result: MapResult) -> str:
    model = None
    if result.model.models:
        best = result.model.models[0]
        model = {
            "registered": best.num_images,
            "points": best.num_points,
            "mean_reprojection_error": best.mean_reprojection_error,
            "mean_track_length": best.mean_track_length,
            "remarks": best.remarks,
            "consistency": best.consistency,
            "contradicting": best.contradicting,
            "doubtful": best.doubtful,
            "doubt": best.doubt,
        }
    skipped = skipped_record(result.skipped)
    made = {"map": str(output), "model": model, "dataset": dataset_record(result.dataset)}
    made |= {} if result.pairs is None else {"pairs": result.pairs}
    return json.dumps({**made, "seconds": result.seconds, "skipped": skipped})


def _as_text(output: Path, result: MapResult) -> str:
    lines = [f"{stage:>12} {seconds:8.1f} s" for stage, seconds in result.seconds.items()]
    if result.pairs is not None:
        lines = [f"{line}  {result.pairs}" if line.split()[0] == "pairs" else line for line in lines]
    if result.model.models:
        best = result.model.models[0]
        lines += [
            f"{best.num_images} of {result.model.num_images} images, {best.num_points:,} points, "
            f"mean reprojection error {best.mean_reprojection_error:.2f} px, mean track {best.mean_track_length:.1f}",
            _consistency(best),
            f"{output / 'model'}  {output / 'database.db'}  {output / 'report.html'}",
        ]
    if result.dataset is not None and result.dataset.folder is not None:
        lines.append(f"{result.dataset.folder}: {result.dataset}")
    return "\n".join(lines)


def _consistency(model: ModelSummary) -> str:
    """How much of what was verified a model explains, in a line."""
    share = "not checked" if model.consistency is None else f"{model.consistency:.2f}"
    pairs = ", ".join(f"{name0} - {name1}" for name0, name1, _ in model.contradicting[:3])
    more = ", ..." if len(model.contradicting) > 3 else ""
    count = len(model.contradicting)
    contradict = f"; {counted(count, 'strong pair')} contradict{'s' * (count == 1)} the model: {pairs}{more}"
    return f"consistency {share}" + (contradict if count else "")
