"""Which extractor is written, and how: options, which check themselves before torch or onnx is loaded."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from lightglue.errors import InputError
from lightglue.options import option
from lightglue.support.checks import check_choice

__all__ = [
    "CLASSICAL",
    "EXTRACTORS",
    "EXTRACTOR_FORMATS",
    "MODELS",
    "ExtractorFile",
    "ExtractorSource",
    "matcher_of",
]

EXTRACTOR_FORMATS = ("ours", "colmap")
EXTRACTORS = ("aliked", "aliked-n16rot", "aliked-n32", "disk", "xfeat", "superpoint", "raco-aliked")
# Of ALIKED: the published networks.
MODELS = ("aliked-t16", "aliked-n16", "aliked-n16rot", "aliked-n32")
# Detectors that are no networks.
CLASSICAL = ("sift", "doghardnet")


def matcher_of(features: str) -> str:
    """The preset of `lightglue.matching.config` that was trained on an extractor's keypoints: one for all of ALIKED."""
    return "aliked" if features in ("aliked-n16rot", "aliked-n32") else features


@dataclass(frozen=True)
class ExtractorFile:
    """How an extractor is written."""

    format: str = option(
        "ours",
        "Who reads it; colmap: its feature_extractor, ALIKED only.",
        group="Output",
        choices=EXTRACTOR_FORMATS,
    )

    def __post_init__(self) -> None:
        check_choice("format", self.format, EXTRACTOR_FORMATS)


@dataclass(frozen=True)
class ExtractorSource:
    """Which extractor is written. Raises InputError where there is no such network."""

    features: str = option("aliked", "Kind of keypoints.", group="Features", choices=(*EXTRACTORS, *CLASSICAL))
    model: str | None = option(None, "Another network of ALIKED.", group="Features", choices=MODELS)
    weights: Path | None = option(None, "Own weights, instead of the published ones.", group="Features")
    commercial_only: bool = option(False, "Only weights whose licence allows commercial use.", group="Machine")

    def __post_init__(self) -> None:
        check_choice("features", self.features, (*EXTRACTORS, *CLASSICAL))
        if self.features in CLASSICAL:
            raise InputError(
                f"features: {self.features} finds keypoints without a network, which a model file cannot hold. Extract "
                f"them with `lightglue extract --features {self.features}`, OpenCV or pycolmap, and export the matcher "
                f"alone: `lightglue export matcher --features {self.features}`."
            )
        if self.model is not None:
            check_choice("model", self.model, MODELS)
            if not self.features.startswith("aliked"):
                raise InputError(f"model: {self.model} is a network of ALIKED; give features aliked, or leave it out.")

    def check_format(self, file: ExtractorFile) -> None:
        """InputError where the format is not for these features."""
        if file.format == "colmap" and not self.features.startswith("aliked"):
            raise InputError(f"format: colmap reads ALIKED alone, not {self.features}; give format ours.")
