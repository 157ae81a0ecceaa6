"""The feature types: one row each of a closed table, which is all that the commands know of an extractor.

Importing this loads neither torch nor numpy; a row's extractor is imported when it is asked for.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import import_module
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from lightglue.support.checks import check_choice

if TYPE_CHECKING:
    import torch

__all__ = ["FEATURES", "WITH_OVERLAP", "FeatureType", "default_mp", "feature_type"]


@dataclass(frozen=True)
class FeatureType:
    """What is known of a feature type."""

    module: str  # that holds the extractor's class
    extractor: str  # the class
    matcher: str | None = None  # the preset of lightglue.matching.config trained on it; None: nearest neighbours only
    # Options with which the extractor returns the best keypoints, up to their greatest number.
    best: Mapping[str, Any] = field(default_factory=dict)
    overlap: bool = False  # whether matches come with the probability that the images overlap
    reduced_precision: bool = True  # whether it gains anything by option mp
    weights: bool = True  # whether the extractor has any, whose licence `commercial_only` looks at

    def load(self) -> Any:
        """The extractor's class."""
        return getattr(import_module(self.module), self.extractor)


def _aliked(**options: Any) -> FeatureType:
    # The published threshold of 0.2 starves images of little texture: docs/decisions/015-defaults.md.
    best = {"detection_threshold": -1, **options}
    return FeatureType("lightglue.extractors.aliked", "ALIKED", "aliked", best, overlap=True)


_FEATURES = {
    "aliked": _aliked(),
    "aliked-n16rot": _aliked(model_name="aliked-n16rot"),
    "aliked-n32": _aliked(model_name="aliked-n32"),
    "disk": FeatureType("lightglue.extractors.disk", "DISK", "disk", overlap=True),
    # Its networks are so small that reduced precision gains no time and costs accuracy: docs/decisions/015-defaults.md.
    "xfeat": FeatureType(
        "lightglue.extractors.xfeat",
        "XFeat",
        "xfeat",
        {"detection_threshold": 0},
        overlap=True,
        reduced_precision=False,
    ),
    "superpoint": FeatureType(
        "lightglue.extractors.superpoint", "SuperPoint", "superpoint", {"detection_threshold": -1}
    ),
    "sift": FeatureType("lightglue.extractors.sift", "SIFT", "sift", weights=False),
    "doghardnet": FeatureType("lightglue.extractors.dog_hardnet", "DoGHardNet", "doghardnet"),
}
# Name that users write -> its row.
FEATURES: Mapping[str, FeatureType] = MappingProxyType(_FEATURES)
# Feature types whose matches come with the probability that the images overlap.
WITH_OVERLAP = tuple(name for name, row in FEATURES.items() if row.overlap)


def feature_type(name: str) -> FeatureType:
    """The row of a feature type. Raises InputError for a name that there is not."""
    check_choice("features", name, FEATURES)
    return FEATURES[name]


def default_mp(device: torch.device, features: str | None = None) -> bool:
    """Whether to compute in reduced precision on `device`: where it is known to be fast at it, and loses nothing."""
    from lightglue.support.precision import product_dtype

    gains = features is None or feature_type(features).reduced_precision
    return gains and device.type in ("cpu", "cuda") and product_dtype(device, mp=True) is not None
