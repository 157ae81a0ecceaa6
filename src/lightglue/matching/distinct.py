"""Keypoints whose descriptors alone say which ones of the other image they are: mutual nearest ones without a rival."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from lightglue.support.products import similarities

__all__ = ["Distinct", "distinct_neighbors"]

Ints = NDArray[np.int64]
ROUNDING = 1e-6  # of a product of two descriptors: of two that are equal neither is to win by it


class Distinct(NamedTuple):
    """Matches that pass the ratio test from both images, ordered by image 0."""

    ij: Ints  # (K, 2)
    similarity: NDArray[np.float32]  # (K,) cosine
    margin: NDArray[np.float32]  # (K,) over the next best of either keypoint; infinite where there is no other


def distinct_neighbors(a: NDArray[np.float32], b: NDArray[np.float32], ratio: float) -> Distinct:
    """The mutual nearest neighbours of L2-normalised descriptors (M, D) and (N, D) that have no rival.

    What `NearestNeighbor(ratio_threshold=ratio)` finds (Lowe, IJCV 2004), but for rivals that rounding does not tell
    apart. It takes one matrix product and four passes over it: the maxima of rows and columns
    before and after the mutual ones are taken out. It does not depend on which image comes first, but for rounding.
    """
    if not len(a) or not len(b):
        return Distinct(np.zeros((0, 2), np.int64), np.zeros(0, np.float32), np.zeros(0, np.float32))
    # Not NumPy's product, which has threads of its own.
    similarity = similarities(torch.from_numpy(a), torch.from_numpy(b)).numpy()
    rows, columns = np.arange(len(a)), similarity.argmax(1)  # along rows: along columns it takes 20 times as long
    best = similarity[rows, columns]
    is_mutual = best == similarity.max(0)[columns]
    is_mutual[is_mutual] &= np.bincount(columns[is_mutual], minlength=len(b))[columns[is_mutual]] == 1
    rows, columns, best = rows[is_mutual], columns[is_mutual], best[is_mutual]
    similarity[rows, columns] = -np.inf
    second = np.maximum(similarity.max(1)[rows], similarity.max(0)[columns])
    kept = 1 - best + ROUNDING <= ratio**2 * (1 - second)  # squared distances, halved
    return Distinct(np.stack([rows, columns], 1)[kept], best[kept], (best - second)[kept])
