"""Cameras in step: folders whose images were taken at the same moments, such as `left` and `right`.

Names alone are looked at, so this may take two walks of the same length for two cameras. That costs one pair an image,
which verification drops again; cameras that were not taken for such would cost the links between them.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from lightglue.sfm.stages.pairing.order import sequences

__all__ = ["in_step"]

MOST_CAMERAS = 16  # more folders side by side are scenes: pairs across them would outnumber those within
SHARED = 0.75  # of the images of the smaller folder: so many names in common are those of the same moments

Indices = NDArray[np.int64]


def in_step(names: Sequence[str]) -> Indices:
    """The pairs of images that cameras in step took at the same moment: (P, 2).

    Two folders are candidates if their paths differ in one part: `left` and `right`, `cam0/data` and `cam1/data`. With
    equally many images they are in step, and images of the same rank were taken at once. Otherwise they are in step
    if most of their images share the name, or its last number, and those that do were taken at once.
    """
    folders = {names[members[0]].rpartition("/")[0]: members for members in sequences(names)}
    found = [np.empty((0, 2), np.int64)]
    for group in _alike(folders):
        if len(group) <= MOST_CAMERAS:
            found += [_at_once(names, folders[one], folders[other]) for one, other in combinations(group, 2)]
    return np.concatenate(found)


def _alike(folders: Iterable[str]) -> Iterator[list[str]]:
    """Groups of folders whose paths differ in the same one part. What lies in no folder is of no group."""
    groups = defaultdict(list)
    for folder in filter(None, folders):
        parts = folder.split("/")
        for at in range(len(parts)):
            groups[(at, *parts[:at], "", *parts[at + 1 :])].append(folder)
    return (group for group in groups.values() if len(group) > 1)


def _at_once(names: Sequence[str], one: Indices, other: Indices) -> Indices:
    """The pairs of two folders: by rank, by name, by number, or none."""
    if len(one) == len(other):
        return np.stack([one, other], axis=1)
    for key in (_stem, _number):
        left, right = _by_key(names, one, key), _by_key(names, other, key)
        shared = sorted(left.keys() & right.keys())
        if len(shared) >= SHARED * min(len(one), len(other)):
            return np.array([(left[each], right[each]) for each in shared], np.int64).reshape(-1, 2)
    return np.empty((0, 2), np.int64)


def _by_key(names: Sequence[str], members: Indices, key: Callable[[str], str]) -> dict[str, int]:
    """Image of each key that only one image of a folder has."""
    found = defaultdict(list)
    for index in members.tolist():
        found[key(names[index])].append(index)
    return {each: indices[0] for each, indices in found.items() if each and len(indices) == 1}


def _stem(name: str) -> str:
    return name.rpartition("/")[2].rpartition(".")[0]


def _number(name: str) -> str:
    """The last number of a name, without leading zeros; empty where there is none."""
    numbers = re.findall("[0-9]+", _stem(name))
    return (numbers[-1].lstrip("0") or "0") if numbers else ""
