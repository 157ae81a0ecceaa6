"""A process that does one task after another for the service, and is replaced when it dies, hangs or takes too much.

The service itself decodes no image and runs no model: a file that makes a decoder crash, or a pair for which memory
does not suffice, ends this process and one request.
"""

from __future__ import annotations

import multiprocessing
import os
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path
from threading import Event, Lock
from typing import Any

from lightglue.web.failures import Failure, FailureError, StoppedError

__all__ = ["Budget", "Worker"]

_LOOK_S = 0.05  # between two looks at what was cancelled, and at the clock
_MEASURE_S = 0.5  # between two looks at the memory
_GRACE_S = 3.0  # after which a task that does not end by itself is ended with its process
_START_S = 120.0  # to import what it needs


@dataclass(frozen=True)
class Budget:
    """What a task may take."""

    seconds: float
    memory: int  # bytes, of the process


class Worker:
    """A process and the pipe to it. One thread at a time may ask it for something.

    tasks: name -> "module:function", which takes what is given and a `Report`.
    environment: variables that the process gets besides those of this one.
    """

    def __init__(self, name: str, tasks: Mapping[str, str], environment: Mapping[str, str] | None = None) -> None:
        self._name, self._tasks, self._environment = name, dict(tasks), dict(environment or {})
        self._process: BaseProcess | None = None
        self._pipe: Connection | None = None
        self._lock = Lock()
        self._closed = False
        self.restarts = 0  # after the first start

    @property
    def pid(self) -> int | None:
        """Of the process, where there is one."""
        return None if self._process is None else self._process.pid

    def do(
        self,
        task: str,
        given: Any,
        budget: Budget,
        hear: Callable[[str, Any], None] = lambda kind, content: None,
        cancelled: Event | None = None,
    ) -> Any:
        """What the task gives.

        hear: gets what the task says on its way, such as ("progress", ...).
        Raises StoppedError where `cancelled` was set meanwhile; FailureError for what ended it.
        """
        with self._lock:
            if self._closed:
                raise FailureError.of(503, "closing", "The service is being shut down.")
            pipe = self._started()
            try:
                pipe.send((task, given))
            except (OSError, ValueError) as error:
                raise self._died() from error
            return self._answer(pipe, budget, hear, cancelled or Event())

    def _answer(self, pipe: Connection, budget: Budget, hear: Callable[[str, Any], None], cancelled: Event) -> Any:
        begin = measured = time.monotonic()
        stop: float | None = None  # when it was asked to stop
        while True:
            try:
                if pipe.poll(_LOOK_S):
                    kind, content = pipe.recv()
                    if kind == "done":
                        return content
                    if kind == "failed":
                        raise FailureError(content)
                    if kind == "cancelled":
                        raise StoppedError
                    if kind == "begun":  # its start, with all that it imports, is not the task's time
                        begin = measured = time.monotonic()
                        continue
                    hear(kind, content)
            except (EOFError, OSError) as error:
                if self._closed:
                    raise StoppedError from error
                if cancelled.is_set():
                    self.stop()
                    raise StoppedError from error
                raise self._died() from error
            now = time.monotonic()
            if cancelled.is_set():
                if stop is None:
                    stop = now
                    with suppress(OSError):
                        pipe.send(("stop", None))
                elif now - stop > _GRACE_S:
                    self.stop()
                    raise StoppedError
            if now - begin > budget.seconds:
                self.stop()
                raise FailureError.of(504, "time", f"This took longer than {budget.seconds:g} s and was stopped.")
            if now - measured > _MEASURE_S:
                measured = now
                if _resident(self.pid) > budget.memory:
                    self.stop()
                    gigabytes = budget.memory / 1e9
                    raise FailureError.of(
                        507, "memory", f"This took more than {gigabytes:.3g} GB of memory; ask for fewer keypoints."
                    )

    def start(self) -> None:
        """Start the process, where there is none: it imports what it needs before it is asked for anything."""
        with self._lock:
            if not self._closed:
                self._started()

    def _started(self) -> Connection:
        if self._process is not None and self._process.is_alive() and self._pipe is not None:
            return self._pipe
        self.stop()  # one that ended while it had nothing to do
        context = multiprocessing.get_context("spawn")
        self._pipe, other = context.Pipe()
        process = context.Process(
            target=_begin, args=(other, self._tasks, self._environment), name=self._name, daemon=True
        )
        process.start()
        other.close()
        self._process = process
        return self._pipe

    def _died(self) -> FailureError:
        process = self._process
        if process is not None:
            process.join(1.0)
        self.stop()
        return FailureError(
            Failure(
                500,
                "crashed",
                "The process that worked on this ended unexpectedly; a new one is started. The file may be damaged.",
            )
        )

    def stop(self) -> None:
        """End the process; the next task starts another."""
        process, self._process, pipe, self._pipe = self._process, None, self._pipe, None
        if process is not None:
            self.restarts += 1
            process.kill()
            process.join(5.0)
            process.close()
        if pipe is not None:
            pipe.close()

    def close(self) -> None:
        """End the process for good; a task that is being worked on ends as cancelled."""
        self._closed = True
        process = self._process
        if process is not None:
            with suppress(ValueError):
                process.kill()
        with self._lock:
            self.stop()


def _resident(pid: int | None) -> int:
    """Bytes of memory that a process holds; 0 where the system does not say."""
    try:
        pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    except (OSError, ValueError, IndexError):
        return 0
    return pages * os.sysconf("SC_PAGE_SIZE")


def _begin(pipe: Connection, tasks: Mapping[str, str], environment: Mapping[str, str]) -> None:
    """What the process runs."""
    os.environ.update(environment)
    from lightglue.web.tasks.loop import work

    work(pipe, tasks)
