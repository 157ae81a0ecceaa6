"""Python code in a process of its own, which may be killed, and which need not wait for torch to be loaded.

Each is forked from one process that has imported what takes seconds and has done nothing else. What a test says about
imports, or about a fresh interpreter, takes `subprocess` instead.
"""

from __future__ import annotations

import multiprocessing
import os
import subprocess
import sys
import tempfile
import time
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from types import TracebackType
from typing import Any

PRELOADED = ["torch", "lightglue.cli", "lightglue.pairs.match", "lightglue.sfm.pipeline", "lightglue.evaluation.run"]
_FORKS = multiprocessing.get_context("forkserver")
_FORKS.set_forkserver_preload(PRELOADED)


def _run(code: str, words: list[str], folder: str, environment: dict[str, str], outputs: tuple[str, str]) -> None:
    """In the child: become a process that was started as `python -c CODE WORDS`."""
    sys.stdout.flush()
    sys.stderr.flush()
    for number, path in enumerate(outputs, 1):
        file = os.open(path, os.O_WRONLY | os.O_APPEND)
        os.dup2(file, number)
        os.close(file)
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    sys.argv = ["-c", *words]
    exec(compile(code, "<a child of the tests>", "exec"), {"__name__": "__main__"})


class Child:
    """Running code. At the end of a `with` block it has ended."""

    def __init__(self, code: str, *words: object, cwd: str | Path = ".", env: dict[str, str] | None = None) -> None:
        self._folder = tempfile.TemporaryDirectory()
        self._outputs = tuple(Path(self._folder.name, name) for name in ("out", "err"))
        for path in self._outputs:
            path.touch()
        environment = dict(os.environ if env is None else env)
        given = (code, [str(word) for word in words], os.path.abspath(cwd), environment, (*map(str, self._outputs),))
        self._process: ForkServerProcess = _FORKS.Process(target=_run, args=given)
        self._process.start()

    @property
    def pid(self) -> int:
        assert self._process.pid is not None
        return self._process.pid

    @property
    def stdout(self) -> str:
        """What it has written by now."""
        return self._outputs[0].read_text()

    @property
    def stderr(self) -> str:
        return self._outputs[1].read_text()

    def wait_for(self, words: str, timeout: float = 120) -> None:
        """Until it has written these words; an error where it ends without."""
        until = time.monotonic() + timeout
        while words not in self.stdout:
            if self.poll() is not None or time.monotonic() > until:
                self.kill()
                raise AssertionError(f"it never wrote {words!r}: {self.stderr}")
            time.sleep(0.002)

    def poll(self) -> int | None:
        """How it ended, or None while it runs; a signal is negative, as of `subprocess`."""
        return self._process.exitcode

    def kill(self) -> None:
        self._process.kill()

    def wait(self, timeout: float = 120) -> int:
        self._process.join(timeout)
        if self._process.exitcode is None:
            self.kill()
            self._process.join()
            raise subprocess.TimeoutExpired("a child of the tests", timeout)
        return self._process.exitcode

    def __enter__(self) -> Child:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: Any, place: TracebackType | None) -> None:
        if kind is not None:
            self.kill()
        self.wait()
        self._process.close()
        self._folder.cleanup()


def run_python(
    code: str,
    *words: object,
    check: bool = True,
    cwd: str | Path = ".",
    env: dict[str, str] | None = None,
    timeout: float = 120,
) -> subprocess.CompletedProcess[str]:
    """`python -c CODE WORDS`: its exit code and what it wrote. With `check`, it ends well."""
    with Child(code, *words, cwd=cwd, env=env) as child:
        done = subprocess.CompletedProcess(["python", "-c", code], child.wait(timeout), child.stdout, child.stderr)
    assert done.returncode == 0 or not check, done.stderr
    return done
