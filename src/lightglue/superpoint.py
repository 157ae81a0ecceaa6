"""Where the published package keeps `SuperPoint`, and the functions that callers import from here."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from lightglue.extractors import superpoint
from lightglue.extractors.base import Extractor
from lightglue.extractors.detection import sample_bilinear, simple_nms, strongest
from lightglue.extractors.superpoint import SuperPoint
from lightglue.extractors.superpoint_network import published_cells
from lightglue.support.patches import watch

__all__ = ["Extractor", "SuperPoint", "sample_descriptors", "simple_nms", "top_k_keypoints"]


def top_k_keypoints(keypoints: Tensor, scores: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """The `k` of `keypoints` (N, 2) with the best `scores` (N,), best first; all as they are where N is no more."""
    if k >= len(keypoints):
        return keypoints, scores
    best = strongest(scores, k)
    return keypoints[best], scores[best]


def sample_descriptors(keypoints: Tensor, descriptors: Tensor, s: int = 8) -> Tensor:
    """Unit descriptors (B, D, N) at `keypoints` (B, N, 2) x y px, of maps (B, D, h, w) of cells of `s` px."""
    each = zip(keypoints, descriptors, strict=True)
    return torch.stack([F.normalize(sample_bilinear(maps, published_cells(xy, maps, s)).T, dim=0) for xy, maps in each])


watch(
    __name__,
    {"simple_nms": superpoint},
    unused=("sample_descriptors", "top_k_keypoints"),
    remedy="override `forward` of SuperPoint",
)
