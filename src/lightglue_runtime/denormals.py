"""Numbers below the smallest of full precision count as 0 while a runtime computes.

The softmax of cross-attention is full of them (weights below 1e-38), and on Intel's CPUs each costs a hundred cycles:
ONNX Runtime takes twice as long (docs/runtimes.md). Its own option `session.set_denormal_as_zero` reaches the threads
of its pool, but of the callers' threads only the one that made the first session of the process, for good.
"""

from __future__ import annotations

import ctypes
import platform
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache

__all__ = ["flushed_denormals"]

_SIZE, _MXCSR = 32, 28  # fenv_t of Linux on x86-64, in glibc and musl: the x87 part, and the register of SSE behind it
_FLUSH = 0x8000 | 0x0040  # of results, and of operands

_FenvCall = Callable[[ctypes.Array[ctypes.c_char]], int]


@contextmanager
def flushed_denormals() -> Iterator[None]:
    """In this thread, until the end of the block. Does nothing but on Linux on x86-64."""
    calls = _calls()
    before = ctypes.create_string_buffer(_SIZE)
    if calls is None or calls[0](before):
        yield
        return
    _, restore = calls
    register = int.from_bytes(before.raw[_MXCSR:], "little") | _FLUSH
    restore(ctypes.create_string_buffer(before.raw[:_MXCSR] + register.to_bytes(4, "little"), _SIZE))
    try:
        yield
    finally:
        restore(before)


@cache
def _calls() -> tuple[_FenvCall, _FenvCall] | None:
    """`fegetenv` and `fesetenv`."""
    if sys.platform != "linux" or platform.machine() != "x86_64":
        return None
    try:
        library = ctypes.CDLL("libm.so.6")
    except OSError:  # musl has them in its one library
        library = ctypes.CDLL(None)
    try:
        return library.fegetenv, library.fesetenv
    except AttributeError:
        return None
