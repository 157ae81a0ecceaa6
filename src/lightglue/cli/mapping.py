"""`lightglue map`: the stages of a map one by one, and what else is done with a map."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

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
    Retrieved,
    Seed,
    ShareCamera,
    StageChoices,
    Threads,
    engine_of,
    print_skipped,
    print_stage,
)
from lightglue.errors import InputError
from lightglue.models.defaults import MAX_KEYPOINTS, RESIZE
from lightglue.support.progress import progress_display

if TYPE_CHECKING:
    from lightglue.sfm.change import ChangeResult
    from lightglue.stores.hloc import Exchanged

__all__ = ["app"]

app = typer.Typer(help="Make a map stage by stage, and change it.", no_args_is_help=True)
Map = Annotated[Path, typer.Argument(metavar="MAP", show_default=False, help="The map's folder.")]


@app.command()
def extract(
    context: typer.Context,
    images: Annotated[Path, typer.Argument(metavar="IMAGES", show_default=False, help="The folder of photographs.")],
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="MAP", show_default=False, help="The map's folder.")
    ],
    features: FeatureType = "aliked",
    max_keypoints: MaxKeypoints = MAX_KEYPOINTS,
    resize: Resize = RESIZE,
    tile: Tile = None,
    engine: EngineName = "local",
    address: Address = None,
    device: Device = "auto",
    mp: ReducedPrecision = None,
    as_json: AsJson = False,
    commercial_only: CommercialOnly = False,
) -> None:
    """Extract the features of all photographs of a folder."""
    models = Models(features, max_keypoints, device, mp, commercial_only)
    choices = StageChoices(models, extract_options(context))
    _run("extract", output, choices, as_json, images=images, engine=engine, address=address)


@app.command()
def pairs(
    folder: Map,
    pairs: Pairs = ("auto",),
    pairs_file: PairsFile = None,
    retrieved: Retrieved = 20,
    as_json: AsJson = False,
) -> None:
    """Choose which images to match."""
    choices = StageChoices(_models(folder), {}, pairs=pairs, pairs_file=pairs_file, retrieved=retrieved)
    _run("pairs", folder, choices, as_json)


@app.command()
def match(
    folder: Map,
    min_overlap: MinOverlap = None,
    engine: EngineName = "local",
    address: Address = None,
    as_json: AsJson = False,
) -> None:
    """Match the pairs."""
    choices = StageChoices(_models(folder), {}, min_overlap=min_overlap)
    _run("match", folder, choices, as_json, engine=engine, address=address)


@app.command()
def refine(folder: Map, as_json: AsJson = False) -> None:
    """Move keypoints to a fraction of a pixel, the same for all their matches."""
    _run("refine", folder, StageChoices(_models(folder), {}, refine=True), as_json)


@app.command()
def verify(
    folder: Map,
    share_camera: ShareCamera = "auto",
    camera: CameraParams = None,
    cameras: Cameras = None,
    seed: Seed = 0,
    as_json: AsJson = False,
) -> None:
    """Write COLMAP's database, and the geometry of each pair."""
    refined = _settings(folder).get("refine") is not None
    choices = StageChoices(
        _models(folder), {}, share_camera=share_camera, camera=camera, cameras=cameras, refine=refined, seed=seed
    )
    _run("verify", folder, choices, as_json)


@app.command()
def reconstruct(
    folder: Map, mapper: Mapper = "incremental", threads: Threads = None, seed: Seed = 0, as_json: AsJson = False
) -> None:
    """Make the model."""
    refined = _settings(folder).get("refine") is not None  # whose errors are smaller
    choices = StageChoices(_models(folder), {}, refine=refined, mapper=mapper, threads=threads, seed=seed)
    _run("reconstruct", folder, choices, as_json)


@app.command()
def add(
    folder: Map,
    images: Annotated[
        list[Path], typer.Argument(metavar="IMAGES...", show_default=False, help="Photographs, or folders of them.")
    ],
    engine: EngineName = "local",
    address: Address = None,
    as_json: AsJson = False,
) -> None:
    """Add photographs to the model that is there.

    Those outside the map's image folder are copied into it. A run that was stopped is finished by the same command.
    """
    from lightglue.sfm.change import add_images

    with memory_named(), progress_display(quiet=as_json, leave=True) as progress:
        done = add_images(folder, images, engine=engine_of(engine, address), progress=progress)
    _print_change("added", done, as_json)


@app.command()
def remove(
    folder: Map,
    names: Annotated[
        list[str], typer.Argument(metavar="NAMES...", show_default=False, help="Of images: paths in their folder.")
    ],
    as_json: AsJson = False,
) -> None:
    """Take images out of the map. The photographs stay, and `lightglue sfm` would take them in again."""
    from lightglue.sfm.change import remove_images

    _print_change("removed", remove_images(folder, names), as_json)


def _print_change(what: str, done: ChangeResult, as_json: bool) -> None:
    if as_json:
        skipped = [{"name": each.name, "reason": each.reason} for each in done.skipped]
        told = {what: done.names, "registered": len(done.registered), "seconds": done.seconds, "skipped": skipped}
        typer.echo(json.dumps(told))
        return
    typer.echo(f"{what} {len(done.names)}; {len(done.registered)} images have a pose ({done.seconds:.1f} s)")
    print_skipped(done.skipped)


@app.command()
def report(folder: Map) -> None:
    """Write MAP/report.html and MAP/report.png anew."""
    from lightglue.sfm.report.document import write_report

    typer.echo(f"{write_report(folder).html}")


@app.command("export")
def export_hloc(
    folder: Map,
    features: Annotated[Path | None, typer.Option(metavar="FILE.h5", show_default=False, help="Of hloc.")] = None,
    matches: Annotated[Path | None, typer.Option(metavar="FILE.h5", show_default=False, help="Of hloc.")] = None,
) -> None:
    """Write features and matches as hloc's files; MAP/pairs.txt is one already."""
    from lightglue.sfm.folder import MapFolder
    from lightglue.stores import FeatureStore, MatchStore

    hloc, place = _hloc(features, matches), MapFolder(folder)
    store = FeatureStore.open(place.features, read_only=True)
    if features is not None:
        _print_exchange(features, hloc.write_features(store, features))
    if matches is not None:
        _print_exchange(matches, hloc.write_matches(MatchStore.open(place.matches, read_only=True), store, matches))


def _hloc(features: Path | None, matches: Path | None) -> Any:
    if features is None and matches is None:
        raise typer.BadParameter("name a file: --features FILE.h5, --matches FILE.h5 or both.")
    try:
        from lightglue.stores import hloc
    except ImportError as error:
        if getattr(error, "name", "") != "h5py":
            raise
        raise InputError("hloc's files need h5py: pip install 'lightglue[hloc]'.") from error
    return hloc


def _print_exchange(path: Path, done: Exchanged) -> None:
    from lightglue.sfm.skipped import Skipped

    typer.echo(f"{path}: {done.count:,} written")
    print_skipped([Skipped(*each) for each in done.skipped])


def _run(
    stage: str,
    folder: Path,
    choices: StageChoices,
    as_json: bool,
    *,
    images: Path | None = None,
    engine: str = "local",
    address: str | None = None,
) -> None:
    from lightglue.sfm.pipeline import run_stage

    with memory_named(), progress_display(quiet=as_json, leave=True) as progress:
        done = run_stage(
            stage, folder, choices.options(), images=images, engine=engine_of(engine, address), progress=progress
        )
    print_stage(stage, done, as_json)


def _models(folder: Path) -> Models:
    from lightglue.sfm.folder import MapFolder

    return MapFolder(folder).read().models


def _settings(folder: Path) -> Any:
    from lightglue.sfm.folder import MapFolder

    return MapFolder(folder).read().settings
