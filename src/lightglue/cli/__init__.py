"""The command line: parse, call, print; nothing else."""

from __future__ import annotations

import sys
import warnings
from typing import Any

from lightglue.errors import LightGlueError

__all__ = ["main"]


def main() -> None:
    """Run the `lightglue` command.

    Exit code 0: done; 1: an error in one line on stderr; 2: a wrong command line; 130: interrupted.
    """
    warnings.formatwarning = _one_line
    try:
        from lightglue.cli.app import app

        app(prog_name="lightglue")
    except LightGlueError as error:
        print("error:", " ".join(str(error).split()), file=sys.stderr)
        sys.exit(1)
    except KeyboardInterrupt:  # before or after the app, which answers it in the same way
        sys.exit(130)


def _one_line(message: Warning | str, *_: Any, **__: Any) -> str:
    return f"warning: {message}\n"
