"""How far an exported model may be from its reference, by precision, and why so far.

float32: the same products in another order. Sums of 256 products differ by some 1e-6 relative, nine layers later scores
by up to 1e-4; no match depends on that but one whose score is as close to the threshold, and those are not counted.

float16, bfloat16 and int8 round weights or products to 11, 8 and 7 bits. A mutual nearest neighbour whose runner-up is
as good changes then, and a pair may stop a layer earlier or later, which changes the scores of all its matches: so what
counts is the share of matches, and the median difference of scores. docs/parity.md has what was measured.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from types import MappingProxyType

from lightglue.errors import InputError
from lightglue.options import nearest_name
from lightglue.support.checks import check_real

__all__ = ["LIMITS", "Limits", "limits_for", "parse_limit"]


@dataclass(frozen=True)
class Limits:
    """The largest differences that pass. Shares are 0 to 1."""

    kept: float  # least share of the reference's matches that the file has
    new: float  # largest share of the file's matches that the reference lacks
    score_max: float  # of the matches that both have
    score_median: float
    stop: float  # layers
    prune: float  # least share of keypoints that went through as many layers
    keypoints: float  # least share of the reference's keypoints that the file has, within 0.1 px
    position: float  # px, largest of the keypoints that both have
    descriptor: float  # largest difference of an entry of a descriptor, of the keypoints that both have

    def __post_init__(self) -> None:
        for field in fields(self):
            check_real(f"limit {field.name}", getattr(self, field.name), "a number of at least 0", 0)


LIMITS: Mapping[str, Limits] = MappingProxyType(
    {
        "f32": Limits(1, 0, 1e-4, 5e-5, 0, 0.995, 0.99, 0.02, 1e-3),
        "f16": Limits(0.97, 0.03, 0.2, 0.005, 1, 0, 0.95, 0.1, 0.02),
        "bf16": Limits(0.8, 0.2, 1, 0.05, 2, 0, 0.8, 0.1, 0.1),
        "int8": Limits(0.85, 0.15, 1, 0.05, 2, 0, 0.8, 0.1, 0.1),
    }
)
# Extraction and matching in one file: a keypoint that is the last of the best by one rounding and by another is not
# changes the attention of all others a little.
PIPELINE_F32 = replace(LIMITS["f32"], kept=0.98, new=0.02, score_max=0.1, score_median=1e-3, stop=1)
# The tokens of XFeat's matcher grow large: torch's own float32 scores are up to 4e-4 from those of float64.
XFEAT_F32 = replace(LIMITS["f32"], score_max=1e-3)
FEW = 20  # matches; below them shares and medians say little, and one match more may differ


def limits_for(kind: str, features: str, precision: str, changed: Mapping[str, float]) -> Limits:
    """The limits of a kind of file, its features and a precision, with what the user has changed. Raises InputError."""
    usual = LIMITS[precision]
    if precision == "f32" and kind == "pipeline":
        usual = PIPELINE_F32
    elif precision == "f32" and features == "xfeat" and kind != "extractor":
        usual = XFEAT_F32
    return replace(usual, **changed)


def parse_limit(text: str) -> tuple[str, float]:
    """`kept=0.9`. Raises InputError."""
    name, equals, value = text.partition("=")
    valid = [field.name for field in fields(Limits)]
    if name not in valid or not equals:
        nearest = nearest_name(name, valid)
        hint = f"Did you mean {nearest!r}? " if nearest and nearest != name else ""
        raise InputError(f"'{text}' is no limit; give NAME=VALUE. {hint}Names: {', '.join(valid)}.")
    try:
        number = float(value)
    except ValueError:
        raise InputError(f"'{text}': {value!r} is not a number.") from None
    check_real(f"limit {name}", number, "a number of at least 0", 0)
    return name, number
