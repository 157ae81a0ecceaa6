"""What `effort="hard"` does with a pair that has been matched; what it needs is loaded when it is called."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from lightglue.pairs.oriented import OrientedImage
from lightglue.pairs.record import MatchedPair
from lightglue.types import Extractor, Matcher

__all__ = ["Attempt"]


@dataclass(frozen=True, eq=False)
class Attempt:
    """Goes on where plain matching has found little."""

    extractor: Extractor
    options: Mapping[str, Any]  # of `extract`, as the pair was made with
    max_seconds: float | None  # for a pair; None: no limit

    def __call__(
        self, pair: MatchedPair, images: tuple[OrientedImage, OrientedImage], matcher: Matcher, seconds: float
    ) -> MatchedPair:
        """`pair` with what more is found; seconds: that it took so far."""
        from lightglue.pairs.hard.pair import match_hard

        both = images[0].pixels(), images[1].pixels()
        masks = images[0].read_mask(), images[1].read_mask()
        limits: dict[str, Any] = {"max_seconds": self.max_seconds, "seconds": seconds}
        return match_hard(pair, both, masks, self.extractor, matcher, self.options, **limits)
