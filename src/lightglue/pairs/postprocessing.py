"""What is done with the matches of a pair: refined to a fraction of a pixel, and a geometry estimated from them."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch

from lightglue.errors import InputError
from lightglue.geometry.estimation import estimate
from lightglue.geometry.options import CALIBRATED, GEOMETRIES, EstimatorOptions
from lightglue.geometry.refine import refine_matches
from lightglue.images import size_of
from lightglue.pairs.cameras import KnownCamera, known_camera
from lightglue.pairs.oriented import OrientedImage
from lightglue.pairs.record import MatchedPair
from lightglue.support.checks import check_bool, check_choice
from lightglue.timing import span

__all__ = ["PostProcessing", "without_doubtful", "without_matches"]

NO_OVERLAP = "the images probably do not overlap"

Cameras = tuple[KnownCamera, KnownCamera] | None


@dataclass(frozen=True)
class PostProcessing:
    """What is done with matches. Raises InputError where it cannot be done, before any work."""

    refine: bool
    geometry: str | None
    estimator: EstimatorOptions | None

    def __post_init__(self) -> None:
        check_bool("refine", self.refine)
        if self.geometry is not None:
            check_choice("geometry", self.geometry, GEOMETRIES)
        if self.estimator is None:
            return
        if not isinstance(self.estimator, EstimatorOptions):
            raise InputError(f"estimator is {self.estimator!r:.80}; give a lightglue.geometry.EstimatorOptions.")
        if self.geometry is None:
            raise InputError("An estimator has an effect with geometry only; give it, or leave the estimator out.")
        if self.estimator.method == "dlt" and self.geometry != "homography":
            raise InputError(f"The method 'dlt' fits homographies only; choose another for {self.geometry}.")

    def check_cameras(self, camera0: Any, camera1: Any) -> None:
        """InputError where they are missing, or nothing is estimated; a warning for a geometry that needs none."""
        given = [camera is not None for camera in (camera0, camera1)]
        if self.geometry is None and any(given):
            raise InputError("A camera has an effect with geometry only; give it, or leave the camera out.")
        if self.geometry not in (None, *CALIBRATED) and any(given):
            message = f"camera0 and camera1 have no effect with the geometry {self.geometry}; leave them out."
            warnings.warn(message, stacklevel=3)
        if self.geometry in CALIBRATED and not all(given):
            raise InputError(
                f"{self.geometry} needs camera0 and camera1: 'auto', K (3, 3) or a pycolmap.Camera of each image."
            )

    def cameras(self, given: Sequence[Any], images: Sequence[Any], oriented: Sequence[OrientedImage]) -> Cameras:
        """What is known of both cameras; None where none are needed. Raises InputError where one is wrong.

        images: as the user gave them.
        """
        if self.geometry not in CALIBRATED:
            return None
        first, second = (known_camera(f"camera{i}", given[i], images[i], size_of(oriented[i].image)) for i in (0, 1))
        return first, second

    def apply(self, pair: MatchedPair, images: Sequence[OrientedImage], cameras: Cameras) -> MatchedPair:
        """`pair` with its points refined and its geometry."""
        if not (self.refine or self.geometry):
            return pair
        device, changes = pair.matches.device, dict[str, Any]()
        points0, points1 = pair.points0, pair.points1
        if self.refine:
            with span("refinement"):
                refined = refine_matches(images[0].pixels(), images[1].pixels(), points0, points1)
            points0, points1 = refined.points0.to(device), refined.points1.to(device)
            changes |= {"points0": points0, "points1": points1}
        if self.geometry:
            known = {} if cameras is None else {f"camera{i}": each.camera for i, each in enumerate(cameras)}
            weights = pair.matches01.get("scores")
            with span("geometry"):
                model = estimate(self.geometry, points0, points1, self.estimator, weights=weights, **known)
            changes |= {"geometry": model, "inliers": torch.from_numpy(model.inliers).to(device)}
            if cameras is not None:
                changes["cameras"] = cameras
        return pair.with_matches(**changes)


def without_doubtful(pair: MatchedPair, min_overlap: float) -> tuple[MatchedPair, int | None]:
    """`pair` without its matches where its images overlap with a lower probability, and how many there were.

    None: none were dropped.
    """
    if not min_overlap or pair.overlap is None or pair.overlap >= min_overlap:
        return pair, None
    return without_matches(pair, NO_OVERLAP), len(pair.matches)


def without_matches(pair: MatchedPair, reason: str) -> MatchedPair:
    """`pair` with all its matches dropped, for this reason."""
    found: dict[str, Any] = dict(pair.matches01)
    kept: dict[str, Any] = {
        name: found[name][:0] for name in ("matches", "scores", "points0", "points1", "inliers") if name in found
    }
    kept |= {name: torch.full_like(found[name], -1) for name in ("matches0", "matches1") if name in found}
    if pair.geometry is not None:
        none = replace(pair.geometry.statistics, num_matches=0, num_inliers=0, failure=reason)
        kept["geometry"] = replace(pair.geometry, model=None, inliers=pair.geometry.inliers[:0], statistics=none)
    return pair.with_matches(**kept)
