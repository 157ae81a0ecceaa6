"""When to stop and what to drop (paper, section 3.3). Small pure functions; the engine calls them a layer."""

from __future__ import annotations

import math

import numpy as np
from torch import Tensor

__all__ = ["confidence_threshold", "keep_mask", "should_stop"]


def confidence_threshold(layer: int, n_layers: int) -> float:
    """The confidence that a token must have after this layer (0-based) to count as sure."""
    return min(max(0.8 + 0.1 * math.exp(-4.0 * layer / n_layers), 0.0), 1.0)


def should_stop(n_unsure: int, n_keypoints: int, depth_confidence: float) -> bool:
    """Whether enough of a pair's keypoints are sure. Dropped keypoints count as sure.

    n_unsure: tokens of both images below the layer's threshold; n_keypoints: keypoints of both images at the start.
    In float32, as in the published code, so that a share exactly at the limit decides alike.
    """
    sure = np.float32(1.0) - np.float32(n_unsure) / np.float32(n_keypoints)
    return bool(sure > np.float32(depth_confidence))


def keep_mask(
    matchability: Tensor,  # (T,) in [0, 1]
    confidence: Tensor | None,  # (T,) in [0, 1], None where early stopping is off
    threshold: Tensor,  # () the layer's confidence threshold
    width_confidence: float,
) -> Tensor:
    """(T,) bool: the tokens that stay. One is dropped only where it is both sure and unmatchable."""
    dropped = matchability <= 1 - width_confidence
    if confidence is not None:
        dropped &= confidence > threshold
    return ~dropped
