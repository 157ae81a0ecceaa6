"""Which pairs to match next, from what is known of those that were matched: the steps of "growing" pairs.

First come images whose keypoints are alike, and those that follow each other by name. What they are found to have in
common says which others are worth it: images that see the same keypoints of a third one. Where nothing says so any
more and parts of the collection are not connected, the likeliest pairs between them are tried.

Every step depends on nothing but the pairs that were tried and what came of them, so that it is the same after a kill.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from lightglue.sfm.stages.pairing.order import sequential

__all__ = ["Grown", "apart", "first_pairs", "next_pairs"]

Indices = NDArray[np.int64]
Counts = NDArray[np.int64]

# Tuned on a flight over fields (caliterra): of pairs without overlap none had more than 7 keypoints that are each
# other's most similar by the first ratio, a third of those that overlap and are not turned had fewer.
RATIOS = 0.85, 0.9  # that tell images that are alike, and that rank others
ALIKE = 8  # of 256 keypoints
FIRST, ANYHOW = 4, 1  # images that one is matched with first: of those alike, and of any
IN_COMMON = 20  # keypoints of third images that two are seen to have in common, which make them worth matching
CONNECTED = 25, 0.6  # matches that agree with one geometry, and their share, with which two images are connected
FEWEST = 2  # images that every one is to be connected with
TRIED, AT_ONCE = 12, 4  # pairs of an image in vain, after which it is left alone; in a round
# Keypoints of an image that two others must both match for a mapper to come from one to the other: it wants 30 points,
# and not all become some. Of caliterra's pairs those with fewer were where its map fell apart.
FIRM = 50
SMALLEST, FEW = 3, 0.05  # images of no part of so many are tried with every other, where they are a few of all


class _Joined:
    """Connected pairs of images that become parts as they are joined."""

    def __init__(self) -> None:
        self.parent: dict[tuple[int, int], tuple[int, int]] = {}

    def root(self, pair: tuple[int, int]) -> tuple[int, int]:
        while (parent := self.parent.setdefault(pair, pair)) != pair:
            self.parent[pair] = pair = self.parent[parent]
        return pair

    def join(self, one: tuple[int, int], other: tuple[int, int]) -> None:
        self.parent[self.root(one)] = self.root(other)


@dataclass(eq=False)
class Grown:
    """Pairs that were tried among `count` images, and what came of them."""

    count: int
    tried: NDArray[np.bool_] = field(init=False)  # (N, N)
    connected: NDArray[np.bool_] = field(init=False)  # (N, N)
    _seen: list[dict[int, Indices]] = field(init=False)  # of each image: by the other one, the keypoints matched

    def __post_init__(self) -> None:
        self.tried, self.connected = (np.zeros((self.count, self.count), np.bool_) for _ in range(2))
        self._seen = [{} for _ in range(self.count)]

    def add(self, image0: int, image1: int, inliers: Indices | None) -> None:
        """A pair that was tried. inliers: (K, 2) rows of keypoints; None where it is not connected."""
        self.tried[image0, image1] = self.tried[image1, image0] = True
        if inliers is not None:
            self.connected[image0, image1] = self.connected[image1, image0] = True
            self._seen[image0][image1], self._seen[image1][image0] = inliers[:, 0], inliers[:, 1]

    def in_common(self) -> Counts:
        """(N, N) keypoints of third images that are matched with both, added up."""
        common = np.zeros((self.count, self.count), np.int64)
        for _, others, shared in self._shared():
            common[np.ix_(others, others)] += shared
        np.fill_diagonal(common, 0)
        return common

    def _shared(self) -> Iterator[tuple[int, Indices, Counts]]:
        """Of each image the K that it is connected with, and (K, K) its keypoints that are matched with both."""
        for image, seen in enumerate(self._seen):
            others = np.array(sorted(seen), np.int64)
            if not len(others):
                continue
            size = 1 + max(int(rows.max(initial=0)) for rows in seen.values())
            matched = np.zeros((len(others), size), np.float32)
            for row, other in enumerate(others.tolist()):
                matched[row, seen[other]] = 1
            yield image, others, (matched @ matched.T).astype(np.int64)

    def parts(self) -> Indices:
        """(N,) which connected part each image is of: the lowest index of its images."""
        part = np.arange(self.count)
        while True:
            lowest = np.where(self.connected, part, self.count).min(axis=1, initial=self.count)
            lower = np.minimum(part, lowest)
            lower = np.minimum(lower, lower[lower])
            if (lower == part).all():
                return part
            part = lower

    def firm_parts(self) -> Indices:
        """(N,) the number of the part, of those that a mapper can build image by image, that each image is of.

        A mapper adds an image by points that it has: two connections of an image lead to one model where enough of its
        keypoints are matched in both. An image of several such parts counts to the largest.
        """
        joined = _Joined()
        for image, others, shared in self._shared():
            pairs = [(min(image, other), max(image, other)) for other in others.tolist()]
            for one, other in zip(*np.nonzero(np.triu(shared >= FIRM, 1)), strict=True):
                joined.join(pairs[one], pairs[other])
        members: dict[tuple[int, int], set[int]] = {}
        for one, other in zip(*(rows.tolist() for rows in np.nonzero(np.triu(self.connected))), strict=True):
            members.setdefault(joined.root((one, other)), set()).update((one, other))
        part = np.arange(self.count)
        for number, images in enumerate(sorted(members.values(), key=len), self.count):  # none of an image alone
            part[list(images)] = number
        return part


def first_pairs(names: Sequence[str], alike: Counts) -> Indices:
    """The pairs to begin with: (P, 2). alike: (N, N) of the first of `RATIOS`."""
    pairs = [sequential(names, 1)]
    for image, row in enumerate(alike):
        best = [other for other in np.argsort(-row, kind="stable").tolist() if other != image]
        pairs += [np.array([(image, other)], np.int64) for other in best[:ANYHOW]]
        pairs += [np.array([(image, other)], np.int64) for other in best[ANYHOW:FIRST] if row[other] >= ALIKE]
    return _unique(np.concatenate(pairs))


def next_pairs(grown: Grown, wanted: int, alike: Callable[[], Counts]) -> Indices:
    """The pairs to match next: (P, 2); none where nothing more is to be expected.

    wanted: images that one is to be connected with. alike: (N, N) of the second of `RATIOS`, asked for where it is
    needed.
    """
    for found in (_seen_in_common(grown, wanted), _of_the_lonely(grown, alike)):
        if len(found):
            return found
    return _across_thin_places(grown, alike)


def apart(
    grown: Grown, wanted: int, alike: Callable[[], Counts], looked_at: NDArray[np.bool_]
) -> tuple[Indices, Indices] | None:
    """The part of each image (N,), and the images (M,) outside the largest that may be rotated against the others.

    None as long as there are better things to do. First come those that nothing connects with the largest part, when
    `AT_ONCE` pairs of each were in vain; where no pair is worth matching any more, those of parts of `SMALLEST` or more
    that are not firmly joined. looked_at: (N,) those that were asked for already.
    """
    if len(_seen_in_common(grown, wanted)):
        return None
    part = grown.parts()
    outside = np.flatnonzero(_outside(part))
    in_vain = (grown.tried & ~grown.connected).sum(axis=1)[outside]
    images = outside[~looked_at[outside]]
    if len(images) and (in_vain >= min(AT_ONCE, grown.count - 1)).all():
        return part, images
    if len(next_pairs(grown, wanted, alike)):
        return None
    part = grown.firm_parts()
    is_strip = np.bincount(part)[part] >= SMALLEST  # smaller ones are thin places more than strips
    images = np.flatnonzero(_outside(part) & is_strip & ~looked_at)
    return (part, images) if len(images) else None


def _outside(part: Indices) -> NDArray[np.bool_]:
    """(N,) which images are not of the largest part."""
    return np.asarray(part != np.bincount(part).argmax())


def _seen_in_common(grown: Grown, wanted: int) -> Indices:
    """The pairs that see the same keypoints of third images, until each image has as many as are wanted."""
    degree = grown.connected.sum(axis=1)
    chosen = []
    for image0, image1 in _ranked(grown.in_common(), IN_COMMON, grown.tried):
        if min(degree[image0], degree[image1]) < wanted:
            chosen.append((image0, image1))
            degree[[image0, image1]] += 1
    return _unique(np.array(chosen, np.int64))


def _of_the_lonely(grown: Grown, alike: Callable[[], Counts]) -> Indices:
    """The likeliest pairs of images that nothing connects with the largest part, or no more than one other image."""
    part, degree = grown.parts(), grown.connected.sum(axis=1)
    sizes = np.bincount(part, minlength=grown.count)
    largest = sizes.argmax()
    alone = sizes[part] < SMALLEST
    may = np.where(alone & (alone.sum() <= max(1, FEW * grown.count)), grown.count, TRIED)
    left = may - (grown.tried & ~grown.connected).sum(axis=1)
    lonely = np.flatnonzero(((part != largest) | (degree < FEWEST)) & (left > 0))
    if not len(lonely):
        return np.empty((0, 2), np.int64)
    scores = np.where(grown.tried, -1, alike())
    np.fill_diagonal(scores, -1)
    chosen = []
    for image in lonely.tolist():
        row = np.where(part == part[image], -1, scores[image]) if part[image] != largest else scores[image]
        best = np.argsort(-row, kind="stable")[: min(AT_ONCE, left[image])]
        chosen += [(image, other) for other in best.tolist() if row[other] >= 0]
    return _unique(np.array(chosen, np.int64))


def _across_thin_places(grown: Grown, alike: Callable[[], Counts]) -> Indices:
    """The likeliest pairs that would join parts, which are connected, firmly with the largest.

    What both see in common speaks for a pair though they have as many as are wanted. Where nothing does, a few of those
    that look most alike are tried.
    """
    firm, part = grown.firm_parts(), grown.parts()
    largest = int(np.bincount(firm).argmax())
    near = np.unique(firm[part == part[int(np.argmax(firm == largest))]])
    if len(near) < 2:
        return np.empty((0, 2), np.int64)
    common = grown.in_common()
    chosen = []
    for each in near[near != largest].tolist():
        across = np.zeros_like(grown.tried)
        across[np.ix_(firm == each, firm == largest)] = True
        scores = np.where(across & ~grown.tried, common, -1)
        if scores.max() < IN_COMMON:
            in_vain = int((across & grown.tried & ~grown.connected).sum())
            scores = np.where(scores >= 0, alike() if in_vain < TRIED else 0, -1)
        best = np.argsort(-scores, axis=None, kind="stable")[:AT_ONCE]
        rows, others = np.unravel_index(best[scores.flat[best] > 0], scores.shape)
        chosen += list(zip(rows.tolist(), others.tolist(), strict=True))
    return _unique(np.array(chosen, np.int64))


def _ranked(scores: Counts, least: int, closed: NDArray[np.bool_]) -> Iterable[tuple[int, int]]:
    """The pairs with the highest scores, of at least `least`, that are not closed; of equal ones the first."""
    rows, others = np.nonzero(np.triu((scores >= least) & ~closed, 1))
    order = np.argsort(-scores[rows, others], kind="stable")
    return zip(rows[order].tolist(), others[order].tolist(), strict=True)


def _unique(pairs: Indices) -> Indices:
    return np.unique(np.sort(pairs.reshape(-1, 2), axis=1), axis=0)
