"""The geometry of a pair, homography or fundamental matrix, and how much speaks for it."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.util import find_spec
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from lightglue.geometry.errors import epipolar_error, transfer_error
from lightglue.geometry.estimation import estimate_fundamental, estimate_homography
from lightglue.geometry.options import EstimatorOptions
from lightglue.pairs.hard.looks import Correspondences
from lightglue.pairs.hard.rematch import Frame
from lightglue.pairs.hard.warping import Floats, moved

__all__ = ["Model", "affine", "errors_of", "fit", "support"]

FEWEST = {"homography": 6, "fundamental": 12}  # inliers


@dataclass(frozen=True, eq=False)
class Model:
    """A model and the matches that agree with it."""

    geometry: Literal["homography", "fundamental"]
    matrix: Floats  # (3, 3)
    inliers: NDArray[np.bool_]  # (K,)
    support: float  # how much its inliers say together: each the fourth power of its score


def fit(
    found: Correspondences, geometry: Literal["homography", "fundamental"], pixels: float, frame: Frame | None = None
) -> Model | None:
    """The model that most matches agree with up to `pixels`; None where there is none.

    frame: in which the error is measured, rather than in image 1: where one image is much finer than the other, a px of
    it means little.
    """
    points0, points1 = _placed(found, frame)
    ahead = np.isfinite(points0).all(axis=1) & np.isfinite(points1).all(axis=1)  # of the frame's horizons
    if ahead.sum() < FEWEST[geometry]:
        return None
    estimator = estimate_homography if geometry == "homography" else estimate_fundamental
    estimate = estimator(points0[ahead], points1[ahead], EstimatorOptions(_method(), pixels))
    if estimate.model is None:
        return None
    matrix, inliers = estimate.model, np.zeros(len(found), np.bool_)
    inliers[ahead] = estimate.inliers
    if frame is not None:
        to0, to1 = frame.matrices
        matrix = np.linalg.inv(to1) @ matrix @ to0 if geometry == "homography" else to1.T @ matrix @ to0
        matrix = matrix / np.abs(matrix).max()
    if geometry == "homography":  # without a mirror, and points beyond the horizon
        inliers = inliers & np.isfinite(moved(matrix, found.points0)).all(axis=1)
    if inliers.sum() < FEWEST[geometry]:
        return None
    return Model(geometry, matrix, inliers, support(found.scores[inliers]))


def _placed(found: Correspondences, frame: Frame | None) -> tuple[Floats, Floats]:
    if frame is None:
        return found.points0, found.points1
    to0, to1 = frame.matrices
    return moved(to0, found.points0), moved(to1, found.points1)


def support(scores: Floats) -> float:
    """What matches of these scores say together, as the overlap counts them."""
    return float((scores**4).sum())


def affine(found: Correspondences, chosen: NDArray[np.bool_]) -> Floats | None:
    """The affine map (3, 3) of some matches, by least squares; None where they lie on a line."""
    x = np.column_stack((found.points0[chosen], np.ones(int(chosen.sum()))))
    solution, _, rank, _ = np.linalg.lstsq(x, found.points1[chosen], rcond=None)
    if rank < 3:
        return None
    return np.vstack((solution.T, (0, 0, 1)))


def _method() -> Literal["poselib", "opencv"]:
    return "opencv" if find_spec("poselib") is None else "poselib"


def errors_of(model: Model, found: Correspondences, frame: Frame | None = None) -> Floats:
    """How far each match is from the model, px of `frame`, or of the originals; infinite beyond a horizon."""
    points0, points1 = _placed(found, frame)
    matrix = model.matrix
    if frame is not None:
        back0, back1 = (np.linalg.inv(each) for each in frame.matrices)
        is_plane = model.geometry == "homography"
        matrix = frame.matrices[1] @ matrix @ back0 if is_plane else back1.T @ matrix @ back0
    measure = transfer_error if model.geometry == "homography" else epipolar_error
    ahead = np.isfinite(points0).all(axis=1) & np.isfinite(points1).all(axis=1)
    errors = np.full(len(found), np.inf)
    errors[ahead] = measure(matrix, points0[ahead], points1[ahead])
    return errors
