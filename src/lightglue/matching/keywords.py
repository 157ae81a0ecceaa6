"""Keywords of the matchers' constructors, for type checkers: the fields of their configurations, each optional.

A test holds both equal. The configurations say what the options mean.
"""

from __future__ import annotations

from typing import Any, Literal, TypedDict

__all__ = ["FeatureName", "LightGlueKeywords", "NearestNeighborKeywords"]

FeatureName = Literal["superpoint", "disk", "aliked", "sift", "doghardnet", "raco-aliked", "xfeat"]


class LightGlueKeywords(TypedDict, total=False):
    """Options of LightGlue besides `features`."""

    input_dim: int
    descriptor_dim: int
    add_scale_ori: bool
    n_layers: int
    num_heads: int
    flash: bool
    mp: bool
    depth_confidence: float
    width_confidence: float
    filter_threshold: float
    weights: Any  # a name, a path or a state dict
    name: str  # in the published configuration, where nothing reads it


class NearestNeighborKeywords(TypedDict, total=False):
    """Options of NearestNeighbor."""

    mutual: bool
    ratio_threshold: float | None
    ratio_both: bool
    distance_threshold: float | None
