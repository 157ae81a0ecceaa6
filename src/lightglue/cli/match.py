"""`lightglue match`: match two image files, print what was found, write it to files."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lightglue.cli import geometry as geometric
from lightglue.cli import parsing
from lightglue.cli.geometry import WARP_ENDINGS, CameraText, Estimator, Geometric, Geometry, Seed, Threshold
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
from lightglue.cli.outputs import ENDINGS, MatchedPair, fault_of, size_of, write_all
from lightglue.errors import ImageNotFoundError
from lightglue.models.defaults import MAX_KEYPOINTS, RESIZE
from lightglue.models.registry import WITH_OVERLAP
from lightglue.timing import wait_for_gpu

if TYPE_CHECKING:
    import torch

    from lightglue.matching.lightglue import LightGlue

__all__ = ["match"]


@dataclass(frozen=True)
class Task:
    """What is to be matched, and how."""

    images: tuple[Path, Path]
    masks: tuple[Path | None, Path | None]
    extract: dict[str, Any]  # options of `extract`
    auto_rotate: int  # step in degrees; 0: the second image is taken as it is
    min_overlap: float  # below, the images count as not matching
    geometric: Geometric  # what is made of the matches
    warp: Path | None  # where the second image, aligned to the first, goes


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
    """Match two photographs.

    Weights are fetched when they are first needed. Positions are in px of the
    image files, (0, 0) being the centre of the top-left pixel.
    """
    outputs = list(output or [])
    inputs = [path for path in (image0, image1, mask0, mask1) if path is not None]
    for i, path in enumerate(outputs):
        if fault := fault_of(path, inputs, outputs[:i]):
            raise typer.BadParameter(fault, param_hint="--output")
    if warp is not None:
        for path in geometric.warp_paths(warp):
            if fault := fault_of(path, inputs, outputs, WARP_ENDINGS):
                what = "" if path == warp else "it also writes a picture of both: "
                raise typer.BadParameter(f"{what}{fault}", param_hint="--warp")
    for path in inputs:
        if not path.exists():  # before torch is loaded, which takes seconds
            raise ImageNotFoundError(f"There is no image at {path}; check the path.")
    if rotation_step != 90 and not auto_rotate:
        raise typer.BadParameter("it has an effect with --auto-rotate only.", param_hint="--rotation-step")
    thresholds = asked_for(context, "filter_threshold", "depth_confidence", "width_confidence")
    if matcher != "lightglue" and (thresholds or min_overlap):
        raise typer.BadParameter(
            "it has no thresholds and no verdict; leave these options out.", param_hint="--matcher"
        )
    if min_overlap and features not in WITH_OVERLAP:
        message = f"there is no verdict for --features {features}, only for {', '.join(WITH_OVERLAP)}; leave it out."
        raise typer.BadParameter(message, param_hint="--min-overlap")
    asked = Geometric(geometry, (camera0, camera1), estimator, threshold, seed, refine)
    asked.check(warp, bool(asked_for(context, "estimator", "threshold", "seed")))
    step = rotation_step if auto_rotate else 0
    task = Task((image0, image1), (mask0, mask1), extract_options(context), step, min_overlap, asked, warp)
    with memory_named():
        models = Models(features, max_keypoints, device, mp, commercial_only, thresholds, matcher)
        pair, summary = _match(task, models)
        others = {}
        if warp is not None and pair.model is not None:
            others = geometric.warped(pair.image0, pair.image1, pair.model, pair.names, warp)
        write_all(pair, outputs, others)
    summary["outputs"] = [str(path) for path in (*outputs, *others)]
    if warp is not None and not others:
        summary["not_written"] = [str(path) for path in geometric.warp_paths(warp)]
    if as_json:
        typer.echo(json.dumps({**summary, **pair.record()}))
    else:
        _print_table(summary)


def _match(task: Task, models: Models) -> tuple[MatchedPair, dict[str, Any]]:
    """What is in the two images, and a summary of it."""
    seconds = {"load": perf_counter(), "extraction": 0.0, "matching": 0.0}
    from lightglue.images import load_image, read_image
    from lightglue.pairs.match import match_pair

    # An image for tiles may be too large for floats. They come first: a mistyped name must not cost a download.
    load: Callable[[Path], Any] = read_image if "tile" in task.extract else load_image
    images = [load(path) for path in task.images]
    cameras = task.geometric.known_cameras(task.images, [size_of(image) for image in images])
    extractor, matcher = models.load()
    seconds["load"] = perf_counter() - seconds["load"]
    extractor.extract = _timed(extractor.extract, seconds, "extraction")
    matcher.forward = _timed(matcher.forward, seconds, "matching")
    masks = {name: path for name, path in zip(("mask0", "mask1"), task.masks, strict=True) if path}
    options = {**task.extract, **masks, "auto_rotate": task.auto_rotate or False, **task.geometric.options(cameras)}
    *features, found = match_pair(extractor, matcher, images[0], images[1], **options)
    is_rejected = task.min_overlap > 0 and float(found["overlap"]) < task.min_overlap
    chosen = slice(0, 0) if is_rejected else slice(None)

    summary = {
        "files": [str(path) for path in task.images],
        "features": models.features,
        "matcher": models.matcher,
        "device": str(models.found_device()),
        "precision": precision_of(matcher),
        "num_keypoints": [len(each["keypoints"]) for each in features],
        "num_matches": len(found["matches"][chosen]),
        **_of_network(found, matcher),
        **({"min_overlap": task.min_overlap, "num_dropped": len(found["matches"])} if is_rejected else {}),
        "seconds": seconds,
    }
    estimate = found.get("geometry")
    if estimate is not None:
        if is_rejected:
            estimate = geometric.without_model(estimate, "the images are taken for no overlap")
        summary |= geometric.told(estimate, str(task.geometric.geometry), cameras)
    kinds: dict[str, Callable[[Any], float]] = {"stop": int, "overlap": float, "rotation": float}
    known: Mapping[str, Any] = found
    numbers = {name: kind(known[name]) for name, kind in kinds.items() if name in found}
    pair = MatchedPair(
        image0=images[0],
        image1=images[1],
        keypoints0=features[0]["keypoints"].numpy(),
        keypoints1=features[1]["keypoints"].numpy(),
        matches=found["matches"][chosen].numpy(),
        scores=found["scores"][chosen].numpy(),
        names=(task.images[0].name, task.images[1].name),
        texts=_texts(summary, numbers, is_rejected),
        numbers=numbers,
        points0=found["points0"][chosen].numpy(),
        points1=found["points1"][chosen].numpy(),
        model=None if estimate is None else estimate.model,
        inliers=None if estimate is None else estimate.inliers,
    )
    return pair, {**summary, **numbers}


def _timed(function: Callable[..., Any], seconds: dict[str, float], name: str) -> Callable[..., Any]:
    """`function`, the time of whose calls is added to `seconds[name]`."""

    def run(*args: Any, **kwargs: Any) -> Any:
        begin = perf_counter()
        result = function(*args, **kwargs)
        wait_for_gpu()
        seconds[name] += perf_counter() - begin
        return result

    return run


def _of_network(found: Mapping[str, Any], matcher: Any) -> dict[str, Any]:
    """What LightGlue tells of its work; nothing of another matcher's."""
    if "stop" not in found:
        return {}
    shares = [_pruned_share(found[name], int(found["stop"]), matcher) for name in ("prune0", "prune1")]
    return {"layers": int(matcher.conf.n_layers), "pruned": shares}


def _texts(summary: Mapping[str, Any], numbers: Mapping[str, float], is_rejected: bool) -> tuple[str, ...]:
    """What is written below the photographs."""
    texts = [f"{numbers['stop']} of {summary['layers']} layers"] if "stop" in numbers else []
    if is_rejected:
        texts.append("taken for no overlap")
    if numbers.get("rotation"):
        texts.append(f"second turned by {numbers['rotation']:g}°")
    if "geometry" in summary and not is_rejected:
        name = summary["geometry"].replace("_", " ")
        texts.append(f"no {name}" if summary["model"] is None else f"{name} {summary['estimator']}")
    seconds = summary["seconds"]["extraction"] + summary["seconds"]["matching"]
    return (*texts, f"{seconds:.1f} s", f"{summary['features']} + {summary['matcher']}")


def _pruned_share(prune: torch.Tensor, stop: int, matcher: LightGlue) -> float:
    """The share of keypoints that were dropped: those that went through fewer layers than the others."""
    if not len(prune):
        return 0.0
    # Pruning an image, and counting its layers, may end at a certain number of keypoints.
    always = matcher.pruning_min_kpts(matcher.confidence_thresholds.device) < 0
    return (prune < (stop if always else prune.max())).float().mean().item()


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
