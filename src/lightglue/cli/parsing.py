"""Values on the command line: from text to a checked value, or a `BadParameter` that names the valid ones."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable

import typer

from lightglue.options import nearest_name

__all__ = [
    "LARGEST_EDGE",
    "MOST_KEYPOINTS",
    "count",
    "device_name",
    "edge",
    "integer",
    "known",
    "scales",
    "share",
    "share_or_off",
    "step",
    "tile",
]

LARGEST_EDGE = 20_000  # px; memory grows with its square
MOST_KEYPOINTS = 1_000_000
SMALLEST_TILE = 512  # px, as in lightglue.extractors.views, which loads torch; tests hold both equal


def known(value: str, names: Iterable[str]) -> str:
    """`value` if it is one of `names`."""
    names = list(names)
    if value in names:
        return value
    nearest = nearest_name(value.lower(), names)
    hint = f"Did you mean {nearest!r}? " if nearest else ""
    raise typer.BadParameter(f"{value!r} is unknown. {hint}Valid: {', '.join(names)}.")


def device_name(value: str) -> str:
    """`auto`, or a device as torch names it."""
    return value if re.fullmatch(r"cuda:[0-9]{1,3}", value) else known(value, ("auto", "cpu", "cuda", "mps"))


def integer(value: object, largest: int) -> int:
    """An integer from 1 to `largest`, of a default as it stands or of a user's text; 0 for anything else."""
    number = int(value) if re.fullmatch("[0-9]{1,9}", value := str(value)) else 0
    return number if number <= largest else 0


def count(value: object) -> int:
    """A number of keypoints."""
    if number := integer(value, MOST_KEYPOINTS):
        return number
    raise typer.BadParameter(f"'{value}' is not a number of keypoints from 1 to {MOST_KEYPOINTS}.")


def edge(value: object) -> int:
    """The px of `--resize`; 0 stands for the original size."""
    number = integer(value, LARGEST_EDGE)
    if number or value == "none":
        return number
    raise typer.BadParameter(f"'{value}' is neither a number of px from 1 to {LARGEST_EDGE} nor 'none'.")


def tile(value: object) -> int:
    """The px of `--tile`."""
    number = integer(value, LARGEST_EDGE)
    if number >= SMALLEST_TILE:
        return number
    raise typer.BadParameter(f"'{value}' is not a number of px from {SMALLEST_TILE} to {LARGEST_EDGE}.")


def scales(value: object) -> tuple[float, ...]:
    """The sizes of `--scales`, such as `1,0.5`."""
    try:
        numbers = tuple(float(part) for part in str(value).split(","))
    except ValueError:
        numbers = ()
    if numbers and all(0 < number <= 8 for number in numbers) and len(set(numbers)) == len(numbers):
        return numbers
    raise typer.BadParameter(f"'{value}' is not a list of different numbers above 0 and at most 8, such as 1,0.5.")


def step(value: object) -> int:
    """The degrees of `--rotation-step`."""
    number = integer(value, 180)
    if number and 360 % number == 0:
        return number
    raise typer.BadParameter(f"'{value}' is not a number of degrees that 360 is a multiple of, such as 90 or 45.")


def share(value: object) -> float:
    """A number from 0 to 1."""
    try:
        number = float(str(value))
    except ValueError:
        number = math.nan
    if 0 <= number <= 1:
        return number
    raise typer.BadParameter(f"'{value}' is not a number from 0 to 1.")


def share_or_off(value: object) -> float:
    """A number from 0 to 1, or -1 for off."""
    try:
        return -1.0 if str(value) in ("-1", "-1.0") else share(value)
    except typer.BadParameter:
        raise typer.BadParameter(f"'{value}' is neither a number from 0 to 1 nor -1 for off.") from None
