"""The service without its processes: tasks are done in this one, so that models are loaded once for all tests."""

from __future__ import annotations

import io
import pickle
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import import_module
from threading import Event
from typing import Any

import numpy as np
from PIL import Image
from starlette.testclient import TestClient

from lightglue.web.app import create_app
from lightglue.web.failures import Failure, FailureError, StoppedError, failure_of
from lightglue.web.options import WebOptions
from lightglue.web.service import Service
from lightglue.web.tasks.report import Report
from lightglue.web.worker import Budget, Worker

API = "/api/v1"
BASE = "http://127.0.0.1"


class WorkerHere(Worker):
    """Does tasks in this process, with what goes through the pipe pickled as there."""

    def do(
        self,
        task: str,
        given: Any,
        budget: Budget,
        told: Callable[[str, Any], None] = lambda kind, content: None,
        cancelled: Event | None = None,
    ) -> Any:
        module, _, function = self._tasks[task].partition(":")
        report = Report(lambda message: told(*message), cancelled or Event())
        try:
            report.check()
            given = pickle.loads(pickle.dumps(given))
            return pickle.loads(pickle.dumps(getattr(import_module(module), function)(given, report)))
        except (FailureError, StoppedError):
            raise
        except Exception as error:
            raise FailureError(failure_of(error) or Failure(500, "internal", repr(error))) from error

    def start(self) -> None:
        pass

    def close(self) -> None:
        self._closed = True


@contextmanager
def service(options: WebOptions | None = None, **tasks: Callable[..., Any]) -> Iterator[TestClient]:
    """A client of a running service. tasks: done in place of those of these names."""

    def make(*arguments: Any) -> Worker:
        return WorkerHere(*arguments)

    state = Service(options or WebOptions(), make)
    with TestClient(create_app(service=state), base_url=BASE, raise_server_exceptions=False) as client:
        yield client


def png(width: int = 64, height: int = 48, seed: int = 0) -> bytes:
    """A picture of noise."""
    return encoded(np.random.default_rng(seed).integers(0, 255, (height, width, 3), np.uint8), "PNG")


def encoded(image: Any, kind: str, **settings: Any) -> bytes:
    """The content of an image file."""
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, kind, **settings)
    return buffer.getvalue()


def send(client: TestClient, data: bytes, name: str = "a.png") -> Any:
    """The answer to an upload."""
    return client.post(f"{API}/images", files={"file": (name, data)})


def error_of(answer: Any) -> tuple[int, str, str | None]:
    """Status, code and field of a refusal."""
    found = answer.json()["error"]
    assert set(found) >= {"code", "message", "field"}
    return answer.status_code, found["code"], found["field"]
