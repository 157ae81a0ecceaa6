"""Who does heavy work: this process, or others.

A stage of a map or an evaluation describes its work in a few words that can be sent elsewhere (`Work`). Who does it
(`Worker`) has the models, reads the input of a job and computes its result. An `Engine` brings both and the jobs
together. It gives the results as they are done, in any order; whoever asked, and nobody else, writes them.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator
from typing import Any, Protocol, TypeVar

__all__ = ["ATTEMPTS", "DIED", "Budget", "Engine", "Work", "Worker"]

ATTEMPTS = 3  # after so many dead workers the job is to blame
DIED = f"{ATTEMPTS} workers died of it, perhaps for want of memory; make it smaller"

Job = TypeVar("Job")
Result = TypeVar("Result")
JobIn = TypeVar("JobIn", contravariant=True)
ResultOut = TypeVar("ResultOut", covariant=True)


class Worker(Protocol[JobIn, ResultOut]):
    """Does jobs, each in two steps: several threads read while one computes."""

    threads: int  # that may read

    def read(self, job: JobIn, /) -> Any:
        """What `compute` needs from the disk."""

    def compute(self, job: JobIn, read: Any, /) -> ResultOut:
        """The result; faults of the input are results, too."""

    def close(self) -> None:
        """Let go of threads that wait in `read`; nothing more will be asked."""


class Work(Protocol[JobIn, ResultOut]):
    """What is asked for; it can be sent to another process."""

    @property
    def together(self) -> int:
        """Jobs that are worth a message to another machine."""

    @property
    def seconds(self) -> float:
        """About what a job takes on one core: it decides how many processes are worth their start."""

    @property
    def on_cpu(self) -> bool:
        """Whether it is computed on a CPU: processes do not share another device."""

    def worker(self) -> Worker[JobIn, ResultOut]:
        """One who does it, with models of its own. Raises LightGlueError where there can be none."""

    def failed(self, job: JobIn, reason: str, /) -> ResultOut:
        """The result of a job that nobody could do."""


class Engine(Protocol):
    """Has jobs done."""

    def run(self, work: Work[Job, Result], jobs: Iterable[Job]) -> Iterator[Result]:
        """The result of each job, as they are done; jobs are taken as they are needed."""


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
