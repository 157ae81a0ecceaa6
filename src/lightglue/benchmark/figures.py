"""From the times of rounds to medians, ratios and shares: small pure functions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["ratios", "share_equal", "spread"]

_BLOCK = 1024  # rows that are compared with all others at once


def spread(values: Sequence[float]) -> dict[str, float | int]:
    """Median, quartiles and number of the values."""
    q1, median, q3 = (float(x) for x in np.percentile(np.asarray(values, np.float64), (25, 50, 75)))
    return {"median": median, "q1": q1, "q3": q3, "n": len(values)}


def ratios(base: Sequence[float], seconds: Sequence[float]) -> list[float]:
    """How many times as fast as `base` each round was: both were run in it, one right after the other."""
    return [b / s for b, s in zip(base, seconds, strict=True)]


def share_equal(
    rows0: NDArray[Any],  # (K, columns)
    rows1: NDArray[Any],  # (L, columns)
    tolerance: float,  # greatest difference in a column; 0: equal
) -> float:
    """The share of rows that both have, of the greater number of rows; 1 where neither has any."""
    most = max(len(rows0), len(rows1))
    if most == 0:
        return 1.0
    if not tolerance:
        return len({*map(tuple, rows0.tolist())} & {*map(tuple, rows1.tolist())}) / most
    if not len(rows0) or not len(rows1):
        return 0.0
    hits = 0
    for start in range(0, len(rows0), _BLOCK):
        block = rows0[start : start + _BLOCK, None]
        near = np.ones((len(block), len(rows1)), bool)
        for column in range(rows0.shape[1]):
            near &= np.abs(block[..., column] - rows1[None, :, column]) <= tolerance
        hits += int(near.any(1).sum())
    return hits / most
