"""In which sizes, parts and values an extractor looks at an image. Importing this loads neither torch nor numpy."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal

from lightglue.errors import InputError
from lightglue.options import option
from lightglue.support.checks import check_bool, check_int
from lightglue.support.parsers import integer

__all__ = ["RESIZE", "SMALLEST_TILE", "STRETCH_HELP", "ViewOptions", "check_pyramid", "check_tile"]

RESIZE = 1024  # px of the longer side, as published
SMALLEST_TILE = 512  # px
LARGEST_EDGE = 20_000  # px that a command takes; memory grows with its square
STRETCH_HELP = "Spread the values that an image uses over its range: 12 bits in 16, thermal, floating point."
MOST_SIZES, LARGEST_FACTOR = 16, 8.0  # of a pyramid


def check_tile(tile: Any) -> None:
    """InputError unless `tile` is a tile's side in px."""
    check_int("tile", tile, SMALLEST_TILE, f"a side in px, an integer of at least {SMALLEST_TILE}, such as 1024")


def check_pyramid(pyramid: Any) -> tuple[float, ...]:
    """`pyramid` as a tuple; InputError unless it is one or more different factors of the image's size."""
    try:
        factors = tuple(float(factor) for factor in pyramid)
    except (TypeError, ValueError) as error:
        raise InputError(f"pyramid is {pyramid!r}; give factors of the image's size such as (1, 0.5).") from error
    if not 1 <= len(factors) <= MOST_SIZES or len(set(factors)) < len(factors):
        raise InputError(f"pyramid is {pyramid!r}; give 1 to {MOST_SIZES} different factors such as (1, 0.5).")
    if not all(0 < factor <= LARGEST_FACTOR for factor in factors):
        raise InputError(f"pyramid is {pyramid!r}; each factor must be above 0 and at most {LARGEST_FACTOR:g}.")
    return factors


def parse_resize(text: str) -> int | Literal["auto"] | None:
    """px of the longer side, "none" for the original size, "auto" for the default."""
    if text in ("auto", "none"):
        return "auto" if text == "auto" else None
    try:
        return _parse_edge(text)
    except InputError as error:
        raise InputError(f"'{text}' is neither a number of px from 1 to {LARGEST_EDGE} nor 'none'.") from error


def parse_pyramid(text: str) -> tuple[float, ...]:
    """Factors such as `1,0.5`."""
    try:
        return check_pyramid(text.split(","))
    except InputError as error:
        remedy = f"different numbers above 0 and at most {LARGEST_FACTOR:g}, such as 1,0.5"
        raise InputError(f"'{text}' is not a list of {remedy}.") from error


_parse_edge = integer("a number of px", 1, LARGEST_EDGE)
parse_tile = integer(f"a number of px from {SMALLEST_TILE} to {LARGEST_EDGE}", SMALLEST_TILE, LARGEST_EDGE)


@dataclass(frozen=True)
class ViewOptions:
    """In which sizes, parts and values images are looked at: the options of `Extractor.extract` that commands have."""

    resize: int | Literal["auto"] | None = option(
        "auto",
        f"px of the longer side when keypoints are extracted; auto: {RESIZE}, or none with --tile.",
        group="Features",
        metavar="N|none",
        parse=parse_resize,
    )  # None: the original size
    tile: int | None = option(
        None, "Look at large images in tiles of N x N px.", group="Features", metavar="N", parse=parse_tile
    )
    pyramid: Iterable[float] | None = option(
        None,
        "Look at images in several sizes, such as 1,0.5.",
        group="Features",
        metavar="X,Y",
        parse=parse_pyramid,
        old=("--scales",),
    )
    stretch: bool = option(False, STRETCH_HELP, group="Features")

    def __post_init__(self) -> None:
        if self.resize not in ("auto", None):
            check_int("resize", self.resize, 1, "px of the longer side, 'auto', or None for the original size")
        if self.tile is not None:
            check_tile(self.tile)
        if self.pyramid is not None:
            check_pyramid(self.pyramid)
        check_bool("stretch", self.stretch)

    def keywords(self) -> dict[str, Any]:
        """The keywords of `Extractor.extract` that say the same; `stretch` is for those who read the images."""
        given: dict[str, Any] = {"tile": self.tile, "pyramid": self.pyramid}
        found = {name: value for name, value in given.items() if value is not None}
        if self.resize != "auto":
            found["resize"] = self.resize
        elif self.tile is None:
            found["resize"] = RESIZE
        return found
