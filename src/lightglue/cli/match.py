"""`lightglue match`: match two image files, print what was found, write it to files."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lightglue.cli import parsing
from lightglue.cli.outputs import ENDINGS, MatchedPair, fault_of, write_all
from lightglue.cli.weights import CommercialOnly
from lightglue.command_defaults import EXTRACTORS, MAX_KEYPOINTS, RESIZE, default_mp
from lightglue.errors import ImageNotFoundError, LightGlueError

if TYPE_CHECKING:
    import torch

    from lightglue.matching.lightglue import LightGlue

__all__ = ["match"]


def _feature_type(value: str) -> str:
    return parsing.known(value, EXTRACTORS)


def match(
    image0: Annotated[Path, typer.Argument(metavar="A", show_default=False, help="The first image file.")],
    image1: Annotated[Path, typer.Argument(metavar="B", show_default=False, help="The second image file.")],
    features: Annotated[
        str, typer.Option(parser=_feature_type, metavar="|".join(EXTRACTORS), help="Kind of keypoints.")
    ] = "aliked",
    max_keypoints: Annotated[
        int, typer.Option(parser=parsing.count, metavar="N", help="The N best keypoints of each image.")
    ] = MAX_KEYPOINTS,
    resize: Annotated[
        int,
        typer.Option(parser=parsing.edge, metavar="N|none", help="px of the longer side when keypoints are extracted."),
    ] = RESIZE,
    device: Annotated[
        str, typer.Option(parser=parsing.device_name, metavar="auto|cpu|cuda|mps", help="Where to compute.")
    ] = "auto",
    mp: Annotated[bool, typer.Option("--mp", help="Match in reduced precision.")] = False,
    filter_threshold: Annotated[
        float, typer.Option(parser=parsing.share, metavar="X", help="Drop matches that score no more than this.")
    ] = 0.1,
    depth_confidence: Annotated[
        float,
        typer.Option(parser=parsing.share_or_off, metavar="X", help="Lower stops after fewer layers; -1: never stop."),
    ] = 0.95,
    width_confidence: Annotated[
        float, typer.Option(parser=parsing.share_or_off, metavar="X", help="Lower drops more keypoints; -1: drop none.")
    ] = 0.99,
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
    thresholds = {
        "filter_threshold": filter_threshold,
        "depth_confidence": depth_confidence,
        "width_confidence": width_confidence,
    }
    with _memory_named():
        models = _Models(features, max_keypoints, device, commercial_only, {"mp": mp, **thresholds})
        pair, summary = _match(image0, image1, models, resize or None)
        write_all(pair, outputs)
    summary["outputs"] = [str(path) for path in outputs]
    if as_json:
        typer.echo(json.dumps({**summary, **pair.record()}))
    else:
        _print_table(summary)


@dataclass(frozen=True)
class _Models:
    """What to match with, as the command line says it."""

    features: str
    max_keypoints: int
    device: str
    commercial_only: bool
    matcher_options: dict[str, Any]

    def load(self) -> tuple[Any, Any]:
        """The extractor and the matcher, on their device."""
        import lightglue
        from lightglue.devices import find_device

        device = find_device(self.device)
        name, options = EXTRACTORS[self.features]
        extractor = getattr(lightglue, name)(
            max_num_keypoints=self.max_keypoints, commercial_only=self.commercial_only, **options
        )
        mp = self.matcher_options["mp"] or default_mp(device)
        matcher = lightglue.LightGlue(
            features=self.features, commercial_only=self.commercial_only, **{**self.matcher_options, "mp": mp}
        )
        return extractor.eval().to(device), matcher.eval().to(device)


def _match(path0: Path, path1: Path, models: _Models, resize: int | None) -> tuple[MatchedPair, dict[str, Any]]:
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
    # A GPU stops to prune an image, and to count its layers, at a certain number of keypoints.
    always = matcher.pruning_min_kpts(matcher.confidence_thresholds.device) < 0
    return (prune < (stop if always else prune.max())).float().mean().item()


@contextmanager
def _memory_named() -> Iterator[None]:
    """Turn running out of memory into an error with a remedy."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        told = isinstance(error, LightGlueError)
        if told or not (isinstance(error, MemoryError) or re.search("out of memory|can't allocate", str(error))):
            raise
        raise LightGlueError("there is not enough memory; use a smaller --resize or --max-keypoints.") from error


def _print_table(summary: dict[str, Any]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    rows = {
        "images": " - ".join(Path(name).name for name in summary["files"]),
        "keypoints": " + ".join(str(count) for count in summary["num_keypoints"]),
        "matches": str(summary["num_matches"]),
        "stop layer": f"{summary['stop']} of {summary['layers']}",
        "pruned": " + ".join(f"{share:.0%}" for share in summary["pruned"]),
        **{name: f"{seconds:.2f} s" for name, seconds in summary["seconds"].items()},
        **({"written": "\n".join(summary["outputs"])} if summary["outputs"] else {}),
    }
    table = Table(show_header=False, box=None, padding=(0, 2, 0, 0))
    for name, value in rows.items():
        table.add_row(Text(name, style="bold"), Text(value, overflow="fold"))
    Console().print(table)
