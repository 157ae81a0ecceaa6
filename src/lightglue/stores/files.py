"""Files that are there whole or not at all, and the file that says what a store holds."""

from __future__ import annotations

import json
import secrets
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from lightglue.errors import InputError, StoreError

__all__ = ["as_read", "check_settings", "differences", "read_json", "write_json", "write_whole", "writing"]


def write_whole(path: Path, content: bytes) -> None:
    """Write a file beside and rename it, so that a reader, or a run after a kill, sees all of it or none.

    Raises StoreError where it cannot be written.
    """
    part = path.with_name(f".{secrets.token_hex(8)}.part")  # of its own: others may write the same file
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            part.write_bytes(content)
            part.replace(path)
        except BaseException:
            part.unlink(missing_ok=True)
            raise


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turn what the operating system says of a file that is written into an error that names it."""
    try:
        yield
    except OSError as error:
        told = error.strerror or error
        raise StoreError(
            f"{path} cannot be written ({told}); make room, or name a folder that may be written to."
        ) from error


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write a JSON file, whole or not at all. ASCII: a file name may hold what UTF-8 cannot."""
    write_whole(path, (json.dumps(content, indent=1, allow_nan=False) + "\n").encode())


def read_json(path: Path) -> dict[str, Any]:
    """The object in a JSON file. Raises StoreError where it is none; FileNotFoundError where there is no file."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise
    except (ValueError, OSError, RecursionError) as error:
        raise StoreError(f"{path} cannot be read ({error}); remove it and run the stage anew.") from error
    if not isinstance(content, dict):
        raise StoreError(f"{path} holds no object; remove it and run the stage anew.")
    return content


def as_read(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Settings as they will be read from a file, such as lists for tuples. Raises InputError for what no file holds."""
    try:
        return dict(json.loads(json.dumps(dict(settings), allow_nan=False)))
    except (TypeError, ValueError) as error:
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
            f"{place} was made with other settings: {'; '.join(told)[:500]}. Name another folder, or remove this one."
        )
