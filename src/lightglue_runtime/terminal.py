"""How a command answers: warnings and errors in one line on stderr, and exit codes."""

from __future__ import annotations

import io
import os
import signal
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NoReturn

from lightglue_runtime.errors import LightGlueError
from lightglue_runtime.printable import printable

__all__ = ["answering"]


@contextmanager
def answering() -> Iterator[None]:
    """Around all that a command does.

    Exit code 1: an error in one line on stderr; 130: interrupted; 143: terminated.
    """
    warnings.formatwarning = _one_line
    signal.signal(signal.SIGTERM, _terminate)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # a file name may hold what the terminal cannot show
    try:
        yield
    except LightGlueError as error:
        _fail(str(error))
    except BrokenPipeError:  # the reader, such as `head`, has seen enough
        _drop_stdout()
        sys.exit(1)
    except OSError as error:
        _drop_stdout()
        _fail(f"{error.strerror or error}{f': {error.filename}' if error.filename else ''}")
    except KeyboardInterrupt:
        sys.exit(130)


def _fail(message: str) -> NoReturn:
    print("error:", printable(message), file=sys.stderr)
    sys.exit(1)


def _drop_stdout() -> None:
    """Leave nothing for the interpreter to flush into a broken stdout when it ends."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _terminate(*_: Any) -> NoReturn:
    sys.exit(143)  # as an exception, so that half files are removed and a running pip is ended


def _one_line(message: Warning | str, *_: Any, **__: Any) -> str:
    return f"warning: {printable(message)}\n"
