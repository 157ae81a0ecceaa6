"""Processes on this machine that do jobs, seen from the one that starts them.

They are started as programs, not forked (threads of torch and OpenMP do not survive a fork) and not by
`multiprocessing`, which runs the user's script once more in each: one without `if __name__ == "__main__"` would start
processes without end, and a notebook has none.
"""

from __future__ import annotations

import os
import queue
import subprocess
import sys
import threading
import warnings
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from multiprocessing.spawn import get_executable
from typing import Any

from lightglue.errors import LightGlueError
from lightglue.workers.parcels import Parcel, read_message, write_message
from lightglue.workers.work import ATTEMPTS, DIED, Work

__all__ = ["ONE_THREAD", "Crew"]

ONE_THREAD: Mapping[str, str] = dict.fromkeys(
    (
        "OMP_NUM_THREADS",  # torch, ONNX Runtime and OpenVINO as we start them
        "MKL_NUM_THREADS",
        "OPENBLAS_NUM_THREADS",
        "VECLIB_MAXIMUM_THREADS",
        "OPENCV_FOR_THREADS_NUM",
    ),
    "1",
)
_BOOT = "import sys; sys.path[:] = sys.argv[1:]; from lightglue.workers.child import main; main()"
_GRACE_S = 5.0  # to end by itself
_WAIT_S = 0.5  # between two looks at whether the user wants to stop, where waiting cannot be interrupted


@dataclass(eq=False)
class _Job:
    number: int
    job: Any
    deaths: int = 0  # of workers that had begun it


class Crew:
    """`count` processes that do the jobs of `work`; used as a context, at whose end they have ended.

    is_short: whether there is too little memory for another process beside those that are there.

    A process that dies is replaced, and what it had in hand is done again; a job that kills several is given up.
    Warnings of the processes are warnings here, and their errors are raised here.
    """

    def __init__(self, work: Work[Any, Any], count: int, is_short: Callable[[], bool] = lambda: False) -> None:
        self._work, self._size, self._is_short = work, count, is_short
        self._parcel = Parcel(work)
        self._answers: queue.SimpleQueue[tuple[_Member, tuple[Any, ...]]] = queue.SimpleQueue()
        self._again: deque[_Job] = deque()  # to be given out before anything new
        self._given = 0  # jobs, in all
        self._failures = 0  # of processes to start
        self._registry: dict[Any, Any] = {}  # of warnings, so that each is said once
        self._members: list[_Member] = []
        try:
            self._hire_all()
        except BaseException:
            self._parcel.close()
            raise

    @property
    def processes(self) -> list[int]:
        """Their numbers."""
        return [member.process.pid for member in self._members]

    def __enter__(self) -> Crew:
        return self

    def __exit__(self, kind: Any, *_: Any) -> None:
        self._dismiss(kill=kind is not None)
        self._parcel.close()

    def run(self, jobs: Iterable[Any]) -> Iterator[Any]:
        """The result of each job, as they are done; jobs are taken as they are needed.

        Where it ends early, by an error or since nobody wants more, the processes are ended and others do what comes
        next.
        """
        if not self._members:
            self._hire_all()
        try:
            yield from self._results(iter(jobs))
        except BaseException:
            self._dismiss(kill=True)
            raise

    def hand_over(self, work: Work[Any, Any]) -> bool:
        """Have the same processes do other work from now on, which saves their start; False where they cannot.

        They have nothing in hand: no `run` is under way.
        """
        parcel = Parcel(work)
        if parcel.handed_on or self._parcel.handed_on:  # open files reach a process at its start only
            parcel.close()
            return False
        self._work, self._parcel, self._failures = work, parcel, 0
        for member in self._members:
            member.take_up(parcel)
        return True

    def enlarge(self, count: int) -> None:
        """Have so many processes from now on; no `run` is under way."""
        self._size = count
        if self._members:  # else the next `run` starts them all
            self._hire_all()

    def _results(self, waiting: Iterator[Any]) -> Iterator[Any]:
        while True:
            self._give_out(waiting)
            if not any(member.in_hand for member in self._members) and not self._again:
                job = self._next(waiting)
                if job is None:
                    return
                self._again.append(job)
                continue  # somebody may take it, or will once he is ready
            member, (kind, *rest) = self._answer()
            if kind == "ready":
                threads, told = rest
                member.is_ready(threads)
                self._warn(told)
            elif kind == "begun":
                member.begun.update(rest)
            elif kind == "done":
                number, result, told = rest
                del member.in_hand[number]
                self._warn(told)
                yield result
            elif kind == "fault":
                raise _raised(*rest)
            else:
                yield from self._bury(member)

    def _answer(self) -> tuple[_Member, tuple[Any, ...]]:
        while True:
            with suppress(queue.Empty):
                member, answer = self._answers.get(timeout=_WAIT_S)
                if member in self._members:  # else it was ended
                    return member, answer

    def _give_out(self, waiting: Iterator[Any]) -> None:
        """To those that have the least in hand first; what a worker has died of, to one that has nothing else."""
        for load in range(max((member.room for member in self._members), default=0)):
            for member in self._members:
                if not load == len(member.in_hand) < member.room or any(job.deaths for job in member.in_hand.values()):
                    continue
                if self._again and self._again[0].deaths and load:
                    continue
                job = self._next(waiting)
                if job is None:
                    return
                member.give(job)

    def _next(self, waiting: Iterator[Any]) -> _Job | None:
        if self._again:
            return self._again.popleft()
        for job in waiting:
            self._given += 1
            return _Job(self._given, job)
        return None

    def _bury(self, member: _Member) -> Iterator[Any]:
        """Replace a dead process; what it had in hand is done again."""
        self._members.remove(member)
        status = member.end(kill=True)
        if not member.room:
            self._failures += 1
            if self._failures >= ATTEMPTS and not any(each.room for each in self._members):
                raise LightGlueError(
                    f"Worker processes do not start (they end with {status}; what they said is on the standard error); "
                    "with 1 worker none is needed."
                )
        lost = list(member.in_hand.values())
        blamed = [job for job in lost if job.number in member.begun] or lost
        self._again.extend(job for job in lost if job not in blamed)
        for job in blamed:
            job.deaths += 1
            if job.deaths < ATTEMPTS:
                self._again.append(job)
            else:
                yield self._work.failed(job.job, DIED)
        if not self._members or not self._is_short():
            self._hire()

    def _hire_all(self) -> None:
        try:
            while len(self._members) < self._size:
                self._hire()
        except BaseException:
            self._dismiss(kill=True)
            raise

    def _hire(self) -> None:
        self._members.append(_Member(self._parcel, self._answers))

    def _warn(self, told: Iterable[tuple[Any, ...]]) -> None:
        for message, category, filename, lineno in told:
            warnings.warn_explicit(message, category, filename, lineno, registry=self._registry)

    def _dismiss(self, kill: bool) -> None:
        """End all processes, at once or when they have heard of it; they have nothing in hand that is wanted."""
        members, self._members = self._members, []
        self._again.clear()
        for member in members:
            member.dismiss(kill)
        for member in members:
            member.end(kill)


def _raised(error: BaseException, where: str) -> BaseException:
    """An error of a worker as it is raised here."""
    if not isinstance(error, LightGlueError):  # then it is ours, or the user's matcher's
        error.__cause__ = RuntimeError(f"in a worker process:\n{where}")
    return error


@dataclass(eq=False)
class _Member:
    """A process and what it has in hand."""

    parcel: Parcel
    answers: queue.SimpleQueue[Any]
    room: int = 0  # jobs that it may have in hand; 0 until it is ready
    loading: int = 0  # kinds of work that it was given and is not ready for yet
    in_hand: dict[int, _Job] = field(default_factory=dict)
    begun: set[int] = field(default_factory=set)

    def __post_init__(self) -> None:
        # A group of its own: the terminal's Ctrl-C goes to whoever started it alone, who then ends it.
        alone: dict[str, Any] = {"start_new_session": True}
        if sys.platform == "win32":
            alone = {"creationflags": subprocess.CREATE_NEW_PROCESS_GROUP}
        try:
            self.process = subprocess.Popen(
                [os.fsdecode(get_executable()), "-c", _BOOT, *sys.path],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                env={**os.environ, **ONE_THREAD},
                pass_fds=self.parcel.handed_on,
                **alone,
            )
        except OSError as error:
            raise LightGlueError(
                f"A worker process cannot be started ({error}); with 1 worker none is needed."
            ) from error
        self._listener = threading.Thread(target=self._listen, daemon=True)
        self._listener.start()
        self._load()

    def take_up(self, parcel: Parcel) -> None:
        """Have it do other work, once it has nothing in hand."""
        self.parcel, self.room = parcel, 0
        self.begun.clear()
        self._send(None)
        self._load()

    def _load(self) -> None:
        self.loading += 1
        self._send(self.parcel.message())

    def is_ready(self, threads: int) -> None:
        """It is, for what it was given first of what it is not ready for."""
        self.loading -= 1
        if not self.loading:
            self.room = 2 * threads

    def give(self, job: _Job) -> None:
        """Have it do a job."""
        self.in_hand[job.number] = job
        self._send((job.number, job.job))

    def _send(self, message: Any) -> None:
        assert self.process.stdin is not None
        with suppress(OSError):  # it has died, and the listener says so
            write_message(self.process.stdin, message)

    def _listen(self) -> None:
        assert self.process.stdout is not None
        try:
            while True:
                self.answers.put((self, read_message(self.process.stdout)))
        except (EOFError, OSError, ValueError):  # it has ended, or we have closed the pipe
            self.answers.put((self, ("ended",)))
        except BaseException as error:
            self.answers.put((self, ("fault", error, "")))

    def dismiss(self, kill: bool) -> None:
        """Say that nothing more will be asked."""
        if kill:
            self.process.kill()
        with suppress(OSError):
            assert self.process.stdin is not None
            self.process.stdin.close()

    def end(self, kill: bool) -> int:
        """Wait for its end. Its exit status, negative for a signal."""
        if kill:
            self.process.kill()
        try:
            self.process.wait(_GRACE_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self._listener.join()
        for pipe in (self.process.stdin, self.process.stdout):
            with suppress(OSError):
                assert pipe is not None
                pipe.close()
        return self.process.returncode
