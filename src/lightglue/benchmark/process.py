"""A worker process seen from the coordinator: ask, wait, and never leave it behind."""

from __future__ import annotations

import json
import os
import queue
import signal
import subprocess
import tempfile
import threading
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

from lightglue.errors import LightGlueError

__all__ = ["Side", "Worker"]

GRACE_S = 5.0  # to end by itself once its stdin is closed
TOLD_LINES = 4  # of stderr, when a worker fails


@dataclass(frozen=True)
class Side:
    """An implementation and the interpreter that it runs in."""

    name: str  # "ours" or "published"
    python: Path
    ours: bool

    def command(self) -> list[str]:
        """What starts a worker of this side."""
        return [str(self.python), str(Path(__file__).with_name("worker.py")), self.name]

    def environment(self, threads: int | None) -> dict[str, str]:
        """The worker's environment: ours finds this very package, the other one what is installed there."""
        environment = dict(os.environ)
        if self.ours:
            root = str(Path(__file__).parents[2])
            environment["PYTHONPATH"] = os.pathsep.join(filter(None, (root, os.environ.get("PYTHONPATH"))))
        if threads:
            environment |= dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), str(threads))
        return environment


class Worker:
    """A running worker. A context manager: it and its children are gone when the block ends."""

    def __init__(
        self, name: str, command: Sequence[str], environment: Mapping[str, str] | None = None, timeout: float = 600
    ) -> None:
        self.name, self.timeout = name, timeout
        self._stderr = tempfile.TemporaryFile()  # noqa: SIM115  # closed in close()
        self._answers: queue.SimpleQueue[str] = queue.SimpleQueue()
        self._process = subprocess.Popen(
            list(command),
            env=None if environment is None else dict(environment),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._stderr,
            text=True,
            encoding="utf-8",
            start_new_session=True,  # Ctrl-C reaches the coordinator alone, which then ends the whole group
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def __enter__(self) -> Worker:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close(wait=kind is None)

    def ask(self, do: str, **request: Any) -> dict[str, Any]:
        """The worker's answer. Raises LightGlueError if it fails, dies, or takes longer than `timeout` seconds."""
        assert self._process.stdin is not None
        with suppress(OSError):  # a broken pipe: the missing answer tells
            self._process.stdin.write(json.dumps({"do": do, **request}, default=str) + "\n")
            self._process.stdin.flush()
        try:
            line = self._answers.get(timeout=self.timeout)
        except queue.Empty:
            raise LightGlueError(
                f"the worker {self.name!r} gave no answer to {do!r} in {self.timeout:g} s; --timeout allows it "
                f"more.{self._told()}"
            ) from None
        if not line:
            raise LightGlueError(f"the worker {self.name!r} died during {do!r} ({self._code()}).{self._told()}")
        answer = json.loads(line)
        if "error" in answer:
            message = answer["error"]
            raise LightGlueError(message if answer["expected"] else f"the worker {self.name!r} failed: {message}")
        ok: dict[str, Any] = answer["ok"]
        return ok

    def close(self, wait: bool = True) -> None:
        """End the worker: by itself where there is time, else by force, with all processes that it started."""
        if self._process.stdin:
            with suppress(OSError):
                self._process.stdin.close()
        try:
            self._process.wait(GRACE_S if wait else 0)
        except subprocess.TimeoutExpired:
            pass
        finally:
            with suppress(ProcessLookupError, PermissionError):  # macOS says the latter of a group of the dead
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
            self._reader.join(GRACE_S)
            if self._process.stdout:
                self._process.stdout.close()
            self._stderr.close()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self._answers.put(line)
        self._answers.put("")  # the end

    def _code(self) -> str:
        with suppress(subprocess.TimeoutExpired):
            code = self._process.wait(GRACE_S)
            return f"signal {-code}" if code < 0 else f"exit code {code}"
        return "still running"

    def _told(self) -> str:
        """The last lines of its stderr."""
        self._stderr.seek(0)
        lines = self._stderr.read().decode(errors="replace").split("\n")
        tail = [line.strip() for line in lines if line.strip()][-TOLD_LINES:]
        return f" Its last words: {' | '.join(tail)}" if tail else ""
