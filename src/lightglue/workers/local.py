"""Jobs done in this process: one thread computes, others read ahead of it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain, islice
from typing import Any, TypeVar

from lightglue.workers.work import Work, Worker

__all__ = ["LocalEngine", "StandingHere", "pipelined"]

Job = TypeVar("Job")
Result = TypeVar("Result")


@dataclass(frozen=True)
class LocalEngine:
    """An engine that is this process.

    threads: torch's, as long as jobs are done; None for those that it has.
    """

    threads: int | None = None

    def run(self, work: Work[Job, Result], jobs: Iterable[Job]) -> Iterator[Result]:
        """See `Engine`."""
        waiting = iter(jobs)
        first = list(islice(waiting, 1))
        if first:  # else no model is needed
            with _torch_threads(self.threads):
                yield from pipelined(work.worker(), chain(first, waiting))


class StandingHere:
    """A `LocalEngine` that keeps its worker, and with it the models, as long as the work is equal."""

    def __init__(self, threads: int | None = None) -> None:
        self._threads = threads
        self._work: Work[Any, Any] | None = None
        self._worker: Worker[Any, Any] | None = None

    def run(self, work: Work[Job, Result], jobs: Iterable[Job]) -> Iterator[Result]:
        """See `Engine`."""
        waiting = iter(jobs)
        first = list(islice(waiting, 1))
        if not first:
            return
        with _torch_threads(self._threads):
            try:
                if self._worker is None or self._work != work:
                    self.dismiss()  # the old models, before others are loaded
                    self._worker, self._work = work.worker(), work
                yield from pipelined(self._worker, chain(first, waiting))
            except BaseException:  # also where no more results are wanted: `pipelined` has closed it
                self.dismiss()
                raise

    def dismiss(self) -> None:
        """Let go of the worker."""
        self._worker = self._work = None


@contextmanager
def _torch_threads(count: int | None) -> Iterator[None]:
    if count is None:
        yield
        return
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


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
