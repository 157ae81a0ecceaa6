"""The settings that a store was made with, and their comparison with those that are asked for."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from lightglue.errors import InputError

# What a record means that does not say it: it is of an earlier version, or of what is usual.
UNSAID = {"backend": "torch", "effort": "normal"}
OF_HARD = ("max_seconds",)  # said with effort "hard" alone: where one record has it, the efforts differ, which is told

__all__ = ["as_read", "changes", "check_settings", "differences"]


def as_read(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Settings as they will be read from a file, such as lists for tuples. Raises InputError for what no file holds."""
    try:
        return dict(json.loads(json.dumps(dict(settings), allow_nan=False)))
    except (TypeError, ValueError, RecursionError) as error:
        raise InputError(f"The settings {dict(settings)!r:.200} are no JSON ({error}).") from error


def changes(there: Mapping[str, Any], here: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any, Any]]:
    """What differs between nested settings: its name, such as `models.mp`, and both values.

    What is absent has its usual value, or None; what is there only because another setting differs is not told.
    """
    there, here = {**_unsaid(here, there), **there}, {**_unsaid(there, here), **here}
    for key in {**there, **here}:
        name, before, now = f"{prefix}{key}", there.get(key), here.get(key)
        if key in OF_HARD and not (key in there and key in here):
            continue
        if isinstance(before, Mapping) and isinstance(now, Mapping):
            yield from changes(before, now, f"{name}.")
        elif before != now:
            yield name, before, now


def _unsaid(other: Mapping[str, Any], settings: Mapping[str, Any]) -> dict[str, Any]:
    """What `settings` do not say and others do, where it is known what that means."""
    return {name: usual for name, usual in UNSAID.items() if name in other and name not in settings}


def differences(there: Mapping[str, Any], here: Mapping[str, Any]) -> list[str]:
    """What differs between two settings, in words, one by one."""
    return [f"{name} is {before!r} there and {now!r} here" for name, before, now in changes(there, here)]


def check_settings(path: Path, there: Mapping[str, Any], here: Mapping[str, Any]) -> None:
    """Raises InputError where a store was made with others: results of different settings are never mixed."""
    if different := differences(there, here):
        listed = "; ".join(different)[:500]
        raise InputError(f"{path} was made with other settings: {listed}. Name another one, or remove it.")
