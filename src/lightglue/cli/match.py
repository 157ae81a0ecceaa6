"""`lightglue match`: match two image files, print what was found, write it to files."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lightglue.cli.models import (
    CommercialOnly,
    DepthConfidence,
    Device,
    FeatureType,
    FilterThreshold,
    MaxKeypoints,
    Models,
    ReducedPrecision,
    Resize,
    WidthConfidence,
    asked_for,
    memory_named,
    precision_of,
)
from lightglue.cli.outputs import ENDINGS, MatchedPair, fault_of, write_all
from lightglue.command_defaults import MAX_KEYPOINTS, RESIZE
from lightglue.errors import ImageNotFoundError

if TYPE_CHECKING:
    import torch

    from lightglue.matching.lightglue import LightGlue

__all__ = ["match"]


def match(
    context: typer.Context,
    image0: Annotated[Path, typer.Argument(metavar="A", show_default=False, help="The first image file.")],
    image1: Annotated[Path, typer.Argument(metavar="B", show_default=False, help="The second image file.")],
    features: FeatureType = "aliked",
    max_keypoints: MaxKeypoints = MAX_KEYPOINTS,
    resize: Resize = RESIZE,
    device: Device = "auto",
    mp: ReducedPrecision = None,
    filter_threshold: FilterThreshold = 0.1,
    depth_confidence: DepthConfidence = 0.95,
    width_confidence: WidthConfidence = 0.99,
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
    for i, path in enumerate(outputs):
        if fault := fault_of(path, (image0, image1), outputs[:i]):
            raise typer.BadParameter(fault, param_hint="--output")
    for path in (image0, image1):
        if not path.exists():  # before torch is loaded, which takes seconds
            raise ImageNotFoundError(f"There is no image at {path}; check the path.")
    thresholds = asked_for(context, "filter_threshold", "depth_confidence", "width_confidence")
    with memory_named():
        models = Models(features, max_keypoints, device, mp, commercial_only, thresholds)
        pair, summary = _match(image0, image1, models, resize or None)
        write_all(pair, outputs)
    summary["outputs"] = [str(path) for path in outputs]
    if as_json:
        typer.echo(json.dumps({**summary, **pair.record()}))
    else:
        _print_table(summary)


def _match(path0: Path, path1: Path, models: Models, resize: int | None) -> tuple[MatchedPair, dict[str, Any]]:
    """What is in the two images, and a summary of it."""
    times = [perf_counter()]
    from lightglue.containers import batch_to_device, rbd
    from lightglue.images import load_image

    images = [load_image(path) for path in (path0, path1)]  # first: a mistyped name must not cost a download
    extractor, matcher = models.load()
    times.append(perf_counter())
    # Each result is copied to the CPU before the clock is read: a GPU would still be computing.
    features = [extractor.extract(image, resize=resize) for image in images]
    keypoints = [rbd(batch_to_device(each))["keypoints"].numpy() for each in features]
    times.append(perf_counter())
    found = rbd(batch_to_device(matcher({"image0": features[0], "image1": features[1]})))
    times.append(perf_counter())

    load, extraction, matching = (after - before for before, after in pairwise(times))
    stop, layers, count = int(found["stop"]), int(matcher.conf.n_layers), len(found["matches"])
    summary = {
        "files": [str(path0), str(path1)],
        "features": models.features,
        "device": str(next(matcher.parameters()).device),
        "precision": precision_of(matcher),
        "num_keypoints": [len(each) for each in keypoints],
        "num_matches": count,
        "layers": layers,
        "pruned": [_pruned_share(found[name], stop, matcher) for name in ("prune0", "prune1")],
        "seconds": {"load": load, "extraction": extraction, "matching": matching},
    }
    pair = MatchedPair(
        image0=images[0],
        image1=images[1],
        keypoints0=keypoints[0],
        keypoints1=keypoints[1],
        matches=found["matches"].numpy(),
        scores=found["scores"].numpy(),
        stop=stop,
        names=(path0.name, path1.name),
        texts=(f"{stop} of {layers} layers", f"{extraction + matching:.1f} s", f"{models.features} + lightglue"),
    )
    return pair, summary | {"stop": stop}


def _pruned_share(prune: torch.Tensor, stop: int, matcher: LightGlue) -> float:
    """The share of keypoints that were dropped: those that went through fewer layers than the others."""
    if not len(prune):
        return 0.0
    # Pruning an image, and counting its layers, may end at a certain number of keypoints.
    always = matcher.pruning_min_kpts(matcher.confidence_thresholds.device) < 0
    return (prune < (stop if always else prune.max())).float().mean().item()


def _print_table(summary: dict[str, Any]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    rows = {
        "images": " - ".join(Path(name).name for name in summary["files"]),
        "keypoints": " + ".join(str(count) for count in summary["num_keypoints"]),
        "matches": str(summary["num_matches"]),
        "stop layer": f"{summary['stop']} of {summary['layers']}",
        "precision": summary["precision"],
        "pruned": " + ".join(f"{share:.0%}" for share in summary["pruned"]),
        **{name: f"{seconds:.2f} s" for name, seconds in summary["seconds"].items()},
        **({"written": "\n".join(summary["outputs"])} if summary["outputs"] else {}),
    }
    table = Table(show_header=False, box=None, padding=(0, 2, 0, 0))
    for name, value in rows.items():
        table.add_row(Text(name, style="bold"), Text(value, overflow="fold"))
    Console().print(table)
