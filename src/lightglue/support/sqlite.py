"""Connections to SQLite databases whose errors name the file and a remedy."""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from lightglue.errors import StoreError

__all__ = ["check_integrity", "connected", "is_cut_off", "is_damaged"]

_PATIENCE_S = 30.0  # for another process that writes
# What SQLite says of a file that is damaged; all else may be better next time.
_DAMAGED = re.compile(
    "malformed|not a database|decode|no such (table|column|index)|unsupported file format|syntax error"
)


@contextmanager
def connected(
    path: Path, named: Path | None = None, mode: str = "rw", text_factory: Callable[[bytes], Any] = str
) -> Iterator[sqlite3.Connection]:
    """A connection with one transaction. Raises StoreError, which names the file, for whatever SQLite says.

    named: the path that errors name, where it is another one. text_factory: what texts become; bytes where they may be
    damaged. Mode "rw" for reading too: SQLite falls back to reading where the file may not be written to, and a reader
    that comes first after a kill must be able to take back what the killed process had begun to write.
    """
    try:
        uri = f"{path.absolute().as_uri()}?mode={mode}"
        connection = sqlite3.connect(uri, uri=True, timeout=_PATIENCE_S)
        connection.text_factory = text_factory
        try:
            with connection:
                yield connection
        finally:
            connection.close()
    except (sqlite3.Error, UnicodeDecodeError) as error:  # the latter for a schema that is damaged
        raise StoreError(f"{named or path} cannot be used ({error}); {_remedy(str(error))}.") from error


def check_integrity(connection: sqlite3.Connection) -> None:
    """Raises sqlite3.DatabaseError where pages, rows and indices of a database do not go together."""
    (found,) = connection.execute("PRAGMA integrity_check(1)").fetchone()
    said = found.decode("utf-8", "replace") if isinstance(found, bytes) else str(found)
    if said != "ok":
        raise sqlite3.DatabaseError(f"database disk image is malformed: {' '.join(said.split())}")


def is_damaged(error: StoreError) -> bool:
    """Whether what `connected` has raised says that the file is damaged."""
    return isinstance(error.__cause__, (sqlite3.Error, UnicodeDecodeError)) and bool(
        _DAMAGED.search(str(error.__cause__))
    )


def is_cut_off(path: Path) -> bool:
    """Whether a database is shorter than its header says, https://www.sqlite.org/fileformat.html."""
    with path.open("rb") as file:
        head = file.read(100)
    page = int.from_bytes(head[16:18], "big")
    return len(head) < 100 or path.stat().st_size < (65536 if page == 1 else page) * int.from_bytes(head[28:32], "big")


def _remedy(message: str) -> str:
    if "locked" in message:
        return "another process writes to it: wait until it has ended, or end it"
    if _DAMAGED.search(message):
        return "it is damaged, or another program's: remove it and make it again, or name another file"
    return "make room, and see that it and its folder may be written to"
