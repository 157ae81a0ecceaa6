"""Endless sequences of pairs, each a pure function of (seed, number)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from math import ceil, floor
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from lightglue.support.caches import BoundedCache
from lightglue.training.draws import Draws

__all__ = ["BinnedStream", "Bins", "Mixture", "PlainStream", "Stream"]

Pairs = NDArray[np.int32]  # (P, 2) rows of views
_BLOCK = 100  # samples that hold each source as often as its weight says


class Stream(Protocol):
    """The pairs of a source."""

    @property
    def length(self) -> int:
        """Pairs in an epoch."""
        ...

    def pair(self, n: int) -> tuple[int, int]:
        """The n-th pair."""
        ...


@dataclass(frozen=True, eq=False)
class PlainStream:
    """All pairs in random order, then all of them in another one."""

    key: tuple[int | str, ...]
    pairs: Pairs
    _orders: BoundedCache[int, NDArray[np.int64]] = field(default_factory=lambda: BoundedCache(2), repr=False)

    def __reduce__(self) -> Any:
        return PlainStream, (self.key, self.pairs)

    @property
    def length(self) -> int:
        """See `Stream`."""
        return len(self.pairs)

    def pair(self, n: int) -> tuple[int, int]:
        """See `Stream`."""
        epoch, at = divmod(n, self.length)
        order = self._orders.get(epoch, lambda: Draws(*self.key, "order", epoch).permutation(self.length))
        first, second = self.pairs[order[at]]
        return int(first), int(second)


@dataclass(frozen=True, eq=False)
class Bins:
    """The pairs of a scene, by how much they overlap."""

    pairs: Sequence[Pairs]  # of each bin

    def counts(self, wanted: int) -> list[int]:
        """How many of each bin to draw: as many of each, as far as there are; what one lacks, the others give."""
        counts = [0] * len(self.pairs)
        room = [len(pairs) for pairs in self.pairs]
        while wanted > 0 and (open_bins := [i for i, each in enumerate(room) if each]):
            for rank, i in enumerate(open_bins):
                share = min(room[i], wanted // len(open_bins) + (rank < wanted % len(open_bins)))
                counts[i] += share
                room[i] -= share
            wanted = wanted - sum(counts) if sum(counts) < wanted else 0
        return counts


@dataclass(frozen=True, eq=False)
class BinnedStream:
    """Of each scene some pairs of each bin of overlap, drawn again each epoch."""

    key: tuple[int | str, ...]
    scenes: Sequence[Bins]
    wanted: int  # of each scene
    _epochs: BoundedCache[int, Pairs] = field(default_factory=lambda: BoundedCache(2), repr=False)

    def __reduce__(self) -> Any:
        return BinnedStream, (self.key, self.scenes, self.wanted)

    @property
    def length(self) -> int:
        """See `Stream`."""
        return sum(sum(scene.counts(self.wanted)) for scene in self.scenes)

    def pair(self, n: int) -> tuple[int, int]:
        """See `Stream`."""
        epoch, at = divmod(n, self.length)
        first, second = self._epochs.get(epoch, lambda: self._drawn(epoch))[at]
        return int(first), int(second)

    def _drawn(self, epoch: int) -> Pairs:
        draws = Draws(*self.key, "pairs", epoch)
        drawn = [
            pairs[draws.permutation(len(pairs))[:count]]
            for scene in self.scenes
            for pairs, count in zip(scene.pairs, scene.counts(self.wanted), strict=True)
        ]
        every = np.concatenate(drawn)
        every = every[draws.permutation(len(every))]
        swapped = draws.uniforms(len(every)) < 0.5  # neither image is always the first
        every[swapped] = every[swapped][:, ::-1]
        return every


@dataclass(frozen=True, eq=False)
class Mixture:
    """Several streams, each as often as its weight says, within every hundred samples."""

    key: tuple[int | str, ...]
    streams: Sequence[Stream]
    weights: Sequence[float]

    @property
    def epoch(self) -> int:
        """Samples until every pair of every stream was drawn."""
        if len(self.streams) == 1:
            return self.streams[0].length
        counts = self._counts()
        return max(ceil(each.length / count) * _BLOCK for each, count in zip(self.streams, counts, strict=True))

    def pair(self, k: int) -> tuple[int, int]:
        """The k-th pair."""
        if len(self.streams) == 1:
            return self.streams[0].pair(k)
        block, at = divmod(k, _BLOCK)
        counts = self._counts()
        order = np.repeat(np.arange(len(counts)), counts)[Draws(*self.key, "mixture", block).permutation(_BLOCK)]
        which = int(order[at])
        return self.streams[which].pair(block * counts[which] + int((order[:at] == which).sum()))

    def _counts(self) -> list[int]:
        """Of each stream in a block, at least one."""
        total = sum(self.weights)
        exact = [_BLOCK * weight / total for weight in self.weights]
        counts = [max(1, floor(each)) for each in exact]
        by_need = sorted(range(len(exact)), key=lambda i: (counts[i] - exact[i], i))
        at = 0
        while sum(counts) < _BLOCK:
            counts[by_need[at % len(counts)]] += 1
            at += 1
        while sum(counts) > _BLOCK:
            counts[counts.index(max(counts))] -= 1
        return counts
