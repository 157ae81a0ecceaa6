"""Interruptions that wait: what must not be cut in half is finished first."""

from __future__ import annotations

import signal
import threading
from types import FrameType
from typing import Any

__all__ = ["Held"]


class Held:
    """`with Held() as held:` around all, `with held:` around what must be whole.

    SIGINT and SIGTERM that come inside of the latter take effect at its end; a second one at once. Nothing changes in
    other threads than the main one, and for signals that nobody handles.
    """

    def __init__(self) -> None:
        self.depth = 0
        self.waiting: tuple[int, FrameType | None] | None = None
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
        if self.depth > 1 and self.waiting is None:
            self.waiting = number, frame
        else:
            self.before[number](number, frame)
