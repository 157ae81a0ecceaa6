"""The matches of a collection of images: an SQLite database.

    about(key, value)                      what made them, as JSON
    images(id, name)
    pairs(image0, image1, digest0, digest1, count, matches, scores, overlap, note, checksum)

`matches` holds (K, 2) int32 and `scores` (K,) float32, little-endian; names and notes are bytes of UTF-8, so that SQL
sorts names as Python does. A pair stands once, with the name of its first image before that of its second. One process
writes, in transactions; any number may read, and none keeps the writer waiting. A kill loses at most the transaction
in hand. SQLite does not notice what was altered on the disk; the checksum of each pair does, when its matches are read.
"""

from __future__ import annotations

import json
import os
import sqlite3
import zlib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lightglue.errors import InputError, StoreError
from lightglue.stores.settings import as_read, check_settings
from lightglue.support.files import remove_parts, whole, writing
from lightglue.support.sqlite import connected

__all__ = ["MatchStore", "PairHead", "PairMatches"]

FORMAT = 1
_ROWS = 1000  # read at once
_SCHEMA = """
CREATE TABLE about(key TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE images(id INTEGER PRIMARY KEY, name BLOB NOT NULL UNIQUE);
CREATE TABLE pairs(
    image0 INTEGER NOT NULL, image1 INTEGER NOT NULL, digest0 TEXT NOT NULL, digest1 TEXT NOT NULL,
    count INTEGER NOT NULL, matches BLOB NOT NULL, scores BLOB NOT NULL, overlap REAL, note BLOB,
    checksum INTEGER NOT NULL, PRIMARY KEY(image0, image1));
CREATE INDEX pairs_of_image1 ON pairs(image1);
"""
_HEAD = "a.name, b.name, count, overlap, note, digest0, digest1"
_WHOLE = f"{_HEAD}, matches, scores, checksum"
_ONE = """
SELECT {columns} FROM pairs JOIN images a ON a.id = image0 JOIN images b ON b.id = image1
WHERE a.name = ? AND b.name = ?
"""
# CROSS keeps the order of the tables: names are walked in the order of their index, and nothing else is read.
_NEXT = f"""
SELECT {{columns}} FROM images a CROSS JOIN pairs ON image0 = a.id CROSS JOIN images b ON b.id = image1
WHERE (a.name, b.name) > (?, ?) ORDER BY a.name, b.name LIMIT {_ROWS}
"""


@dataclass(frozen=True, eq=False)
class PairMatches:
    """The matches of two images. Raises InputError for arrays that do not go together."""

    name0: str
    name1: str
    matches: NDArray[np.int32]  # (K, 2), index of the keypoint in each image; other integers are made int32
    scores: NDArray[np.float32]  # (K,)
    overlap: float | None = None  # the probability that both images show the same thing
    note: str | None = None  # why there are no matches, such as "no overlap"
    digests: tuple[str, str] = ("", "")  # of the features that were matched

    def __post_init__(self) -> None:
        if self.name0 == self.name1:
            raise InputError(f"{self.name0!r} is paired with itself; give two images.")
        matches, scores = self.matches, self.scores
        if scores.ndim != 1 or matches.shape != (len(scores), 2):
            raise InputError(f"matches is {matches.shape} and scores {scores.shape}; give (K, 2) and (K,).")
        if matches.dtype.kind not in "iu" or scores.dtype.kind != "f":
            raise InputError(f"matches is {matches.dtype} and scores {scores.dtype}; give int32 and float32.")
        if matches.size and not 0 <= matches.min() <= matches.max() < 2**31:
            raise InputError(f"Matches go from {matches.min()} to {matches.max()}; give indices of keypoints.")
        if self.overlap is not None and not 0 <= self.overlap <= 1:
            raise InputError(f"The overlap is {self.overlap}; give a probability, or None.")
        object.__setattr__(self, "matches", matches.astype(np.int32, copy=False))
        object.__setattr__(self, "scores", scores.astype(np.float32, copy=False))
        object.__setattr__(self, "overlap", None if self.overlap is None else float(self.overlap))

    def canonical(self) -> PairMatches:
        """The pair with the smaller name first."""
        return self if self.name0 < self.name1 else self.reversed()

    def reversed(self) -> PairMatches:
        """The same the other way round."""
        digests = (self.digests[1], self.digests[0])
        matches = np.ascontiguousarray(self.matches[:, ::-1])
        return PairMatches(self.name1, self.name0, matches, self.scores, self.overlap, self.note, digests)


@dataclass(frozen=True)
class PairHead:
    """What is known of a pair without reading its matches."""

    name0: str
    name1: str
    num_matches: int
    overlap: float | None
    note: str | None
    digests: tuple[str, str]


@dataclass(frozen=True)
class MatchStore:
    """The matches of a collection of images on disk."""

    path: Path
    settings: Mapping[str, Any] = field(default_factory=dict)
    read_only: bool = False

    @classmethod
    def open(
        cls, path: str | os.PathLike[str], settings: Mapping[str, Any] | None = None, read_only: bool = False
    ) -> MatchStore:
        """The store in a file; made where there is none and `settings` are given.

        Raises InputError where there is none, or it was made with other settings; StoreError where it is damaged or
        cannot be made.
        """
        path = Path(path)
        with writing(path):
            if not path.exists():
                if settings is None or read_only:
                    raise InputError(f"There are no matches at {path}; match the images first.")
                _create(path, as_read(settings))
        there = _settings(path)
        if settings is not None:
            check_settings(path, there, as_read(settings))
        if not read_only:
            remove_parts(path.parent)
        return cls(path, there, read_only)

    def put(self, pairs: Iterable[PairMatches]) -> None:
        """Write the matches of some pairs, replacing any that were there: all or, after a kill, none of them."""
        rows = [pair.canonical() for pair in pairs]
        with self._connect(write=True) as connection:
            ids = _Ids(connection)
            connection.executemany(
                "INSERT OR REPLACE INTO pairs VALUES(?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                ((ids[row.name0], ids[row.name1], *_row(row)) for row in rows),
            )

    def get(self, name0: str, name1: str) -> PairMatches | None:
        """The matches of two images, in the order asked for; None where they were not matched."""
        return next(self.read([(name0, name1)]), None)

    def pairs(self) -> list[PairHead]:
        """What is known of each pair, sorted by name."""
        return list(self.iter_pairs())

    def iter_pairs(self) -> Iterator[PairHead]:
        """What is known of each pair, sorted by name, read as they are asked for."""
        return (self._head(row) for row in self._rows(_HEAD))

    def heads(self, pairs: Iterable[tuple[str, str]]) -> list[PairHead | None]:
        """What is known of each of these pairs, the smaller name first; None for those that were not matched."""
        with self._connect() as connection:
            keys = [(_encode(min(pair)), _encode(max(pair))) for pair in pairs]
            rows = [connection.execute(_ONE.format(columns=_HEAD), key).fetchone() for key in keys]
        return [None if row is None else self._head(row) for row in rows]

    def read(self, pairs: Iterable[tuple[str, str]] | None = None) -> Iterator[PairMatches]:
        """The matches of all pairs, sorted by name; or of those that are named and there, in their order.

        They are read as they are asked for. Another process may write meanwhile; its pairs are met, or not. Raises
        StoreError at a pair that is damaged.
        """
        if pairs is None:
            yield from (self._pair(row) for row in self._rows(_WHOLE))
            return
        with self._connect() as connection:
            for name0, name1 in pairs:
                key = (_encode(min(name0, name1)), _encode(max(name0, name1)))
                row = connection.execute(_ONE.format(columns=_WHOLE), key).fetchone()
                if row is not None:
                    pair = self._pair(row)
                    yield pair if pair.name0 == name0 else pair.reversed()

    def remove_images(self, names: Iterable[str]) -> None:
        """Forget all pairs with these images."""
        keys = [(_encode(name),) for name in names]
        with self._connect(write=True) as connection:
            for key in keys:
                row = connection.execute("SELECT id FROM images WHERE name = ?", key).fetchone()
                if row is not None:
                    connection.execute("DELETE FROM pairs WHERE image0 = ? OR image1 = ?", (row[0], row[0]))
                    connection.execute("DELETE FROM images WHERE id = ?", row)

    def _rows(self, columns: str) -> Iterator[tuple[Any, ...]]:
        """The rows of all pairs, sorted by name. No lock is held between them: a writer need not wait for us."""
        query, last = _NEXT.format(columns=columns), (b"", b"")
        with self._connect() as connection:
            while rows := connection.execute(query, last).fetchall():
                yield from rows
                last = rows[-1][:2]

    def _head(self, row: tuple[Any, ...]) -> PairHead:
        try:
            name0, name1 = _decode(row[0]), _decode(row[1])
            return PairHead(name0, name1, int(row[2]), row[3], row[4] and _decode(row[4]), (row[5], row[6]))
        except (AttributeError, TypeError, ValueError) as error:
            raise self._damaged(f"{row[0]!r}, {row[1]!r}") from error

    def _pair(self, row: tuple[Any, ...]) -> PairMatches:
        head = self._head(row)
        try:
            # Copies, which may be written to, in the machine's order of bytes.
            matches = np.frombuffer(row[7], "<i4").reshape(-1, 2).astype(np.int32)
            scores = np.frombuffer(row[8], "<f4").astype(np.float32)
            pair = PairMatches(head.name0, head.name1, matches, scores, head.overlap, head.note, head.digests)
            if _row(pair) != (*head.digests, head.num_matches, row[7], row[8], head.overlap, row[4], row[9]):
                raise ValueError("the checksum differs")
        except (TypeError, ValueError) as error:
            raise self._damaged(f"{head.name0!r}, {head.name1!r}") from error
        return pair

    def _damaged(self, pair: str) -> StoreError:
        return StoreError(f"{self.path} is damaged at the pair {pair}; remove it and match again.")

    @contextmanager
    def _connect(self, write: bool = False) -> Iterator[sqlite3.Connection]:
        if write and self.read_only:
            raise StoreError(f"{self.path} was opened for reading only.")
        with connected(self.path) as connection:
            if not write:
                connection.execute("PRAGMA query_only = 1")
            yield connection


def _create(path: Path, settings: dict[str, Any]) -> None:
    with whole(path, new=True) as part:
        # A journal that a killed process left would be played back into the new database.
        for suffix in ("-journal", "-wal", "-shm"):
            path.with_name(path.name + suffix).unlink(missing_ok=True)
        with connected(part, path, "rwc") as connection:
            connection.executescript(_SCHEMA)
            about = {"format": FORMAT, "kind": "matches", "settings": settings}
            rows = [(key, json.dumps(value)) for key, value in about.items()]
            connection.executemany("INSERT INTO about VALUES(?, ?)", rows)


def _settings(path: Path) -> dict[str, Any]:
    """What a store was made with. Raises StoreError where the file is no store."""
    with connected(path) as connection:
        ours = connection.execute("SELECT name FROM sqlite_master WHERE name IN ('about', 'images', 'pairs')")
        rows = connection.execute("SELECT key, value FROM about").fetchall() if len(ours.fetchall()) == 3 else []
    try:
        about = {key: json.loads(value) for key, value in rows}
        if about["format"] == FORMAT and about["kind"] == "matches":
            return dict(about["settings"])
    except (KeyError, TypeError, ValueError):
        pass
    raise StoreError(f"{path} is no store of matches of this version; name another file.")


class _Ids:
    """The number of each image in the database, given when it is asked for first."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self.connection = connection
        self.known: dict[str, int] = {}

    def __getitem__(self, name: str) -> int:
        if name not in self.known:
            key = (_encode(name),)
            self.connection.execute("INSERT OR IGNORE INTO images(name) VALUES(?)", key)
            row = self.connection.execute("SELECT id FROM images WHERE name = ?", key).fetchone()
            self.known[name] = row[0]
        return self.known[name]


def _encode(name: str) -> bytes:
    """Bytes in the order of Python's strings; those of a file name that is no Unicode too."""
    return name.encode("utf-8", "surrogatepass")


def _decode(name: bytes) -> str:
    return name.decode("utf-8", "surrogatepass")


def _row(pair: PairMatches) -> tuple[Any, ...]:
    """The columns of a pair after its images."""
    matches, scores = pair.matches.astype("<i4").tobytes(), pair.scores.astype("<f4").tobytes()
    head = (pair.name0, pair.name1, pair.digests, len(pair.scores), pair.overlap, pair.note)
    checksum = zlib.crc32(scores, zlib.crc32(matches, zlib.crc32(_encode(repr(head)))))
    note = None if pair.note is None else _encode(pair.note)
    return (*pair.digests, len(pair.scores), matches, scores, pair.overlap, note, checksum)
