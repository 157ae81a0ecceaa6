"""The time that may be spent on a pair."""

from __future__ import annotations

from collections.abc import Callable
from time import perf_counter

__all__ = ["Budget"]


class Budget:
    """Seconds from now on; a step that would not end in time is not begun."""

    def __init__(self, seconds: float | None, clock: Callable[[], float] = perf_counter) -> None:
        self._seconds, self._clock = seconds, clock
        self._begin = clock()
        self._longest: dict[str, float] = {}

    @property
    def spent(self) -> float:
        """Seconds so far."""
        return self._clock() - self._begin

    def allows(self, kind: str, share: float = 1.0) -> bool:
        """Whether a step of this kind would end in time, if it took as long as the longest one so far.

        share: of the seconds, in which it is to end; what follows has the others.
        """
        return self._seconds is None or self.spent + self._longest.get(kind, 0.0) < share * self._seconds

    def took(self, kind: str, begin: float) -> None:
        """A step of this kind has ended, which began when `spent` was `begin`."""
        self._longest[kind] = max(self._longest.get(kind, 0.0), self.spent - begin)
