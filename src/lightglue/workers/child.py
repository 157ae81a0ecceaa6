"""A process that does jobs for another one, which started it: see `crew`.

Jobs come on what was its standard input, results leave on what was its standard output. Both are put away first, so
that whatever prints goes to the standard error. It ends with the process that started it, however that ends.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
import traceback
import warnings
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from queue import SimpleQueue
from typing import IO, Any

from lightglue.errors import InputError
from lightglue.support.loading import uncollected
from lightglue.workers.parcels import read_message, unpack, write_message

__all__ = ["main"]

_WATCH_S = 1.0


def main() -> None:
    """Do jobs until there are no more."""
    jobs, results = _pipes()
    with suppress(ValueError, OSError):
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # whoever started us ends us
    threading.Thread(target=_end_with, args=(os.getppid(),), daemon=True).start()
    told: list[tuple[Any, ...]] = []  # warnings
    warnings.showwarning = lambda message, category, filename, lineno, *_: told.append(
        (str(message), category, filename, lineno)
    )
    try:
        _work(jobs, results, told)
    except (BrokenPipeError, EOFError):  # nobody listens
        os._exit(1)


def _pipes() -> tuple[IO[bytes], IO[bytes]]:
    """The pipes to the other process, out of reach of whatever reads or prints."""
    jobs, results = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    nothing = os.open(os.devnull, os.O_RDWR)
    os.dup2(nothing, 0)
    try:
        os.dup2(2, 1)
    except OSError:  # there is no standard error
        os.dup2(nothing, 1)
    os.close(nothing)
    return jobs, results


def _end_with(parent: int) -> None:
    """End when the process that started this one does: its other children may hold our pipe open."""
    while os.name == "posix":
        time.sleep(_WATCH_S)
        if os.getppid() != parent:
            os._exit(1)


def _work(jobs: IO[bytes], results: IO[bytes], told: list[tuple[Any, ...]]) -> None:
    """One kind of work after another: see `Crew.hand_over`."""
    while True:
        try:
            message = read_message(jobs)
            with uncollected():
                worker = unpack(message).worker()
        except EOFError:
            raise
        except BaseException as error:
            write_message(results, ("fault", *_portable(error)))
            return
        write_message(results, ("ready", worker.threads, _taken(told)))
        _do_jobs(worker, jobs, results, told)
        worker.close()
        del worker  # and its models, before others are loaded


def _do_jobs(worker: Any, jobs: IO[bytes], results: IO[bytes], told: list[tuple[Any, ...]]) -> None:
    """All jobs of one kind of work."""
    read: SimpleQueue[tuple[int, Any, Future[Any]] | None] = SimpleQueue()
    threading.Thread(target=_receive, args=(jobs, worker, read), daemon=True).start()
    while True:
        # Whichever is read first: one that waits for memory is not waited for by those that hold it.
        one = read.get()
        if one is None:
            return
        number, job, future = one
        write_message(results, ("begun", number))
        try:
            answer = ("done", number, worker.compute(job, future.result()), _taken(told))
            write_message(results, answer)
        except BrokenPipeError:
            raise
        except BaseException as error:
            write_message(results, ("fault", *_portable(error)))


def _receive(jobs: IO[bytes], worker: Any, read: SimpleQueue[tuple[int, Any, Future[Any]] | None]) -> None:
    """Take jobs and have their input read; end this process where no more can come.

    None says that other work comes next; all jobs are done then.
    """
    pool = ThreadPoolExecutor(worker.threads)
    while True:
        try:
            message = read_message(jobs)
            if message is None:
                pool.shutdown()
                read.put(None)
                return
            number, job = message
        except EOFError:
            os._exit(0)
        except BaseException as error:
            broken: Future[Any] = Future()
            broken.set_exception(error)
            read.put((-1, None, broken))
            return
        future = pool.submit(worker.read, job)
        future.add_done_callback(lambda done, number=number, job=job: read.put((number, job, done)))  # type: ignore[misc]


def _taken(told: list[tuple[Any, ...]]) -> list[tuple[Any, ...]]:
    """The warnings up to now; the list is empty then."""
    taken = told[:]
    del told[: len(taken)]
    return taken


def _portable(error: BaseException) -> tuple[BaseException, str]:
    """An error that can be sent, and where it came from."""
    where = "".join(traceback.format_exception(error))
    try:
        import pickle

        again = pickle.loads(pickle.dumps(error))
        return (again if isinstance(again, BaseException) else RuntimeError(str(error))), where
    except Exception:  # of any kind: pickle runs the error's own code; what it said is sent all the same
        kind = InputError if isinstance(error, InputError) else RuntimeError
        return kind(f"{type(error).__name__}: {error}"), where


if __name__ == "__main__":
    sys.exit("lightglue starts this where it needs it.")
