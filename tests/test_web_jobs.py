"""Jobs, and what is kept: a bounded queue, events that can be read again, names that cannot be guessed, expiry."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from threading import Event
from typing import Any

import pytest

from lightglue.errors import InputError
from lightglue.web import jobs as module
from lightglue.web.failures import FailureError, StoppedError
from lightglue.web.jobs import MORE, Job, Jobs
from lightglue.web.store import Store, new_id
from lightglue.web.worker import Budget
from support.loops import run_alone

BUDGET = Budget(60, 1 << 40)


class Tasks:
    """A worker whose tasks are functions of the test."""

    def __init__(self) -> None:
        self.done: list[Any] = []
        self.go = Event()
        self.closed = Event()

    def do(self, task: str, given: Any, budget: Budget, hear: Callable[[str, Any], None], cancelled: Event) -> Any:
        self.done.append(given)
        hear("progress", {"stage": "working", "done": given, "total": 9, "text": ""})
        if task == "wrong":
            raise InputError("size: too small.")
        while task == "wait" and not self.go.is_set():
            if cancelled.wait(0.005) or self.closed.is_set():
                raise StoppedError
        return given

    def close(self) -> None:
        self.closed.set()


def run(body: Callable[[Jobs, Tasks], Any], size: int = 8) -> Any:
    async def main() -> Any:
        worker = Tasks()
        jobs = Jobs(worker, size, 60)  # type: ignore[arg-type]
        jobs.start()
        try:
            return await body(jobs, worker)
        finally:
            await jobs.close()

    return run_alone(main())


def submit(jobs: Jobs, given: Any, task: str = "quick", short: bool = False) -> Job:
    return jobs.submit("match", task, given, BUDGET, lambda value: f"result-{value}", short)


def test_a_job_is_done_and_names_its_result() -> None:
    async def body(jobs: Jobs, worker: Tasks) -> Any:
        job = submit(jobs, 3)
        assert job.state == "queued"
        return await jobs.result(job), job.described()

    result, described = run(body)
    assert result == described["result"] == "result-3"
    assert (described["state"], described["error"]) == ("done", None)
    assert described["progress"]["done"] == 3


def test_one_at_a_time_in_order_and_short_ones_first() -> None:
    async def body(jobs: Jobs, worker: Tasks) -> Any:
        first = submit(jobs, 0, "wait")
        while not worker.done:
            await asyncio.sleep(0.005)
        others = [submit(jobs, 1), submit(jobs, 2), submit(jobs, 3, short=True), submit(jobs, 4, short=True)]
        assert (jobs.running, jobs.waiting) == (1, 4)
        worker.go.set()
        for job in [first, *others]:
            await jobs.result(job)
        return worker.done

    assert run(body) == [0, 3, 4, 1, 2]


def test_short_ones_do_not_keep_a_long_one_waiting_for_ever() -> None:
    async def body(jobs: Jobs, worker: Tasks) -> Any:
        first = submit(jobs, 0, "wait")
        while not worker.done:
            await asyncio.sleep(0.005)
        long = submit(jobs, -1)
        short = [submit(jobs, at, short=True) for at in range(1, 9)]
        worker.go.set()
        for job in [first, long, *short]:
            await jobs.result(job)
        return worker.done

    assert run(body, size=20) == [0, 1, 2, 3, 4, 5, -1, 6, 7, 8]


def test_what_takes_turns_waits_behind_those_who_came_meanwhile() -> None:
    async def body(jobs: Jobs, worker: Tasks) -> Any:
        done: list[str] = []

        def turn(job: Job) -> Any:
            done.append("turn")
            return MORE if done.count("turn") < 3 else "all"

        def once(job: Job) -> str:
            done.append("match")
            return "one"

        first = submit(jobs, 0, "wait")
        waiting = [jobs.add("pairs", turn, str), jobs.add("match", once, str)]
        worker.go.set()
        return [await jobs.result(job) for job in [first, *waiting]], done

    assert run(body) == (["result-0", "all", "one"], ["turn", "match", "turn", "turn"])


def test_a_full_queue_says_when_to_come_again_and_loses_nothing() -> None:
    async def body(jobs: Jobs, worker: Tasks) -> Any:
        running = submit(jobs, 0, "wait")
        while not worker.done:
            await asyncio.sleep(0.005)
        waiting = [submit(jobs, 1), submit(jobs, 2)]
        with pytest.raises(FailureError) as caught:
            submit(jobs, 3)
        worker.go.set()
        results = [await jobs.result(job) for job in [running, *waiting]]
        return caught.value.failure, results

    failure, results = run(body, size=2)
    assert (failure.status, failure.code) == (429, "busy")
    assert failure.headers()["Retry-After"].isdecimal()
    assert results == ["result-0", "result-1", "result-2"]


def test_what_fails_says_why_and_the_next_goes_on() -> None:
    async def body(jobs: Jobs, worker: Tasks) -> Any:
        wrong, right = submit(jobs, 1, "wrong"), submit(jobs, 2)
        with pytest.raises(FailureError, match="size: too small"):
            await jobs.result(wrong)
        return wrong.described()["error"], await jobs.result(right)

    error, result = run(body)
    assert error == {"code": "input", "message": "size: too small.", "field": "size"}
    assert result == "result-2"


@pytest.mark.parametrize("when", ["waiting", "running"])
def test_a_job_can_be_cancelled(when: str) -> None:
    async def body(jobs: Jobs, worker: Tasks) -> Any:
        first = submit(jobs, 0, "wait")
        second = submit(jobs, 1)
        while not worker.done:
            await asyncio.sleep(0.005)
        cancelled = first if when == "running" else second
        jobs.cancel(cancelled)
        with pytest.raises(FailureError, match="cancelled"):
            await jobs.result(cancelled)
        jobs.cancel(cancelled)  # again, which does nothing
        worker.go.set()
        other = second if when == "running" else first
        return cancelled.state, await jobs.result(other), worker.done

    state, result, done = run(body)
    assert state == "cancelled"
    assert result == ("result-1" if when == "running" else "result-0")
    assert done == ([0, 1] if when == "running" else [0])


def test_whoever_waits_and_leaves_cancels_the_job() -> None:
    async def body(jobs: Jobs, worker: Tasks) -> Any:
        job = submit(jobs, 0, "wait")
        waiting = asyncio.create_task(jobs.result(job))
        await asyncio.sleep(0.02)
        waiting.cancel()
        await jobs.wait(job)
        return job.state

    assert run(body) == "cancelled"


def test_waiting_may_end_before_the_job() -> None:
    async def body(jobs: Jobs, worker: Tasks) -> Any:
        job = submit(jobs, 0, "wait")
        assert await jobs.result(job, 0.02) is None
        worker.go.set()
        return await jobs.result(job, 30)

    assert run(body) == "result-0"


def test_events_can_be_read_again_from_any_number_on() -> None:
    async def body(jobs: Jobs, worker: Tasks) -> Any:
        job = submit(jobs, 4)
        first = [event async for event in jobs.events(job) if event]
        again = [event async for event in jobs.events(job) if event]
        rest = [event async for event in jobs.events(job, first[-1][0] - 1) if event]
        nothing = [event async for event in jobs.events(job, 10**9) if event]
        return first, again, rest, nothing

    first, again, rest, nothing = run(body)
    assert again == first
    assert rest == first[-1:]
    assert nothing == []
    assert [number for number, _, _ in first] == list(range(1, len(first) + 1))
    name, content = first[-1][1:]
    assert (name, content["state"], content["result"]) == ("done", "done", "result-4")
    assert first[-2][2]["progress"]["stage"] == "working"


def test_a_job_that_nobody_watches_any_more_is_abandoned(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_UNWATCHED_S", 0.05)

    async def body(jobs: Jobs, worker: Tasks) -> Any:
        watched, never = submit(jobs, 0, "wait"), submit(jobs, 1)
        events = jobs.events(watched)
        await events.__anext__()
        await asyncio.sleep(0.1)
        during = jobs.abandoned()
        await events.aclose()
        at_once = jobs.abandoned()
        await asyncio.sleep(0.1)
        later = jobs.abandoned()
        jobs.get(watched.id)  # asks how far it is
        return during, at_once, later == [watched], jobs.abandoned(), never.state

    assert run(body) == ([], [], True, [], "queued")


def test_closing_cancels_everything_and_wakes_who_waits() -> None:
    async def main() -> Any:
        worker = Tasks()
        jobs = Jobs(worker, 8, 60)  # type: ignore[arg-type]
        jobs.start()
        running, waiting = submit(jobs, 0, "wait"), submit(jobs, 1)
        waits = asyncio.gather(jobs.wait(running), jobs.wait(waiting))
        await asyncio.sleep(0.02)
        await jobs.close()
        return await waits, running.state, waiting.state

    assert run_alone(main()) == ([True, True], "cancelled", "cancelled")


def test_an_unknown_job_is_404() -> None:
    async def body(jobs: Jobs, worker: Tasks) -> Any:
        with pytest.raises(FailureError) as caught:
            jobs.get("x")
        return caught.value.failure.status

    assert run(body) == 404


# -- what is kept --


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def status(store: Store[str], name: str) -> int:
    with pytest.raises(FailureError) as caught:
        store.get(name)
    return caught.value.failure.status


def test_names_cannot_be_guessed() -> None:
    names = {new_id() for _ in range(1000)}
    assert len(names) == 1000
    assert min(map(len, names)) >= 24  # 144 bits


def test_what_is_not_used_is_gone_after_its_time() -> None:
    clock = Clock()
    store: Store[str] = Store("image", 100, 60, clock)
    old, used = store.put("old", 10), store.put("used", 10)
    clock.now = 50
    assert store.get(used) == "used"
    clock.now = 100
    assert status(store, old) == 410
    assert store.get(used) == "used"
    assert (len(store), store.size) == (1, 10)
    assert status(store, "never was") == 404


def test_the_least_used_goes_to_make_room() -> None:
    store: Store[str] = Store("image", 100, 60)
    first, second = store.put("a", 40), store.put("b", 40)
    store.get(first)
    third = store.put("c", 40)
    assert status(store, second) == 410
    assert (store.get(first), store.get(third), store.size) == ("a", "c", 80)
    with pytest.raises(FailureError, match="more than is kept"):
        store.put("d", 101)
    assert len(store) == 2, "nothing goes for what has no room"


def test_what_is_removed_is_gone_and_what_belongs_to_the_service_stays() -> None:
    store: Store[str] = Store("image", 100, 60)
    name = store.put("a", 40)
    store.pin("example", "ours")
    store.remove(name)
    assert (status(store, name), store.size) == (410, 0)
    with pytest.raises(FailureError, match="belongs to the service"):
        store.remove("example")
    store.clear()
    assert store.get("example") == "ours"
