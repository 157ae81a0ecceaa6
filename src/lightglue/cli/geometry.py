"""The options of `lightglue match` about geometry, and what it prints of it."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from typing import Annotated, Any

import typer

from lightglue.cli import parsing
from lightglue.geometry.options import GEOMETRIES, LARGEST_SEED, ROBUST_METHODS

__all__ = ["CameraText", "Estimator", "Geometry", "Seed", "Threshold", "rows"]

LARGEST_SIZE = 1_000_000  # px of an edge of a camera's image


def _geometry(value: str) -> str:
    return parsing.known(value, GEOMETRIES)


def _estimator(value: str) -> str:
    return parsing.known(value, ROBUST_METHODS)


def _threshold(value: object) -> float:
    try:
        number = float(str(value))
    except ValueError:
        number = math.nan
    if 0 < number <= 1000:
        return number
    raise typer.BadParameter(f"'{value}' is not a number of px above 0 and at most 1000.")


def _seed(value: object) -> int:
    text = str(value)
    if re.fullmatch("[0-9]{1,10}", text) and int(text) <= LARGEST_SEED:
        return int(text)
    raise typer.BadParameter(f"'{value}' is not an integer from 0 to {LARGEST_SEED}.")


def _camera(value: object) -> Any:
    """`auto`, or fx, fy, cx, cy, or COLMAP's words for a camera: MODEL, width, height, parameters."""
    text = str(value).strip()
    if text.lower() == "auto":
        return "auto"
    model, *rest = (part.strip() for part in text.split(","))
    is_pinhole = not model[:1].isalpha()
    numbers = _numbers([model, *rest] if is_pinhole else rest)
    if is_pinhole and len(numbers) == 4 and min(numbers[:2]) > 0:
        return tuple(numbers)
    if not is_pinhole and len(numbers) >= 3 and all(n.is_integer() and 1 <= n <= LARGEST_SIZE for n in numbers[:2]):
        return (model.upper(), *numbers)
    raise typer.BadParameter(
        f"'{text}' is no camera; give auto, or fx,fy,cx,cy in px, or MODEL,WIDTH,HEIGHT,PARAMETERS as COLMAP has them, "
        "such as OPENCV,1024,768,900,900,512,384,0.1,0,0,0."
    )


def _numbers(parts: Sequence[str]) -> list[float]:
    """Finite numbers; none where one of the parts is not."""
    try:
        numbers = [float(part) for part in parts]
    except ValueError:
        return []
    return numbers if all(map(math.isfinite, numbers)) else []


Geometry = Annotated[
    str | None,
    typer.Option(parser=_geometry, metavar="|".join(GEOMETRIES), show_default=False, help="Also estimate this."),
]
CameraText = Annotated[
    Any,
    typer.Option(
        parser=_camera,
        metavar="auto|FX,FY,CX,CY",
        show_default=False,
        help="Its camera, px; auto: from EXIF, or guessed. With a lens: MODEL,WIDTH,HEIGHT,PARAMETERS of COLMAP.",
    ),
]
Estimator = Annotated[
    str, typer.Option(parser=_estimator, metavar="|".join(ROBUST_METHODS), help="Library that estimates.")
]
Threshold = Annotated[
    float | None,
    typer.Option(
        parser=_threshold,
        metavar="PX",
        show_default=False,
        help="Error up to which a match is an inlier: 1, for homographies 2.",
    ),
]
Seed = Annotated[int, typer.Option(parser=_seed, metavar="N", help="Of the estimator.")]


def rows(summary: Mapping[str, Any]) -> dict[str, str]:
    """The lines of the printed table."""
    if "geometry" not in summary:
        return {}
    found = {}
    if "cameras" in summary:
        focal = [f"{camera['K'][0][0]:.6g} px ({camera['source']})" for camera in summary["cameras"]]
        found["focal"] = " - ".join(focal)
    name = summary["geometry"].replace("_", " ")
    if summary["model"] is None:
        return {**found, name: f"none: {summary['failure']}"}
    matrix = "\n".join("  ".join(f"{value: .6g}".ljust(13) for value in row).rstrip() for row in summary["model"])
    return {**found, "inliers": f"{summary['num_inliers']} ({summary['estimator']})", name: matrix}
