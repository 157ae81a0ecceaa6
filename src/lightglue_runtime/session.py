"""A model that a runtime has opened: arrays in, arrays out, one call or several at once."""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from lightglue_runtime.checks import check_choice, check_int
from lightglue_runtime.errors import ModelError
from lightglue_runtime.limits import usable_cores

__all__ = ["Arrays", "Session", "SessionOptions", "failed", "usable_threads"]

Arrays = Mapping[str, NDArray[Any]]

_MOST_THREADS = 1024  # with a hundred times as many ONNX Runtime neither answers nor can be stopped


@dataclass(frozen=True)
class SessionOptions:
    """How a runtime computes. Raises InputError for what makes no sense."""

    threads: int  # in all
    requests: int = 1  # calls at once, which share the threads; a call's result does not depend on it
    providers: tuple[str, ...] = ()  # of ONNX Runtime, the first that can do it; () for the CPU
    precision: str = "f32"  # of products, where the runtime can choose: f32, bf16, f16
    cache: Path | None = None  # folder for what is compiled; None: nothing is kept

    def __post_init__(self) -> None:
        check_int("threads", self.threads, 1, f"a number from 1 to {_MOST_THREADS}", _MOST_THREADS)
        check_int("requests", self.requests, 1, "a number of at least 1")
        check_choice("precision", self.precision, ("f32", "bf16", "f16"))

    @property
    def threads_each(self) -> int:
        """Of a call."""
        return max(1, self.threads // self.requests)


class Session(ABC):
    """A model that is ready. Threads may share it."""

    runtime: str  # its name and version, such as "ONNX Runtime 1.32.0"
    precision: str  # of products: "float32", "bfloat16", "float16"
    device: str  # such as "CPU" or "CUDAExecutionProvider"
    requests: int

    @abstractmethod
    def run(self, inputs: Arrays) -> dict[str, NDArray[Any]]:
        """All outputs by name; they are the caller's own. Raises ModelError, or MemoryError."""

    def run_many(self, inputs: Sequence[Arrays]) -> list[dict[str, NDArray[Any]]]:
        """`run` for each, several at once, in their order."""
        if self.requests == 1 or len(inputs) < 2:
            return [self.run(each) for each in inputs]
        with ThreadPoolExecutor(self.requests) as pool:
            return list(pool.map(self.run, inputs))


def usable_threads() -> int:
    """As many as `OMP_NUM_THREADS` says, else as this process may use cores."""
    asked = os.environ.get("OMP_NUM_THREADS", "").partition(",")[0].strip()
    if asked.isdecimal() and int(asked) > 0:
        return int(asked)
    return usable_cores()


def failed(what: str, error: Exception) -> Exception:
    """What to raise where a runtime raised `error`: MemoryError where memory was short, else ModelError."""
    text = " ".join(str(error).split())
    if isinstance(error, MemoryError) or any(word in text.lower() for word in _MEMORY):
        return MemoryError(f"{what}: there is not enough memory ({text:.200})")
    return ModelError(f"{what} ({text:.300}).")


_MEMORY = ("bad_alloc", "failed to allocate", "out of memory", "not enough memory", "cannot allocate")
