"""What is kept of a matched pair, so that files can be written and geometry estimated of it later."""

from __future__ import annotations

import pickle
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from lightglue.pairs.asked import PairRequest
from lightglue.pairs.record import MatchedPair

__all__ = ["Kept"]


@dataclass(frozen=True)
class Kept:
    """What is kept of a pair for later: without descriptors, models and images."""

    pair: MatchedPair  # all matches that the browser may show, without a geometry
    summary: dict[str, Any]  # of `MatchedFiles`, of the matches that the options ask for
    request: PairRequest
    threshold: float | None  # of scores, that the options ask for; None where there is none
    sizes: tuple[tuple[int, int], tuple[int, int]]  # width, height

    def pack(self) -> bytes:
        """For the service, which hands it back as it is."""
        return pickle.dumps(self)

    @staticmethod
    def unpack(packed: bytes) -> Kept:
        """What `pack` gave, in this service."""
        kept: Kept = pickle.loads(packed)
        return kept

    def order(self) -> Tensor:
        """(K,) rows of the matches as they are shown: highest scores first, of equal ones the first."""
        return (-self.pair.scores).argsort(stable=True)

    def places(self) -> list[int]:
        """Where each match stands in this order."""
        places: list[int] = self.order().argsort().tolist()
        return places

    def asked_for(self, threshold: float | None = None) -> list[bool]:
        """Of each match whether it scores more than a threshold: by default the one that the options ask for."""
        wanted = self.threshold if threshold is None else threshold
        if wanted is None or self.threshold is None:
            return [True] * len(self.pair.matches)
        found: list[bool] = (self.pair.scores > wanted).tolist()
        return found
