"""`lightglue match`: match two image files, print what was found, write it to files."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Annotated, Any

import typer

from lightglue.cli import geometry as geometric
from lightglue.cli import parsing
from lightglue.cli.geometry import CameraText, Estimator, Geometry, Seed, Threshold
from lightglue.cli.models import (
    CommercialOnly,
    DepthConfidence,
    Device,
    FeatureType,
    FilterThreshold,
    Matcher,
    MaxKeypoints,
    Models,
    ReducedPrecision,
    Resize,
    Scales,
    Tile,
    WidthConfidence,
    asked_for,
    extract_options,
    memory_named,
    precision_of,
)
from lightglue.errors import ImageNotFoundError, InputError
from lightglue.extractors.options import ViewOptions
from lightglue.models.defaults import MAX_KEYPOINTS, RESIZE
from lightglue.pairs.encoders import ENDINGS, WARP_ENDINGS
from lightglue.pairs.options import PairOptions
from lightglue.pairs.outputs import check_outputs

__all__ = ["match"]


def match(
    context: typer.Context,
    image0: Annotated[Path, typer.Argument(metavar="A", show_default=False, help="The first image file.")],
    image1: Annotated[Path, typer.Argument(metavar="B", show_default=False, help="The second image file.")],
    features: FeatureType = "aliked",
    max_keypoints: MaxKeypoints = MAX_KEYPOINTS,
    resize: Resize = RESIZE,
    mask0: Annotated[
        Path | None, typer.Option(metavar="FILE", help="An image of A's size: no keypoints where it is black.")
    ] = None,
    mask1: Annotated[Path | None, typer.Option(metavar="FILE", help="The same for B.")] = None,
    tile: Tile = None,
    scales: Scales = None,
    auto_rotate: Annotated[bool, typer.Option("--auto-rotate", help="Find out how B is turned against A.")] = False,
    rotation_step: Annotated[
        int, typer.Option(parser=parsing.step, metavar="N", help="Degrees between the turns that --auto-rotate tries.")
    ] = 90,
    matcher: Matcher = "lightglue",
    device: Device = "auto",
    mp: ReducedPrecision = None,
    filter_threshold: FilterThreshold = 0.1,
    depth_confidence: DepthConfidence = 0.95,
    width_confidence: WidthConfidence = 0.99,
    min_overlap: Annotated[
        float, typer.Option(parser=parsing.share, metavar="X", help="No matches if the images less likely overlap.")
    ] = 0,
    refine: Annotated[bool, typer.Option("--refine", help="Move matches to a fraction of a pixel.")] = False,
    geometry: Geometry = None,
    camera0: CameraText = None,
    camera1: CameraText = None,
    estimator: Estimator = "poselib",
    threshold: Threshold = None,
    seed: Seed = 0,
    warp: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help=f"Write B aligned to A, and a picture of both: {' '.join(WARP_ENDINGS)}."),
    ] = None,
    output: Annotated[
        list[Path] | None,
        typer.Option("--output", "-o", metavar="FILE", help=f"Write to a file: {' '.join(ENDINGS)}. Repeatable."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print all results as one JSON object.")] = False,
    commercial_only: CommercialOnly = False,
) -> None:
    """Match two images.

    Weights are fetched when they are first needed. Positions are in px of the
    image files, (0, 0) being the centre of the top-left pixel.
    """
    inputs = [path for path in (image0, image1, mask0, mask1) if path is not None]
    thresholds = asked_for(context, "filter_threshold", "depth_confidence", "width_confidence")
    if matcher != "lightglue" and thresholds:
        raise typer.BadParameter("it has no thresholds; leave these options out.", param_hint="--matcher")
    try:
        options = PairOptions(**{each.name: context.params[each.name] for each in fields(PairOptions)})
        options.check_models(features, matcher)
        options.check_warp(warp)
        check_outputs(output or [], warp, inputs)
    except InputError as error:
        raise typer.BadParameter(str(error)) from None
    for path in inputs:
        if not path.exists():  # before torch is loaded, which takes seconds
            raise ImageNotFoundError(f"There is no image at {path}; check the path.")
    models = Models(features, max_keypoints, device, mp, commercial_only, thresholds, matcher)
    with memory_named():
        from lightglue.pairs.files import match_files

        views = ViewOptions(**{"resize": "auto", **extract_options(context)})
        result = match_files(image0, image1, options, models=models, views=views, output=output or [], warp=warp)
    summary = {**result.summary(), "precision": precision_of(result.models.matcher)}
    if as_json:
        arrays = {name: array.tolist() for name, array in result.pair.arrays().items()}
        typer.echo(json.dumps({**summary, **arrays}))
    else:
        _print_table(summary)


def _dropped(summary: Mapping[str, Any]) -> str:
    """Why there are no matches although some were found; nothing where that is not so."""
    if "num_dropped" not in summary:
        return ""
    return f" ({summary['num_dropped']} dropped: overlap below {summary['min_overlap']:g})"


def _print_table(summary: dict[str, Any]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    rows = {
        "images": " - ".join(Path(name).name for name in summary["files"]),
        "keypoints": " + ".join(str(count) for count in summary["num_keypoints"]),
        "matches": str(summary["num_matches"]) + _dropped(summary),
        **({"overlap": f"{summary['overlap']:.3f}"} if "overlap" in summary else {}),
        **({"rotation": f"{summary['rotation']:g} degrees"} if "rotation" in summary else {}),
        **({"stop layer": f"{summary['stop']} of {summary['layers']}"} if "stop" in summary else {}),
        **geometric.rows(summary),
        "precision": summary["precision"],
        **({"pruned": " + ".join(f"{share:.0%}" for share in summary["pruned"])} if "pruned" in summary else {}),
        **{name: f"{seconds:.2f} s" for name, seconds in summary["seconds"].items()},
        **({"written": "\n".join(summary["outputs"])} if summary["outputs"] else {}),
        **({"not written": "\n".join(summary["not_written"])} if "not_written" in summary else {}),
    }
    table = Table(show_header=False, box=None, padding=(0, 2, 0, 0))
    for name, value in rows.items():
        table.add_row(Text(name, style="bold"), Text(value, overflow="fold"))
    Console().print(table)
