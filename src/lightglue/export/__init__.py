"""Write models for other runtimes: ONNX files of matchers, extractors and pipelines."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lightglue.support.lazy import lazy_names

if TYPE_CHECKING:
    from lightglue.export.bundle import write_bundle
    from lightglue.export.extractors.options import ExtractorFile, ExtractorSource
    from lightglue.export.extractors.sources import load_extractor
    from lightglue.export.extractors.write import write_extractor
    from lightglue.export.matcher import write_matcher
    from lightglue.export.options import MatcherFile, MatcherSource
    from lightglue.export.pipeline import write_pipeline
    from lightglue.export.pipeline_options import PipelineFile, PipelineSource
    from lightglue.export.source import load_matcher

__all__ = [
    "ExtractorFile",
    "ExtractorSource",
    "MatcherFile",
    "MatcherSource",
    "PipelineFile",
    "PipelineSource",
    "load_extractor",
    "load_matcher",
    "write_bundle",
    "write_extractor",
    "write_matcher",
    "write_pipeline",
]

# Name -> the module of this room that owns it. Loaded when first used: options are read without torch.
_OWNERS = {
    "ExtractorFile": "extractors.options",
    "ExtractorSource": "extractors.options",
    "MatcherFile": "options",
    "MatcherSource": "options",
    "PipelineFile": "pipeline_options",
    "PipelineSource": "pipeline_options",
    "load_extractor": "extractors.sources",
    "load_matcher": "source",
    "write_bundle": "bundle",
    "write_extractor": "extractors.write",
    "write_matcher": "matcher",
    "write_pipeline": "pipeline",
}

__getattr__ = lazy_names(__name__, _OWNERS)


def __dir__() -> list[str]:
    return sorted(__all__)
