"""Tasks for tests of the worker process."""

from __future__ import annotations

import ctypes
import os
import time
from typing import Any

from lightglue.errors import InputError
from lightglue.web.tasks.report import Report


def double(given: Any, report: Report) -> Any:
    report.progress("doubling", 1, 2, "half")
    return given * 2


def pid(given: Any, report: Report) -> int:
    return os.getpid()


def variables(given: list[str], report: Report) -> list[str | None]:
    return [os.environ.get(name) for name in given]


def crash(given: Any, report: Report) -> None:
    ctypes.string_at(0)


def hang(given: Any, report: Report) -> None:
    while True:
        time.sleep(0.01)


def step(given: Any, report: Report) -> None:
    while True:
        report.check()
        time.sleep(0.01)


def swell(given: int, report: Report) -> None:
    held = b"x" * given
    time.sleep(60)
    del held


def refuse(given: Any, report: Report) -> None:
    raise InputError("threshold: -1 is too little; give more.")


def fail(given: Any, report: Report) -> None:
    raise KeyError("/secret/path")


def exhaust(given: Any, report: Report) -> None:
    raise MemoryError
