"""Options of matching two images, beside those of the models: read without torch or NumPy.

`match_files` takes them, and the command line, forms and documents build what they show from them.
"""

from __future__ import annotations

import sys
from collections.abc import Set
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from lightglue.errors import InputError
from lightglue.geometry.camera_text import CAMERA_HELP, parse_camera
from lightglue.geometry.options import CALIBRATED, GEOMETRIES, LARGEST_SEED, ROBUST_METHODS, Geometry, RobustMethod
from lightglue.models.choice import Models
from lightglue.models.registry import WITH_OVERLAP
from lightglue.options import option
from lightglue.pairs.encoders import ENDINGS, WARP_ENDINGS
from lightglue.pairs.hard.options import check_max_seconds, max_seconds_option
from lightglue.support.checks import check_bool, check_choice, check_int, check_real
from lightglue.support.parsers import integer, real, share

__all__ = ["OutputOptions", "PairOptions", "check_rotation_step"]

LARGEST_THRESHOLD = 1000  # px


def check_rotation_step(step: Any) -> None:
    """InputError unless `step` is a number of degrees of which a full circle is a multiple."""
    check_int("rotation_step", step, 1, "a number of degrees that 360 is a multiple of, such as 90 or 45", 180)
    if 360 % step:
        raise InputError(f"'{step}' is not a number of degrees that 360 is a multiple of, such as 90 or 45.")


def parse_rotation_step(text: str) -> int:
    """The degrees between two rotations that are tried."""
    step = integer("a number of degrees that 360 is a multiple of, such as 90 or 45", 1, 180)(text)
    check_rotation_step(step)
    return step


_ABOVE_0 = sys.float_info.min
_parse_threshold = real(f"a number of px above 0 and at most {LARGEST_THRESHOLD}", _ABOVE_0, LARGEST_THRESHOLD)
_parse_seed = integer(f"an integer from 0 to {LARGEST_SEED}", 0, LARGEST_SEED)


@dataclass(frozen=True)
class PairOptions:
    """What is done with two images besides the work of the models. Raises InputError for what does not go together."""

    mask0: Any = option(
        None, "An image of A's size: no keypoints where it is black.", group="Features", metavar="FILE", parse=Path
    )  # or (H, W) bool, or the content of such a file
    mask1: Any = option(None, "The same for B.", group="Features", metavar="FILE", parse=Path)
    auto_rotate: bool = option(False, "Find out how B is rotated against A.", group="Matching")
    rotation_step: int = option(
        90, "Degrees between the rotations that are tried.", group="Matching", metavar="N", parse=parse_rotation_step
    )
    min_overlap: float = option(
        0, "No matches where the images overlap with a lower probability.", group="Matching", metavar="X", parse=share
    )
    refine: bool = option(False, "Refine matches to a fraction of a pixel.", group="Matching")
    max_seconds: float | None = max_seconds_option()
    geometry: Geometry | None = option(None, "Also estimate this.", group="Geometry")
    camera0: Any = option(
        None,  # or what `lightglue.pairs.cameras.known_camera` takes
        f"A's camera: auto (from EXIF, or guessed), {CAMERA_HELP}",
        group="Geometry",
        metavar="CAMERA",
        parse=parse_camera,
    )
    camera1: Any = option(None, "B's camera, likewise.", group="Geometry", metavar="CAMERA", parse=parse_camera)
    estimator: RobustMethod = option("poselib", "Library that estimates.", group="Geometry")
    threshold: float | None = option(
        None,
        "Error up to which a match is an inlier, px: 1, for homographies 2.",
        group="Geometry",
        metavar="PX",
        parse=_parse_threshold,
    )
    seed: int = option(0, "Seed of the estimator.", group="Geometry", metavar="N", parse=_parse_seed)

    def __post_init__(self) -> None:
        check_bool("auto_rotate", self.auto_rotate)
        check_rotation_step(self.rotation_step)
        if self.rotation_step != 90 and not self.auto_rotate:
            raise InputError(f"rotation_step is {self.rotation_step}; it has an effect with auto_rotate only.")
        check_real("min_overlap", self.min_overlap, "a number from 0 to 1", 0, 1)
        check_bool("refine", self.refine)
        check_max_seconds(self.max_seconds)
        check_choice("estimator", self.estimator, ROBUST_METHODS)
        if self.threshold is not None:
            meaning = f"a number of px above 0, at most {LARGEST_THRESHOLD}"
            check_real("threshold", self.threshold, meaning, _ABOVE_0, LARGEST_THRESHOLD)
        check_int("seed", self.seed, 0, f"an integer from 0 to {LARGEST_SEED}", LARGEST_SEED)
        self._check_geometry()

    def _check_geometry(self) -> None:
        given = [camera is not None for camera in (self.camera0, self.camera1)]
        if self.geometry is not None:
            check_choice("geometry", self.geometry, GEOMETRIES)
        usual = {"estimator": "poselib", "threshold": None, "seed": 0}
        self.check_estimator({name for name, value in usual.items() if getattr(self, name) != value})
        if self.geometry in CALIBRATED and not all(given):
            raise InputError(
                f"{self.geometry} needs the cameras of both images: camera0 and camera1, as fx,fy,cx,cy or auto."
            )
        if self.geometry not in CALIBRATED and any(given):
            raise InputError("A camera is for the geometry relative_pose and essential; leave it out.")
        if self.geometry is not None and self.estimator != "opencv" and find_spec(self.estimator) is None:
            raise InputError(
                f"{self.estimator} is not installed; run `pip install {self.estimator}`, or choose opencv."
            )

    def check_estimator(self, given: Set[str]) -> None:
        """InputError where an option of the estimator is among those that were given, and nothing is estimated."""
        if self.geometry is None and given & {"estimator", "threshold", "seed"}:
            raise InputError("estimator, threshold and seed have an effect with a geometry only; give it too.")

    def check_warp(self, warp: Any) -> None:
        """InputError where an image is to be aligned by no homography."""
        if warp is not None and self.geometry != "homography":
            raise InputError("warp: it needs the geometry homography; ask for it, or leave warp out.")
        if warp is not None and not str(warp).lower().endswith(WARP_ENDINGS):
            raise InputError(f"warp: {warp} has none of the known endings: {', '.join(WARP_ENDINGS)}.")

    def check_models(self, models: Models) -> None:
        """InputError where the models have no thresholds, or cannot say whether the images overlap."""
        if models.matcher != "lightglue" and (models.thresholds or self.min_overlap):
            raise InputError(f"The matcher {models.matcher} has no thresholds and no overlap; leave these options out.")
        check_max_seconds(self.max_seconds, models.effort)
        if self.min_overlap and not models.gives_overlap:
            known = ", ".join(WITH_OVERLAP)
            whose = f"the features {models.features}" if models.weights is None else f"the weights {models.weights}"
            raise InputError(
                f"There is no overlap for {whose}, only for {known} and weights that say one; leave min_overlap out."
            )


@dataclass(frozen=True)
class OutputOptions:
    """What is written of a matched pair."""

    output: tuple[Path, ...] = option(
        (), f"Write to a file: {' '.join(ENDINGS)}. Repeatable.", group="Output", flag="--output -o", metavar="FILE"
    )
    warp: Path | None = option(
        None,
        f"Write B aligned to A by the homography, and a picture of both: {' '.join(WARP_ENDINGS)}.",
        group="Output",
        metavar="FILE",
    )
