"""The command line, run in the process of the test."""

from __future__ import annotations

import io
import re
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from functools import cache
from typing import Any, NamedTuple
from unittest import mock

import pytest
import typer.main

from lightglue.cli import main

_made = typer.main.get_command
_made_once = cache(_made)


class Run(NamedTuple):
    """A finished command."""

    code: int
    out: str
    err: str


@contextmanager
def built_once() -> Iterator[None]:
    """While it lasts, typer makes the commands out of their functions once; but --help, which changes what is made."""

    def command(app: typer.Typer) -> Any:
        return _made(app) if "--help" in sys.argv else _made_once(app)

    with mock.patch("typer.main.get_command", command):
        yield


def lightglue(*words: object) -> Run:
    """`lightglue WORDS`."""
    out, err = io.StringIO(), io.StringIO()
    with (
        mock.patch.object(sys, "argv", ["lightglue", *map(str, words)]),
        mock.patch.object(warnings, "formatwarning"),
        redirect_stdout(out),
        redirect_stderr(err),
        built_once(),
        pytest.raises(SystemExit) as ended,
    ):
        main()
    return Run(int(ended.value.code or 0), out.getvalue(), err.getvalue())


def plain(message: str) -> str:
    """A message without the box around it and the line breaks in it."""
    return " ".join(re.sub("[│╭╮╰╯─]", " ", message).split())
