"""Where the published package keeps `SIFT`, and the functions that callers import from here."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from lightglue.extractors import dog
from lightglue.extractors.base import Extractor
from lightglue.extractors.dog import detect_opencv, filter_dog_point
from lightglue.extractors.dog import root_sift as sift_to_rootsift
from lightglue.extractors.sift import SIFT
from lightglue.support.patches import watch

__all__ = ["SIFT", "Extractor", "filter_dog_point", "run_opencv_sift", "sift_to_rootsift"]


def run_opencv_sift(features: Any, image: NDArray[np.uint8]) -> tuple[NDArray[np.float32] | None, ...]:
    """What `features`, such as `cv2.SIFT_create()`, finds in a gray image (H, W).

    Returns:
        points (N, 2) x y in px, scores (N,), scales (N,) diameters in px, angles (N,) in radians, and descriptors
        (N, 128).
    """
    found = detect_opencv(features, image, describe=True)
    return found.keypoints, found.scores, found.scales, found.oris, found.descriptors


watch(
    __name__,
    {"filter_dog_point": dog},
    unused=("run_opencv_sift", "sift_to_rootsift"),
    remedy="override `forward` of SIFT",
)
