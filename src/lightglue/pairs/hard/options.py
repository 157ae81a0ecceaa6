"""How long is searched: read without torch or NumPy."""

from __future__ import annotations

import sys
from typing import Any

from lightglue.errors import InputError
from lightglue.matching.effort import Effort
from lightglue.options import option
from lightglue.support.checks import check_real
from lightglue.support.parsers import real

__all__ = ["MAX_SECONDS", "check_max_seconds", "max_seconds_option", "parse_max_seconds"]

MAX_SECONDS = 30.0  # for a pair
_MEANING = "a number of seconds above 0"
_parse_real = real(_MEANING, sys.float_info.min, 1e9)


def check_max_seconds(seconds: Any, effort: Effort | None = None) -> None:
    """InputError unless `seconds` is a number above 0, or None for no limit; also where it would have no effect.

    effort: that it goes with; None where that is not known yet.
    """
    if seconds is not None:
        check_real("max_seconds", seconds, f"{_MEANING}, or None for no limit", sys.float_info.min, 1e9)
    if seconds != MAX_SECONDS and effort not in (None, "hard"):
        raise InputError(
            f"max_seconds is {seconds}, which is for the effort hard, and the effort is {effort}; leave it out, or "
            "ask for hard."
        )


def parse_max_seconds(text: str) -> float | None:
    """Seconds, or None for "none"."""
    if text.lower() == "none":
        return None
    try:
        return _parse_real(text)
    except InputError:
        raise InputError(f"'{text}' is neither {_MEANING} nor none.") from None


def max_seconds_option() -> Any:
    """The field of every record of options that has it."""
    return option(
        MAX_SECONDS,
        "With --effort hard: time for a pair beyond plain matching; none: no limit.",
        group="Matching",
        metavar="S",
        parse=parse_max_seconds,
    )
