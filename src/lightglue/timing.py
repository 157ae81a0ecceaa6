"""Where the time of a call goes: named spans, which cost nothing while nobody records them.

>>> with record() as timeline:
...     with span("extract"), span("resize"):
...         pass
>>> [(s.name, s.depth) for s in timeline.spans]
[('extract', 0), ('resize', 1)]
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from time import perf_counter
from typing import Any

__all__ = ["Span", "Timeline", "record", "span", "wait_for_gpu"]


@dataclass
class Span:
    """A part of a call. Those within it follow it in a timeline and have a greater depth."""

    name: str
    depth: int
    details: dict[str, Any]  # what was worked on, such as the number of keypoints
    seconds: float = 0.0


@dataclass
class Timeline:
    """What was recorded, in the order in which it began."""

    spans: list[Span] = field(default_factory=list)
    depth: int = 0
    outer: Timeline | None = None  # one that records around this one, and gets all spans too

    def seconds(self, name: str) -> float:
        """How long the spans of this name took in all; one within another of the name is not counted twice."""
        total, inside = 0.0, -1  # depth of the span of this name that the next ones may lie in
        for span in self.spans:
            if inside >= 0 and span.depth > inside:
                continue
            inside = span.depth if span.name == name else -1
            total += span.seconds * (inside >= 0)
        return total


_recording: ContextVar[Timeline | None] = ContextVar("lightglue_timeline", default=None)


@contextmanager
def record() -> Iterator[Timeline]:
    """Record the spans of this thread (or task). A GPU is waited for at each end of a span, which costs time there.

    A recording within another takes nothing away from it.
    """
    timeline = Timeline(outer=_recording.get())
    token = _recording.set(timeline)
    try:
        yield timeline
    finally:
        _recording.reset(token)


class span:  # noqa: N801 (used as a function)
    """`with span("layer 1", keypoints=4096): ...` names a part of a call and says what it worked on."""

    def __init__(self, name: str, **details: Any) -> None:
        self._name, self._details = name, details
        self._begun: list[tuple[Timeline, Span]] = []

    def __enter__(self) -> None:
        timeline = _recording.get()
        while timeline is not None:
            begun = Span(self._name, timeline.depth, self._details)
            timeline.spans.append(begun)
            timeline.depth += 1
            self._begun.append((timeline, begun))
            timeline = timeline.outer
        if self._begun:
            wait_for_gpu()
            self._start = perf_counter()

    def __exit__(self, *_: object) -> None:
        if not self._begun:
            return
        wait_for_gpu()
        seconds = perf_counter() - self._start
        for timeline, begun in self._begun:
            begun.seconds = seconds
            timeline.depth -= 1


def wait_for_gpu() -> None:
    """Return when a GPU has done all that it was asked, so that a clock can be read."""
    torch = sys.modules.get("torch")
    if torch is None:
        return
    if torch.cuda.is_initialized():
        torch.cuda.synchronize()
    if torch.backends.mps.is_available():
        torch.mps.synchronize()
