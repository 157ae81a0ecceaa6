"""The web service without processes of its own: what a task does is done in the test's process."""

from __future__ import annotations

import pickle
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from threading import Event
from typing import Any

from starlette.testclient import TestClient

from lightglue.web import WebOptions, create_app
from lightglue.web.failures import FailureError, failure_of
from lightglue.web.service import IMAGE_TASKS, MODEL_TASKS
from lightglue.web.tasks.report import Report

__all__ = ["InProcess", "send", "serving"]

Before = Callable[[str, Mapping[str, Any], Event], None]


class InProcess:
    """As `lightglue.web.worker.Worker`. before: gets each task, and may raise what is to become of it."""

    restarts = 0

    def __init__(self, tasks: Mapping[str, str], before: Before = lambda task, given, stop: None) -> None:
        self.tasks, self.before = tasks, before
        self.done: list[str] = []
        self.restarts = 0

    def do(
        self,
        task: str,
        given: Any,
        budget: Any,
        hear: Callable[[str, Any], None] = lambda kind, content: None,
        cancelled: Event | None = None,
    ) -> Any:
        stop = cancelled or Event()
        self.before(task, given, stop)
        module, _, function = self.tasks[task].partition(":")
        try:
            given = pickle.loads(pickle.dumps(given))  # as through the pipe
            found = getattr(import_module(module), function)(given, Report(lambda message: hear(*message), stop))
            found = pickle.loads(pickle.dumps(found))
        except Exception as error:
            known = failure_of(error)
            if known is None:
                raise
            raise FailureError(known) from error
        self.done.append(task)
        return found

    def start(self) -> None:
        pass

    def close(self) -> None:
        pass


@contextmanager
def serving(
    options: WebOptions | None = None, before: Before = lambda task, given, stop: None
) -> Iterator[tuple[TestClient, InProcess]]:
    """A client of a service that works in this process, and the worker with its models."""
    app = create_app(options)
    service: Any = app.state.service
    worker = InProcess(MODEL_TASKS, before)
    service.jobs.worker, service.decoding.worker = worker, InProcess(IMAGE_TASKS)
    with TestClient(app, base_url="http://127.0.0.1") as client:
        yield client, worker


def send(client: TestClient, path: Path) -> str:
    """Send an image; its id."""
    answer = client.post("/api/v1/images", files={"file": (path.name, path.read_bytes())})
    assert answer.status_code == 201, answer.text
    return str(answer.json()["id"])
