"""The maps that the page shows: those that were named at the start, read when they are looked at."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Any

from lightglue.errors import InputError, LightGlueError
from lightglue.support.caches import BoundedCache
from lightglue.support.printable import printable
from lightglue.web.failures import without_path

if TYPE_CHECKING:
    from lightglue.sfm.folder import MapFolder
    from lightglue.web.open_map import OpenMap

__all__ = ["Maps", "named_folders"]

_KEPT = 512_000_000  # bytes of maps in memory, about


def named_folders(folders: Iterable[str | os.PathLike[str]]) -> dict[str, Path]:
    """A name for each folder of a map, which goes into addresses: the folder's own, with its parent's where two agree.

    A folder that is named twice is there once. Raises InputError where one holds no map, StoreError where what it says
    of itself is damaged.
    """
    found: dict[Path, None] = {}
    for folder in folders:
        _paths(Path(folder)).read()
        found.setdefault(Path(folder).resolve())
    named: dict[str, Path] = {}
    for folder in found:
        same = [other for other in found if _plain(other.name) == _plain(folder.name)]
        name = _plain(folder.name) if len(same) == 1 else _plain(f"{folder.parent.name}-{folder.name}")
        number, chosen = 2, name
        while chosen in named:
            chosen, number = f"{name}-{number}", number + 1
        named[chosen] = folder
    return named


def _paths(folder: Path) -> MapFolder:
    from lightglue.sfm.folder import MapFolder  # with NumPy, which a service without maps does without

    return MapFolder(folder)


def _plain(name: str) -> str:
    """A name of letters, digits, dots and dashes, for an address."""
    plain = "".join(letter if letter.isalnum() or letter in "._" else "-" for letter in name).strip(".-")
    return plain[:100] or "map"


class Maps:
    """The maps that were named at the start; those that are looked at stay in memory."""

    def __init__(self, folders: Iterable[str | os.PathLike[str]] = ()) -> None:
        self._folders = named_folders(folders)
        self._lock = Lock()
        self._open: BoundedCache[tuple[str, str], OpenMap] = BoundedCache(_KEPT, lambda found: found.size)

    def __len__(self) -> int:
        return len(self._folders)

    def folder(self, name: str) -> Path:
        """Where a map lies. Raises KeyError for a name that was not given."""
        return self._folders[name]

    def list(self) -> list[dict[str, Any]]:
        """Each map's name and how large it is, or why it cannot be shown now."""
        return [{"name": name, **_listed(name, _paths(folder))} for name, folder in self._folders.items()]

    def open(self, name: str) -> OpenMap:
        """A map as it is on the disk now.

        Raises KeyError for a name that was not given; InputError, StoreError where it is gone or damaged.
        """
        paths = _paths(self._folders[name])
        with self._lock:  # of several that ask for a large map at once, one reads it
            version = _version(paths)
            try:
                return self._open.get((name, version), lambda: _opened(name, version, paths))
            except LightGlueError as error:
                raise without_path(error, paths.folder, name) from error


def _listed(name: str, paths: MapFolder) -> dict[str, Any]:
    try:
        counts = {name: dict(stage.counts) for name, stage in paths.read().stages.items()}
        fault = None if paths.largest.is_dir() else "there is no model in it: no two images could be put together"
    except LightGlueError as error:
        counts, fault = {}, str(without_path(error, paths.folder, name))
    found = counts.get("reconstruct", {})
    size = {key: int(found[own]) for key, own in (("images", "registered"), ("points", "points")) if own in found}
    return {**size, "fault": None if fault is None else printable(fault)}


def _version(paths: MapFolder) -> str:
    """Changes with the map's record and its model."""
    parts = []
    for path in (paths.record, *sorted(paths.largest.glob("*"))):
        try:
            stat = path.stat()
        except OSError:
            continue
        parts.append(f"{path.name} {stat.st_mtime_ns} {stat.st_size}")
    return hashlib.blake2b("\n".join(parts).encode("utf-8", "surrogateescape"), digest_size=8).hexdigest()


def _opened(name: str, version: str, paths: MapFolder) -> OpenMap:
    record = paths.read()
    if not paths.largest.is_dir():
        raise InputError(f"The map {name!r} has no model: no two of its images could be put together; see its report.")
    from lightglue.sfm.colmap.model import read_model
    from lightglue.web.open_map import OpenMap

    return OpenMap(name, version, paths, record, read_model(paths.largest))
