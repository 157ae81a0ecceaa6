"""How alike images are, by keypoints that are each other's most similar: slower than a descriptor of the whole image
for very many images, and much surer.

Of two images that show the same thing the same way up many keypoints are, and stand out from the second most similar;
of two others next to none. Of images that are rotated by more than some 30 degrees it says nothing, for the features
that are not made for that (docs/decisions/038).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
from numpy.typing import NDArray

from lightglue.errors import InputError, StoreError
from lightglue.stores import FeatureStore, ImageFeatures
from lightglue.support.progress import Progress
from lightglue_runtime.limits import usable_cores

__all__ = ["compared", "mutual_counts", "stored", "strongest"]

STRONGEST = 256  # keypoints of an image that are compared
_LENGTH = 4096  # of a descriptor of whole numbers: every partial sum of a product is exact, as in `search`
_BLOCK = 64  # images that one is compared with at once

Counts = NDArray[np.int64]


def mutual_counts(
    features: FeatureStore,
    names: list[str],
    ratios: tuple[float, ...],
    progress: Progress = lambda done, total: None,
) -> Counts:
    """(R, N, N): of each pair of images how many of their strongest keypoints are each other's most similar, and nearer
    to each other than `ratio` times the second nearest, for each of the ratios.

    The same on every machine. Images whose features are damaged are like no other.
    """
    described = [stored(features, name) for name in names]
    counts = np.zeros((len(ratios), len(names), len(names)), np.int64)

    def row(first: int) -> Counts:
        return compared(described[first], described[first + 1 :], ratios)

    threads = torch.get_num_threads()
    try:
        # What takes time lets go of Python. Each thread has torch's threads of its own, so many as were last set.
        with ThreadPoolExecutor(usable_cores(), initializer=torch.set_num_threads, initargs=(1,)) as pool:
            for first, found in enumerate(pool.map(row, range(len(names) - 1))):
                progress(first, len(names))
                counts[:, first, first + 1 :] = found
    finally:
        torch.set_num_threads(threads)
    return counts + counts.transpose(0, 2, 1)


def compared(own: torch.Tensor, others: Sequence[torch.Tensor], ratios: tuple[float, ...]) -> Counts:
    """(R, M): the same of one image with M others, all of them as `strongest` gives them."""
    blocks = [_compare(own, others[start : start + _BLOCK], ratios) for start in range(0, len(others), _BLOCK)]
    return np.concatenate([np.zeros((len(ratios), 0), np.int64), *blocks], axis=1)


def stored(features: FeatureStore, name: str) -> torch.Tensor:
    """The `strongest` of an image in a store; none where they are damaged."""
    try:
        return strongest(features.get(name))
    except (InputError, StoreError):
        return torch.empty(0, 0)


def strongest(found: ImageFeatures) -> torch.Tensor:
    """(K, D) descriptors of the best keypoints as whole numbers in single precision, K at most `STRONGEST`."""
    rows = np.arange(len(found)) if found.scores is None else np.argsort(-found.scores, kind="stable")
    descriptors = torch.from_numpy(found.descriptors[rows[:STRONGEST]].astype(np.float32))
    descriptors = descriptors[descriptors.isfinite().all(dim=1)]
    length = _LENGTH - math.sqrt(descriptors.shape[1]) / 2
    return (torch.nn.functional.normalize(descriptors, dim=1) * length).round()


def _compare(own: torch.Tensor, others: Sequence[torch.Tensor], ratios: tuple[float, ...]) -> Counts:
    """(R, M) counts of one image with others."""
    counts = np.zeros((len(ratios), len(others)), np.int64)
    there = [row for row, other in enumerate(others) if len(other) and other.shape[1] == own.shape[1]]
    if not there or not len(own):
        return counts
    sizes = [len(others[row]) for row in there]
    scores = torch.split(torch.cat([others[row] for row in there]) @ own.T, sizes)  # (K', K) each
    length = float(_LENGTH**2)
    ranks = np.arange(len(own))
    for row, score in zip(there, scores, strict=True):
        rows = score.T.contiguous().numpy()  # (K, K'), of which NumPy finds the greatest ten times as fast as torch
        nearest = rows.argmax(axis=1)
        is_mutual = score.numpy().argmax(axis=1)[nearest] == ranks
        best = rows[ranks, nearest]
        rows[ranks, nearest] = -np.inf
        away, farther = (
            length - best,
            length - rows.max(axis=1),
        )  # half of the squared distances; infinite for one alone
        for k, ratio in enumerate(ratios):
            counts[k, row] = int((is_mutual & (away < ratio**2 * farther)).sum())
    return counts
