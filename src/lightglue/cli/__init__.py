"""The command line: parse, call, print; nothing else."""

from __future__ import annotations

import os
import sys

from lightglue.support.loading import uncollected
from lightglue_runtime.terminal import answering

__all__ = ["main"]


def main() -> None:
    """Run the `lightglue` command.

    Exit code 0: done; 1: an error in one line on stderr; 2: a wrong command line; 130: interrupted; 143: terminated.
    """
    # Threads of torch that wait let others compute; torch reads this when it is loaded: docs/decisions.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    with answering():
        _run()


def _run() -> None:
    with uncollected():
        from lightglue.cli.app import app
        from lightglue.cli.printing import notices_as_lines

    try:
        with notices_as_lines():
            app(prog_name="lightglue")
    finally:
        if sys.stdout is not None:
            sys.stdout.flush()  # a full disk may say so only here
