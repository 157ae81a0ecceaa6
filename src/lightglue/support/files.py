"""Files that are there whole or not at all, and the file that says what a store holds."""

from __future__ import annotations

import json
import re
import secrets
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from lightglue.errors import InputError, StoreError

__all__ = [
    "as_read",
    "check_settings",
    "differences",
    "read_json",
    "remove_parts",
    "whole",
    "write_json",
    "write_whole",
    "writing",
]

_PART = re.compile(r"\.[0-9a-f]{16}\.part(-journal)?")
_ABANDONED_S = 3600  # nothing that we write takes as long


@contextmanager
def whole(path: Path, folder: Path | None = None, new: bool = False) -> Iterator[Path]:
    """A file to write beside `path`, which takes its place once it is finished: readers see all of it or none.

    folder: where the file is written; that of `path` by default. new: where others have put a file at `path` in the
    meantime theirs stays. Raises StoreError where it cannot be written; nothing is left behind then.
    """
    part = (folder or path.parent) / f".{secrets.token_hex(8)}.part"  # of its own: others may write the same file
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            yield part
            if not (new and _linked(part, path)):
                part.replace(path)
        finally:
            with suppress(OSError):
                part.unlink(missing_ok=True)


def _linked(part: Path, path: Path) -> bool:
    """Whether there is a file at `path` now, this one or another's. Not where the file system has no links."""
    try:
        path.hardlink_to(part)
    except OSError:
        return path.exists()
    return True


def write_whole(path: Path, content: bytes, folder: Path | None = None, new: bool = False) -> None:
    """Write a file, whole or not at all: `whole` with its content at hand."""
    with whole(path, folder, new) as part:
        part.write_bytes(content)


def remove_parts(folder: Path) -> None:
    """Remove what killed processes left in a folder an hour ago or earlier; what is younger may still be written."""
    with suppress(OSError):
        for path in folder.iterdir():
            if _PART.fullmatch(path.name) and time.time() - path.stat().st_mtime > _ABANDONED_S:
                path.unlink(missing_ok=True)


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turn what the operating system says of a file that is written into an error that names it."""
    try:
        yield
    except StoreError:  # an OSError too, which has said it already
        raise
    except OSError as error:
        told = error.strerror or error
        raise StoreError(
            f"{path} cannot be written ({told}); make room, or name a folder that may be written to."
        ) from error


def write_json(path: Path, content: Mapping[str, Any], new: bool = False) -> None:
    """Write a JSON file, whole or not at all. ASCII: a file name may hold what UTF-8 cannot."""
    write_whole(path, (json.dumps(content, indent=1, allow_nan=False) + "\n").encode(), new=new)


def read_json(path: Path) -> dict[str, Any]:
    """The object in a JSON file. Raises StoreError where it is none; FileNotFoundError where there is no file."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise
    except OSError as error:
        raise StoreError(f"{path} cannot be read ({error.strerror or error}); see what stands there.") from error
    except (ValueError, RecursionError) as error:
        raise StoreError(f"{path} is damaged ({error}); remove it and run the stage anew.") from error
    if not isinstance(content, dict):
        raise StoreError(f"{path} holds no object; remove it and run the stage anew.")
    return content


def as_read(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Settings as they will be read from a file, such as lists for tuples. Raises InputError for what no file holds."""
    try:
        return dict(json.loads(json.dumps(dict(settings), allow_nan=False)))
    except (TypeError, ValueError, RecursionError) as error:
        raise InputError(f"The settings {dict(settings)!r:.200} are no JSON ({error}).") from error


def differences(there: Mapping[str, Any], here: Mapping[str, Any], prefix: str = "") -> list[str]:
    """What differs between two settings, in words, one by one."""
    told = []
    for key in {**there, **here}:
        before, now = there.get(key), here.get(key)
        if before == now:
            continue
        if isinstance(before, dict) and isinstance(now, dict):
            told += differences(before, now, f"{prefix}{key}.")
        else:
            told.append(f"{prefix}{key} is {before!r} there and {now!r} here")
    return told


def check_settings(place: Path, there: Mapping[str, Any], here: Mapping[str, Any]) -> None:
    """Raises InputError where a store was made with others: results of different settings are never mixed."""
    if told := differences(there, here):
        raise InputError(
            f"{place} was made with other settings: {'; '.join(told)[:500]}. Name another place, or remove this one."
        )
