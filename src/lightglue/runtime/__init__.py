"""Matchers and extractors that run in ONNX Runtime or OpenVINO, behind the protocols of the package."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lightglue.support.lazy import lazy_names

if TYPE_CHECKING:
    from lightglue.runtime.extractor import OnnxExtractor
    from lightglue.runtime.matcher import OnnxMatcher, OpenVinoMatcher

__all__ = ["OnnxExtractor", "OnnxMatcher", "OpenVinoMatcher"]

# Name -> the module of this room that owns it. Loaded when first used: options are read without torch.
_OWNERS = {"OnnxExtractor": "extractor", "OnnxMatcher": "matcher", "OpenVinoMatcher": "matcher"}

__getattr__ = lazy_names(__name__, _OWNERS)


def __dir__() -> list[str]:
    return sorted(__all__)
