"""Weight files, fetched when a user asks for them."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from lightglue.web.tasks.report import Report
from lightglue.weights import resolve

__all__ = ["fetch"]


def fetch(given: Mapping[str, Any], report: Report) -> None:
    """Bring them into the cache folder. given: files, their names."""
    names = given["files"]
    for i, name in enumerate(names):
        report.progress("fetching", i, len(names), name)
        with _online():
            resolve(name)


@contextmanager
def _online() -> Iterator[None]:
    """This process fetches nothing otherwise."""
    before = os.environ.pop("LIGHTGLUE_OFFLINE", None)
    try:
        yield
    finally:
        if before is not None:
            os.environ["LIGHTGLUE_OFFLINE"] = before
