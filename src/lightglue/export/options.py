"""What is written of which matcher: options, which check themselves before torch or onnx is loaded."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from lightglue.errors import InputError
from lightglue.matching.config import PRESETS
from lightglue.options import option
from lightglue.support.checks import check_choice, check_int
from lightglue.support.parsers import integer
from lightglue_runtime.contract import FORMATS, PRECISIONS

__all__ = ["BUNDLES", "DEFAULT", "BundleOptions", "MatcherFile", "MatcherSource", "check_suits"]

# Features with an extractor and a matcher that can both be written.
BUNDLES = ("aliked", "disk", "xfeat", "superpoint", "raco-aliked")

DEFAULT = "aliked"  # features, as everywhere

# Formats whose readers cannot run products of integers as they are written, and why.
_WITHOUT_INT8: Mapping[str, str] = MappingProxyType(
    {
        "opencv": "OpenCV does not implement DynamicQuantizeLinear",
        "tensorrt": "TensorRT takes no scales that are found as it runs",
    }
)


def check_suits(precision: str, features: str | None) -> None:
    """Raises InputError for int8 and XFeat: docs/decisions/030-int8.md has the figures."""
    if precision == "int8" and features == "xfeat":
        raise InputError(
            "precision is 'int8' and the features are xfeat, whose small matcher lost a third of its matches so; "
            "choose f16 or f32."
        )


@dataclass(frozen=True)
class MatcherFile:
    """How a matcher is written."""

    format: str = option("adaptive", "Who shall read it: see the guide.", group="Output", choices=FORMATS)
    precision: str = option("f32", "Of the layers' products.", group="Output", choices=PRECISIONS)

    def __post_init__(self) -> None:
        check_choice("format", self.format, FORMATS)
        check_choice("precision", self.precision, PRECISIONS)
        reason = _WITHOUT_INT8.get(self.format)
        if self.precision == "int8" and reason is not None:
            raise InputError(
                f"precision is 'int8' and format {self.format!r}, but {reason}; choose f32 or f16, or another format."
            )


@dataclass(frozen=True)
class MatcherSource:
    """Which matcher is written: ALIKED's where neither features nor weights say it."""

    features: str | None = option(
        None,
        "Kind of keypoints; aliked by default, or what own weights say.",
        group="Features",
        choices=tuple(PRESETS),
    )
    weights: Path | None = option(None, "Own weights, instead of the published ones.", group="Features")
    layers: int | None = option(
        None,
        "Keep the first N layers alone.",
        group="Matching",
        parse=integer("a number of layers from 1 to 1000"),
    )
    pruning_min_keypoints: int | None = option(
        None,
        "Images of N keypoints or fewer are not pruned; 128 by default, as measured to be fastest.",
        group="Matching",
        parse=integer("a number of keypoints from 0 to 1000000"),
    )
    commercial_only: bool = option(False, "Only weights whose licence allows commercial use.", group="Machine")

    def __post_init__(self) -> None:
        if self.features is not None:
            check_choice("features", self.features, PRESETS)
        if self.layers is not None:
            check_int("layers", self.layers, 1, "an integer of at least 1")
        if self.pruning_min_keypoints is not None:
            check_int("pruning_min_keypoints", self.pruning_min_keypoints, -1, "an integer of at least -1")


@dataclass(frozen=True)
class BundleOptions:
    """What `lightglue-runtime` gets."""

    features: str = option(DEFAULT, "Kind of keypoints.", group="Features", choices=BUNDLES)
    max_keypoints: int = option(
        2048,
        "The N best keypoints of each image, by default.",
        group="Features",
        metavar="N",
        parse=integer("a number of keypoints from 1 to 1000000"),
    )
    precision: str = option("f32", "Of the matcher's products.", group="Output", choices=PRECISIONS)
    commercial_only: bool = option(False, "Only weights whose licence allows commercial use.", group="Machine")

    def __post_init__(self) -> None:
        check_choice("features", self.features, BUNDLES)
        check_choice("precision", self.precision, PRECISIONS)
        check_int("max_keypoints", self.max_keypoints, 1, "an integer of at least 1")
        check_suits(self.precision, self.features)
