"""Tests of permissions, also where the tests run as root, who may read and write everything."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

NOBODY = 65534


@contextmanager
def ordinary_user() -> Iterator[None]:
    """As a user whom permissions bind. What is imported late must be imported before: this user may not reach it."""
    if os.geteuid() != 0:
        yield
        return
    os.setresuid(NOBODY, NOBODY, 0)  # the real user, too: os.access asks for it
    try:
        yield
    finally:
        os.setresuid(0, 0, 0)
