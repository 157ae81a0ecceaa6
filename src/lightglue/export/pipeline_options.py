"""Which extractor and matcher become one file: options, which check themselves before torch or onnx is loaded."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from lightglue.export.extractors.options import (
    CLASSICAL,
    EXTRACTORS,
    ExtractorSource,
    matcher_of,
)
from lightglue.export.options import MatcherFile, MatcherSource
from lightglue.options import option
from lightglue_runtime.contract import PRECISIONS

__all__ = ["PipelineFile", "PipelineSource"]


@dataclass(frozen=True)
class PipelineFile:
    """How the two are written."""

    precision: str = option("f32", "Of the matcher's layers.", group="Output", choices=PRECISIONS)

    def __post_init__(self) -> None:
        MatcherFile("adaptive", self.precision)  # checks it


@dataclass(frozen=True)
class PipelineSource:
    """Which two. Raises InputError where there are no such networks."""

    features: str = option("aliked", "Kind of keypoints.", group="Features", choices=(*EXTRACTORS, *CLASSICAL))
    extractor_weights: Path | None = option(None, "Own weights of the extractor.", group="Features")
    weights: Path | None = option(None, "Own weights of the matcher.", group="Features")
    commercial_only: bool = option(False, "Only weights whose licence allows commercial use.", group="Machine")

    def __post_init__(self) -> None:
        self.extractor()
        self.matcher()

    def extractor(self) -> ExtractorSource:
        """The first."""
        weights = self.extractor_weights
        return ExtractorSource(self.features, weights=weights, commercial_only=self.commercial_only)

    def matcher(self) -> MatcherSource:
        """The second."""
        return MatcherSource(matcher_of(self.features), self.weights, commercial_only=self.commercial_only)
