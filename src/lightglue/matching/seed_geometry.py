"""What the matches of a pair agree with: a fundamental matrix, or a homography where that says as much."""

from __future__ import annotations

from importlib.util import find_spec
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from lightglue.geometry.dlt import fit_homography
from lightglue.geometry.estimation import estimate_fundamental, estimate_homography
from lightglue.geometry.options import EstimatorOptions
from lightglue.geometry.points import homogeneous

__all__ = ["QUICK", "Fit", "Model", "fit_model", "refit", "residuals", "turned"]

Floats = NDArray[np.float64]
QUICK = 100  # samples of 7 matches, which 85 % of right ones leave a chance of 1e-17 to miss
CLEAR = 0.85
# Share of the matches that agree with an epipolar geometry which lie near a homography, from which on that is taken
# instead, and how near, in units of the error: 0.954 and more of generated homographies, with the steps that scale and
# perspective leave between right keypoints; 0.872 and less of scenes of COLMAP models.
FLAT, NEAR = 0.95, 4.0


class Model(NamedTuple):
    """What matches agree with."""

    geometry: Literal["fundamental", "homography"]
    matrix: Floats  # (3, 3) px, x1' F x0 = 0 or x1 = H x0


class Fit(NamedTuple):
    """What most of some matches agree with."""

    model: Model | None  # None: there is nothing
    inliers: NDArray[np.bool_]  # (K,) which agree
    flat: float  # share of these that lie near one homography


def fit_model(points0: Floats, points1: Floats, error: float, iterations: int | None = None) -> Fit:
    """The model that most matches (K, 2) agree with within `error` px.

    iterations: the most, such as `QUICK`, which finds what 85 % agree with; None: those, and where fewer agree more.

    A homography where it takes in nearly all of them: where the scene is flat or the camera only turned, a fundamental
    matrix is one of many that fit. Estimated by PoseLib, where it is not installed by OpenCV.
    """
    method: Literal["poselib", "opencv"] = "poselib" if find_spec("poselib") else "opencv"
    options = EstimatorOptions(method, error, max_iterations=iterations or QUICK)
    found = estimate_fundamental(points0, points1, options)
    if iterations is None and (found.model is None or found.inliers.mean() < CLEAR):
        found = estimate_fundamental(points0, points1, EstimatorOptions(method, error))
    if found.model is None:
        return Fit(None, found.inliers, 0.0)
    own0, own1 = points0[found.inliers], points1[found.inliers]
    # Of the few that a plane would be fitted to some are enough to see that there is none.
    flat = estimate_homography(own0, own1, EstimatorOptions(method, 2 * error, max_iterations=QUICK))
    share = 0.0
    if flat.model is not None:
        plane = Model("homography", flat.model)
        share = float((residuals(plane, own0, own1) <= NEAR * error).mean())
        if share >= FLAT:
            return Fit(plane, found.inliers, share)
    return Fit(Model("fundamental", found.model), found.inliers, share)


def residuals(model: Model, points0: Floats, points1: Floats) -> Floats:
    """How far matches (K, 2) are from a model, (K,) px: the larger one of the distances in both images.

    Of a homography in image 1, and in image 0 by its inverse; of a fundamental matrix from the epipolar lines.
    """
    x0, x1 = homogeneous(points0), homogeneous(points1)
    with np.errstate(divide="ignore", invalid="ignore"):
        if model.geometry == "homography":
            there, back = x0 @ model.matrix.T, x1 @ np.linalg.pinv(model.matrix).T
            errors = (there[:, :2] / there[:, 2:] - points1, back[:, :2] / back[:, 2:] - points0)
            found = np.maximum(*(np.hypot(each[:, 0], each[:, 1]) for each in errors))
        else:
            lines1, lines0 = x0 @ model.matrix.T, x1 @ model.matrix
            product = np.abs(np.einsum("ki,ki->k", lines1, x1))
            shorter = np.minimum(*(np.hypot(each[:, 0], each[:, 1]) for each in (lines0, lines1)))
            found = product / shorter
    return np.where(np.isnan(found), np.inf, found)


def turned(model: Model) -> Model:
    """The model of the same pair with its images the other way round."""
    if model.geometry == "fundamental":
        return Model("fundamental", model.matrix.T.copy())
    return Model("homography", np.asarray(np.linalg.pinv(model.matrix), np.float64))


def refit(model: Model, points0: Floats, points1: Floats, scale: float, rounds: int = 4) -> Model:
    """The model fitted to all matches (K, 2), those that are far from it counting little; as it was where it fails.

    Least squares with the weights of Geman and McClure; of a fundamental matrix by eight points with Sampson's
    denominators. scale: px, the distance from which on a match counts less and less.
    """
    fitted = model
    for _ in range(rounds):
        if fitted.geometry == "homography":
            weights = 1 / (1 + np.square(residuals(fitted, points0, points1) / scale)) ** 2
            matrix = fit_homography(points0, points1, weights)
        else:
            matrix = _eight_points(points0, points1, _sampson_weights(fitted.matrix, points0, points1, scale))
        if matrix is None or not np.isfinite(matrix).all() or np.linalg.matrix_rank(matrix) < 2:
            return model
        fitted = Model(fitted.geometry, matrix)
    return fitted


def _sampson_weights(F: Floats, points0: Floats, points1: Floats, scale: float) -> Floats:
    x0, x1 = homogeneous(points0), homogeneous(points1)
    lines1, lines0 = x0 @ F.T, x1 @ F
    gradient = np.square(lines1[:, :2]).sum(1) + np.square(lines0[:, :2]).sum(1) + np.finfo(float).tiny
    squares = np.square(np.einsum("ki,ki->k", lines1, x1)) / gradient
    weights = 1 / gradient / (1 + squares / scale**2) ** 2
    return np.asarray(weights / weights.max())


def _eight_points(points0: Floats, points1: Floats, weights: Floats) -> Floats | None:
    """F (3, 3) of rank 2 in the weighted least algebraic squares (Hartley 1997); None where nothing has a weight."""
    if not weights.sum() > 0:
        return None
    S0, S1 = _normalizer(points0, weights), _normalizer(points1, weights)
    x0, x1 = homogeneous(points0) @ S0.T, homogeneous(points1) @ S1.T
    rows = (x1[:, :, None] * x0[:, None, :]).reshape(-1, 9)
    _, vectors = np.linalg.eigh(rows.T @ (rows * weights[:, None]))
    U, values, V = np.linalg.svd(vectors[:, 0].reshape(3, 3))
    values[2] = 0
    F = S1.T @ ((U * values) @ V) @ S0
    return np.asarray(F / np.linalg.norm(F))


def _normalizer(points: Floats, weights: Floats) -> Floats:
    """(3, 3) moves the weighted mean to 0 and makes the weighted distance from it the square root of 2."""
    middle = weights @ points / weights.sum()
    spread = np.sqrt(weights @ np.square(points - middle).sum(1) / weights.sum())
    scale = np.sqrt(2) / max(spread, 1e-9)
    return np.array([[scale, 0, -scale * middle[0]], [0, scale, -scale * middle[1]], [0, 0, 1]])
