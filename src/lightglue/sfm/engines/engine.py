"""Who does the heavy work of a stage: this process, or others.

A stage describes its work in a few words that can be sent elsewhere (`Work`). Who does it (`Worker`) has the models,
reads the input of a job and computes its result. An `Engine` brings both and the jobs together. It gives the results
as they are done, in any order; the stage, and it alone, writes them.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from itertools import chain, islice
from typing import Any, Protocol, TypeVar

__all__ = ["Budget", "Engine", "LocalEngine", "Work", "Worker", "pipelined"]

Job = TypeVar("Job")
Result = TypeVar("Result")
JobIn = TypeVar("JobIn", contravariant=True)
ResultOut = TypeVar("ResultOut", covariant=True)


class Worker(Protocol[JobIn, ResultOut]):
    """Does the jobs of a stage, each in two steps: several threads read while one computes."""

    threads: int  # that may read

    def read(self, job: JobIn, /) -> Any:
        """What `compute` needs from the disk."""

    def compute(self, job: JobIn, read: Any, /) -> ResultOut:
        """The result; faults of the input are results, too."""

    def close(self) -> None:
        """Let go of threads that wait in `read`; nothing more will be asked."""


class Work(Protocol[JobIn, ResultOut]):
    """What a stage asks for; it can be sent to another process."""

    @property
    def together(self) -> int:
        """Jobs that are worth a message to another process."""

    def worker(self) -> Worker[JobIn, ResultOut]:
        """One who does it, with models of its own. Raises LightGlueError where there can be none."""

    def failed(self, job: JobIn, reason: str, /) -> ResultOut:
        """The result of a job that nobody could do."""


class Engine(Protocol):
    """Has the jobs of a stage done."""

    def run(self, work: Work[Job, Result], jobs: Iterable[Job]) -> Iterator[Result]:
        """The result of each job, as they are done; jobs are taken as they are needed."""


@dataclass(frozen=True)
class LocalEngine:
    """In this process: one thread computes, others read ahead of it."""

    def run(self, work: Work[Job, Result], jobs: Iterable[Job]) -> Iterator[Result]:
        """See `Engine`."""
        waiting = iter(jobs)
        first = list(islice(waiting, 1))
        if first:  # else no model is needed
            yield from pipelined(work.worker(), chain(first, waiting))


def pipelined(worker: Worker[Job, Result], jobs: Iterable[Job]) -> Iterator[Result]:
    """The results of jobs, whose input is read ahead."""
    waiting = iter(jobs)
    pool = ThreadPoolExecutor(worker.threads)
    reading: dict[Future[Any], Job] = {}
    try:
        while True:
            for job in islice(waiting, 2 * worker.threads - len(reading)):
                reading[pool.submit(worker.read, job)] = job
            if not reading:
                return
            # Whichever is read first: one that waits for memory is not waited for by those that hold it.
            done, _ = wait(reading, return_when=FIRST_COMPLETED)
            for future in [future for future in reading if future in done]:  # in the order of the jobs
                yield worker.compute(reading.pop(future), future.result())
    except BaseException:  # also where no more results are wanted
        worker.close()
        raise
    finally:
        pool.shutdown(cancel_futures=True)


class Budget:
    """So much of something, shared by threads: one waits until there is enough, or until it has all of it."""

    def __init__(self, limit: int) -> None:
        self._limit, self._used, self._closed = limit, 0, False
        self._changed = threading.Condition()

    def take(self, amount: int) -> None:
        """Wait for `amount`. Raises RuntimeError when the budget is closed meanwhile."""
        with self._changed:
            self._changed.wait_for(lambda: self._closed or not self._used or self._used + amount <= self._limit)
            if self._closed:
                raise RuntimeError("the budget was closed")
            self._used += amount

    def give_back(self, amount: int) -> None:
        """What was taken."""
        with self._changed:
            self._used -= amount
            self._changed.notify_all()

    def close(self) -> None:
        """End all waiting."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
