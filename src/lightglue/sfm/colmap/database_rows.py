"""Whether a database of ours holds what was written: COLMAP believes every row, and a wrong one may end the process.

Our tables (`lightglue.sfm.colmap.state`) hold checksums: of each pair, over its rows in all tables; of cameras, images
and keypoints as one; of what was judged of the pairs; and of the schema. SQLite itself checks pages and indices. All is
read by Python's SQLite, and never while COLMAP has the file open.
"""

from __future__ import annotations

import json
import sqlite3
import zlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lightglue.errors import StoreError
from lightglue.support.sqlite import check_integrity, connected, is_damaged

__all__ = ["Damage", "check_rows", "damage_of", "remove_rows", "seal_images", "seal_judgements", "seal_pairs"]

# Of these COLMAP has some in later versions only; what users write themselves (priors of poses) is not among them.
_OF_IMAGES = ("rigs", "rig_sensors", "cameras", "frames", "frame_data", "images", "keypoints")
_OF_PAIRS = ("matches", "two_view_geometries")
_DROPPED = "lightglue_dropped"  # rows of the latter that `lightglue.sfm.colmap.judged` has put aside


@dataclass(frozen=True)
class Damage:
    """What of a database is not as it was written."""

    is_broken: bool = False  # the file, or the schema: nothing in it can be relied upon
    images: bool = False  # cameras, images or keypoints
    judgements: bool = False  # what was judged of the pairs
    pairs: tuple[int, ...] = ()  # numbers of those whose matches or geometry are not as they were, or not ours

    def __bool__(self) -> bool:
        return self.is_broken or self.images or self.judgements or bool(self.pairs)


def seal_images(path: Path) -> None:
    """Write down the checksums of the schema and of cameras, images and keypoints."""
    with _bytes_from(path) as connection:
        sums = json.dumps({"schema": _schema(connection), "images": _images(connection)})
        connection.execute("INSERT OR REPLACE INTO lightglue_about VALUES('checksums', ?)", (sums,))


def seal_judgements(path: Path) -> None:
    """Write down the checksum of what was judged of the pairs."""
    with _bytes_from(path) as connection:
        checksum = json.dumps(_judgements(connection))
        connection.execute("INSERT OR REPLACE INTO lightglue_about VALUES('judged_checksum', ?)", (checksum,))


def seal_pairs(path: Path, rows: Iterable[tuple[int, str, str | None]]) -> None:
    """Write what pairs and their geometries are made of, with a checksum of what COLMAP's tables hold of them now."""
    with _bytes_from(path) as connection:
        for number, made_of, verified in rows:
            sums = [
                _checksum(*connection.execute(f"SELECT * FROM {table} WHERE pair_id = ?", (number,)))
                for table in _OF_PAIRS
            ]
            sealed = (number, made_of, verified, _of_pair(number, made_of, verified, *sums))
            connection.execute("INSERT OR REPLACE INTO lightglue_pairs VALUES(?, ?, ?, ?)", sealed)


def damage_of(path: Path) -> Damage:
    """What of a database of ours is damaged. One of an earlier version, without checksums, counts as broken."""
    try:
        with _bytes_from(path) as connection:
            check_integrity(connection)
            found = connection.execute("SELECT value FROM lightglue_about WHERE key = 'checksums'").fetchone()
            sums = json.loads(found[0]) if found else {}
            if sums.get("schema") != _schema(connection):
                return Damage(is_broken=True)
            said = connection.execute("SELECT value FROM lightglue_about WHERE key = 'judged_checksum'").fetchone()
            judgements = bool(said) and json.loads(said[0]) != _judgements(connection)
            images = sums.get("images") != _images(connection)
            return Damage(images=images, judgements=judgements, pairs=_pairs(connection, judgements))
    except StoreError as error:
        if not is_damaged(error):
            raise
    except (AttributeError, TypeError, ValueError):  # of the checksums themselves
        pass
    return Damage(is_broken=True)


def check_rows(path: Path) -> None:
    """Raises StoreError for a database that is damaged. Without checksums, of an earlier version, it is believed."""
    if (damage := damage_of(path)) and _has_checksums(path):
        where = f" at {len(damage.pairs)} of its pairs" if damage.pairs else ""
        raise StoreError(
            f"{path} is damaged{where}; make the database again (`lightglue map verify`, or `lightglue sfm`), which "
            "writes again what is not whole."
        )


def remove_rows(path: Path, numbers: Iterable[int]) -> None:
    """Take pairs out of all tables."""
    rows = [(number,) for number in numbers]
    with connected(path) as connection:
        there = _tables(connection)
        for table in (*_OF_PAIRS, "lightglue_pairs", _DROPPED):
            if table in there:
                connection.executemany(f"DELETE FROM {table} WHERE pair_id = ?", rows)


def _has_checksums(path: Path) -> bool:
    try:
        with connected(path) as connection:
            query = "SELECT 1 FROM lightglue_about WHERE key = 'checksums'"
            return connection.execute(query).fetchone() is not None
    except StoreError:
        return True


def _bytes_from(path: Path) -> Any:
    """A connection whose texts are bytes: damaged ones may be no UTF-8."""
    return connected(path, text_factory=bytes)


def _tables(connection: sqlite3.Connection) -> set[str]:
    found = connection.execute("SELECT CAST(name AS BLOB) FROM sqlite_master WHERE type = 'table'")
    return {name.decode("utf-8", "replace") for (name,) in found}


def _schema(connection: sqlite3.Connection) -> int:
    """Of what decides how COLMAP reads rows."""
    pragmas = [connection.execute(f"PRAGMA {name}").fetchone() for name in ("user_version", "encoding")]
    query = "SELECT type, name, tbl_name, sql FROM sqlite_master WHERE name NOT LIKE 'lightglue%' ORDER BY type, name"
    return _checksum(*pragmas, *connection.execute(query))


def _images(connection: sqlite3.Connection) -> int:
    there = _tables(connection)
    rows = (
        row
        for table in _OF_IMAGES
        if table in there
        for row in connection.execute(f"SELECT * FROM {table} ORDER BY rowid")
    )
    return _checksum(*rows)


def _judgements(connection: sqlite3.Connection) -> int:
    """Of what was judged of the pairs, and of which were dropped; their rows have checksums of their own."""
    there = _tables(connection)
    found: list[Any] = []
    if _DROPPED in there:
        found += connection.execute(f"SELECT pair_id FROM {_DROPPED} ORDER BY pair_id")
    if "lightglue_judged" in there:
        found += connection.execute("SELECT * FROM lightglue_judged ORDER BY rowid")
    found += connection.execute("SELECT value FROM lightglue_about WHERE key = 'judged'")
    return _checksum(*found)


def _pairs(connection: sqlite3.Connection, with_dropped: bool) -> tuple[int, ...]:
    """Numbers of the pairs whose rows are not as they were; where there are any, also of those that are not ours.

    with_dropped: all that were dropped are among them.
    """
    matches, geometries = (_sums(connection, table) for table in _OF_PAIRS)
    dropped = _sums(connection, _DROPPED) if _DROPPED in _tables(connection) else {}
    geometries = {**dropped, **geometries}
    ours = connection.execute("SELECT pair_id, made_of, verified, checksum FROM lightglue_pairs").fetchall()
    damaged = {
        number
        for number, made_of, verified, checksum in ours
        if checksum != _of_pair(number, made_of, verified, matches.get(number, 0), geometries.get(number, 0))
    }
    if with_dropped:
        damaged |= dropped.keys()
    # A row whose number has changed is missing at one pair, and there at another that has none of ours.
    return tuple(sorted(damaged | ({*matches, *geometries} - {row[0] for row in ours} if damaged else set())))


def _sums(connection: sqlite3.Connection, table: str) -> dict[int, int]:
    return {row[0]: _checksum(row) for row in connection.execute(f"SELECT * FROM {table}")}


def _of_pair(number: int, made_of: Any, verified: Any, matches: int, geometry: int) -> int:
    """The checksum of a pair. A geometry that was not verified here may be another program's, and is not looked at."""
    texts = (text if isinstance(text, (bytes, type(None))) else str(text).encode() for text in (made_of, verified))
    return _checksum((number, *texts, matches, 0 if verified is None else geometry))


def _checksum(*rows: tuple[Any, ...]) -> int:
    """Of all values of some rows; 0 where there is none."""
    found = 0
    for row in rows:
        for value in row:
            found = zlib.crc32(value if isinstance(value, bytes) else repr(value).encode(), zlib.crc32(b"|", found))
    return found
