"""Numbers too small for a normal float32 as zero, for a while, in this thread.

Attention weights are that small by the million, and x86 computes with each of them in microcode: matching took 1.5 times
as long (docs/decisions/030-int8.md). ONNX Runtime's own option (`session.set_denormal_as_zero`) heeds the first session
of a process alone, and leaves the thread so that made it, with the user's own arithmetic in it.
"""

from __future__ import annotations

import ctypes
import platform
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache

__all__ = ["denormals_as_zero"]

# glibc's fenv_t on x86-64: 28 bytes of the x87 unit, then MXCSR. Its bits 15 and 6: results, operands.
_SIZE, _MXCSR = 32, 28
_FLUSH_TO_ZERO, _DENORMALS_ARE_ZERO = 1 << 15, 1 << 6


@contextmanager
def denormals_as_zero() -> Iterator[None]:
    """Compute so in here; threads that are started in here do so for good. Nothing happens off Linux on x86-64."""
    library = _library()
    if library is None:
        yield
        return
    before = (ctypes.c_ubyte * _SIZE)()
    library.fegetenv(before)
    within = (ctypes.c_ubyte * _SIZE).from_buffer_copy(before)
    register = ctypes.c_uint32.from_buffer(within, _MXCSR)
    register.value |= _FLUSH_TO_ZERO | _DENORMALS_ARE_ZERO
    library.fesetenv(within)
    try:
        yield
    finally:
        library.fesetenv(before)


@cache
def _library() -> ctypes.CDLL | None:
    """glibc's functions, where the layout above is theirs."""
    known = sys.platform == "linux" and platform.machine() == "x86_64" and platform.libc_ver()[0] == "glibc"
    if not known:
        return None
    try:
        return ctypes.CDLL("libm.so.6")
    except OSError:
        return None
