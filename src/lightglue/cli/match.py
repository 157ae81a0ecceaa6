"""`lightglue match`: match two image files, print what was found, write it to files."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer

from lightglue.cli.from_options import Given, wrong_command_line
from lightglue.cli.printing import AsJson, echo, memory_named, precision_text, print_rows, say_backend
from lightglue.errors import ImageNotFoundError
from lightglue.extractors.options import ViewOptions
from lightglue.models.choice import Models, Thresholds
from lightglue.pairs.options import OutputOptions, PairOptions
from lightglue.pairs.outputs import check_outputs

__all__ = ["match"]


def match(
    image0: Annotated[Path, typer.Argument(metavar="A", show_default=False, help="The first image file.")],
    image1: Annotated[Path, typer.Argument(metavar="B", show_default=False, help="The second image file.")],
    models: Models,
    views: ViewOptions,
    options: PairOptions,
    thresholds: Thresholds,
    outputs: OutputOptions,
    given: Given,
    as_json: AsJson = False,
) -> None:
    """Match two images.

    Weights are fetched when they are first needed. Positions are in px of the image files, (0, 0) being the centre of
    the top-left pixel.
    """
    inputs = [path for path in (image0, image1, options.mask0, options.mask1) if path is not None]
    models = replace(models, thresholds=thresholds.given())
    with wrong_command_line():
        options.check_models(models)
        options.check_estimator(given)
        options.check_warp(outputs.warp)
        check_outputs(outputs.output, outputs.warp, inputs)
    for path in inputs:
        if not path.exists():  # before torch is loaded, which takes seconds
            raise ImageNotFoundError(f"There is no image at {path}; check the path.")
    with memory_named():
        from lightglue.pairs.files import match_files

        say_backend(models, 1)

        result = match_files(
            image0, image1, options, models=models, views=views, output=outputs.output, warp=outputs.warp
        )
    summary = {**result.summary(), "precision": precision_text(result.models.precision)}
    for warning in result.warnings:
        echo(f"warning: {warning}", err=True)
    if as_json:
        arrays = {name: array.tolist() for name, array in result.pair.arrays().items()}
        echo(json.dumps({**summary, **arrays}))
    else:
        print_rows(_rows(summary))


def _rows(summary: Mapping[str, Any]) -> dict[str, str]:
    """What is printed of a pair."""
    dropped = ""
    if "num_dropped" in summary:
        dropped = f" ({summary['num_dropped']} dropped: overlap below {summary['min_overlap']:g})"
    return {
        "images": " - ".join(Path(name).name for name in summary["files"]),
        "keypoints": " + ".join(str(count) for count in summary["num_keypoints"]),
        "matches": f"{summary['num_matches']}{dropped}",
        **({"overlap": f"{summary['overlap']:.3f}"} if "overlap" in summary else {}),
        **({"rotation": f"{summary['rotation']:g} degrees"} if "rotation" in summary else {}),
        **({"stop layer": f"{summary['stop']} of {summary['layers']}"} if "stop" in summary else {}),
        **(_geometry_rows(summary) if "geometry" in summary else {}),
        **({"effort": _effort_text(summary)} if "effort" in summary else {}),
        **({"backend": summary["backend"]} if summary["backend"] != "torch" else {}),
        "precision": summary["precision"],
        **({"pruned": " + ".join(f"{share:.0%}" for share in summary["pruned"])} if "pruned" in summary else {}),
        **{name: f"{seconds:.2f} s" for name, seconds in summary["seconds"].items()},
        **({"written": "\n".join(summary["outputs"])} if summary["outputs"] else {}),
        **({"not written": "\n".join(summary["not_written"])} if "not_written" in summary else {}),
    }


def _effort_text(summary: Mapping[str, Any]) -> str:
    """The effort, what was done one after the other, and why not only that."""
    steps = [f"{stage['name']} {stage['seconds']:.2f} s" for stage in summary["stages"]]
    reason = summary.get("escalated") or summary.get("rejected")
    return f"{summary['effort']}: {', '.join(steps)}" + (f"\n({reason})" if reason else "")


def _geometry_rows(summary: Mapping[str, Any]) -> dict[str, str]:
    found = {}
    if "cameras" in summary:
        focal = [f"{camera['K'][0][0]:.6g} px ({camera['source']})" for camera in summary["cameras"]]
        found["focal"] = " - ".join(focal)
    name = summary["geometry"].replace("_", " ")
    if summary["model"] is None:
        return {**found, name: f"none: {summary['failure']}"}
    matrix = "\n".join("  ".join(f"{value: .6g}".ljust(13) for value in row).rstrip() for row in summary["model"])
    return {**found, "inliers": f"{summary['num_inliers']} ({summary['estimator']})", name: matrix}
