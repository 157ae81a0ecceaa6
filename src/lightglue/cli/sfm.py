"""`lightglue sfm`: from a folder of photographs to a map."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lightglue.cli.models import (
    CommercialOnly,
    Device,
    FeatureType,
    MaxKeypoints,
    Models,
    ReducedPrecision,
    Resize,
    Tile,
    extract_options,
    memory_named,
)
from lightglue.cli.stages import (
    Address,
    AsJson,
    CameraParams,
    Cameras,
    EngineName,
    Mapper,
    MinOverlap,
    Pairs,
    PairsFile,
    Refine,
    Retrieved,
    Seed,
    ShareCamera,
    StageChoices,
    Threads,
    engine_of,
    print_skipped,
)
from lightglue.errors import LightGlueError
from lightglue.models.defaults import MAX_KEYPOINTS, RESIZE
from lightglue.support.progress import progress_display

if TYPE_CHECKING:
    from lightglue.sfm.pipeline import MapResult

__all__ = ["sfm"]


def sfm(
    context: typer.Context,
    images: Annotated[Path, typer.Argument(metavar="IMAGES", show_default=False, help="The folder of photographs.")],
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="MAP", show_default=False, help="The map's folder.")
    ],
    features: FeatureType = "aliked",
    max_keypoints: MaxKeypoints = MAX_KEYPOINTS,
    resize: Resize = RESIZE,
    tile: Tile = None,
    pairs: Pairs = ("auto",),
    pairs_file: PairsFile = None,
    retrieved: Retrieved = 20,
    min_overlap: MinOverlap = None,
    refine: Refine = False,
    share_camera: ShareCamera = "auto",
    camera: CameraParams = None,
    cameras: Cameras = None,
    mapper: Mapper = "incremental",
    threads: Threads = None,
    seed: Seed = 0,
    engine: EngineName = "local",
    address: Address = None,
    device: Device = "auto",
    mp: ReducedPrecision = None,
    as_json: AsJson = False,
    commercial_only: CommercialOnly = False,
) -> None:
    """Make a map of a folder of photographs: cameras and points, in COLMAP's format.

    MAP/model is the largest model, MAP/database.db COLMAP's database, MAP/report.html says how it went. The same
    command goes on where it was stopped. Photographs that cannot be used are told on stderr; the exit code is 1 only
    where there is no model.
    """
    from lightglue.sfm.pipeline import build_map

    choices = StageChoices(
        Models(features, max_keypoints, device, mp, commercial_only),
        extract_options(context),
        pairs=pairs,
        pairs_file=pairs_file,
        retrieved=retrieved,
        min_overlap=min_overlap,
        share_camera=share_camera,
        camera=camera,
        cameras=cameras,
        refine=refine,
        mapper=mapper,
        threads=threads,
        seed=seed,
    )
    with memory_named(), progress_display(quiet=as_json, leave=True) as progress:
        result = build_map(images, output, choices.options(), engine=engine_of(engine, address), progress=progress)
    print_skipped(result.skipped)
    typer.echo(_as_json(output, result) if as_json else _as_text(output, result))
    if not result.model.models:
        raise LightGlueError(f"There is no model: {result.model.reason} See {output / 'report.html'}.")


def _as_json(output: Path, result: MapResult) -> str:
    told = None
    if result.model.models:
        best = result.model.models[0]
        told = {
            "registered": best.num_images,
            "points": best.num_points,
            "mean_reprojection_error": best.mean_reprojection_error,
            "mean_track_length": best.mean_track_length,
        }
    skipped = [{"name": each.name, "reason": each.reason} for each in result.skipped]
    return json.dumps({"map": str(output), "model": told, "seconds": result.seconds, "skipped": skipped})


def _as_text(output: Path, result: MapResult) -> str:
    lines = [f"{stage:>12} {seconds:8.1f} s" for stage, seconds in result.seconds.items()]
    if result.model.models:
        best = result.model.models[0]
        lines += [
            f"{best.num_images} of {result.model.num_images} images, {best.num_points:,} points, "
            f"mean reprojection error {best.mean_reprojection_error:.2f} px, mean track {best.mean_track_length:.1f}",
            f"{output / 'model'}  {output / 'database.db'}  {output / 'report.html'}",
        ]
    return "\n".join(lines)
