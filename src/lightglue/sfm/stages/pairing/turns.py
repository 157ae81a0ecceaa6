"""By how much images that nothing connects with the others are rotated against them."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

__all__ = ["TURNS", "agreed_turns", "some_of_each"]

Indices = NDArray[np.int64]
Counts = NDArray[np.int64]

TURNS = 4  # of 90 degrees; descriptors hold for some 45 to both sides
EVIDENCE = 8  # keypoints that are each other's most similar: pairs without overlap have up to 7 (`growth.ALIKE`)
CLEAR = 2.0  # how many times that of any other turn the evidence for one must be
LOOKED_AT = 3  # images of a part that say how all of it is rotated


def some_of_each(parts: Indices, images: Indices) -> Indices:
    """At most `LOOKED_AT` of `images` of each part, spread over it."""
    chosen = []
    for part in np.unique(parts[images]):
        members = images[parts[images] == part]
        chosen.append(members[np.unique(np.linspace(0, len(members) - 1, LOOKED_AT).round().astype(np.int64))])
    return np.sort(np.concatenate([np.empty(0, np.int64), *chosen]))


def agreed_turns(parts: Indices, counts: Counts) -> Indices:
    """(N,) quarter turns that make all parts look the same way up, as far as anything is known; the largest stays.

    parts: (N,) the part of each image, whose images are the right way up against each other. counts: (4, N, N), of each
    quarter turn, how many keypoints of an image (row) rotated by so many are those of another (column) as it is.

    Parts are joined by the strongest evidence first, as in a spanning tree; what contradicts what was stronger is left.
    """
    numbers, part = np.unique(parts, return_inverse=True)
    evidence = _between_parts(part, len(numbers), counts)
    sizes = np.bincount(part)
    group, turn = np.arange(len(numbers)), np.zeros(len(numbers), np.int64)
    best = evidence.argmax(axis=0)
    strength = evidence.max(axis=0)
    second = np.sort(evidence, axis=0)[-2]
    rows, columns = np.nonzero(np.triu((strength >= EVIDENCE) & (strength >= CLEAR * second), 1))
    for row, column in sorted(zip(rows.tolist(), columns.tolist(), strict=True), key=lambda at: -int(strength[at])):
        if group[row] == group[column]:
            continue
        mine, other = (row, column) if _largest(group, sizes, column) >= _largest(group, sizes, row) else (column, row)
        needed = best[row, column] if mine == row else -best[row, column]  # of mine, where the other is not turned
        members = group == group[mine]
        turn[members] = (turn[members] + needed + turn[other] - turn[mine]) % TURNS
        group[members] = group[other]
    return np.asarray(turn[part], np.int64)


def _largest(group: Indices, sizes: Indices, part: int) -> tuple[int, int]:
    """The size of the largest part of a group, and of equal ones the first."""
    members = np.flatnonzero(group == group[part])
    largest = members[sizes[members].argmax()]
    return int(sizes[largest]), -int(largest)


def _between_parts(part: Indices, count: int, counts: Counts) -> Counts:
    """(4, M, M) what speaks for each turn of a part (row) against another: the keypoints of all pairs of images."""
    back = counts[[-turn % TURNS for turn in range(TURNS)]].transpose(0, 2, 1)  # the other one turned the other way
    both = np.maximum(counts, back)
    both = np.where(both >= EVIDENCE, both, 0)
    members = np.eye(count, dtype=np.int64)[part]  # (N, M)
    found: Counts = np.einsum("np,tnm,mq->tpq", members, both, members, optimize=True)
    found[:, np.arange(count), np.arange(count)] = 0
    return found
