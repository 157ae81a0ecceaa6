"""Engines of processes on this machine, as many as fit and as are worth their start."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from importlib import import_module
from itertools import chain, islice
from math import ceil
from typing import Any, TypeVar

from lightglue.errors import InputError
from lightglue.workers.count import WORTH, check_workers, fitting, is_short, worthwhile
from lightglue.workers.crew import Crew
from lightglue.workers.local import LocalEngine, StandingHere
from lightglue.workers.work import Engine, Work

__all__ = ["ProcessEngine", "standing", "started"]

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
    ahead: Crew | None = field(default=None, compare=False, repr=False)  # of `started`, for one `standing`

    def __post_init__(self) -> None:
        check_workers(self.workers)

    def run(self, work: Work[Job, Result], jobs: Iterable[Job]) -> Iterator[Result]:
        """See `Engine`. Raises InputError for several workers and another device than the CPU."""
        self.count(work, 0)  # checks
        if not work.on_cpu:
            yield from LocalEngine().run(work, jobs)
            return
        count, jobs = self._counted(work, jobs)
        if count == 1:
            yield from LocalEngine(threads=1).run(work, jobs)
            return
        with Crew(work, count, is_short) as crew:
            yield from crew.run(jobs)

    def _counted(self, work: Work[Job, Any], jobs: Iterable[Job], there: int = 0) -> tuple[int, Iterator[Job]]:
        """Processes for jobs, and these jobs. there: processes that have their memory already."""
        waiting = iter(jobs)
        most = max(self._most(), there)
        first = list(islice(waiting, max(most, ceil(most * WORTH / work.seconds))))  # as many as decide it
        return self.count(work, len(first), there), chain(first, waiting)

    def count(self, work: Work[Any, Any], jobs: int, there: int = 0) -> int:
        """Processes for so many jobs, 1 for this one, of which some are there. Raises as `run`."""
        if not work.on_cpu:
            if self.workers not in (None, 1):
                raise InputError(
                    f"workers is {self.workers}, which are processes for the CPU; with another device leave it out."
                )
            return 1
        return (
            max(1, min(self.workers, jobs))
            if self.workers
            else worthwhile(max(self._most(), there), jobs, work.seconds)
        )

    def _most(self) -> int:
        return self.workers or fitting()


@contextmanager
def started(engine: Engine, modules: tuple[str, ...]) -> Iterator[Engine]:
    """The engine, with processes that start now, and load modules while this process does: for one `standing`.

    Only where it is said how many, and there are modules; other engines are given back as they are.
    """
    count = engine.workers if isinstance(engine, ProcessEngine) else None
    if not isinstance(engine, ProcessEngine) or count is None or count == 1 or not modules:
        yield engine
        return
    with Crew(_Loading(modules), count, is_short) as crew:
        yield replace(engine, ahead=crew)


@dataclass(frozen=True)
class _Loading:
    """No work yet: what is needed for it is loaded."""

    modules: tuple[str, ...]
    together: int = 1
    seconds: float = 1.0
    on_cpu: bool = True

    def worker(self) -> _Idle:
        """One that has loaded it."""
        for module in self.modules:
            import_module(module)
        return _Idle()

    def failed(self, job: Any, reason: str, /) -> Any:
        """There is no job."""


class _Idle:
    threads = 1

    def read(self, job: Any, /) -> Any:
        """There is no job."""

    def compute(self, job: Any, read: Any, /) -> Any:
        """There is no job."""

    def close(self) -> None:
        """Nothing waits here."""


@contextmanager
def standing(engine: Engine) -> Iterator[Engine]:
    """An engine that does what `engine` would, with processes and models that stay from one `run` to the next.

    So that the stages of a map, and the rounds of a stage, do not wait for others. Engines of other kinds are given
    back as they are.
    """
    kept: _Standing | StandingHere
    if isinstance(engine, ProcessEngine):
        kept = _Standing(engine)
    elif isinstance(engine, LocalEngine):
        kept = StandingHere(engine.threads)
    else:
        yield engine
        return
    try:
        yield kept
    finally:
        kept.dismiss()


class _Standing:
    """A process engine that keeps its processes."""

    def __init__(self, engine: ProcessEngine) -> None:
        self._engine, self._here = engine, StandingHere(threads=1)
        self._crew: Crew | None = engine.ahead
        self._size = 0 if engine.ahead is None else len(engine.ahead.processes)
        self._work: Work[Any, Any] | None = None

    def run(self, work: Work[Job, Result], jobs: Iterable[Job]) -> Iterator[Result]:
        """See `Engine`."""
        if not work.on_cpu:
            yield from self._engine.run(work, jobs)
            return
        count, jobs = self._engine._counted(work, jobs, 0 if self._crew is None else self._size)
        if count == 1 and (self._crew is None or self._work != work):
            yield from self._here.run(work, jobs)
            return
        yield from self._hired(work, count).run(jobs)

    def _hired(self, work: Work[Any, Any], count: int) -> Crew:
        """Those who are there, and more where these are too few; or others."""
        if self._crew is not None and self._work != work and not self._crew.hand_over(work):
            self.dismiss()
        if self._crew is None:
            self._crew, self._size = Crew(work, count, is_short), count
        elif self._size < count:
            self._crew.enlarge(count)
            self._size = count
        self._work = work
        return self._crew

    def dismiss(self) -> None:
        """End the processes; the next `run` starts others."""
        self._here.dismiss()
        crew, self._crew = self._crew, None
        if crew is not None:
            crew.__exit__(None, None, None)
