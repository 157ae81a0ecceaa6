"""From a user's text to a value, for options: each parser raises InputError with the text and what to give instead."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Generic, TypeVar

from lightglue.errors import InputError
from lightglue.options import nearest_name
from lightglue.support.checks import is_real

__all__ = ["DEVICES", "Range", "device", "integer", "known", "real", "share"]

DEVICES = ("auto", "cpu", "cuda", "mps")


def known(text: str, names: Iterable[str]) -> str:
    """`text` if it is one of `names`; the nearest name is in the error."""
    names = list(names)
    if text in names:
        return text
    nearest = nearest_name(text.lower(), names)
    hint = f"Did you mean {nearest!r}? " if nearest else ""
    raise InputError(f"{text!r} is unknown. {hint}Valid: {', '.join(names)}.")


N = TypeVar("N", int, float)


@dataclass(frozen=True)
class Range(Generic[N]):
    """The parser of numbers between two others, which forms ask for these."""

    kind: type[N]
    meaning: str
    lowest: float
    highest: float

    def __call__(self, text: str) -> N:
        """The number. Raises InputError."""
        try:
            number = self.kind(text) if self.kind is float or re.fullmatch("[0-9]{1,18}", text) else math.nan
        except ValueError:
            number = math.nan
        if is_real(number, self.lowest, self.highest):
            return self.kind(number)
        raise InputError(f"'{text}' is not {self.meaning}.")


def integer(meaning: str, lowest: int = 1, highest: int = 1_000_000) -> Range[int]:
    """The parser of integers from `lowest` to `highest`. meaning: "a number of keypoints from 1 to 1000000"."""
    return Range(int, meaning, lowest, highest)


def real(meaning: str, lowest: float, highest: float) -> Range[float]:
    """The parser of finite numbers from `lowest` to `highest`. meaning: "a number from 0 to 1"."""
    return Range(float, meaning, lowest, highest)


share = real("a number from 0 to 1", 0, 1)


def device(text: str) -> str:
    """`auto`, or a device as torch names it: cpu, cuda, cuda:1, mps."""
    return text if re.fullmatch(r"cuda:[0-9]{1,3}", text) else known(text, DEVICES)
