"""The options that choose extractor and matcher, the same for every command, and the models that they choose."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated, Any

import typer

from lightglue.cli import parsing
from lightglue.cli.weights import CommercialOnly
from lightglue.errors import LightGlueError
from lightglue.models.choice import MATCHERS, Models
from lightglue.models.registry import FEATURES
from lightglue.support.memory import is_out_of_memory

__all__ = [
    "MATCHERS",
    "CommercialOnly",
    "DepthConfidence",
    "Device",
    "FeatureType",
    "FilterThreshold",
    "Matcher",
    "MaxKeypoints",
    "Models",
    "ReducedPrecision",
    "Resize",
    "Scales",
    "Tile",
    "WidthConfidence",
    "asked_for",
    "extract_options",
    "memory_named",
    "precision_of",
]


def _feature_type(value: str) -> str:
    return parsing.known(value, FEATURES)


def _matcher(value: str) -> str:
    return parsing.known(value, MATCHERS)


FeatureType = Annotated[str, typer.Option(parser=_feature_type, metavar="|".join(FEATURES), help="Kind of keypoints.")]
MaxKeypoints = Annotated[
    int, typer.Option(parser=parsing.count, metavar="N", help="The N best keypoints of each image.")
]
Resize = Annotated[
    int, typer.Option(parser=parsing.edge, metavar="N|none", help="px of the longer side when keypoints are extracted.")
]
Device = Annotated[str, typer.Option(parser=parsing.device_name, metavar="auto|cpu|cuda|mps", help="Where to compute.")]
ReducedPrecision = Annotated[
    bool | None,
    typer.Option("--mp/--no-mp", show_default=False, help="Reduced precision; by default where it is fast."),
]
Tile = Annotated[
    int | None,
    typer.Option(
        parser=parsing.tile,
        metavar="N",
        show_default=False,
        help="Look at large images in tiles of N x N px; --resize is none then unless it is given.",
    ),
]
Scales = Annotated[
    Any,
    typer.Option(
        parser=parsing.scales, metavar="X,Y", show_default=False, help="Look at images in several sizes, such as 1,0.5."
    ),
]
Matcher = Annotated[
    str,
    typer.Option(parser=_matcher, metavar="|".join(MATCHERS), help="nearest: mutual nearest neighbours, no network."),
]
FilterThreshold = Annotated[
    float, typer.Option(parser=parsing.share, metavar="X", help="Drop matches that score no more than this.")
]
DepthConfidence = Annotated[
    float,
    typer.Option(parser=parsing.share_or_off, metavar="X", help="Lower stops after fewer layers; -1: never (xfeat)."),
]
WidthConfidence = Annotated[
    float,
    typer.Option(parser=parsing.share_or_off, metavar="X", help="Lower drops more keypoints; -1: none. xfeat: 0.95."),
]


def asked_for(context: typer.Context, *names: str) -> dict[str, Any]:
    """Those of a command's options that the user has set. The defaults of the others depend on the feature type."""
    sources = {name: context.get_parameter_source(name) for name in names}
    return {name: context.params[name] for name, source in sources.items() if source and source.name != "DEFAULT"}


def extract_options(context: typer.Context) -> dict[str, Any]:
    """Options of `extract` from those of a command that has --resize, --tile and --scales."""
    given = {"tile": context.params["tile"], "pyramid": context.params.get("scales")}
    options = {name: value for name, value in given.items() if value is not None}
    if "tile" in options and "resize" not in asked_for(context, "resize"):
        return options
    return {**options, "resize": context.params["resize"] or None}


def precision_of(matcher: Any) -> str:
    """The precision of the products, in words."""
    from lightglue.models import loaded

    found = loaded.precision_of(matcher)
    return f"{found} (--no-mp for float32)" if found.endswith("products") else found


@contextmanager
def memory_named(has_tiles: bool = True) -> Iterator[None]:
    """Turn running out of memory into an error with a remedy. has_tiles: whether the command has --tile."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        raise LightGlueError(
            "there is not enough memory; use "
            + ("--tile, or a smaller --resize or --max-keypoints." if has_tiles else "fewer --max-keypoints.")
        ) from error
