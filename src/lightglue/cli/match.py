"""`lightglue match`: match two image files, print what was found, write it to files."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lightglue.cli.outputs import ENDINGS, MatchedPair, fault_of, write_all
from lightglue.cli.weights import CommercialOnly
from lightglue.errors import ImageNotFoundError, InputError, LightGlueError
from lightglue.options import nearest_name

if TYPE_CHECKING:
    import torch

    from lightglue.matching.lightglue import LightGlue

__all__ = ["match"]

# Feature type -> its extractor, and the options that make it return the best keypoints up to their greatest number.
# ALIKED's published threshold of 0.2 starves images of little texture: docs/decisions.
EXTRACTORS: dict[str, tuple[str, dict[str, Any]]] = {
    "aliked": ("ALIKED", {"detection_threshold": -1}),
    "disk": ("DISK", {}),
}
LARGEST_EDGE = 20_000  # px; memory grows with its square
MOST_KEYPOINTS = 1_000_000


def _known(value: str, names: Iterable[str]) -> str:
    names = list(names)
    if value in names:
        return value
    nearest = nearest_name(value.lower(), names)
    hint = f"Did you mean {nearest!r}? " if nearest else ""
    raise typer.BadParameter(f"{value!r} is unknown. {hint}Valid: {', '.join(names)}.")


def _feature_type(value: str) -> str:
    return _known(value, EXTRACTORS)


def _device_name(value: str) -> str:
    return value if re.fullmatch(r"cuda:[0-9]{1,3}", value) else _known(value, ("auto", "cpu", "cuda", "mps"))


def _integer(value: object, largest: int) -> int:
    """An integer from 1 to `largest`, of a default as it stands or of a user's text; 0 for anything else."""
    number = int(value) if re.fullmatch("[0-9]{1,9}", value := str(value)) else 0
    return number if number <= largest else 0


def _count(value: object) -> int:
    if number := _integer(value, MOST_KEYPOINTS):
        return number
    raise typer.BadParameter(f"'{value}' is not a number of keypoints from 1 to {MOST_KEYPOINTS}.")


def _edge(value: object) -> int:
    """The px of `--resize`; 0 stands for the original size."""
    number = _integer(value, LARGEST_EDGE)
    if number or value == "none":
        return number
    raise typer.BadParameter(f"'{value}' is neither a number of px from 1 to {LARGEST_EDGE} nor 'none'.")


def _share(value: object) -> float:
    """A number from 0 to 1."""
    try:
        number = float(str(value))
    except ValueError:
        number = math.nan
    if 0 <= number <= 1:
        return number
    raise typer.BadParameter(f"'{value}' is not a number from 0 to 1.")


def _share_or_off(value: object) -> float:
    """A number from 0 to 1, or -1 for off."""
    try:
        return -1.0 if str(value) in ("-1", "-1.0") else _share(value)
    except typer.BadParameter:
        raise typer.BadParameter(f"'{value}' is neither a number from 0 to 1 nor -1 for off.") from None


def match(
    image0: Annotated[Path, typer.Argument(metavar="A", show_default=False, help="The first image file.")],
    image1: Annotated[Path, typer.Argument(metavar="B", show_default=False, help="The second image file.")],
    features: Annotated[
        str, typer.Option(parser=_feature_type, metavar="|".join(EXTRACTORS), help="Kind of keypoints.")
    ] = "aliked",
    max_keypoints: Annotated[
        int, typer.Option(parser=_count, metavar="N", help="The N best keypoints of each image.")
    ] = 2048,
    resize: Annotated[
        int, typer.Option(parser=_edge, metavar="N|none", help="px of the longer side when keypoints are extracted.")
    ] = 1024,
    device: Annotated[
        str, typer.Option(parser=_device_name, metavar="auto|cpu|cuda|mps", help="Where to compute.")
    ] = "auto",
    mp: Annotated[bool, typer.Option("--mp", help="Match in reduced precision.")] = False,
    filter_threshold: Annotated[
        float, typer.Option(parser=_share, metavar="X", help="Drop matches that score no more than this.")
    ] = 0.1,
    depth_confidence: Annotated[
        float, typer.Option(parser=_share_or_off, metavar="X", help="Lower stops after fewer layers; -1: never stop.")
    ] = 0.95,
    width_confidence: Annotated[
        float, typer.Option(parser=_share_or_off, metavar="X", help="Lower drops more keypoints; -1: drop none.")
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

        device = _find_device(self.device)
        name, options = EXTRACTORS[self.features]
        extractor = getattr(lightglue, name)(
            max_num_keypoints=self.max_keypoints, commercial_only=self.commercial_only, **options
        )
        matcher = lightglue.LightGlue(
            features=self.features, commercial_only=self.commercial_only, **self.matcher_options
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


def _find_device(name: str) -> torch.device:
    """The device called `name`; "auto" is the GPU where there is one."""
    import torch

    count, mps = torch.cuda.device_count(), torch.backends.mps.is_available()
    if name == "auto":
        name = "cuda" if count else "mps" if mps else "cpu"
    device = torch.device(name)
    if device.type == "cuda" and (device.index or 0) >= count:
        raise InputError(
            f"--device {name}: torch {torch.__version__} finds {count} CUDA devices here; use --device cpu, or install "
            "a driver and a build of torch that fit the GPU."
        )
    if device.type == "mps" and not mps:
        raise InputError(f"--device mps: torch {torch.__version__} finds no Apple GPU here; use --device cpu.")
    return device


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
