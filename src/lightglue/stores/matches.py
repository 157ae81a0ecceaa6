"""The matches of a collection of images: an SQLite database.

    about(key, value)                      what made them, as JSON
    images(id, name)
    pairs(image0, image1, digest0, digest1, count, matches, scores, overlap, note)

`matches` holds (K, 2) int32 and `scores` (K,) float32, little-endian. A pair stands once, with the name of its first
image before that of its second. One process writes, in transactions; any number may read. A kill loses at most the
transaction in hand.
"""

from __future__ import annotations

import json
import os
import secrets
import sqlite3
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lightglue.errors import InputError, StoreError
from lightglue.stores.files import as_read, check_settings, writing

__all__ = ["MatchStore", "PairHead", "PairMatches"]

FORMAT = 1
_SCHEMA = """
CREATE TABLE about(key TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE images(id INTEGER PRIMARY KEY, name BLOB NOT NULL UNIQUE);
CREATE TABLE pairs(
    image0 INTEGER NOT NULL, image1 INTEGER NOT NULL, digest0 TEXT NOT NULL, digest1 TEXT NOT NULL,
    count INTEGER NOT NULL, matches BLOB NOT NULL, scores BLOB NOT NULL, overlap REAL, note TEXT,
    PRIMARY KEY(image0, image1));
CREATE INDEX pairs_of_image1 ON pairs(image1);
"""
_HEADS = """
SELECT a.name, b.name, count, overlap, note, digest0, digest1{more} FROM pairs
JOIN images a ON a.id = image0 JOIN images b ON b.id = image1
"""


@dataclass(frozen=True, eq=False)
class PairMatches:
    """The matches of two images. Raises InputError for arrays that do not go together."""

    name0: str
    name1: str
    matches: NDArray[np.int32]  # (K, 2), index of the keypoint in each image
    scores: NDArray[np.float32]  # (K,)
    overlap: float | None = None  # the probability that both images show the same thing
    note: str | None = None  # why there are no matches, such as "no overlap"
    digests: tuple[str, str] = ("", "")  # of the features that were matched

    def __post_init__(self) -> None:
        if self.name0 == self.name1:
            raise InputError(f"{self.name0!r} is paired with itself; give two images.")
        if self.matches.shape != (len(self.scores), 2) or self.scores.ndim != 1:
            raise InputError(f"matches is {self.matches.shape} and scores {self.scores.shape}; give (K, 2) and (K,).")

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
        if not path.exists():
            if settings is None or read_only:
                raise InputError(f"There are no matches at {path}; match the images first.")
            cls._create(path, as_read(settings))
        store = cls(path, {}, read_only)
        with store._connect() as connection:
            about = dict(connection.execute("SELECT key, value FROM about"))
        try:
            if json.loads(about["format"]) != FORMAT or json.loads(about["kind"]) != "matches":
                raise StoreError(f"{path} is of another kind or version; remove it and match anew.")
            there = json.loads(about["settings"])
        except (KeyError, ValueError) as error:
            raise StoreError(f"{path} is no store of matches ({error!r}); remove it and match anew.") from error
        if settings is not None:
            check_settings(path, there, as_read(settings))
        return cls(path, there, read_only)

    @classmethod
    def _create(cls, path: Path, settings: dict[str, Any]) -> None:
        """Made beside and renamed: after a kill there is the whole of it, or nothing."""
        about = {"format": FORMAT, "kind": "matches", "settings": settings}
        part = path.with_name(f".{secrets.token_hex(8)}.part")
        with writing(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            try:
                with cls(part)._connect(create=True) as connection:
                    connection.executescript(_SCHEMA)
                    rows = [(key, json.dumps(value)) for key, value in about.items()]
                    connection.executemany("INSERT INTO about VALUES(?, ?)", rows)
                part.replace(path)
            finally:
                part.unlink(missing_ok=True)

    def put(self, pairs: Iterable[PairMatches]) -> None:
        """Write the matches of some pairs, in place of any that were there: all or, after a kill, none of them."""
        if self.read_only:
            raise StoreError(f"{self.path} was opened for reading only.")
        rows = [pair.canonical() for pair in pairs]
        with self._connect() as connection:
            ids = _Ids(connection)
            connection.executemany(
                "INSERT OR REPLACE INTO pairs VALUES(?, ?, ?, ?, ?, ?, ?, ?, ?)",
                [(ids[row.name0], ids[row.name1], *row.digests, len(row.scores), *_blobs(row)) for row in rows],
            )

    def get(self, name0: str, name1: str) -> PairMatches | None:
        """The matches of two images, in the order asked for; None where they were not matched."""
        found = next(iter(self.read([(min(name0, name1), max(name0, name1))])), None)
        return found if found is None or found.name0 == name0 else found.reversed()

    def pairs(self) -> list[PairHead]:
        """What is known of each pair, sorted by name."""
        with self._connect() as connection:
            rows = connection.execute(_HEADS.format(more="")).fetchall()
        return sorted((_pair_head(row) for row in rows), key=lambda head: (head.name0, head.name1))

    def heads(self, pairs: Iterable[tuple[str, str]]) -> list[PairHead | None]:
        """What is known of each of these pairs, the smaller name first; None for those that were not matched."""
        query = _HEADS.format(more="") + "WHERE a.name = ? AND b.name = ?"
        with self._connect() as connection:
            rows = [connection.execute(query, (_encode(min(pair)), _encode(max(pair)))).fetchone() for pair in pairs]
        return [None if row is None else _pair_head(row) for row in rows]

    def read(self, pairs: Iterable[tuple[str, str]] | None = None) -> Iterator[PairMatches]:
        """The matches of all pairs, sorted by name; or of those that are named and there, in their order."""
        if pairs is None:
            pairs = [(head.name0, head.name1) for head in self.pairs()]
        query = _HEADS.format(more=", matches, scores") + "WHERE a.name = ? AND b.name = ?"
        with self._connect() as connection:
            for name0, name1 in pairs:
                first, second = min(name0, name1), max(name0, name1)
                row = connection.execute(query, (_encode(first), _encode(second))).fetchone()
                if row is not None:
                    pair = self._pair(row)
                    yield pair if name0 == first else pair.reversed()

    def remove_images(self, names: Iterable[str]) -> None:
        """Forget all pairs with these images."""
        with self._connect() as connection:
            for name in names:
                row = connection.execute("SELECT id FROM images WHERE name = ?", (_encode(name),)).fetchone()
                if row is not None:
                    connection.execute("DELETE FROM pairs WHERE image0 = ? OR image1 = ?", (row[0], row[0]))
                    connection.execute("DELETE FROM images WHERE id = ?", row)

    def _pair(self, row: tuple[Any, ...]) -> PairMatches:
        head = _pair_head(row)
        matches, scores = np.frombuffer(row[7], "<i4"), np.frombuffer(row[8], "<f4")
        if len(matches) != 2 * head.num_matches or len(scores) != head.num_matches:
            raise StoreError(f"{self.path}: the pair {head.name0!r}, {head.name1!r} is damaged; match anew.")
        # Copies, which may be written to, in the machine's order of bytes.
        arrays = matches.reshape(-1, 2).astype(np.int32), scores.astype(np.float32)
        return PairMatches(head.name0, head.name1, *arrays, head.overlap, head.note, head.digests)

    @contextmanager
    def _connect(self, create: bool = False) -> Iterator[sqlite3.Connection]:
        """A connection with one transaction. Raises StoreError for whatever SQLite says."""
        mode = "rwc" if create else "ro" if self.read_only else "rw"
        try:
            uri = f"{self.path.absolute().as_uri()}?mode={mode}"
            connection = sqlite3.connect(uri, uri=True, timeout=30)
            try:
                with connection:
                    yield connection
            finally:
                connection.close()
        except sqlite3.Error as error:
            raise StoreError(
                f"{self.path} cannot be used ({error}); make room and see that it may be written to, or, if it is "
                "damaged, remove it and match anew."
            ) from error


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
    return name.encode("utf-8", "surrogateescape")  # a file name may hold what UTF-8 cannot


def _blobs(pair: PairMatches) -> tuple[bytes, bytes, float | None, str | None]:
    return pair.matches.astype("<i4").tobytes(), pair.scores.astype("<f4").tobytes(), pair.overlap, pair.note


def _pair_head(row: tuple[Any, ...]) -> PairHead:
    name0, name1 = (name.decode("utf-8", "surrogateescape") for name in row[:2])
    return PairHead(name0, name1, row[2], row[3], row[4], (row[5], row[6]))
