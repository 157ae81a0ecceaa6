"""OpenCV's USAC with MAGSAC++ scores (Barath et al. 2020).

Its errors are not those of the other libraries, so that inliers are counted again, by the threshold in px.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any, ParamSpec

import cv2
import numpy as np
from numpy.typing import NDArray

from lightglue.geometry.cameras import Camera
from lightglue.geometry.options import EstimatorOptions
from lightglue.geometry.results import Found

__all__ = ["fundamental", "homography", "relative_pose"]

Floats = NDArray[np.float64]
_Arguments = ParamSpec("_Arguments")


def _found_or_none(estimator: Callable[_Arguments, Found | None]) -> Callable[_Arguments, Found | None]:
    """`estimator`, to which an assertion that fails inside OpenCV is nothing found: some degenerate points do that."""

    @wraps(estimator)
    def run(*args: _Arguments.args, **kwargs: _Arguments.kwargs) -> Found | None:
        try:
            return estimator(*args, **kwargs)
        except cv2.error:
            return None

    return run


@_found_or_none
def homography(points0: Floats, points1: Floats, options: EstimatorOptions) -> Found | None:
    """H (3, 3)."""
    H, _ = cv2.findHomography(points0, points1, _usac(options, options.pixels, sample=75, iterations=15))
    return _found(H)


@_found_or_none
def fundamental(points0: Floats, points1: Floats, options: EstimatorOptions) -> Found | None:
    """F (3, 3)."""
    F, _ = cv2.findFundamentalMat(points0, points1, _usac(options, options.pixels))
    return _found(F)


@_found_or_none
def relative_pose(
    points0: Floats, points1: Floats, camera0: Camera, camera1: Camera, options: EstimatorOptions
) -> Found | None:
    """T (4, 4) from points without distortion."""
    rays0, rays1 = (Camera(c.K).normalize(p) for c, p in ((camera0, points0), (camera1, points1)))
    threshold = options.pixels * 2 / (camera0.focal + camera1.focal)
    one, none = np.eye(3), np.zeros(4)
    E, mask = cv2.findEssentialMat(rays0, rays1, one, one, none, none, _usac(options, threshold))
    if E is None or E.shape != (3, 3) or not np.isfinite(E).all():
        return None
    _, R, t, _ = cv2.recoverPose(E, rays0, rays1, one, mask=mask)
    T = np.eye(4)
    T[:3, :3], T[:3, 3] = R, t[:, 0]
    return _found(T)


def _usac(options: EstimatorOptions, threshold: float, sample: int = 50, iterations: int = 10) -> cv2.UsacParams:
    """What OpenCV's flag USAC_MAGSAC stands for (modules/3d/src/usac), with a seed: the tests hold both equal."""
    params = cv2.UsacParams()
    params.threshold = threshold
    params.confidence = options.confidence
    params.maxIterations = options.max_iterations
    params.randomGeneratorState = options.seed
    params.score = cv2.SCORE_METHOD_MAGSAC
    params.loMethod = cv2.LOCAL_OPTIM_SIGMA
    params.loSampleSize = sample
    params.loIterations = iterations
    params.sampler = cv2.SAMPLING_UNIFORM
    params.final_polisher = cv2.MAGSAC
    params.final_polisher_iterations = 3
    return params


def _found(model: Any) -> Found | None:
    if model is None or model.shape not in ((3, 3), (4, 4)):
        return None
    return Found(np.asarray(model, dtype=np.float64))
