"""Where the published package keeps `DoGHardNet`, and the names that callers import from here."""

from __future__ import annotations

from importlib import import_module
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lightglue.extractors import dog
from lightglue.extractors.base import Extractor
from lightglue.extractors.dog import detect_opencv, filter_dog_point
from lightglue.extractors.dog_hardnet import DoGHardNet
from lightglue.extractors.sift import SIFT
from lightglue.support.patches import watch

__all__ = ["SIFT", "DoGHardNet", "Extractor", "filter_dog_point", "run_opencv_sift"]

_KORNIAS = ("HardNet", "LAFDescriptor", "laf_from_center_scale_ori")


def run_opencv_sift(features: Any, image: NDArray[np.uint8]) -> tuple[NDArray[np.float32] | None, ...]:
    """As `lightglue.sift.run_opencv_sift`, but points, scores, scales and angles only: nothing is described."""
    found = detect_opencv(features, image, describe=False)
    return found.keypoints, found.scores, found.scales, found.oris


def __getattr__(name: str) -> Any:
    if name not in _KORNIAS:
        raise AttributeError(f"module 'lightglue.dog_hardnet' has no attribute {name!r}")
    try:
        return getattr(import_module("kornia.feature"), name)
    except ImportError as error:
        raise ImportError(f"lightglue.dog_hardnet.{name} is kornia's: pip install kornia.") from error


watch(
    __name__,
    {"filter_dog_point": dog},
    unused=(*_KORNIAS, "run_opencv_sift"),
    remedy="override `forward` of DoGHardNet",
)
