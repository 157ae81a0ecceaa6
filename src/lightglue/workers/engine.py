"""An engine of processes on this machine, as many as fit and as are worth their start."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import chain, islice
from math import ceil
from typing import Any, TypeVar

from lightglue.errors import InputError
from lightglue.workers.count import WORTH, check_workers, fitting, is_short, worthwhile
from lightglue.workers.crew import Crew
from lightglue.workers.local import LocalEngine
from lightglue.workers.work import Work

__all__ = ["ProcessEngine"]

Job = TypeVar("Job")
Result = TypeVar("Result")


@dataclass(frozen=True)
class ProcessEngine:
    """Processes with one thread each; the results are the same for any number of them.

    workers: how many; None for as many as this process may use cores, as fit into the memory, and as are worth it.
    One is this process itself. What is computed on another device than the CPU is done in this process.

    Raises InputError for a number that makes no sense.
    """

    workers: int | None = None

    def __post_init__(self) -> None:
        check_workers(self.workers)

    def run(self, work: Work[Job, Result], jobs: Iterable[Job]) -> Iterator[Result]:
        """See `Engine`. Raises InputError for several workers and another device than the CPU."""
        self.count(work, 0)  # checks
        if not work.on_cpu:
            yield from LocalEngine().run(work, jobs)
            return
        waiting = iter(jobs)
        most = self._most()
        first = list(islice(waiting, max(most, ceil(most * WORTH / work.seconds))))  # as many as decide it
        count = self.count(work, len(first))
        if count == 1:
            yield from LocalEngine(threads=1).run(work, chain(first, waiting))
            return
        with Crew(work, count, is_short) as crew:
            yield from crew.run(chain(first, waiting))

    def count(self, work: Work[Any, Any], jobs: int) -> int:
        """Processes for so many jobs, 1 for this one. Raises as `run`."""
        if not work.on_cpu:
            if self.workers not in (None, 1):
                raise InputError(
                    f"workers is {self.workers}, which are processes for the CPU; with another device leave it out."
                )
            return 1
        return max(1, min(self.workers, jobs)) if self.workers else worthwhile(self._most(), jobs, work.seconds)

    def _most(self) -> int:
        return self.workers or fitting()
