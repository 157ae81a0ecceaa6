"""What users gave and what came of it: in memory, under names that cannot be guessed, until it is old or too much."""

from __future__ import annotations

import secrets
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

from lightglue.web.failures import FailureError

__all__ = ["Store", "new_id"]

V = TypeVar("V")
_REMEMBERED = 10_000  # names of what is gone, to be distinguished from what never was


def new_id() -> str:
    """A name that nobody can guess."""
    return secrets.token_urlsafe(18)


@dataclass
class _Held(Generic[V]):
    value: V
    size: int
    used: float


class Store(Generic[V]):
    """Values by name. For one thread, that of the service.

    what: in messages, such as "image". limit: bytes. seconds: after the last use. clock: for tests.
    used: gets a value that is used. gone: gets the name of one that is no longer kept.
    """

    def __init__(
        self,
        what: str,
        limit: int,
        seconds: float,
        clock: Callable[[], float] = time.monotonic,
        used: Callable[[V], None] = lambda value: None,
        gone: Callable[[str], None] = lambda name: None,
    ) -> None:
        self._what, self._limit, self._seconds, self._clock = what, limit, seconds, clock
        self._on_use, self._on_end = used, gone
        self._held: OrderedDict[str, _Held[V]] = OrderedDict()
        self._gone: OrderedDict[str, bool] = OrderedDict()  # whether a user removed it
        self._pinned: dict[str, V] = {}
        self.size = 0  # bytes

    def pin(self, name: str, value: V) -> None:
        """Keep it for good: what belongs to the service."""
        self._pinned[name] = value

    def __len__(self) -> int:
        return len(self._held)

    def __contains__(self, name: str) -> bool:
        return name in self._held or name in self._pinned

    def items(self) -> list[tuple[str, V]]:
        """Names and values of what users have given."""
        return [(name, held.value) for name, held in self._held.items()]

    def touch(self, name: str) -> None:
        """Count it as used, where it is there."""
        if name in self._held:
            self._held[name].used = self._clock()
            self._held.move_to_end(name)

    def put(self, value: V, size: int, name: str | None = None) -> str:
        """Keep `value` of `size` bytes; the least recently used ones go to make room. Raises FailureError (507)."""
        if size > self._limit:
            raise FailureError.of(507, "memory", f"The {self._what} has {size:,} bytes, more than is kept here.")
        name = name or new_id()
        self._drop(name)
        self._held[name] = _Held(value, size, self._clock())
        self.size += size
        while self.size > self._limit:
            self._expire(next(iter(self._held)))
        return name

    def get(self, name: str, field: str | None = None) -> V:
        """What is kept under `name`. field: of the request, for messages.

        Raises FailureError: 404 for what never was, 410 for what is gone.
        """
        self.sweep()
        if name in self._pinned:
            return self._pinned[name]
        held = self._held.get(name)
        if held is None:
            if name in self._gone:
                raise FailureError.of(410, "expired", f"This {self._what} is no longer kept; send it again.", field)
            raise FailureError.of(404, "unknown", f"There is no such {self._what} here.", field)
        self.touch(name)
        self._on_use(held.value)
        return held.value

    def resize(self, name: str, size: int) -> None:
        """Say how many bytes a value has now. Raises FailureError where it is gone, or too large to be kept."""
        self.put(self.get(name), size, name)

    def remove(self, name: str) -> None:
        """Forget it now. Raises FailureError as `get`; 403 for what belongs to the service."""
        self.get(name)
        if name in self._pinned:
            raise FailureError.of(403, "kept", f"This {self._what} belongs to the service.")
        self._expire(name, removed=True)

    def was_removed(self, name: str) -> bool:
        """Whether a user removed it, rather than that it was too old or too much."""
        return self._gone.get(name, False)

    def forget(self, name: str) -> None:
        """The same, without a word where it is not there."""
        if name in self._held:
            self._expire(name)

    def sweep(self) -> None:
        """Drop what is too old."""
        oldest = self._clock() - self._seconds
        while self._held and next(iter(self._held.values())).used < oldest:
            self._expire(next(iter(self._held)))

    def clear(self) -> None:
        """Forget all."""
        self._held.clear()
        self.size = 0

    def _expire(self, name: str, removed: bool = False) -> None:
        self._drop(name)
        self._gone[name] = removed
        self._on_end(name)
        while len(self._gone) > _REMEMBERED:
            self._gone.popitem(last=False)

    def _drop(self, name: str) -> None:
        held = self._held.pop(name, None)
        self.size -= 0 if held is None else held.size
