"""`lightglue map`: the stages of a map one by one, and what else is done with a map."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lightglue.cli.from_options import Given, Only, command
from lightglue.cli.printing import AsJson, echo, memory_named, say_backend
from lightglue.cli.sfm import Images, Output
from lightglue.cli.stages import (
    Root,
    Strict,
    Views,
    dataset_record,
    engine_of,
    print_doubt,
    print_skipped,
    print_stage,
    skipped_record,
)
from lightglue.drawing.facts import counted
from lightglue.errors import InputError
from lightglue.models.choice import Models
from lightglue.runtime.backends import MANY
from lightglue.sfm.options import (
    CameraOptions,
    EngineOptions,
    ExtractOptions,
    FrameOptions,
    MatchOptions,
    PairOptions,
    ReconstructOptions,
    SfmOptions,
    TrackOptions,
    VerifyOptions,
)
from lightglue.support.progress import progress_display

if TYPE_CHECKING:
    from lightglue.sfm.change import ChangeResult
    from lightglue.sfm.folder import MapRecord
    from lightglue.sfm.stages.dataset import DatasetResult
    from lightglue.stores.hloc import Exchanged

__all__ = ["app"]

app = typer.Typer(help="Make a map stage by stage, and change it.", no_args_is_help=True)
Map = Annotated[Path, typer.Argument(metavar="MAP", show_default=False, help="The map's folder.")]
LOCAL = EngineOptions()


@command(app, example="lightglue map extract photos -o map")
def extract(
    images: Images,
    output: Output,
    models: Annotated[Models, Only(("features", "max_keypoints", "device", "mp", "commercial_only"))],
    options: ExtractOptions,
    views: Views,
    engine: EngineOptions,
    root: Root = None,
    as_json: AsJson = False,
) -> None:
    """Extract the features of all images of a folder."""
    chosen = SfmOptions(models, extract=replace(options, extract=views.keywords()))
    _run("extract", output, chosen, as_json, images=images, root=root, engine=engine)


@command(app, example="lightglue map frames clip.mp4 -o frames --fps 1")
def frames(
    video: Annotated[Path, typer.Argument(metavar="VIDEO", show_default=False, help="The video.")],
    output: Annotated[
        Path,
        typer.Option("--output", "-o", metavar="DIR", show_default=False, rich_help_panel="Output", help="Where to."),
    ],
    options: FrameOptions,
    as_json: AsJson = False,
) -> None:
    """Write frames of a video as images: at even times, of each window the sharpest.

    `lightglue sfm VIDEO` does this and makes a map of them; `extract`, `localize` and `map add` take the images.
    """
    from lightglue.sfm.stages.frames import take_frames

    with progress_display(quiet=as_json, leave=True) as progress:
        done = take_frames(video, output, options, progress=lambda count, total: progress("frames", count, total))
    if done.fault:
        echo(f"warning: {video.name}: {done.fault}", err=True)
    if as_json:
        echo(json.dumps({"output": str(output), "frames": done.frames, "taken": list(done.names)}))
    else:
        echo(f"{len(done.names):,} of {done.frames:,} frames, one each {done.interval:.2g} s: {output}")


@command(app, example="lightglue map pairs map --pairs sequential")
def pairs(folder: Map, options: PairOptions, as_json: AsJson = False) -> None:
    """Choose which images to match."""
    _run("pairs", folder, SfmOptions(_record(folder).models, pairs=options), as_json)


@command(app, example="lightglue map match map")
def match(
    folder: Map,
    options: MatchOptions,
    models: Annotated[Models, Only(("matcher", "backend", "effort", "weights"))],
    engine: EngineOptions,
    given: Given,
    as_json: AsJson = False,
) -> None:
    """Match the pairs.

    Without --matcher, --backend, --effort and --weights with those of before, which are also those of `map add` and
    `localize`.
    """
    chosen = _record(folder).models
    if "matcher" in given:
        backend = chosen.backend if models.matcher == "lightglue" else "torch"
        effort = chosen.effort if models.matcher == "lightglue" else "normal"
        weights = chosen.weights if models.matcher == "lightglue" else None
        chosen = replace(chosen, matcher=models.matcher, backend=backend, effort=effort, weights=weights)
    if "backend" in given:
        chosen = replace(chosen, backend=models.backend)
        say_backend(chosen, MANY)
    if "effort" in given:
        chosen = replace(chosen, effort=models.effort)
    if "weights" in given:
        chosen = replace(chosen, weights=models.weights)
    _run("match", folder, SfmOptions(chosen, match=options), as_json, engine=engine)


@command(app, example="lightglue map refine map")
def refine(folder: Map, as_json: AsJson = False) -> None:
    """Refine keypoints to a fraction of a pixel, the same for all their matches."""
    _run("refine", folder, SfmOptions(_record(folder).models, refine=TrackOptions()), as_json)


@command(app, example="lightglue map verify map --share-camera single")
def verify(folder: Map, cameras: CameraOptions, options: VerifyOptions, as_json: AsJson = False) -> None:
    """Write COLMAP's database, and the geometry of each pair."""
    _run("verify", folder, replace(_as_refined(folder), cameras=cameras, verify=options), as_json)


@command(app, example="lightglue map reconstruct map --mapper global")
def reconstruct(folder: Map, options: ReconstructOptions, strict: Strict = False, as_json: AsJson = False) -> None:
    """Make the model, and say on stderr why it may be wrong, where it may."""
    from lightglue.sfm.stages.reconstruct import known_summary

    _run("reconstruct", folder, replace(_as_refined(folder), reconstruct=options), as_json)
    known = known_summary(folder / "models")
    if known is not None and known[1].models:
        print_doubt(known[1].models[0].doubt, folder, strict)


@command(app, example="lightglue map add map new/a.jpg new/b.jpg")
def add(
    folder: Map,
    images: Annotated[
        list[Path], typer.Argument(metavar="IMAGES...", show_default=False, help="Images, or folders of them.")
    ],
    extracting: Annotated[ExtractOptions, Only(("masks",))],
    models: Annotated[Models, Only(("effort",))],
    engine: EngineOptions,
    given: Given,
    as_json: AsJson = False,
) -> None:
    """Add images to the model that is there.

    Those outside the map's image folder are copied into it. A run that was stopped is finished by the same command.
    Without --effort with that of the map.
    """
    from lightglue.sfm.change import add_images

    with memory_named(), progress_display(quiet=as_json, leave=True) as progress:
        effort = models.effort if "effort" in given else None
        how: dict[str, Any] = {"masks": extracting.masks, "engine": engine_of(engine), "effort": effort}
        done = add_images(folder, images, **how, progress=progress)
    _print_change("added", folder, done, as_json)


@command(app, example="lightglue map remove map blurred.jpg")
def remove(
    folder: Map,
    names: Annotated[
        list[str], typer.Argument(metavar="NAMES...", show_default=False, help="Of images: paths in their folder.")
    ],
    as_json: AsJson = False,
) -> None:
    """Take images out of the map. Their files stay, and `lightglue sfm` would take them in again."""
    from lightglue.sfm.change import remove_images

    _print_change("removed", folder, remove_images(folder, names), as_json)


def _print_change(what: str, folder: Path, done: ChangeResult, as_json: bool) -> None:
    if as_json:
        counts = {what: done.names, "registered": len(done.registered), "seconds": done.seconds}
        echo(json.dumps({**counts, "doubt": done.doubt, "skipped": skipped_record(done.skipped)}))
        print_doubt(done.doubt, folder)
        return
    without = len(set(done.names).difference(done.registered)) if what == "added" else 0
    said = f", {without} of them without a pose" if without else ""
    echo(f"{what} {len(done.names)}{said}; {len(done.registered)} images have a pose ({done.seconds:.1f} s)")
    if done.dataset is not None and done.dataset.folder is not None:
        echo(f"{done.dataset.folder}: {done.dataset}")
    print_skipped(done.skipped)
    print_doubt(done.doubt, folder)


@command(app, example="lightglue map dataset map")
def dataset(folder: Map, as_json: AsJson = False) -> None:
    """Write MAP/dataset: model and images that fit each other, for COLMAP's tools, gsplat and nerfstudio.

    Images are links to their files, but PNG copies of those that EXIF turns, or that these programs do not read. The
    folder is renewed with the map from then on.
    """
    from lightglue.sfm.folder import MapFolder
    from lightglue.sfm.stages.dataset import write_dataset

    paths = MapFolder(folder)
    record = paths.read()
    done = write_dataset(paths, record.images)
    if done.folder is None:
        raise InputError(f"There is no model in {folder} with images in {record.images}; make the map first.")
    paths.write(replace(record, settings={**record.settings, "dataset": "always"}))
    _print_dataset(done.folder, done, as_json)


@command(app, example="lightglue map undistort map -o dense")
def undistort(
    folder: Map,
    output: Annotated[Path, typer.Option("--output", "-o", metavar="DENSE", show_default=False, help="A new folder.")],
    max_size: Annotated[
        int | None,
        typer.Option(metavar="PX", min=1, show_default=False, help="Shrink images whose longer edge is longer."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Undistort images and model, upright, for dense reconstruction: DENSE is COLMAP's workspace."""
    from lightglue.sfm.stages.dataset import undistort as undistorted

    done = undistorted(folder, output, max_size)
    count = done.linked + done.turned + done.converted
    _print_dataset(
        output, done, as_json, f"{counted(count, 'undistorted image')} and the model, for dense reconstruction"
    )


def _print_dataset(folder: Path, done: DatasetResult, as_json: bool, said: str | None = None) -> None:
    if as_json:
        made = {**(dataset_record(done) or {}), "folder": str(folder)}
        echo(json.dumps({**made, "skipped": skipped_record(done.skipped)}))
        return
    echo(f"{folder}: {said or done}")
    print_skipped(done.skipped)


@command(app, example="lightglue map report map")
def report(folder: Map) -> None:
    """Write MAP/report.html and MAP/report.png again."""
    from lightglue.sfm.report.document import write_report

    written = write_report(folder)
    for problem in written.problems:
        echo(f"warning: {problem}", err=True)
    echo(f"{written.html}")


@command(app, example="lightglue map accept map")
def accept(folder: Map) -> None:
    """Take a model that another program has changed, such as COLMAP's bundle adjustment, for that of the map.

    Until then it is taken for damaged, and `lightglue sfm` makes it again.
    """
    from lightglue.sfm.change import accept_model

    model = accept_model(folder)
    echo(f"accepted: {model.num_images} images, {model.num_points:,} points")
    print_doubt(model.doubt, folder)


@command(app, "export", example="lightglue map export map --features feats.h5 --matches matches.h5")
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

    echo(f"{path}: {done.count:,} written")
    print_skipped([Skipped(*each) for each in done.skipped])


def _run(
    stage: str,
    folder: Path,
    options: SfmOptions,
    as_json: bool,
    *,
    images: Path | None = None,
    root: Path | None = None,
    engine: EngineOptions = LOCAL,
) -> None:
    from lightglue.sfm.pipeline import run_stage

    with memory_named(), progress_display(quiet=as_json, leave=True) as progress:
        done = run_stage(stage, folder, options, images=images, root=root, engine=engine_of(engine), progress=progress)
    print_stage(stage, done, as_json)


def _record(folder: Path) -> MapRecord:
    from lightglue.sfm.folder import MapFolder

    return MapFolder(folder).read()


def _as_refined(folder: Path) -> SfmOptions:
    """Options that say whether the keypoints of the map are refined, and their errors smaller."""
    record = _record(folder)
    return SfmOptions(record.models, refine=None if record.settings.get("refine") is None else TrackOptions())
