"""Interruptions that wait: what must not be cut in half is finished first."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable
from types import FrameType
from typing import Any

__all__ = ["Held"]

SAME_S = 1.0  # within which a second signal is the first one's: keys bounce, and launchers send what a terminal sent


class Held:
    """`with Held() as held:` around all, `with held:` around what must be whole.

    SIGINT and SIGTERM that come inside of the latter take effect at its end; a second one later than `SAME_S` at once.
    Nothing changes in other threads than the main one, and for signals that nobody handles.

    waits: called where one has to wait.
    """

    def __init__(self, waits: Callable[[], None] = lambda: None) -> None:
        self.depth = 0
        self.waits = waits
        self.waiting: tuple[int, FrameType | None] | None = None
        self.since = 0.0  # when that came
        self.is_broken = False  # whether something that must be whole was cut
        self.before: dict[int, Any] = {}

    def __enter__(self) -> Held:
        self.depth += 1
        if self.depth == 1 and threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                if callable(previous := signal.getsignal(number)):
                    self.before[number] = previous
                    signal.signal(number, self._handle)
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: Any) -> None:
        self.depth -= 1
        if self.depth == 0:
            for number, previous in self.before.items():
                signal.signal(number, previous)
        elif kind is not None:
            self.is_broken = True
        if self.waiting is not None and self.depth < 2 and kind is None:
            (number, frame), self.waiting = self.waiting, None
            self.before[number](number, frame)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        now = time.monotonic()
        if self.depth > 1 and self.waiting is None:
            self.waiting, self.since = (number, frame), now
            self.waits()
        elif self.waiting is None or now - self.since > SAME_S:
            self.before[number](number, frame)
