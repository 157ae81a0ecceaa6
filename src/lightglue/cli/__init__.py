"""The command line: parse, call, print; nothing else."""

from __future__ import annotations

import io
import os
import signal
import sys
import warnings
from typing import Any, NoReturn

from lightglue.errors import LightGlueError
from lightglue.support.printable import printable

__all__ = ["main"]


def main() -> None:
    """Run the `lightglue` command.

    Exit code 0: done; 1: an error in one line on stderr; 2: a wrong command line; 130: interrupted; 143: terminated.
    """
    # Threads of torch that wait let others compute; torch reads this when it is loaded: docs/decisions.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    warnings.formatwarning = _one_line
    signal.signal(signal.SIGTERM, _terminate)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # a file name may hold what the terminal cannot show
    try:
        _run()
    except LightGlueError as error:
        _fail(str(error))
    except BrokenPipeError:  # the reader, such as `head`, has seen enough
        _drop_stdout()
        sys.exit(1)
    except OSError as error:
        _drop_stdout()
        _fail(f"{error.strerror or error}{f': {error.filename}' if error.filename else ''}")
    except KeyboardInterrupt:  # before or after the app, which answers it in the same way
        sys.exit(130)


def _run() -> None:
    from lightglue.cli.app import app

    try:
        app(prog_name="lightglue")
    finally:
        if sys.stdout is not None:
            sys.stdout.flush()  # a full disk may say so only here


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
