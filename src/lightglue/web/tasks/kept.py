"""What is kept of a matched pair, so that files can be written and geometry estimated of it later."""

from __future__ import annotations

import pickle
from dataclasses import dataclass
from typing import Any

from lightglue.pairs.asked import PairRequest
from lightglue.pairs.record import MatchedPair

__all__ = ["Kept"]


@dataclass(frozen=True)
class Kept:
    """A pair without descriptors, models and images."""

    pair: MatchedPair  # all matches that may be shown, without a geometry
    summary: dict[str, Any]  # of `MatchedFiles`, of the matches that the options ask for
    request: PairRequest
    threshold: float  # of scores, that the options ask for
    floor: float  # that the matches of `pair` exceed
    sizes: tuple[tuple[int, int], tuple[int, int]]  # width, height

    def pack(self) -> bytes:
        """For the service, which hands it back as it is."""
        return pickle.dumps(self)

    @staticmethod
    def unpack(packed: bytes) -> Kept:
        """What `pack` gave, in this service."""
        kept: Kept = pickle.loads(packed)
        return kept
