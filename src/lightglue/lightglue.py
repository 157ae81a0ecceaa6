"""Where the published package keeps `LightGlue`, its layers and its pure functions."""

import sys
import warnings
from types import ModuleType
from typing import Any

from lightglue.matching import inputs
from lightglue.matching.assignment import filter_matches, sigmoid_log_double_softmax
from lightglue.matching.inputs import normalize_keypoints, pad_to_length
from lightglue.matching.lightglue import LightGlue
from lightglue.matching.network import (
    Attention,
    CrossBlock,
    LearnableFourierPositionalEncoding,
    MatchAssignment,
    SelfBlock,
    TokenConfidence,
    TransformerLayer,
    apply_cached_rotary_emb,
    rotate_half,
)

__all__ = [
    "Attention",
    "CrossBlock",
    "LearnableFourierPositionalEncoding",
    "LightGlue",
    "MatchAssignment",
    "SelfBlock",
    "TokenConfidence",
    "TransformerLayer",
    "apply_cached_rotary_emb",
    "filter_matches",
    "normalize_keypoints",
    "pad_to_length",
    "rotate_half",
    "sigmoid_log_double_softmax",
]


class _Patched(ModuleType):
    """This module, so that what is put in the place of one of its names has its effect or says that it has none."""

    def __setattr__(self, name: str, value: Any) -> None:
        if name == "normalize_keypoints":
            inputs.normalize_keypoints = value
        elif name in __all__:
            warnings.warn(
                f"lightglue.lightglue.{name} was replaced, which changes nothing in the matcher; replace the modules "
                "of a matcher, such as matcher.log_assignment[-1]",
                stacklevel=2,
            )
        super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Patched
