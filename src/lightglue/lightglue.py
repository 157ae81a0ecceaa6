"""Where the published package keeps `LightGlue`, its layers and its pure functions."""

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
from lightglue.support.patches import watch

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

_EFFECTIVE = {"normalize_keypoints": inputs}
watch(
    __name__,
    _EFFECTIVE,
    unused={*__all__} - {"LightGlue", *_EFFECTIVE},
    remedy="replace the modules of a matcher, such as matcher.log_assignment[-1]",
)
