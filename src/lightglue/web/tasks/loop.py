"""The main loop of a worker process: tasks come on a pipe, and what they give goes back."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Mapping
from contextlib import suppress
from importlib import import_module
from multiprocessing.connection import Connection
from queue import SimpleQueue
from threading import Event, Thread
from typing import Any

from lightglue.web.failures import StoppedError, failure_of, unexpected
from lightglue.web.tasks.report import Report

__all__ = ["work"]


def work(pipe: Connection, tasks: Mapping[str, str]) -> None:
    """Do tasks until the other end is closed."""
    with suppress(ValueError, OSError):
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # whoever started us ends us
    asked: SimpleQueue[tuple[str, Any, Event]] = SimpleQueue()
    Thread(target=_receive, args=(pipe, asked), daemon=True).start()
    known: dict[str, Callable[[Any, Report], Any]] = {}
    for module in dict.fromkeys(each.partition(":")[0] for each in list(tasks.values())[:1]):
        import_module(module)  # what most requests want
    while True:
        task, given, stop = asked.get()
        answer = _answer(pipe, tasks, known, task, given, stop)
        with suppress(OSError):
            pipe.send(answer)


def _receive(pipe: Connection, asked: SimpleQueue[tuple[str, Any, Event]]) -> None:
    """Read what comes while a task is worked on; end with the service, however that ends.

    A request to stop may come when its task has just ended: each task has an event of its own, so that it never stops
    the next one.
    """
    stop = Event()
    while True:
        try:
            task, given = pipe.recv()
        except (EOFError, OSError):
            os._exit(0)
        if task == "stop":
            stop.set()
        else:
            stop = Event()
            asked.put((task, given, stop))


def _answer(
    pipe: Connection,
    tasks: Mapping[str, str],
    known: dict[str, Callable[[Any, Report], Any]],
    task: str,
    given: Any,
    stop: Event,
) -> tuple[str, Any]:
    try:
        if task not in known:
            module, _, function = tasks[task].partition(":")
            known[task] = getattr(import_module(module), function)
        pipe.send(("begun", None))
        return "done", known[task](given, Report(pipe.send, stop))
    except StoppedError:
        return "cancelled", None
    except Exception as error:
        return "failed", failure_of(error) or unexpected(error)
