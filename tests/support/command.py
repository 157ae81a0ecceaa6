"""The command line, run in the process of the test."""

from __future__ import annotations

import io
import re
import sys
import warnings
from contextlib import redirect_stderr, redirect_stdout
from typing import NamedTuple
from unittest import mock

import pytest

from lightglue.cli import main


class Run(NamedTuple):
    """A finished command."""

    code: int
    out: str
    err: str


def lightglue(*words: object) -> Run:
    """`lightglue WORDS`."""
    out, err = io.StringIO(), io.StringIO()
    with (
        mock.patch.object(sys, "argv", ["lightglue", *map(str, words)]),
        mock.patch.object(warnings, "formatwarning"),
        redirect_stdout(out),
        redirect_stderr(err),
        pytest.raises(SystemExit) as ended,
    ):
        main()
    return Run(int(ended.value.code or 0), out.getvalue(), err.getvalue())


def plain(message: str) -> str:
    """A message without the box around it and the line breaks in it."""
    return " ".join(re.sub("[│╭╮╰╯─]", " ", message).split())
