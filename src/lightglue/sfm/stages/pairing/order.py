"""Pairs by the order of the names: every one, or those that follow one another."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from lightglue.errors import InputError
from lightglue.support.natural import natural_key

__all__ = ["exhaustive", "offsets", "sequences", "sequential"]

Indices = NDArray[np.int64]


def exhaustive(count: int, limit: int) -> Indices:
    """Every pair of `count` images: (P, 2). Raises InputError for more than `limit` images."""
    if count > limit:
        raise InputError(
            f"{count:,} images make {count * (count - 1) // 2:,} pairs, more than are worth matching; choose the pairs "
            f"by retrieval, or raise max_exhaustive ({limit:,})."
        )
    return np.stack(np.triu_indices(count, 1), axis=1).astype(np.int64)


def sequential(names: Sequence[str], overlap: int, quadratic: bool = False) -> Indices:
    """Each image with those that follow it in its folder: (P, 2).

    overlap: how many.
    quadratic: also those 1, 2, 4, ... images on, as many again, as COLMAP's sequential matcher has it.
    """
    found = []
    for sequence in sequences(names):
        for offset in offsets(overlap, quadratic):
            if offset < len(sequence):
                found.append(np.stack([sequence[:-offset], sequence[offset:]], axis=1))
    return np.concatenate(found) if found else np.empty((0, 2), np.int64)


def offsets(overlap: int, quadratic: bool) -> list[int]:
    """How far on in its sequence an image is matched."""
    return sorted({*range(1, overlap + 1), *(2**i for i in range(overlap if quadratic else 0))})


def sequences(names: Sequence[str]) -> Iterator[Indices]:
    """The indices of the images of each folder, in natural order."""
    folders = defaultdict(list)
    for index, name in enumerate(names):
        folders[name.rpartition("/")[0]].append(index)
    for _, members in sorted(folders.items()):
        yield np.array(sorted(members, key=lambda index: natural_key(names[index])), np.int64)
