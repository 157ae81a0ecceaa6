"""Match images with models that `lightglue export` wrote: NumPy, OpenCV and a runtime, without torch.

>>> import lightglue_runtime
>>> models = lightglue_runtime.load("models")  # doctest: +SKIP
>>> models.match("a.jpg", "b.jpg").points0  # doctest: +SKIP

Names are loaded when they are first used (PEP 562).
"""

from __future__ import annotations

import sys
from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"  # of both packages

# Public name -> the module that owns it.
_OWNERS = {
    "Bundle": "bundle",
    "Extractor": "extractor",
    "ImageError": "errors",
    "InputError": "errors",
    "LightGlueError": "errors",
    "MatchedPair": "pair",
    "Matcher": "matcher",
    "ModelError": "errors",
    "load": "bundle",
}

if TYPE_CHECKING:
    from lightglue_runtime.bundle import Bundle, load
    from lightglue_runtime.errors import ImageError, InputError, LightGlueError, ModelError
    from lightglue_runtime.extractor import Extractor
    from lightglue_runtime.matcher import Matcher
    from lightglue_runtime.pair import MatchedPair

__all__ = [
    "Bundle",
    "Extractor",
    "ImageError",
    "InputError",
    "LightGlueError",
    "MatchedPair",
    "Matcher",
    "ModelError",
    "__version__",
    "load",
]


def __getattr__(name: str) -> Any:
    if name not in _OWNERS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{_OWNERS[name]}"), name)
    setattr(sys.modules[__name__], name, value)  # so that it is found at once from now on
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
