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
from time import monotonic
from types import TracebackType
from typing import Any

from lightglue.benchmark.worker import linux_status
from lightglue.errors import LightGlueError

__all__ = ["Side", "Worker", "WorkerDiedError"]

GRACE_S = 5.0  # to end by itself once its stdin is closed
WATCH_S = 0.1  # between two looks at a worker's memory
STDERR_LINES = 4  # of stderr, when a worker fails


class WorkerDiedError(LightGlueError):
    """A worker ended before it answered."""

    def __init__(self, message: str, peak: int | None) -> None:
        super().__init__(message)
        self.peak = peak  # bytes of memory that it was last seen to have used, where it was watched


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
        self._peak: int | None = None
        self._hangs = False
        self._stderr = tempfile.TemporaryFile()  # noqa: SIM115  # closed in close()
        self._answers: queue.SimpleQueue[str] = queue.SimpleQueue()
        try:
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
        except OSError as error:
            self._stderr.close()
            raise LightGlueError(f"{command[0]} cannot be started: {error.strerror or error}.") from error
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def __enter__(self) -> Worker:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close(wait=kind is None)

    def ask(self, do: str, *, watch: bool = False, **request: Any) -> dict[str, Any]:
        """The worker's answer. `watch`: look at its memory meanwhile.

        Raises WorkerDiedError, and LightGlueError if it fails or takes longer than `timeout` seconds.
        """
        assert self._process.stdin is not None
        with suppress(OSError):  # a broken pipe: the missing answer says so
            self._process.stdin.write(json.dumps({"do": do, **request}, default=str) + "\n")
            self._process.stdin.flush()
        try:
            line = self._wait(watch)
        except queue.Empty:
            self._hangs = True
            raise LightGlueError(
                f"the worker {self.name!r} gave no answer to {do!r} in {self.timeout:g} s; --timeout allows it "
                f"more.{self._last_lines()}"
            ) from None
        if not line:
            message = f"the worker {self.name!r} died during {do!r} ({self._code()}).{self._last_lines()}"
            raise WorkerDiedError(message, self._peak)
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
            self._process.wait(GRACE_S if wait and not self._hangs else 0)
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

    def _wait(self, watch: bool) -> str:
        """The next line of the worker; raises queue.Empty after `timeout` seconds."""
        if not watch:
            return self._answers.get(timeout=self.timeout)
        end = monotonic() + self.timeout
        while True:
            self._peak = linux_status("VmHWM", self._process.pid) or self._peak
            try:
                return self._answers.get(timeout=WATCH_S)
            except queue.Empty:
                if monotonic() >= end:
                    raise

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self._answers.put(line)
        self._answers.put("")  # the end

    def _code(self) -> str:
        with suppress(subprocess.TimeoutExpired):
            code = self._process.wait(GRACE_S)
            if code == -signal.SIGKILL:
                return "killed, perhaps because memory ran out"
            return f"signal {-code}" if code < 0 else f"exit code {code}"
        return "still running"

    def _last_lines(self) -> str:
        """The last lines of its stderr."""
        self._stderr.seek(0)
        lines = self._stderr.read().decode(errors="replace").split("\n")
        tail = [line.strip() for line in lines if line.strip()][-STDERR_LINES:]
        return f" The last lines of its stderr: {' | '.join(tail)}" if tail else ""
