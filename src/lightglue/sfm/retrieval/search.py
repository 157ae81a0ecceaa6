"""The most alike of many descriptors, exactly, whatever the blocks.

Descriptors are kept as whole numbers with a length of at most 4,096. Every partial sum of a product of two is then a
whole number below 2^24, which single precision holds exactly, so that no order of summation and no size of block
changes a score, and equal ones are equal: of those the first counts. (On a GPU: unless TF32 has been switched on.)
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

__all__ = ["cosine", "most_alike", "quantize"]

Descriptors = NDArray[np.int16]  # (N, E)

_LENGTH = 4096
_BLOCK_BYTES = 64 * 2**20  # of a block of descriptors in single precision


def quantize(descriptor: torch.Tensor) -> Descriptors:
    """(E,) of length 1, or zeros, to (E,) int16."""
    return (descriptor * _scale(len(descriptor))).round().to(torch.int16).numpy()


def _scale(size: int) -> float:
    return _LENGTH - math.sqrt(size) / 2  # rounding adds at most half a unit to each number


def cosine(scores: NDArray[np.int64], size: int) -> NDArray[np.float64]:
    """Products of quantized descriptors of `size` numbers as cosines."""
    return scores / _scale(size) ** 2


def most_alike(
    queries: Descriptors, database: Descriptors, k: int, device: str | torch.device = "cpu"
) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """For blocks of the queries, in their order: indices (Q, k) of the most alike, best first, and scores (Q, k).

    -1 stands where there are no more. Descriptors of nothing but zeros are like nothing.
    """
    rows = max(1, _BLOCK_BYTES // (4 * max(1, queries.shape[1])))
    k = min(max(k, 0), len(database))
    for start in range(0, len(queries), min(rows, 4096)):
        block = _single(queries[start : start + min(rows, 4096)], device)
        best = torch.empty((len(block), 0), dtype=torch.float64, device=device)
        for first in range(0, len(database), rows):
            best = _best_keys(best, block, _single(database[first : first + rows], device), first, k)
        keys = best.cpu().numpy()
        found = np.isfinite(keys)
        scores, back = np.divmod(np.where(found, keys, 0).astype(np.int64), 2**28)
        yield np.where(found, 2**28 - 1 - back, -1), np.where(found, scores, 0)


def _best_keys(best: torch.Tensor, block: torch.Tensor, others: torch.Tensor, first: int, k: int) -> torch.Tensor:
    """The `k` greatest of the keys so far and those of more descriptors.

    A key is a score (under 2^24 in size) times 2^28, plus how far from the end an index is: exact in double precision,
    and no two are equal.
    """
    keys = (block @ others.T).double().mul_(2.0**28)
    keys += 2.0**28 - 1 - first - torch.arange(len(others), device=keys.device, dtype=torch.float64)
    keys[:, ~others.any(dim=1)] = -math.inf
    keys[~block.any(dim=1)] = -math.inf
    keys = torch.cat([best, keys.topk(min(k, keys.shape[1]), dim=1).values], dim=1)
    return keys.topk(min(k, keys.shape[1]), dim=1).values


def _single(descriptors: Descriptors, device: Any) -> torch.Tensor:
    return torch.from_numpy(np.ascontiguousarray(descriptors)).to(device).float()
