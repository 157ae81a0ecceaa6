"""The order that people give files: numbers count by their value."""

from __future__ import annotations

import re

__all__ = ["natural_key"]


def natural_key(name: str) -> tuple[object, ...]:
    """What to sort names by so that img2 comes before img10."""
    parts = re.split("([0-9]+)", name)
    # A number's digits by their count and then one by one: int() refuses very long ones. Letters and numbers alternate.
    key: list[object] = [
        (len(part.lstrip("0")), part.lstrip("0")) if at % 2 else part.casefold() for at, part in enumerate(parts)
    ]
    return *key, name
