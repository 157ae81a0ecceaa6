"""What was judged of the verified pairs of a database of ours, and the geometries of those that were dropped.

    lightglue_judged(pair_id, probability, residual, inliers, reason, doubtful, alone)
    lightglue_dropped                    the rows of two_view_geometries of the pairs that were dropped

A dropped pair keeps its raw matches, and its geometry comes back when the pairs are judged anew. As in
`lightglue.sfm.colmap.state`, nothing here is called while COLMAP has the file open.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from lightglue.sfm.colmap.database_rows import seal_judgements
from lightglue.support.sqlite import connected

__all__ = [
    "Judgement",
    "drop",
    "drop_only",
    "judged_of",
    "kinds_of_verified",
    "read_judgements",
    "restore",
    "verified_matches",
    "verified_pairs",
]

_SCHEMA = """
CREATE TABLE IF NOT EXISTS lightglue_judged(pair_id INTEGER PRIMARY KEY, probability REAL NOT NULL,
  residual REAL NOT NULL, inliers INTEGER NOT NULL, reason TEXT, doubtful INTEGER NOT NULL, alone REAL)
"""
_KEY = "judged"  # in lightglue_about: what the judgements are made of


@dataclass(frozen=True)
class Judgement:
    """What a verified pair is taken for."""

    number: int  # COLMAP's, of the pair
    probability: float  # that it is true, by itself and by what contradicts it
    residual: float  # degrees between its rotation and the one that the pairs agree on
    inliers: int  # of its relative pose
    reason: str | None  # why it was dropped; None: it was kept
    doubtful: bool  # kept, though only unlikely pairs join its two sides
    alone: float | None = None  # the probability by itself; None: the same


def verified_pairs(path: Path, min_inliers: int) -> dict[int, int]:
    """How many inliers each verified pair has, by its number, whether it was dropped or not."""
    with connected(path) as connection:
        found = dict[int, int]()
        for table in _tables(connection, "two_view_geometries", "lightglue_dropped"):
            query = f"SELECT pair_id, rows FROM {table} WHERE rows >= ?"
            found |= dict(connection.execute(query, (min_inliers,)).fetchall())
    return dict(sorted(found.items()))


def kinds_of_verified(path: Path, min_inliers: int) -> list[tuple[int, int]]:
    """The kind, by COLMAP's number, and the inliers of each verified pair, whether it was dropped or not."""
    with connected(path) as connection:
        return [
            row
            for table in _tables(connection, "two_view_geometries", "lightglue_dropped")
            for row in connection.execute(f"SELECT config, rows FROM {table} WHERE rows >= ?", (min_inliers,))
        ]


def verified_matches(path: Path) -> Iterator[tuple[int, NDArray[np.int64]]]:
    """The number of each verified pair, and its inliers (K, 2), rows of keypoints, whether it was dropped or not."""
    with connected(path) as connection:
        for table in _tables(connection, "two_view_geometries", "lightglue_dropped"):
            for number, rows, data in connection.execute(f"SELECT pair_id, rows, data FROM {table} WHERE rows > 0"):
                yield number, np.frombuffer(data, np.uint32).reshape(rows, 2).astype(np.int64)


def judged_of(path: Path) -> str | None:
    """What the judgements are made of; None where there are none."""
    with connected(path) as connection:
        row = connection.execute("SELECT value FROM lightglue_about WHERE key = ?", (_KEY,)).fetchone()
    return None if row is None else json.loads(row[0])


def read_judgements(path: Path) -> dict[int, Judgement]:
    """By the number of the pair; of a database without any, none."""
    with connected(path) as connection:
        if not list(_tables(connection, "lightglue_judged")):
            return {}
        columns = "pair_id, probability, residual, inliers, reason, doubtful, alone"
        rows = connection.execute(f"SELECT {columns} FROM lightglue_judged ORDER BY pair_id").fetchall()
    return {row[0]: Judgement(row[0], row[1], row[2], row[3], row[4], bool(row[5]), row[6]) for row in rows}


def restore(path: Path) -> None:
    """Put the geometries of dropped pairs back, and forget the judgements."""
    with connected(path) as connection:
        connection.execute("DELETE FROM lightglue_about WHERE key IN (?, 'judged_checksum')", (_KEY,))
        for _ in _tables(connection, "lightglue_dropped"):
            columns = _common_columns(connection)
            connection.execute(
                f"INSERT OR IGNORE INTO two_view_geometries({columns}) SELECT {columns} FROM lightglue_dropped"
            )
            connection.execute("DROP TABLE lightglue_dropped")
        connection.execute("DROP TABLE IF EXISTS lightglue_judged")  # of an earlier version it has other columns


def drop(path: Path, judgements: Iterable[Judgement], made_of: str) -> None:
    """Write judgements, and take the geometries of those pairs out that have a reason."""
    judgements = list(judgements)
    rows = [(j.number, j.probability, j.residual, j.inliers, j.reason, int(j.doubtful), j.alone) for j in judgements]
    gone = [(j.number,) for j in judgements if j.reason is not None]
    with connected(path) as connection:
        connection.execute(_SCHEMA)
        connection.execute("CREATE TABLE IF NOT EXISTS lightglue_dropped AS SELECT * FROM two_view_geometries WHERE 0")
        connection.executemany("INSERT OR REPLACE INTO lightglue_judged VALUES(?, ?, ?, ?, ?, ?, ?)", rows)
        columns = _common_columns(connection)
        select = f"SELECT {columns} FROM two_view_geometries WHERE pair_id = ?"
        connection.executemany(f"INSERT INTO lightglue_dropped({columns}) {select}", gone)
        connection.executemany("DELETE FROM two_view_geometries WHERE pair_id = ?", gone)
        connection.execute("INSERT OR REPLACE INTO lightglue_about VALUES(?, ?)", (_KEY, json.dumps(made_of)))
    seal_judgements(path)


def drop_only(path: Path, numbers: Iterable[int]) -> None:
    """Take the geometries of pairs out of a copy of a database, which is not judged after."""
    with connected(path) as connection:
        connection.executemany("DELETE FROM two_view_geometries WHERE pair_id = ?", [(each,) for each in numbers])


def _tables(connection: sqlite3.Connection, *names: str) -> list[str]:
    """Those of these tables that are there."""
    there = {name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
    return [name for name in names if name in there]


def _common_columns(connection: sqlite3.Connection) -> str:
    """The columns that both tables have: versions of COLMAP add some."""
    both = [
        [row[1] for row in connection.execute(f"PRAGMA table_info({table})")]
        for table in ("two_view_geometries", "lightglue_dropped")
    ]
    return ", ".join(name for name in both[0] if name in both[1])
