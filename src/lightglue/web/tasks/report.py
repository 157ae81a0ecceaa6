"""How a task says how far it is, and learns that it is no longer wanted."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import Event
from typing import Any

from lightglue.timing import Span, record
from lightglue.web.failures import StoppedError

__all__ = ["Report"]

# Spans of the package -> what people read.
STAGES = {
    "load": "reading",
    "extraction": "extracting",
    "matching": "matching",
    "refinement": "refining",
    "geometry": "estimating",
    # of localization
    "read": "reading",
    "extract": "extracting",
    "retrieve": "looking for images of the map",
    "match": "matching",
    "pose": "estimating",
    "search": "searching",
    "refine": "refining",
}


class Report:
    """What a task reports to the service."""

    def __init__(self, send: Callable[[tuple[str, Any]], None], stop: Event) -> None:
        self._send, self._stop = send, stop

    def check(self) -> None:
        """Raises StoppedError where the task is no longer wanted."""
        if self._stop.is_set():
            raise StoppedError

    def progress(self, stage: str, done: int = 0, total: int = 0, text: str = "") -> None:
        """Say how far it is: `done` of `total`, 0 where that is not known."""
        self.check()
        self._send(("progress", {"stage": stage, "done": done, "total": total, "text": text}))

    @contextmanager
    def watching(self) -> Iterator[None]:
        """What is done in here is reported by the package's own spans, and can be stopped between two of them."""
        with record() as timeline:
            timeline.spans = _Watched(self)
            yield


class _Watched(list[Span]):
    """Spans, each of which is reported when it begins."""

    def __init__(self, report: Report) -> None:
        super().__init__()
        self._report = report
        self._shown = ""

    def append(self, span: Span) -> None:
        report = self._report
        report.check()
        stage = STAGES.get(span.name)
        if stage is not None and stage != self._shown:
            self._shown = stage
            report.progress(stage)
        elif span.name.startswith("layer "):
            report.progress("matching", int(span.name.removeprefix("layer ")), 0, span.name)
        super().append(span)
