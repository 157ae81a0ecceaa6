"""The options of `lightglue match` about geometry, and what it prints and writes of it."""

from __future__ import annotations

import io
import math
import os
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lightglue.cli import parsing

if TYPE_CHECKING:
    from lightglue.geometry import Estimate

__all__ = ["WARP_ENDINGS", "CameraText", "Estimator", "Geometric", "Geometry", "Threshold", "overlay_path", "warped"]

GEOMETRIES = ("homography", "fundamental", "essential", "relative_pose")  # as in lightglue.geometry, which loads torch
ESTIMATORS = ("poselib", "opencv", "pycolmap")
WARP_ENDINGS = (".png", ".jpg", ".jpeg")


def _geometry(value: str) -> str:
    return parsing.known(value, GEOMETRIES)


def _estimator(value: str) -> str:
    return parsing.known(value, ESTIMATORS)


def _threshold(value: object) -> float:
    try:
        number = float(str(value))
    except ValueError:
        number = math.nan
    if 0 < number <= 1000:
        return number
    raise typer.BadParameter(f"'{value}' is not a number of px above 0 and at most 1000.")


def _camera(value: object) -> Any:
    """`auto`, or fx, fy, cx, cy, or COLMAP's words for a camera: MODEL,width,height,parameters."""
    text = str(value)
    if text == "auto":
        return text
    model, *rest = text.split(",")
    is_pinhole = not model[:1].isalpha()
    numbers = []
    with suppress(ValueError):
        numbers = [float(part) for part in ([model, *rest] if is_pinhole else rest)]
    fits = len(numbers) == 4 if is_pinhole else len(numbers) >= 5
    if fits and all(map(math.isfinite, numbers)):
        return numbers if is_pinhole else (model, *numbers)
    raise typer.BadParameter(
        f"'{text}' is no camera; give auto, or fx,fy,cx,cy in px, or MODEL,WIDTH,HEIGHT,PARAMETERS as COLMAP has them, "
        "such as OPENCV,1024,768,900,900,512,384,0.1,0,0,0."
    )


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
        help="A's camera, px; auto: from EXIF. With a lens: MODEL,WIDTH,HEIGHT,PARAMETERS of COLMAP.",
    ),
]
Estimator = Annotated[
    str, typer.Option(parser=_estimator, metavar="|".join(ESTIMATORS), help="Library that estimates.")
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


@dataclass(frozen=True)
class Geometric:
    """What is estimated from the matches, as the command line says it."""

    geometry: str | None
    cameras: tuple[Any, Any]
    estimator: str
    threshold: float | None  # px
    seed: int
    refine: bool

    def check(self, warp: Path | None, is_tuned: bool) -> None:
        """Raises BadParameter for options that do not go together. is_tuned: an option of the estimator was given."""
        needs_cameras = self.geometry in ("essential", "relative_pose")
        given = [camera is not None for camera in self.cameras]
        if needs_cameras and not all(given):
            raise typer.BadParameter(
                "it needs the cameras of both images: --camera0 and --camera1, as fx,fy,cx,cy or auto.",
                param_hint=f"--geometry {self.geometry}",
            )
        if not needs_cameras and any(given):
            raise typer.BadParameter("it is for --geometry relative_pose and essential.", param_hint="--camera0/1")
        if self.geometry is None and is_tuned:
            raise typer.BadParameter(
                "they have an effect with --geometry only.", param_hint="--estimator, --threshold, --seed"
            )
        if warp is not None and self.geometry != "homography":
            raise typer.BadParameter("it needs --geometry homography.", param_hint="--warp")

    def options(self, images: tuple[Path, Path]) -> dict[str, Any]:
        """Options of `match_pair`."""
        if self.geometry is None:
            return {"refine": self.refine}
        from lightglue.geometry import EstimatorOptions

        estimator = EstimatorOptions(self.estimator, self.threshold, seed=self.seed)  # type: ignore[arg-type]
        cameras = {
            f"camera{i}": _made(camera, path)
            for i, (camera, path) in enumerate(zip(self.cameras, images, strict=True))
            if camera is not None
        }
        return {"refine": self.refine, "geometry": self.geometry, "estimator": estimator, **cameras}


def _made(camera: Any, image: Path) -> Any:
    """The camera that the words of the command line stand for."""
    from lightglue.errors import InputError, LightGlueError

    if isinstance(camera, list):
        fx, fy, cx, cy = camera
        return [[fx, 0, cx], [0, fy, cy], [0, 0, 1]]
    try:
        import pycolmap
    except ImportError as error:
        raise LightGlueError(
            "Such a camera needs pycolmap; run `pip install pycolmap`, or give fx,fy,cx,cy."
        ) from error
    if camera == "auto":
        return pycolmap.infer_camera_from_image(str(image))
    model, width, height, *params = camera
    try:
        return pycolmap.Camera(model=model, width=int(width), height=int(height), params=params)
    except (ValueError, RuntimeError, AttributeError) as error:
        raise InputError(f"COLMAP knows no camera {model} with {len(params)} parameters ({error}).") from error


def told(estimate: Estimate, geometry: str) -> dict[str, Any]:
    """What the summary says of an estimate."""
    statistics = estimate.statistics
    return {
        "geometry": geometry,
        "estimator": statistics.options.label,
        "num_inliers": statistics.num_inliers,
        "model": None if estimate.model is None else estimate.model.tolist(),
        **({"failure": statistics.failure} if statistics.failure else {}),
    }


def rows(summary: Mapping[str, Any]) -> dict[str, str]:
    """The lines of the printed table."""
    if "geometry" not in summary:
        return {}
    name = summary["geometry"].replace("_", " ")
    if summary["model"] is None:
        return {name: f"none: {summary['failure']}"}
    matrix = "\n".join("  ".join(f"{value: .6g}".ljust(13) for value in row).rstrip() for row in summary["model"])
    return {"inliers": f"{summary['num_inliers']} ({summary['estimator']})", name: matrix}


def overlay_path(warp: Path) -> Path:
    """Where the picture beside an aligned image goes."""
    return warp.with_name(f"{warp.stem}-overlay{warp.suffix}")


def warped(image0: Any, image1: Any, H: Any, names: tuple[str, str], path: Path) -> dict[Path, bytes]:
    """The second image aligned to the first, and the picture of both, as the contents of their files."""
    os.environ.pop("MPLBACKEND", None)  # as for pictures of matches
    import cv2

    from lightglue.warping import align_image, plot_overlay

    height, width = image0.shape[:2] if image0.shape[-1] in (3, 4) and image0.ndim == 3 else image0.shape[-2:]
    aligned = align_image(image1, H, (int(width), int(height)))
    ending = path.suffix.lower()
    colours = aligned[..., [2, 1, 0, 3]]  # OpenCV's order
    if ending != ".png":  # which alone keeps transparency
        colours = colours[..., :3] * (colours[..., 3:] > 127)
    _, encoded = cv2.imencode(ending, colours)
    buffer = io.BytesIO()
    plot_overlay(image0, aligned, names).savefig(buffer, format=ending.removeprefix("."))
    return {path: encoded.tobytes(), overlay_path(path): buffer.getvalue()}
