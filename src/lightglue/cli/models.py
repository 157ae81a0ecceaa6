"""The options that choose extractor and matcher, the same for every command, and the models that they choose."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Annotated, Any

import typer

from lightglue.cli import parsing
from lightglue.cli.weights import CommercialOnly
from lightglue.command_defaults import EXTRACTORS, PRUNING, default_mp
from lightglue.errors import LightGlueError

__all__ = [
    "CommercialOnly",
    "DepthConfidence",
    "Device",
    "FeatureType",
    "FilterThreshold",
    "MaxKeypoints",
    "Models",
    "ReducedPrecision",
    "Resize",
    "WidthConfidence",
    "asked_for",
    "memory_named",
    "precision_of",
]


def _feature_type(value: str) -> str:
    return parsing.known(value, EXTRACTORS)


FeatureType = Annotated[
    str, typer.Option(parser=_feature_type, metavar="|".join(EXTRACTORS), help="Kind of keypoints.")
]
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


@dataclass(frozen=True)
class Models:
    """What to match with, as the command line says it."""

    features: str
    max_keypoints: int
    device: str
    mp: bool | None  # None: as the device likes it
    commercial_only: bool
    thresholds: dict[str, Any]  # what is not here is as the feature type has it

    def load(self) -> tuple[Any, Any]:
        """The extractor and the matcher, on their device."""
        import lightglue
        from lightglue.devices import find_device

        device = find_device(self.device)
        name, options = EXTRACTORS[self.features]
        common = {"commercial_only": self.commercial_only, "mp": default_mp(device) if self.mp is None else self.mp}
        extractor = getattr(lightglue, name)(max_num_keypoints=self.max_keypoints, **common, **options)
        matcher = lightglue.LightGlue(features=self.features, pruning=PRUNING, **common, **self.thresholds)
        return extractor.eval().to(device), matcher.eval().to(device)


def asked_for(context: typer.Context, *names: str) -> dict[str, Any]:
    """Those of a command's options that the user has set. The defaults of the others depend on the feature type."""
    sources = {name: context.get_parameter_source(name) for name in names}
    return {name: context.params[name] for name, source in sources.items() if source and source.name != "DEFAULT"}


def precision_of(matcher: Any) -> str:
    """The precision of the products, in words."""
    from lightglue.precision import product_dtype

    own = next(matcher.parameters())
    dtype = product_dtype(own.device, matcher.conf.mp) or own.dtype
    reduced = " products (--no-mp for float32)" if dtype != own.dtype else ""
    return f"{str(dtype).removeprefix('torch.')}{reduced}"


@contextmanager
def memory_named() -> Iterator[None]:
    """Turn running out of memory into an error with a remedy."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        told = isinstance(error, LightGlueError)
        if told or not (isinstance(error, MemoryError) or re.search("out of memory|can't allocate", str(error))):
            raise
        raise LightGlueError("there is not enough memory; use a smaller --resize or --max-keypoints.") from error
