"""A cache bounded by the size of what it holds."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable
from threading import Lock
from typing import Generic, TypeVar

__all__ = ["BoundedCache"]

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


class BoundedCache(Generic[K, V]):
    """Values by key, of which the least recently used are dropped. Safe under threads.

    limit: the sum of sizes that may be held, in the unit of `size`, such as bytes.
    size: of a value; without it each counts as 1.
    keep: as many values are held whatever their size, for callers that use several at once.
    """

    def __init__(self, limit: float, size: Callable[[V], float] = lambda value: 1, keep: int = 1) -> None:
        self._limit, self._size, self._keep = limit, size, keep
        self._held: OrderedDict[K, tuple[V, float]] = OrderedDict()
        self._total = 0.0
        self._lock = Lock()

    def get(self, key: K, make: Callable[[], V]) -> V:
        """The value of `key`, made where it is not held. What `make` raises is passed on, and nothing is held then.

        Threads that ask for the same missing key at once may each make it; one value is held.
        """
        with self._lock:
            if key in self._held:
                self._held.move_to_end(key)
                return self._held[key][0]
        value = make()  # outside the lock: it may take long, and other keys need not wait
        with self._lock:
            if key not in self._held:
                self._held[key] = value, self._size(value)
                self._total += self._held[key][1]
            while self._total > self._limit and len(self._held) > self._keep:
                self._total -= self._held.popitem(last=False)[1][1]
        return value

    def __len__(self) -> int:
        return len(self._held)
