"""`lightglue explain`: where the time of matching two image files goes."""

from __future__ import annotations

import json
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lightglue.cli.models import (
    CommercialOnly,
    DepthConfidence,
    Device,
    FeatureType,
    MaxKeypoints,
    Models,
    ReducedPrecision,
    Resize,
    WidthConfidence,
    asked_for,
    memory_named,
    precision_of,
)
from lightglue.errors import ImageNotFoundError
from lightglue.models.defaults import MAX_KEYPOINTS, RESIZE

if TYPE_CHECKING:
    from lightglue.timing import Timeline

__all__ = ["explain"]


def explain(
    context: typer.Context,
    image0: Annotated[Path, typer.Argument(metavar="A", show_default=False, help="The first image file.")],
    image1: Annotated[Path, typer.Argument(metavar="B", show_default=False, help="The second image file.")],
    features: FeatureType = "aliked",
    max_keypoints: MaxKeypoints = MAX_KEYPOINTS,
    resize: Resize = RESIZE,
    device: Device = "auto",
    mp: ReducedPrecision = None,
    depth_confidence: DepthConfidence = 0.95,
    width_confidence: WidthConfidence = 0.99,
    repeat: Annotated[int, typer.Option(min=1, max=1000, metavar="N", help="Runs, after one that is not counted.")] = 3,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object instead of the table.")] = False,
    commercial_only: CommercialOnly = False,
) -> None:
    """Show where the time goes when two photographs are matched.

    The times are medians over the runs, each step's with all that is
    indented below it.
    """
    for path in (image0, image1):
        if not path.exists():  # before torch is loaded, which takes seconds
            raise ImageNotFoundError(f"There is no image at {path}; check the path.")
    thresholds = asked_for(context, "depth_confidence", "width_confidence")
    with memory_named(has_tiles=False):
        models = Models(features, max_keypoints, device, mp, commercial_only, thresholds)
        extractor, matcher = models.load()
        runs = [_run((image0, image1), extractor, matcher, resize or None) for _ in range(1 + repeat)][1:]
    steps = _medians(runs)
    total = sum(step["seconds"] for step in steps if step["depth"] == 0)
    summary = {"precision": precision_of(matcher), "runs": repeat, "seconds": total, "steps": steps}
    if as_json:
        typer.echo(json.dumps(summary))
    else:
        _print_table(summary)


def _run(paths: tuple[Path, Path], extractor: Any, matcher: Any, resize: int | None) -> Timeline:
    from lightglue.images import load_image
    from lightglue.timing import record

    with record() as timeline:
        features = [extractor.extract(load_image(path), resize=resize) for path in paths]
        matcher({"image0": features[0], "image1": features[1]})
    return timeline


def _medians(runs: list[Timeline]) -> list[dict[str, Any]]:
    """A record a step. All runs take the same steps, as nothing is random."""
    return [
        {
            "name": spans[0].name,
            "depth": spans[0].depth,
            "seconds": median(s.seconds for s in spans),
            **spans[0].details,
        }
        for spans in zip(*(run.spans for run in runs), strict=True)
    ]


def _print_table(summary: dict[str, Any]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table("step", "ms", "share", "on", box=None, padding=(0, 2, 0, 0))
    for column in table.columns[1:3]:
        column.justify = "right"
    for step in summary["steps"]:
        details = {k: v for k, v in step.items() if k not in ("name", "depth", "seconds")}
        share = step["seconds"] / summary["seconds"]
        on = ", ".join(f"{value} {name}" for name, value in details.items())
        table.add_row("  " * step["depth"] + step["name"], f"{1000 * step['seconds']:.1f}", f"{share:.0%}", on)
    table.add_row("all", f"{1000 * summary['seconds']:.1f}", "100%", summary["precision"])
    Console().print(table)
