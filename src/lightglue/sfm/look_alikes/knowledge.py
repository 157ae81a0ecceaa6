"""What is known of images besides their matches: when and where they were taken, and which pairs somebody chose."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lightglue.support.natural import natural_key

__all__ = ["Knowledge", "shift"]

Array = NDArray[np.float64]

_LIKELY = 0.9  # pairs whose distance says how far apart images that share something are here
_PAIRS = 5  # of them, at the fewest
_TIMES = 5  # times as far apart as most of them are
_LEAST = 50.0  # m: GPS is no better
_FAR = -3.0  # on the logit of a pair of images that are far apart
_GIVEN = 1.5  # on that of a pair that somebody chose


@dataclass(frozen=True, eq=False)
class Knowledge:
    """Of the images of a graph, in its order."""

    orders: tuple[tuple[str, NDArray[np.int64]], ...] = ()  # what an order is called, and each image's place in it
    positions: Array | None = None  # (I, 3) m; NaN where an image does not say
    given: frozenset[tuple[int, int]] = frozenset()  # rows of images

    @classmethod
    def of(
        cls,
        names: Sequence[str],
        times: Sequence[float] | None = None,
        positions: Array | None = None,
        given: Iterable[tuple[str, str]] = (),
    ) -> Knowledge:
        """Of images by name. times: s, NaN where an image does not say; they order them if all do."""
        natural = sorted(range(len(names)), key=lambda at: natural_key(names[at]))  # img2 before img10
        orders = [("the names", np.argsort(natural))]
        if times is not None and len(times) and np.isfinite(times).all() and len(set(times)) == len(times):
            orders.append(("the times", np.argsort(np.argsort(times))))
        row = {name: at for at, name in enumerate(names)}
        chosen = (sorted((row[a], row[b])) for a, b in given if a in row and b in row)
        return cls(tuple(orders), positions, frozenset((a, b) for a, b in chosen))


def shift(knowledge: Knowledge, edges: NDArray[np.int64], probability: Array) -> Array:
    """(E,) what the places of images, and the choice of pairs, add to the logit of each pair."""
    result = np.zeros(len(edges))
    if knowledge.given:
        result += [_GIVEN * ((int(a), int(b)) in knowledge.given) for a, b in edges]
    if knowledge.positions is not None and len(edges):
        ends = knowledge.positions[edges]
        apart = np.linalg.norm(ends[:, 0] - ends[:, 1], axis=1)  # NaN where one is not known
        usual = apart[np.isfinite(apart) & (probability >= _LIKELY)]
        if len(usual) >= _PAIRS:
            result[apart > max(_LEAST, _TIMES * float(np.percentile(usual, 75)))] += _FAR
    return result
