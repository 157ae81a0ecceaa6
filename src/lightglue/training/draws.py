"""Random numbers that are a pure function of a key: the same in any process, with any version of NumPy."""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import blake2b
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

__all__ = ["Draws"]

Item = TypeVar("Item")
Floats = NDArray[np.float64]


class Draws:
    """A stream of random numbers for a key of integers and texts, such as (seed, "views", name, number).

    NumPy's Philox, keyed with a digest. Only its raw 64 bits are used: what NumPy's `Generator` makes of them may
    change from version to version, and a run must be resumable after an update.
    """

    def __init__(self, *key: int | str) -> None:
        digest = blake2b(repr(key).encode("utf-8", "surrogatepass"), digest_size=16).digest()
        self._bits = np.random.Philox(key=int.from_bytes(digest, "little"))

    def uniform(self, low: float = 0.0, high: float = 1.0) -> float:
        """A number from [low, high)."""
        return low + (high - low) * float(self.uniforms(1)[0])

    def uniforms(self, count: int) -> Floats:
        """(count,) numbers from [0, 1)."""
        bits: NDArray[np.uint64] = np.asarray(self._bits.random_raw(count), np.uint64)
        return (bits >> np.uint64(11)).astype(np.float64) * 2.0**-53

    def normals(self, count: int) -> Floats:
        """(count,) numbers of mean 0 and deviation 1, by Box and Muller."""
        half = -(-count // 2)
        radius, angle = np.sqrt(-2 * np.log1p(-self.uniforms(half))), 2 * np.pi * self.uniforms(half)
        return np.concatenate([radius * np.cos(angle), radius * np.sin(angle)])[:count]

    def chance(self, probability: float) -> bool:
        """True with this probability."""
        return self.uniform() < probability

    def below(self, count: int) -> int:
        """An integer from 0 to count - 1."""
        return min(count - 1, int(self.uniform() * count))

    def one_of(self, items: Sequence[Item]) -> Item:
        """One of them, each as likely."""
        return items[self.below(len(items))]

    def permutation(self, count: int) -> NDArray[np.int64]:
        """The integers from 0 to count - 1 in random order."""
        if not count:
            return np.zeros(0, np.int64)
        return np.argsort(np.asarray(self._bits.random_raw(count), np.uint64), kind="stable")
