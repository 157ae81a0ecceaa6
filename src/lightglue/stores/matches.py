"""The matches of a collection of images: an SQLite database.

    about(key, value)                      what made them, as JSON
    images(id, name)
    pairs(image0, image1, digest0, digest1, count, matches, scores, overlap, note, checksum)

`matches` holds (K, 2) int32 and `scores` (K,) float32, little-endian; names and notes are bytes of UTF-8, so that SQL
sorts names as Python does. A pair stands once, with the name of its first image before that of its second. One process
writes, in transactions; any number may read, and none keeps the writer waiting. A kill loses at most the transaction
in hand. SQLite does not notice what was altered on the disk; the checksum of each pair does, when it is read with the
others or for its matches.
"""

from __future__ import annotations

import json
import os
import sqlite3
import zlib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lightglue.errors import InputError, StoreError
from lightglue.stores.features import FeatureStore, Head
from lightglue.stores.settings import as_read, check_settings
from lightglue.support.batches import batched
from lightglue.support.files import remove_parts, whole, writing
from lightglue.support.sqlite import check_integrity, connected, is_cut_off, is_damaged

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
    features: FeatureStore | None = None  # that are matched; None for those of a map, beside its file

    @classmethod
    def open(
        cls,
        path: str | os.PathLike[str],
        settings: Mapping[str, Any] | None = None,
        read_only: bool = False,
        features: FeatureStore | None = None,
    ) -> MatchStore:
        """The store in a file; made where there is none and `settings` are given.

        features: that are matched, which tell how many keypoints an image has; by default those in the folder
        `features` beside a file `matches.db`, as maps have them.

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
        return cls(path, there, read_only, features)

    def put(self, pairs: Iterable[PairMatches]) -> None:
        """Write the matches of some pairs, replacing any that were there: all or, after a kill, none of them.

        Raises InputError for indices beyond the keypoints of an image, as far as its features are known; StoreError
        where the file cannot be written.
        """
        rows = [pair.canonical() for pair in pairs]
        known = _Keypoints(self)
        for row in rows:
            if fault := known.fault(row):
                raise InputError(f"{fault}; give indices of keypoints.")
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
        """What is known of each pair, sorted by name, read as they are asked for.

        Raises StoreError where the file or a pair is damaged: what looks whole is whole.
        """
        for row in self._rows():
            yield self._head(row)

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
        known = _Keypoints(self)
        if pairs is None:
            yield from (self._pair(row, known) for row in self._rows())
            return
        with self._connect() as connection:
            for name0, name1 in pairs:
                key = (_encode(min(name0, name1)), _encode(max(name0, name1)))
                row = connection.execute(_ONE.format(columns=_WHOLE), key).fetchone()
                if row is not None:
                    pair = self._pair(row, known)
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

    def mend(self) -> int:
        """Take out the pairs that are damaged, or of keypoints that there are not; how many these are, as far as known.

        Where the file itself is damaged it is made anew of the pairs that are whole. To be matched again is no harm.
        Raises StoreError where it cannot be written.
        """
        known = _Keypoints(self)
        try:
            with self._connect() as connection:
                check_integrity(connection)
                rows = list(_salvaged(connection))
                faulty = [row[:2] for row in rows if not self._is_whole(row[2], known)]
            if faulty:
                with self._connect(write=True) as connection:
                    connection.executemany("DELETE FROM pairs WHERE image0 = ? AND image1 = ?", faulty)
            return len(faulty)
        except StoreError as error:
            if not is_damaged(error) or is_cut_off(self.path):
                raise
        return self._made_anew(known)

    def _made_anew(self, known: _Keypoints) -> int:
        """A new file with all pairs of the damaged one that can be read and are whole."""
        lost = 1
        with whole(self.path) as part:
            _fill(part, self.path, dict(self.settings))
            fresh = MatchStore(part, self.settings, features=self.features)
            with suppress(StoreError), self._connect() as connection:
                for rows in batched((row for _, _, row in _salvaged(connection)), _ROWS):
                    kept = [row for row in rows if self._is_whole(row, known)]
                    lost += len(rows) - len(kept)
                    fresh.put(self._pair(row, known) for row in kept)
        return lost

    def _is_whole(self, row: tuple[Any, ...], known: _Keypoints) -> bool:
        try:
            return _checksum_of(row) == row[9] and known.fault(self._pair(row, known)) is None
        except (StoreError, InputError, AttributeError, TypeError, ValueError):
            return False

    def _rows(self) -> Iterator[tuple[Any, ...]]:
        """The rows of all pairs, sorted by name. No lock is held between them: a writer need not wait for us."""
        last = (b"", b"")
        with self._connect() as connection:
            check_integrity(connection)  # else pairs might be missing
            while rows := connection.execute(_NEXT.format(columns=_WHOLE), last).fetchall():
                for row in rows:
                    try:
                        if _checksum_of(row) != row[9]:
                            raise ValueError("the checksum differs")
                    except (AttributeError, TypeError, ValueError) as error:
                        raise self._damaged(f"{row[0]!r}, {row[1]!r}") from error
                    yield row
                last = rows[-1][:2]

    def _head(self, row: tuple[Any, ...]) -> PairHead:
        try:
            name0, name1 = _decode(row[0]), _decode(row[1])
            return PairHead(name0, name1, int(row[2]), row[3], row[4] and _decode(row[4]), (row[5], row[6]))
        except (AttributeError, TypeError, ValueError) as error:
            raise self._damaged(f"{row[0]!r}, {row[1]!r}") from error

    def _pair(self, row: tuple[Any, ...], known: _Keypoints) -> PairMatches:
        head = self._head(row)
        try:
            # Copies, which may be written to, in the machine's order of bytes.
            matches = np.frombuffer(row[7], "<i4").reshape(-1, 2).astype(np.int32)
            scores = np.frombuffer(row[8], "<f4").astype(np.float32)
            pair = PairMatches(head.name0, head.name1, matches, scores, head.overlap, head.note, head.digests)
            if _row(pair) != (*head.digests, head.num_matches, row[7], row[8], head.overlap, row[4], row[9]):
                raise ValueError("the checksum differs")
            if fault := known.fault(pair):
                raise ValueError(fault)
        except (TypeError, ValueError) as error:
            raise self._damaged(f"{head.name0!r}, {head.name1!r}") from error
        return pair

    def _damaged(self, pair: str) -> StoreError:
        return StoreError(
            f"{self.path} is damaged at the pair {pair}; match again (`lightglue map match`, or `lightglue sfm`): "
            "what is damaged is matched again."
        )

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
        _fill(part, path, settings)


def _fill(part: Path, path: Path, settings: dict[str, Any]) -> None:
    """Make an empty store in `part`, which is to be at `path`."""
    with connected(part, path, "rwc") as connection:
        connection.executescript(_SCHEMA)
        about = {"format": FORMAT, "kind": "matches", "settings": settings}
        rows = [(key, json.dumps(value)) for key, value in about.items()]
        rows.append(("checksum", json.dumps(_checksum_about(rows))))
        connection.executemany("INSERT INTO about VALUES(?, ?)", rows)


def _settings(path: Path) -> dict[str, Any]:
    """What a store was made with. Raises StoreError where the file is no store."""
    with connected(path) as connection:
        ours = connection.execute("SELECT name FROM sqlite_master WHERE name IN ('about', 'images', 'pairs')")
        rows = connection.execute("SELECT key, value FROM about").fetchall() if len(ours.fetchall()) == 3 else []
    try:
        about = {key: json.loads(value) for key, value in rows}
        checksum = about.pop("checksum", None)  # earlier versions wrote none
        if checksum is not None and checksum != _checksum_about(row for row in rows if row[0] != "checksum"):
            raise StoreError(f"{path} is damaged (the settings' checksum differs); remove it and match again.")
        if about["format"] == FORMAT and about["kind"] == "matches":
            return dict(about["settings"])
    except StoreError:
        raise
    except (KeyError, TypeError, ValueError):
        pass
    raise StoreError(f"{path} is no store of matches of this version; name another file.")


def _checksum_about(rows: Iterable[tuple[str, str]]) -> int:
    return zlib.crc32(repr(sorted(rows)).encode())


def _salvaged(connection: sqlite3.Connection) -> Iterator[tuple[int, int, tuple[Any, ...]]]:
    """The numbers of its images and the row of each pair, from the tables alone: indices may be what is damaged."""
    names = dict(connection.execute("SELECT id, name FROM images NOT INDEXED"))
    query = "SELECT image0, image1, count, overlap, note, digest0, digest1, matches, scores, checksum FROM pairs"
    for first, second, *rest in connection.execute(f"{query} NOT INDEXED"):
        yield first, second, (names.get(first), names.get(second), *rest)


class _Keypoints:
    """How many keypoints images have, as far as it is known."""

    def __init__(self, store: MatchStore) -> None:
        self.store, self.heads = store, dict[str, Head | None]()
        self.features = store.features
        if self.features is None and store.path.name == "matches.db":  # of a map
            with suppress(InputError, StoreError):
                self.features = FeatureStore.open(store.path.parent / "features", read_only=True)

    def fault(self, pair: PairMatches) -> str | None:
        """What is wrong with the indices of a pair."""
        if self.features is None or not len(pair.matches):
            return None
        sides = zip((pair.name0, pair.name1), pair.digests, pair.matches.max(axis=0).tolist(), strict=True)
        for name, digest, last in sides:
            if name not in self.heads:
                self.heads[name] = self.features.head(name)
            head = self.heads[name]
            if head is not None and digest in ("", head.digest) and last >= head.num_keypoints:
                return (
                    f"A match of {pair.name0!r} and {pair.name1!r} is of keypoint {last} of {name!r}, which has "
                    f"{head.num_keypoints}"
                )
        return None


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
    note = None if pair.note is None else _encode(pair.note)
    return (*pair.digests, len(pair.scores), matches, scores, pair.overlap, note, _checksum(head, matches, scores))


def _checksum_of(row: tuple[Any, ...]) -> int:
    """The checksum that a row of _WHOLE should have. Raises TypeError or ValueError for what cannot be a row."""
    name0, name1, count, overlap, note, digest0, digest1, matches, scores, _ = row
    head = (_decode(name0), _decode(name1), (digest0, digest1), count, overlap, None if note is None else _decode(note))
    return _checksum(head, matches, scores)


def _checksum(head: tuple[Any, ...], matches: bytes, scores: bytes) -> int:
    return zlib.crc32(scores, zlib.crc32(matches, zlib.crc32(_encode(repr(head)))))
