"""Write models for other runtimes: ONNX files of matchers, extractors and pipelines."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lightglue.support.lazy import lazy_names

if TYPE_CHECKING:
    from lightglue.export.matcher import write_matcher
    from lightglue.export.options import MatcherFile, MatcherSource
    from lightglue.export.source import load_matcher

__all__ = ["MatcherFile", "MatcherSource", "load_matcher", "write_matcher"]

# Name -> the module of this room that owns it. Loaded when first used: options are read without torch.
_OWNERS = {
    "MatcherFile": "options",
    "MatcherSource": "options",
    "load_matcher": "source",
    "write_matcher": "matcher",
}

__getattr__ = lazy_names(__name__, _OWNERS)


def __dir__() -> list[str]:
    return sorted(__all__)
