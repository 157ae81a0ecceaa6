"""Truth of two views of a plane, or of one image."""

from __future__ import annotations

from typing import Any

import numpy as np

from lightglue.errors import InputError
from lightglue.geometry.points import as_matrix
from lightglue.pairs.hard.warping import inverse_of, moved
from lightglue.training.contract import Truth
from lightglue.training.truth.distances import as_points, assign, between, mutual_nearest
from lightglue.training.truth.options import TruthOptions

__all__ = ["from_homography"]


def from_homography(points0: Any, points1: Any, H01: Any, options: TruthOptions | None = None) -> Truth:
    """True matches where image 1 shows what image 0 shows, moved by a homography.

    Args:
        points0: (M, 2) keypoints of image 0, px; points1: (N, 2) those of image 1.
        H01: (3, 3) from px of image 0 to px of image 1.
        options: thresholds.

    A match is two keypoints that are each other's nearest, by the larger of both reprojection errors, and nearer than
    `positive`. A keypoint has no partner where none of the other image is within `negative` of where it is moved to:
    that may be outside of the image. Others are ignored.

    Raises InputError for other shapes, values that are not finite, or a matrix without an inverse.
    """
    options = options or TruthOptions()
    first, second = as_points("points0", points0), as_points("points1", points1)
    H = as_matrix("H01", H01)
    try:
        back = inverse_of(H)
    except np.linalg.LinAlgError:
        raise InputError(f"H01 is {H.tolist()}, which has no inverse; give a homography.") from None
    there, here = between(moved(H, first), second), between(first, moved(back, second))
    pairs = mutual_nearest(np.maximum(there, here), options.positive)
    far0 = there.min(1, initial=np.inf) > options.negative
    far1 = here.min(0, initial=np.inf) > options.negative
    return assign(pairs, far0, far1)
