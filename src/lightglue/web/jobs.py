"""Work that takes a while: a bounded queue before one worker, progress as events, cancelling."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from threading import Event
from typing import Any, Literal

from lightglue.web.failures import Failure, FailureError, StoppedError, failure_of, unexpected
from lightglue.web.store import new_id
from lightglue.web.worker import Budget, Worker

__all__ = ["ENDED", "MORE", "Job", "Jobs"]

State = Literal["queued", "running", "done", "failed", "cancelled"]
ENDED: tuple[State, ...] = ("done", "failed", "cancelled")
MORE = object()  # what the work of a job gives that goes on when others have had their turn
_KEPT = 300  # jobs that have ended
_MOST_EVENTS = 100_000  # of a job; a set of 200 images has 19,900 pairs
_UNWATCHED_S = 15.0  # after which nobody will come back to a job that somebody watched
_OFTEN = 5  # times that a job is overtaken
_ALIVE_S = 10.0  # between two signs of life on a stream of events


@dataclass(eq=False)
class Job:
    """A piece of work and how far it is."""

    kind: str
    work: Callable[[Job], Any]  # in a thread: what is done; its value goes to `finish`
    finish: Callable[[Any], str | None]  # in the service: keeps the value and gives the result's name
    id: str = field(default_factory=new_id)
    state: State = "queued"
    progress: dict[str, Any] = field(default_factory=lambda: {"stage": "waiting", "done": 0, "total": 0, "text": ""})
    result: str | None = None
    failure: Failure | None = None
    events: list[tuple[str, Any]] = field(default_factory=list)
    stop: Event = field(default_factory=Event)
    moved: asyncio.Event = field(default_factory=asyncio.Event)  # set, and replaced, at each step
    ended: float | None = None
    watchers: int = 0
    unwatched: float | None = None  # since when nobody listens any more
    short: bool = False  # may overtake those that are not
    overtaken: int = 0  # how often

    def move(self) -> None:
        """Wake those who wait for its next step."""
        self.moved.set()
        self.moved = asyncio.Event()

    def described(self) -> dict[str, Any]:
        """As JSON holds it."""
        return {
            "id": self.id,
            "job": self.id,
            "kind": self.kind,
            "state": self.state,
            "progress": self.progress,
            "result": self.result,
            "error": None if self.failure is None else self.failure.body()["error"],
        }

    def described_at(self, progress: dict[str, Any]) -> dict[str, Any]:
        """As it was while it was worked on."""
        return {**self.described(), "state": "running", "progress": progress, "result": None, "error": None}


def _over(_: Any) -> None:
    """The work of a job that has ended."""


class Jobs:
    """Jobs of one worker, one after the other. For the thread of the service's event loop.

    size: of the queue. keep_s: how long one that has ended is known.
    """

    def __init__(self, worker: Worker, size: int, keep_s: float) -> None:
        self.worker, self.size, self._keep_s = worker, size, keep_s
        self._waiting: deque[Job] = deque()
        self._running: Job | None = None
        self._known: dict[str, Job] = {}
        self._runner: asyncio.Task[None] | None = None
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="lightglue-web-jobs")
        self._seconds = 2.0  # that a job takes, about
        self._wake = asyncio.Event()
        self._closing = False

    @property
    def waiting(self) -> int:
        """How many jobs wait."""
        return len(self._waiting)

    @property
    def running(self) -> int:
        """1 while a job is worked on."""
        return int(self._running is not None)

    def start(self) -> None:
        """Begin to work, in the running event loop."""
        self._runner = asyncio.create_task(self._run())

    async def close(self) -> None:
        """Cancel everything and end the worker."""
        self._closing = True
        for job in [*self._waiting, *([self._running] if self._running else [])]:
            job.stop.set()
        await asyncio.to_thread(self.worker.close)
        if self._runner is not None:
            self._runner.cancel()
            with suppress(asyncio.CancelledError):
                await self._runner
        for job in [*self._waiting, *([self._running] if self._running else [])]:
            self._end(job, "cancelled")
        self._waiting.clear()
        self._thread.shutdown(wait=True, cancel_futures=True)

    def submit(
        self,
        kind: str,
        task: str,
        given: Mapping[str, Any],
        budget: Budget,
        finish: Callable[[Any], str | None],
        short: bool = False,
    ) -> Job:
        """Put a task in the queue. Raises FailureError (429) where it is full.

        short: a fraction of a second, and so before what takes longer, unless that was overtaken several times.
        """
        loop = asyncio.get_running_loop()

        def work(job: Job) -> Any:
            def hear(name: str, content: Any) -> None:
                loop.call_soon_threadsafe(self.hear, job, name, content)

            return self.worker.do(task, given, budget, hear, job.stop)

        return self.add(kind, work, finish, short)

    def add(
        self, kind: str, work: Callable[[Job], Any], finish: Callable[[Any], str | None], short: bool = False
    ) -> Job:
        """Put any work in the queue, which is done in the thread of the jobs: see `submit`."""
        if self._closing:
            raise FailureError.of(503, "closing", "The service is being shut down.")
        if len(self._waiting) >= self.size:
            seconds = max(1, round(self._seconds * len(self._waiting)))
            raise FailureError(
                Failure(
                    429, "busy", f"{len(self._waiting)} jobs wait already; try again in {seconds} s.", None, seconds
                )
            )
        job = Job(kind, work, finish, short=short)
        self._known[job.id] = job
        self._forget()
        self._queue(job)
        self._wake.set()
        return job

    def _queue(self, job: Job) -> None:
        """The last place; for a short one the one behind the last that is short, too, or was overtaken enough."""
        place = len(self._waiting)
        while job.short and place:
            ahead = self._waiting[place - 1]
            if ahead.short or ahead.overtaken >= _OFTEN:
                break
            ahead.overtaken += 1
            place -= 1
        self._waiting.insert(place, job)

    def get(self, name: str) -> Job:
        """A job. Raises FailureError (404)."""
        self._forget()
        job = self._known.get(name)
        if job is None:
            raise FailureError.of(404, "unknown", "There is no such job here.")
        if job.unwatched is not None:  # somebody asks again
            job.unwatched = time.monotonic()
        return job

    def cancel(self, job: Job, because: Failure | None = None) -> None:
        """Stop it: at once where it waits, at its next step where it is worked on. Nothing where it has ended.

        because: what it fails of, where nobody cancelled it.
        """
        if job.state in ENDED:
            return
        if not job.stop.is_set():
            job.failure = because
        job.stop.set()
        if job in self._waiting:
            self._waiting.remove(job)
            self._end_stopped(job)

    async def wait(self, job: Job, seconds: float | None = None) -> bool:
        """Wait until it has ended, at most so long; whether it has."""

        until = None if seconds is None else time.monotonic() + seconds
        while job.state not in ENDED:
            try:
                left = None if until is None else max(0.0, until - time.monotonic())
                await asyncio.wait_for(job.moved.wait(), left)
            except asyncio.TimeoutError:
                break
        return job.state in ENDED

    async def result(self, job: Job, seconds: float | None = None) -> str | None:
        """The name of its result, once it has ended; None where it has not, after so many seconds.

        Raises FailureError where there is none. A caller that leaves meanwhile cancels it.
        """
        try:
            if not await self.wait(job, seconds):
                return None
        except asyncio.CancelledError:
            self.cancel(job)
            raise
        if job.failure is not None:
            raise FailureError(job.failure)
        if job.state == "cancelled":
            raise FailureError.of(409, "cancelled", "This was cancelled.")
        return job.result

    async def events(self, job: Job, after: int = 0) -> AsyncIterator[tuple[int, str, Any] | None]:
        """Its events from number `after` on, up to its end; None as a sign of life."""
        job.watchers, job.unwatched = job.watchers + 1, None
        try:
            at = max(0, after)
            while True:
                while at < len(job.events):
                    name, content = job.events[at]
                    at += 1
                    yield at, name, job.described_at(content) if name == "progress" else content
                if job.state in ENDED:
                    return
                try:
                    await asyncio.wait_for(job.moved.wait(), _ALIVE_S)
                except asyncio.TimeoutError:
                    yield None
        finally:
            job.watchers -= 1
            if not job.watchers:
                job.unwatched = time.monotonic()

    def abandoned(self) -> list[Job]:
        """Jobs that somebody watched and nobody does any more."""
        before = time.monotonic() - _UNWATCHED_S
        open_jobs = [*self._waiting, *([self._running] if self._running else [])]
        return [job for job in open_jobs if job.unwatched is not None and job.unwatched < before]

    async def _run(self) -> None:
        while not self._closing:
            while not self._waiting:
                self._wake.clear()
                await self._wake.wait()
            job = self._running = self._waiting.popleft()
            if job.state == "queued":
                job.state = "running"
                self.hear(job, "progress", {"stage": "starting", "done": 0, "total": 0, "text": ""})
            begin = time.monotonic()
            try:
                value = await asyncio.get_running_loop().run_in_executor(self._thread, job.work, job)
                if job.failure is not None or (value is MORE and job.stop.is_set()):
                    raise StoppedError
                if value is MORE:  # behind those that wait
                    self._waiting.append(job)
                else:
                    job.result = job.finish(value)
                    self._end(job, "done")
                self._seconds += 0.2 * (time.monotonic() - begin - self._seconds)
            except StoppedError:
                self._end_stopped(job)
            except Exception as error:
                job.failure = failure_of(error) or unexpected(error)
                self._end(job, "failed")
            finally:
                self._running = None

    def hear(self, job: Job, name: str, content: Any) -> None:
        """An event of a job that is worked on."""
        if job.state in ENDED or len(job.events) >= _MOST_EVENTS:
            return
        if name == "progress":
            job.progress = content
            if job.events and job.events[-1][0] == "progress" and not job.watchers:
                job.events.pop()  # nobody waits for steps on the way
        job.events.append((name, content))
        job.move()

    def _end_stopped(self, job: Job) -> None:
        self._end(job, "cancelled" if job.failure is None else "failed")

    def _end(self, job: Job, state: State) -> None:
        job.state, job.ended = state, time.monotonic()
        job.work = job.finish = _over  # they hold images
        job.events.append((state, job.described()))
        job.move()

    def _forget(self) -> None:
        """Drop jobs that ended long ago."""
        ended = [job for job in self._known.values() if job.ended is not None]
        oldest = time.monotonic() - self._keep_s
        for i, job in enumerate(ended):
            if len(ended) - i > _KEPT or (job.ended is not None and job.ended < oldest):
                del self._known[job.id]
