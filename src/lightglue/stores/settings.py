"""The settings that a store was made with, and their comparison with those that are asked for."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lightglue.errors import InputError

__all__ = ["as_read", "check_settings", "differences"]


def as_read(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Settings as they will be read from a file, such as lists for tuples. Raises InputError for what no file holds."""
    try:
        return dict(json.loads(json.dumps(dict(settings), allow_nan=False)))
    except (TypeError, ValueError, RecursionError) as error:
        raise InputError(f"The settings {dict(settings)!r:.200} are no JSON ({error}).") from error


def differences(there: Mapping[str, Any], here: Mapping[str, Any], prefix: str = "") -> list[str]:
    """What differs between two settings, in words, one by one."""
    found = []
    for key in {**there, **here}:
        before, now = there.get(key), here.get(key)
        if before == now:
            continue
        if isinstance(before, dict) and isinstance(now, dict):
            found += differences(before, now, f"{prefix}{key}.")
        else:
            found.append(f"{prefix}{key} is {before!r} there and {now!r} here")
    return found


def check_settings(path: Path, there: Mapping[str, Any], here: Mapping[str, Any]) -> None:
    """Raises InputError where a store was made with others: results of different settings are never mixed."""
    if different := differences(there, here):
        raise InputError(
            f"{path} was made with other settings: {'; '.join(different)[:500]}. Name another place, or remove it."
        )
