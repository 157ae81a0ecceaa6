"""The process that works for the service: whatever ends it costs one task, and it never outlives the service."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from threading import Event, Thread
from typing import Any

import pytest

from lightglue.web.failures import FailureError, StoppedError
from lightglue.web.worker import Budget, Worker

NAMES = ("double", "pid", "variables", "crash", "hang", "step", "swell", "refuse", "fail", "exhaust")
TASKS = {name: f"support.web_tasks:{name}" for name in NAMES}
PLENTY = Budget(60, 1 << 40)
ON_LINUX = pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="needs /proc")


@pytest.fixture(scope="module")
def worker() -> Iterator[Worker]:
    """One for all tests: after each of them it must work again."""
    made = Worker("test", TASKS, {"LIGHTGLUE_OFFLINE": "1"})
    yield made
    made.close()


@pytest.fixture(autouse=True)
def _works_afterwards(worker: Worker) -> Iterator[None]:
    yield
    assert worker.do("double", 21, PLENTY) == 42


def failure(worker: Worker, task: str, given: Any = None, budget: Budget = PLENTY) -> Any:
    with pytest.raises(FailureError) as caught:
        worker.do(task, given, budget)
    return caught.value.failure


def test_a_task_is_done_in_another_process_that_stays(worker: Worker) -> None:
    first, second = worker.do("pid", None, PLENTY), worker.do("pid", None, PLENTY)
    assert first == second == worker.pid != os.getpid()


def test_it_says_how_far_it_is(worker: Worker) -> None:
    heard: list[Any] = []
    worker.do("double", 1, PLENTY, lambda kind, content: heard.append((kind, content)))
    assert heard == [("progress", {"stage": "doubling", "done": 1, "total": 2, "text": "half"})]


def test_it_gets_variables_that_the_service_does_not_have(worker: Worker, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LIGHTGLUE_OFFLINE", raising=False)
    assert worker.do("variables", ["LIGHTGLUE_OFFLINE"], PLENTY) == ["1"]
    assert "LIGHTGLUE_OFFLINE" not in os.environ


@pytest.mark.skipif(os.name != "posix", reason="needs signals")
def test_a_crash_costs_one_task(worker: Worker) -> None:
    before, restarts = worker.do("pid", None, PLENTY), worker.restarts
    found = failure(worker, "crash")
    assert (found.status, found.code) == (500, "crashed")
    assert worker.do("pid", None, PLENTY) != before
    assert worker.restarts == restarts + 1


def test_one_that_hangs_is_ended_at_its_time(worker: Worker) -> None:
    begin = time.monotonic()
    found = failure(worker, "hang", budget=Budget(0.3, 1 << 40))
    assert (found.status, found.code) == (504, "time")
    assert "0.3 s" in found.message
    assert time.monotonic() - begin < 60


@ON_LINUX
def test_one_that_takes_too_much_memory_is_ended(worker: Worker) -> None:
    found = failure(worker, "swell", 400_000_000, Budget(60, 200_000_000))
    assert (found.status, found.code) == (507, "memory")


def test_what_the_package_refuses_is_passed_on_with_its_field(worker: Worker) -> None:
    found = failure(worker, "refuse")
    assert (found.status, found.code, found.about) == (422, "input", "threshold")
    assert found.message == "threshold: -1 is too little; give more."


def test_memory_that_does_not_suffice_is_said(worker: Worker) -> None:
    assert failure(worker, "exhaust").status == 507


def test_a_fault_of_ours_is_a_number_and_no_trace(worker: Worker, capfd: pytest.CaptureFixture[str]) -> None:
    worker.stop()  # the next one writes where this test reads
    found = failure(worker, "fail")
    assert found.status == 500
    assert "secret" not in found.message
    number = found.message.rpartition(" ")[2].rstrip(".")
    assert f"error {number}" in capfd.readouterr().err, "the log has all of it"


@pytest.mark.parametrize("task", ["step", "hang"])
def test_a_task_that_is_not_wanted_stops_at_its_next_step_or_with_its_process(
    worker: Worker, task: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lightglue.web.worker._GRACE_S", 0.3)
    before = worker.do("pid", None, PLENTY)
    cancelled = Event()
    cancelled.set()
    with pytest.raises(StoppedError):
        worker.do(task, None, PLENTY, cancelled=cancelled)
    assert (worker.do("pid", None, PLENTY) == before) is (task == "step"), "a cancelled pair keeps the models"


def test_a_stop_that_comes_when_the_task_has_ended_is_not_for_the_next_one(worker: Worker) -> None:
    worker.do("pid", None, PLENTY)
    assert worker._pipe is not None
    worker._pipe.send(("stop", None))
    assert worker.do("double", 4, PLENTY) == 8


def test_one_that_ended_while_idle_is_replaced_and_counted_once(worker: Worker) -> None:
    os.kill(worker.do("pid", None, PLENTY), signal.SIGKILL)
    assert worker._process is not None
    worker._process.join(10)
    before = worker.restarts
    assert worker.do("double", 4, PLENTY) == 8
    assert worker.restarts == before + 1


def test_closing_ends_what_is_being_done() -> None:
    worker = Worker("closing", TASKS)
    ended: list[BaseException] = []

    def wait() -> None:
        try:
            worker.do("hang", None, PLENTY, lambda *_: None)
        except (StoppedError, FailureError) as error:
            ended.append(error)

    thread = Thread(target=wait)
    thread.start()
    while worker.pid is None:
        time.sleep(0.01)
    worker.close()
    thread.join(30)
    assert not thread.is_alive()
    assert isinstance(ended[0], StoppedError)
    with pytest.raises(FailureError, match="shut down"):
        worker.do("double", 1, PLENTY)


@ON_LINUX
def test_it_ends_with_the_service_however_that_ends() -> None:
    code = """
import os, sys
sys.path.insert(0, "tests")
from lightglue.web.worker import Budget, Worker
if __name__ == "__main__":
    worker = Worker("orphan", {"pid": "support.web_tasks:pid"})
    print(worker.do("pid", None, Budget(60, 1 << 40)), flush=True)
    os.kill(os.getpid(), 9)
"""
    root = Path(__file__).parents[1]
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=root, capture_output=True, text=True, timeout=60, check=False
    )
    orphan = int(done.stdout)
    for _ in range(500):
        if not Path(f"/proc/{orphan}").exists():
            return
        time.sleep(0.02)
    pytest.fail("the process is still there")
