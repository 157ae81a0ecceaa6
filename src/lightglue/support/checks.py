"""Checks of values that users give: those of `lightglue_runtime.checks`, which both packages have."""

from __future__ import annotations

from lightglue_runtime.checks import (
    check_between,
    check_bool,
    check_choice,
    check_int,
    check_integers,
    check_real,
    is_int,
    is_real,
)

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
