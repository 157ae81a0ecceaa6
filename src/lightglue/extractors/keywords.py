"""Keywords of the extractors' constructors, for type checkers: the fields of their configurations, each optional.

A test holds both equal. The configurations say what the options mean.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, TypedDict

if TYPE_CHECKING:
    from lightglue.extractors.base import Weights

__all__ = [
    "AlikedKeywords",
    "DiskKeywords",
    "DogKeywords",
    "RacoKeywords",
    "SuperPointKeywords",
    "XFeatKeywords",
]


class AlikedKeywords(TypedDict, total=False):
    """Options of ALIKED."""

    model_name: Literal["aliked-t16", "aliked-n16", "aliked-n16rot", "aliked-n32"]
    max_num_keypoints: int | None
    detection_threshold: float
    nms_radius: int
    mp: bool


class DiskKeywords(TypedDict, total=False):
    """Options of DISK."""

    weights: Weights
    max_num_keypoints: int | None
    desc_dim: int
    nms_window_size: int
    detection_threshold: float
    pad_if_not_divisible: bool
    mp: bool


class SuperPointKeywords(TypedDict, total=False):
    """Options of SuperPoint."""

    descriptor_dim: int
    nms_radius: int
    max_num_keypoints: int | None
    detection_threshold: float
    remove_borders: int | None
    channels: tuple[int, ...]


class XFeatKeywords(TypedDict, total=False):
    """Options of XFeat."""

    max_num_keypoints: int | None
    detection_threshold: float
    nms_radius: int
    mp: bool


class RacoKeywords(TypedDict, total=False):
    """Options of RaCo."""

    max_num_keypoints: int | None
    nms_radius: int
    subpixel_sampling: bool
    subpixel_temp: float
    detection_threshold: float
    ranker: bool
    covariance_estimator: bool
    sort_by_ranker: bool
    descriptor: str | None


class DogKeywords(TypedDict, total=False):
    """Options of SIFT and DoGHardNet."""

    rootsift: bool
    nms_radius: int | None
    max_num_keypoints: int | None
    backend: Literal["opencv", "pycolmap", "pycolmap_cpu", "pycolmap_cuda"]
    detection_threshold: float
    edge_threshold: float
    first_octave: int
    num_octaves: int
