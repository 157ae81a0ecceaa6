"""The display of progress, on stderr: a bar a stage on a terminal, lines elsewhere."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from time import monotonic
from typing import Any

from lightglue.support.printable import escaped

__all__ = ["Progress", "StageProgress", "progress_display"]

Progress = Callable[[int, int], None]  # done, in all
StageProgress = Callable[[str, int, int], None]  # stage, done, in all


@contextmanager
def progress_display(quiet: bool = False, in_bytes: bool = False, leave: bool = False) -> Iterator[Callable[..., None]]:
    """Yields a function (stage, done, in all, note="") that shows how far a stage is; None in all: that is not known.

    quiet: show nothing. in_bytes: what is counted is bytes. leave: finished bars stay on the terminal.
    """
    if quiet or sys.stderr is None:
        yield lambda stage, done, total, note="": None
    elif not sys.stderr.isatty():
        yield _Lines("MB" if in_bytes else "")
    else:
        with _bars(in_bytes, leave) as bars:
            tasks: dict[str, Any] = {}

            def show(stage: str, done: int, total: int | None, note: str = "") -> None:
                if stage not in tasks:
                    tasks[stage] = bars.add_task(escaped(stage), total=total, note="")
                bars.update(tasks[stage], completed=done, total=total, note=escaped(note))

            yield show


def _bars(in_bytes: bool, leave: bool) -> Any:
    from rich import progress as rich
    from rich.console import Console

    counters = (rich.DownloadColumn(), rich.TransferSpeedColumn()) if in_bytes else (rich.MofNCompleteColumn(),)
    columns = (
        rich.TextColumn("{task.description:>12}"),
        rich.BarColumn(),
        *counters,
        rich.TimeElapsedColumn(),
        rich.TextColumn("left"),
        rich.TimeRemainingColumn(),
        rich.TextColumn("{task.fields[note]}"),
    )
    # Said, since stderr is not asked again: it leads elsewhere while an image is decoded (`native_lines`).
    console = Console(stderr=True, force_terminal=True)
    return rich.Progress(*columns, console=console, transient=not leave)


class _Lines:
    """Progress for a log file: a line at the beginning of a stage, and one now and then."""

    EVERY = 20.0  # seconds

    def __init__(self, unit: str) -> None:
        self.unit = unit
        self.stage = ""
        self.first = 0  # what was done when the stage began
        self.begin = self.last = monotonic()

    def __call__(self, stage: str, done: int, total: int | None, note: str = "") -> None:
        now = monotonic()
        if stage != self.stage:
            self.stage, self.first, self.begin, self.last = stage, done, now, now
            self._print(f"{stage} ...")
        elif now - self.last >= self.EVERY and total is not None and done > self.first:
            self.last = now
            seconds = (now - self.begin) / (done - self.first) * (total - done)
            counts = f"{done / 1e6:,.1f} of {total / 1e6:,.1f} MB" if self.unit else f"{done:,} of {total:,}"
            self._print(f"{stage}: {counts}, about {seconds:.0f} s left{f', {note}' if note else ''}")

    @staticmethod
    def _print(line: str) -> None:
        if sys.stderr is not None:
            print(escaped(line), file=sys.stderr, flush=True)
