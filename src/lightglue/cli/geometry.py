"""The options of `lightglue match` about geometry, and what it prints and writes of it."""

from __future__ import annotations

import io
import math
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import typer

from lightglue.cli import parsing
from lightglue.cli.outputs import size_of
from lightglue.errors import InputError, LightGlueError
from lightglue.geometry.options import CALIBRATED, GEOMETRIES, LARGEST_SEED, ROBUST_METHODS

if TYPE_CHECKING:
    from lightglue.geometry import Estimate

__all__ = [
    "WARP_ENDINGS",
    "CameraText",
    "Estimator",
    "Geometric",
    "Geometry",
    "KnownCamera",
    "Seed",
    "Threshold",
    "warp_paths",
    "warped",
    "without_model",
]

WARP_ENDINGS = (".png", ".jpg", ".jpeg")
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


class KnownCamera(NamedTuple):
    """A camera, and how it is known."""

    camera: Any  # as `match_pair` takes it
    source: str  # given, EXIF, or guessed
    K: list[list[float]]  # (3, 3), px; (0, 0) is the centre of the top-left pixel


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
        needs_cameras = self.geometry in CALIBRATED
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
        if self.geometry is not None and self.estimator != "opencv" and find_spec(self.estimator) is None:
            remedy = f"it is not installed; run `pip install {self.estimator}`, or choose opencv."
            raise typer.BadParameter(remedy, param_hint=f"--estimator {self.estimator}")

    def known_cameras(self, paths: Sequence[Path], sizes: Sequence[tuple[int, int]]) -> list[KnownCamera]:
        """The cameras of the images of these (width, height), px; none where none are needed. Raises LightGlueError."""
        if self.geometry not in CALIBRATED:
            return []
        return [_known(f"--camera{i}", self.cameras[i], paths[i], sizes[i]) for i in (0, 1)]

    def options(self, cameras: Sequence[KnownCamera]) -> dict[str, Any]:
        """Options of `match_pair`."""
        if self.geometry is None:
            return {"refine": self.refine}
        from lightglue.geometry import EstimatorOptions

        estimator = EstimatorOptions(self.estimator, self.threshold, seed=self.seed)  # type: ignore[arg-type]
        named = {f"camera{i}": known.camera for i, known in enumerate(cameras)}
        return {"refine": self.refine, "geometry": self.geometry, "estimator": estimator, **named}


def _known(option: str, camera: Any, image: Path, size: tuple[int, int]) -> KnownCamera:
    """The camera that the words of the command line stand for. Raises LightGlueError, which names the option."""
    from lightglue.geometry import as_camera

    source = "given"
    if camera == "auto":
        camera = _inferred(option, image, size)
        source = "EXIF" if camera.has_prior_focal_length else "guessed"
    elif isinstance(camera[0], str):
        camera = _colmap_camera(option, camera, size)
    else:
        fx, fy, cx, cy = camera
        camera = [[fx, 0, cx], [0, fy, cy], [0, 0, 1]]
    try:
        return KnownCamera(camera, source, as_camera(camera).K.tolist())
    except InputError as error:
        raise InputError(f"{option}: {error}") from error


def _pycolmap(option: str) -> Any:
    try:
        import pycolmap
    except ImportError as error:
        raise LightGlueError(
            f"{option}: such a camera needs pycolmap; run `pip install pycolmap`, or give fx,fy,cx,cy."
        ) from error
    return pycolmap


def _inferred(option: str, image: Path, size: tuple[int, int]) -> Any:
    """The camera that COLMAP takes from EXIF, or guesses, of the image as EXIF's orientation turns it."""
    pycolmap = _pycolmap(option)
    try:
        camera = pycolmap.infer_camera_from_image(str(image))
    except (ValueError, RuntimeError) as error:
        raise InputError(f"{option}: COLMAP cannot read {image}; give fx,fy,cx,cy instead of auto.") from error
    if (camera.width, camera.height) == size[::-1]:
        params = camera.params.copy()
        params[camera.principal_point_idxs()] = params[camera.principal_point_idxs()][::-1]
        turned = pycolmap.Camera(model=camera.model, width=size[0], height=size[1], params=params)
        turned.has_prior_focal_length = camera.has_prior_focal_length
        return turned
    _check_size(option, (camera.width, camera.height), size)
    return camera


def _colmap_camera(option: str, words: Sequence[Any], size: tuple[int, int]) -> Any:
    pycolmap = _pycolmap(option)
    model, width, height, *params = words
    names = [name for name in pycolmap.CameraModelId.__members__ if name != "INVALID"]
    if model not in names:
        raise InputError(f"{option}: COLMAP knows no camera {model}; choose one of {', '.join(names)}.")
    _check_size(option, (width, height), size)
    camera = pycolmap.Camera(model=model, width=int(width), height=int(height), params=params)
    if not camera.verify_params():
        raise InputError(f"{option}: {model} takes the parameters {camera.params_info}; {len(params)} are given.")
    return camera


def _check_size(option: str, camera: tuple[float, float], image: tuple[int, int]) -> None:
    if camera != image:
        raise InputError(
            f"{option}: the camera's image has {camera[0]:g} x {camera[1]:g} px, the image {image[0]} x {image[1]}; "
            "give the camera of this very file."
        )


def without_model(estimate: Estimate, reason: str) -> Estimate:
    """What is left of an estimate whose matches are dropped."""
    statistics = replace(estimate.statistics, num_matches=0, num_inliers=0, failure=reason)
    return replace(estimate, model=None, inliers=estimate.inliers[:0], statistics=statistics)


def told(estimate: Estimate, geometry: str, cameras: Sequence[KnownCamera]) -> dict[str, Any]:
    """What the summary says of an estimate."""
    statistics = estimate.statistics
    return {
        "geometry": geometry,
        "estimator": statistics.options.label,
        **({"cameras": [{"K": known.K, "source": known.source} for known in cameras]} if cameras else {}),
        "num_inliers": statistics.num_inliers,
        "model": None if estimate.model is None else estimate.model.tolist(),
        **({"failure": statistics.failure} if statistics.failure else {}),
    }


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


def warp_paths(warp: Path) -> tuple[Path, Path]:
    """Where the aligned image goes, and the picture beside it."""
    return warp, warp.with_name(f"{warp.stem}-overlay{warp.suffix}")


def warped(image0: Any, image1: Any, H: Any, names: tuple[str, str], path: Path) -> dict[Path, bytes]:
    """The second image aligned to the first, and the picture of both, as the contents of their files."""
    os.environ.pop("MPLBACKEND", None)  # as for pictures of matches
    import cv2

    from lightglue.drawing.warping import align_image, plot_overlay

    aligned = align_image(image1, H, size_of(image0))
    ending = path.suffix.lower()
    colours = aligned[..., [2, 1, 0, 3]]  # OpenCV's order
    if ending != ".png":  # which alone keeps transparency
        colours = colours[..., :3] * (colours[..., 3:] > 127)
    _, encoded = cv2.imencode(ending, colours)
    buffer = io.BytesIO()
    plot_overlay(image0, aligned, names).savefig(buffer, format=ending.removeprefix("."))
    return dict(zip(warp_paths(path), (encoded.tobytes(), buffer.getvalue()), strict=True))
