"""Connections to SQLite databases whose errors name the file and a remedy."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from lightglue.errors import StoreError

__all__ = ["connected"]

_PATIENCE_S = 30.0  # for another process that writes


@contextmanager
def connected(path: Path, named: Path | None = None, mode: str = "rw") -> Iterator[sqlite3.Connection]:
    """A connection with one transaction. Raises StoreError, which names the file, for whatever SQLite says.

    named: the path that errors name, where it is another one. Mode "rw" for reading too: SQLite falls back to reading
    where the file may not be written to, and a reader that comes first after a kill must be able to take back what the
    killed process had begun to write.
    """
    try:
        uri = f"{path.absolute().as_uri()}?mode={mode}"
        connection = sqlite3.connect(uri, uri=True, timeout=_PATIENCE_S)
        try:
            with connection:
                yield connection
        finally:
            connection.close()
    except (sqlite3.Error, UnicodeDecodeError) as error:  # the latter for a schema that is damaged
        raise StoreError(f"{named or path} cannot be used ({error}); {_remedy(str(error))}.") from error


def _remedy(message: str) -> str:
    if "locked" in message:
        return "another process writes to it: wait until it has ended, or end it"
    if "malformed" in message or "not a database" in message or "decode" in message:
        return "it is damaged, or another program's: remove it and make it again, or name another file"
    return "make room, and see that it and its folder may be written to"
