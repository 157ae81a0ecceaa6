"""Checks of values that users give: each passes or raises InputError with the value and what to give instead.

Nothing here imports torch or numpy, so options can check themselves before either is loaded.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Iterable
from typing import Any

from lightglue_runtime.errors import InputError

__all__ = [
    "check_between",
    "check_bool",
    "check_choice",
    "check_int",
    "check_integers",
    "check_real",
    "is_int",
    "is_real",
]

_LARGEST = 2**31 - 1  # of 32 bits, which COLMAP and the stores have


def is_int(value: Any, lowest: float = -math.inf, highest: float = math.inf) -> bool:
    """Whether `value` is an integer (of any library, but no bool) from `lowest` to `highest`."""
    try:
        return not _is_bool(value) and lowest <= operator.index(value) <= highest
    except TypeError:
        return False


def is_real(value: Any, lowest: float = -math.inf, highest: float = math.inf) -> bool:
    """Whether `value` is a finite number (of any library, but no bool and no text) from `lowest` to `highest`."""
    try:
        return (
            not _is_bool(value) and not isinstance(value, str) and math.isfinite(value) and lowest <= value <= highest
        )
    except (TypeError, ValueError, OverflowError, RuntimeError):  # a tensor of several values is a RuntimeError
        return False


def _is_bool(value: Any) -> bool:
    return isinstance(value, bool) or type(value).__name__ in ("bool", "bool_")  # numpy's too, without loading it


def check_bool(name: str, value: Any) -> None:
    """InputError unless `value` is True or False, numpy's included."""
    if not _is_bool(value):
        raise InputError(f"{name} is {value!r}; give True or False.")


def check_int(name: str, value: Any, lowest: float, meaning: str, highest: float = math.inf) -> None:
    """InputError unless `value` is an integer from `lowest` to `highest`; `meaning` says what to give."""
    if not is_int(value, lowest, highest):
        raise InputError(f"{name} is {value!r}; give {meaning}.")


def check_real(name: str, value: Any, meaning: str, lowest: float = -math.inf, highest: float = math.inf) -> None:
    """InputError unless `value` is a finite number from `lowest` to `highest`; `meaning` says what to give."""
    if not is_real(value, lowest, highest):
        raise InputError(f"{name} is {value!r}; give {meaning}.")


def check_choice(name: str, value: Any, choices: Iterable[str]) -> None:
    """InputError unless `value` is one of `choices`."""
    if value not in (valid := list(choices)):
        raise InputError(f"{name} is {value!r}; choose one of {', '.join(valid)}.")


def check_integers(options: Any, /, **lowest: int) -> None:
    """InputError unless these fields of `options` are integers of at least so much, or None where that is usual."""
    for name, least in lowest.items():
        if not _is_usual_none(options, name):
            check_int(name, getattr(options, name), least, f"an integer of at least {least}", _LARGEST)
            _as_python(options, name)


def check_between(options: Any, of: str = "", /, **highest: float) -> None:
    """InputError unless these fields are numbers above 0 and below so much, or None where that is usual."""
    for name, limit in highest.items():
        value = getattr(options, name)
        if not _is_usual_none(options, name):
            if not is_real(value, 0, limit) or value in (0, limit):
                below = f" and below {limit:g}" if limit < math.inf else ""
                raise InputError(f"{name} is {value!r}; give a number {of}above 0{below}.")
            _as_python(options, name)


def _is_usual_none(options: Any, name: str) -> bool:
    return getattr(options, name) is None and getattr(type(options), name, 0) is None  # there the default stands


def _as_python(options: Any, name: str) -> None:
    """Replace a number of NumPy, which JSON does not hold, by Python's."""
    if hasattr(value := getattr(options, name), "item"):
        object.__setattr__(options, name, value.item())
