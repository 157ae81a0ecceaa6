"""Jobs for worker processes of tests. Importing this is quick: each process does it."""

from __future__ import annotations

import os
import signal
import sys
import time
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lightglue.errors import InputError


@dataclass(frozen=True)
class Squares:
    """Squares numbers, and does what the job says on the way."""

    folder: str = ""
    seconds: float = 10.0
    on_cpu: bool = True
    together: int = 1
    threads: int = 1

    def worker(self) -> Squares:
        return self

    def read(self, job: Any) -> Any:
        if isinstance(job, str) and job == "unreadable":
            os.kill(os.getpid(), signal.SIGKILL)
        return job

    def compute(self, job: Any, read: Any) -> Any:
        if not isinstance(job, str):
            return job * job
        match job:
            case "print":
                print("to standard output")
                os.write(1, b"also from C\n")
                return sys.stdin.read()
            case "environment":
                return {name: os.environ.get(name) for name in ("OMP_NUM_THREADS", "OPENCV_FOR_THREADS_NUM")}
            case "process":
                return os.getpid(), os.getppid()
            case "warn":
                warnings.warn("this is old", UserWarning, stacklevel=1)
            case "input error":
                raise InputError("the number is wrong; give another")
            case "bug":
                raise ZeroDivisionError("a mistake of ours")
            case "die once":
                self._die_once()
            case "die":
                os.kill(os.getpid(), signal.SIGKILL)
            case "sleep":
                Path(self.folder, "asleep").touch()
                time.sleep(600)
        return job

    def _die_once(self) -> None:
        mark = Path(self.folder, "died")
        if not mark.exists():
            mark.touch()
            os.kill(os.getpid(), signal.SIGKILL)

    def failed(self, job: Any, reason: str) -> Any:
        return f"{job}: {reason}"

    def close(self) -> None:
        pass


@dataclass(frozen=True)
class Refusing(Squares):
    def worker(self) -> Squares:
        raise InputError("there is no such model; choose another")


@dataclass(frozen=True)
class Stillborn(Squares):
    def worker(self) -> Squares:
        os._exit(3)
