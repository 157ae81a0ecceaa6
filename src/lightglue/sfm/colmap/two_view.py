"""COLMAP's verification of two views."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lightglue.sfm.colmap.with_pycolmap import pycolmap, set_option

__all__ = ["two_view_geometry"]


def two_view_geometry(
    cameras: tuple[Any, Any],
    keypoints: tuple[NDArray[np.float64], NDArray[np.float64]],
    matches: NDArray[np.uint32],
    options: Mapping[str, float],
    seed: int,
) -> Any:
    """COLMAP's geometry of two images, a `pycolmap.TwoViewGeometry`.

    Calibrated where both focal lengths are known, and the same in every thread. keypoints: px as COLMAP has them.
    options: names of `TwoViewGeometryOptions`, with `ransac.` before those of its RANSAC.
    """
    made = pycolmap.TwoViewGeometryOptions()
    for name, value in options.items():
        set_option(made, name, value)
    if hasattr(made.ransac, "random_seed"):
        made.ransac.random_seed = seed
    else:
        pycolmap.set_random_seed(seed)  # of this thread
    first, second = (np.ascontiguousarray(points) for points in keypoints)
    return pycolmap.estimate_two_view_geometry(cameras[0], first, cameras[1], second, matches, made)
