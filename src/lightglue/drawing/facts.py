"""Nested settings as facts: a path in words, and a value in words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from lightglue.support.checks import is_real

__all__ = ["counted", "facts"]


def facts(said: Mapping[str, Any], path: str = "") -> list[tuple[str, str]]:
    """Every leaf of nested settings: its path in words, and its value."""
    found: list[tuple[str, str]] = []
    for key, value in said.items():
        name = f"{path}{str(key).replace('_', ' ')}"
        nested = (
            isinstance(value, Sequence)
            and not isinstance(value, str)
            and any(isinstance(each, Mapping) for each in value)
        )
        if isinstance(value, Mapping) and value:
            found += facts(value, f"{name} · ")
        elif nested:
            found += facts({str(i + 1): each for i, each in enumerate(value)}, f"{name} · ")
        else:
            found.append(_fact(name, value))
    return found


def _fact(name: str, value: Any) -> tuple[str, str]:
    if name.endswith(" bytes") and is_real(value):
        return name.removesuffix(" bytes"), f"{value / 2**30:.1f} GiB"
    return name, _value(value)


def _value(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if value is None or value in ("", [], (), {}):
        return "none"
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, Sequence) and not isinstance(value, str):
        return ", ".join(_value(each) for each in value)
    return str(value)


def counted(count: int, one: str, many: str = "") -> str:
    """A number of things in words, such as "1 image" and "1,200 images"; `many` where it is not `one` with an s."""
    return f"{count:,} {one if count == 1 else many or one + 's'}"
