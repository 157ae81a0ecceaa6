"""Weights of this package in place of published ones that cannot be had: said aloud, no network waited for twice.

Which were in use is remembered beside the cache: a server that did not answer is not asked by every command, and where
the published file has come since, the first use of it says that results are others now.
"""

from __future__ import annotations

import json
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from lightglue.errors import WeightsError
from lightglue.support.files import write_whole
from lightglue.weights import locate, table
from lightglue.weights.table import OwnFile

__all__ = ["OwnWeightsNotice", "in_place_of", "resolve_or_own", "stands_in", "without_fetching"]

PATIENCE_S = 4.0  # in which a server must answer, where there is something to be had without it
AGAIN_S = 3600.0  # after which it is asked again


class OwnWeightsNotice(UserWarning):
    """The published weights could not be had, and those that come with this package are in use; or no longer so."""


@dataclass(frozen=True)
class _Absence:
    """Why a published file could not be had."""

    reason: str
    asked: float | None  # when the network was, seconds since 1970; None: it was not

    @property
    def holds(self) -> bool:
        """Whether the network need not be asked again."""
        return self.asked is not None and 0 <= time.time() - self.asked < AGAIN_S


_noticed: set[str] = set()  # own files whose notice this process has given
_absences: dict[Path, _Absence] = {}  # of this process, by the file that remembers it: the folder may be read-only
_fetches: ContextVar[bool] = ContextVar("fetches", default=True)


@contextmanager
def without_fetching() -> Iterator[None]:
    """`resolve_or_own` asks no network herein, gives no notice and remembers nothing: what would be taken now?"""
    token = _fetches.set(False)
    try:
        yield
    finally:
        _fetches.reset(token)


def resolve_or_own(name: str, *, commercial_only: bool = False) -> str:
    """The name of what can be had: `name`, a published file, or the file of this package that stands in for it.

    The second gives one `OwnWeightsNotice` a process, with what it is and why; so does the first where the second was
    in use before. A server that gave no answer is asked again after an hour. Raises `WeightsError` where the file of
    this package is altered, or its licence refused.
    """
    own = in_place_of(name)
    if own is None:
        return name  # whose absence is reported where it is read
    memory = _memory(name)
    if _is_cached(name):
        _say_published(own, memory)
        return name
    if not _fetches.get():
        return own.name
    absence = _remembered(memory)
    was_asked_before = absence is not None and absence.holds
    if absence is None or not absence.holds:
        try:
            locate.resolve(name, commercial_only=commercial_only, patience=PATIENCE_S)
        except WeightsError as error:
            absence = _Absence(str(error), None if locate.is_offline() else time.time())
        else:
            _say_published(own, memory)
            return name
    locate.resolve(own.name, commercial_only=commercial_only)
    if own.name not in _noticed or _remembered(memory) != absence:
        _remember(memory, absence)
    if own.name not in _noticed:
        _noticed.add(own.name)
        remedy = f"`lightglue weights pull {name}` asks again at once."
        why = f"{absence.reason.rstrip('.')}." + f" {remedy}" * (absence.asked is not None)
        if was_asked_before:
            why = f"no server answered before. {remedy}"
        warnings.warn(
            f"{own.name} is used, which comes with this package, in place of the published {name}: {own.about}. "
            f"Results are not those of the published weights. Why: {why}",
            OwnWeightsNotice,
            stacklevel=3,
        )
    return own.name


def in_place_of(name: str) -> OwnFile | None:
    """The file of this package that stands in for a published one; None where there is none, or the user wants none."""
    if locate.is_published_only():
        return None
    return next((file for file in table.OWN.values() if file.replaces == name), None)


def stands_in(name: str) -> str | None:
    """What this process has taken in place of a published file; None where it has not. Its workers take the same."""
    own = in_place_of(name)
    return own.name if own is not None and own.name in _noticed else None


def _say_published(own: OwnFile, memory: Path) -> None:
    """Where the own file was in use before, say that it is no longer."""
    if not _fetches.get() or _remembered(memory) is None:
        return
    _absences.pop(memory, None)
    with suppress(OSError):
        memory.unlink(missing_ok=True)
    _noticed.discard(own.name)
    warnings.warn(
        f"The published {own.replaces} is there now and is used from here on; {own.name} was in its place before, and "
        "results differ from those.",
        OwnWeightsNotice,
        stacklevel=4,
    )


def _memory(name: str) -> Path:
    """The file beside the cached ones that says why the published one was not there."""
    return locate.cache_folder() / f".{table.FILES[name].filename}.absent"


def _remembered(memory: Path) -> _Absence | None:
    if memory in _absences:
        return _absences[memory]
    try:
        content: Any = json.loads(memory.read_text("utf-8"))
        asked = content["asked"]
        return _Absence(str(content["reason"]), None if asked is None else float(asked))
    except (OSError, ValueError, KeyError, TypeError):  # none, or not ours
        return None


def _remember(memory: Path, absence: _Absence) -> None:
    _absences[memory] = absence
    with suppress(OSError):  # a folder that cannot be written to: then this process alone knows
        memory.parent.mkdir(parents=True, exist_ok=True)
        write_whole(memory, json.dumps({"reason": absence.reason, "asked": absence.asked}).encode())


def _is_cached(name: str) -> bool:
    """Whether the published file is in the cache folder. Read again only where the files of its names have changed."""
    file, folder, state = table.FILES[name], locate.cache_folder(), []
    for each in (file.filename, *file.also_known_as):
        with suppress(OSError):
            about = (folder / each).stat()
            state.append((each, about.st_size, about.st_mtime_ns, about.st_ino))
    return bool(state) and _verified(name, file.sha256, tuple(state), folder)


@lru_cache(maxsize=32)
def _verified(name: str, sha256: str, state: tuple[Any, ...], folder: Path) -> bool:
    return locate.find_cached(table.FILES[name]) is not None
