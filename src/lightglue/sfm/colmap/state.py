"""What a database of ours was made of, in two tables of its own beside COLMAP's.

    lightglue_about(key, value)     images, cameras, settings, whether it is complete, checksums, as JSON
    lightglue_pairs(pair_id, ...)   made_of, verified: digests of what the pair's matches, and its geometry, were made
                                    of; checksum: of what COLMAP's tables hold of it

COLMAP does not mind them. They are read by Python's SQLite, without pycolmap, but never while COLMAP has the same file
open: pycolmap brings an SQLite of its own, and two of them in one process do not see each other's locks. The one that
closes first takes itself for the last, and puts the log of the other away
(https://www.sqlite.org/howtocorrupt.html, section 2.2.1).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from lightglue.errors import InputError, StoreError
from lightglue.geometry.intrinsics import Intrinsics
from lightglue.support.sqlite import connected

__all__ = [
    "DatabaseState",
    "check_database",
    "digest_of",
    "pair_states",
    "read_state",
    "set_complete",
    "write_state",
]

FORMAT = 1
_HEADER = b"SQLite format 3\0"
_SCHEMA = """
CREATE TABLE IF NOT EXISTS lightglue_about(key TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS lightglue_pairs(
    pair_id INTEGER PRIMARY KEY, made_of TEXT NOT NULL, verified TEXT, checksum INTEGER);
"""


@dataclass(frozen=True)
class DatabaseState:
    """What a database was made of."""

    names: tuple[str, ...]  # of the images, sorted; the first has the number 1
    digests: tuple[str, ...]  # of their keypoints
    camera_of: tuple[int, ...]  # which of the cameras each image has
    cameras: tuple[Intrinsics, ...]  # the first has the number 1
    settings: Mapping[str, Any] = field(default_factory=dict)  # of the features and of the matches

    def image(self, name: str) -> tuple[str, Intrinsics]:
        """What a geometry of an image depends on."""
        at = self.ids[name] - 1
        return self.digests[at], self.cameras[self.camera_of[at]]

    @cached_property
    def ids(self) -> dict[str, int]:
        """The number of each image in the database."""
        return {name: number for number, name in enumerate(self.names, 1)}

    @property
    def camera_ids(self) -> dict[str, int]:
        """The number of the camera of each image in the database."""
        return {name: number + 1 for name, number in zip(self.names, self.camera_of, strict=True)}

    @property
    def fixed(self) -> tuple[int, ...]:
        """The numbers of the cameras whose intrinsics are known."""
        return tuple(number for number, camera in enumerate(self.cameras, 1) if camera.is_fixed)


def digest_of(content: bytes) -> str:
    """A short digest, for what something was made of."""
    return hashlib.blake2b(content, digest_size=8).hexdigest()


def check_database(path: Path) -> None:
    """Raises InputError where there is no file, StoreError where it is no SQLite database."""
    try:
        with path.open("rb") as file:
            head = file.read(len(_HEADER))
    except FileNotFoundError:
        raise InputError(f"There is no database at {path}; make it first.") from None
    except OSError as error:
        raise StoreError(f"{path} cannot be read ({error.strerror}); check its permissions.") from error
    if head != _HEADER:
        raise StoreError(f"{path} is no database, or damaged; remove it and make it again.")


def read_state(path: Path, is_complete: bool = False) -> DatabaseState:
    """What a database was made of.

    is_complete: raise StoreError where the stage that wrote it was ended before its end.

    Raises InputError where there is none, or it is not ours; StoreError where it is damaged.
    """
    check_database(path)
    with connected(path) as connection:
        tables = {name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
        if "lightglue_about" not in tables:
            raise InputError(f"{path} is a database of somebody else, and stays as it is; name another path.")
        about = dict(connection.execute("SELECT key, value FROM lightglue_about"))
    try:
        if json.loads(about["format"]) != FORMAT:
            raise InputError(f"{path} is of another version; remove it and make it again.")
        if is_complete and not json.loads(about["complete"]):
            raise StoreError(f"{path} is half written; make the database again, which goes on where it stopped.")
        if "seal" in about and json.loads(about["seal"]) != digest_of(about["state"].encode()):
            raise ValueError("the checksum differs")
        return _state_from(json.loads(about["state"]))
    except (KeyError, TypeError, ValueError) as error:
        if isinstance(error, InputError):
            raise
        raise StoreError(f"{path} is damaged ({error!r}); remove it and make it again.") from error


def _state_from(read: dict[str, Any]) -> DatabaseState:
    cameras = tuple(
        Intrinsics(**{**each, "size": tuple(each["size"]), "params": tuple(each["params"])}) for each in read["cameras"]
    )
    names, digests, camera_of = (tuple(read[key]) for key in ("names", "digests", "camera_of"))
    return DatabaseState(names, digests, camera_of, cameras, read["settings"])


def pair_states(path: Path) -> dict[int, tuple[str, str | None]]:
    """What each pair of a database and its geometry are made of, by the pair's number, in its order."""
    with connected(path) as connection:
        rows = connection.execute("SELECT pair_id, made_of, verified FROM lightglue_pairs ORDER BY pair_id").fetchall()
    return {number: (made_of, verified) for number, made_of, verified in rows}


def write_state(path: Path, state: DatabaseState) -> None:
    """Say in a new database what it is made of; it is not complete yet."""
    with connected(path) as connection:
        connection.executescript(_SCHEMA)
        about = {"format": FORMAT, "state": asdict(state), "complete": False}
        rows = [(key, json.dumps(value)) for key, value in about.items()]
        rows.append(("seal", json.dumps(digest_of(dict(rows)["state"].encode()))))
        connection.executemany("INSERT OR REPLACE INTO lightglue_about VALUES(?, ?)", rows)


def set_complete(path: Path, is_complete: bool) -> None:
    """Say whether all that a database is to hold is written."""
    with connected(path) as connection:
        row = ("complete", json.dumps(is_complete))
        if row in connection.execute("SELECT key, value FROM lightglue_about WHERE key = 'complete'"):
            return  # a database that is as it should be stays untouched
        connection.execute("INSERT OR REPLACE INTO lightglue_about VALUES(?, ?)", row)
