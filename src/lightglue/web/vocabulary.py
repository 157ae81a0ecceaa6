"""The options of the package as JSON: what there is, read from their declarations, and values from a request.

No name, default, help or check is written a second time: see `lightglue.support.declared`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from lightglue.errors import InputError
from lightglue.options import nearest_name
from lightglue.pairs.asked import PairRequest
from lightglue.sfm.options import LocalizeOptions
from lightglue.support.declared import Declared, Owner, RefusedOptionsError
from lightglue.support.parsers import Range
from lightglue.web.failures import FailureError

__all__ = ["Vocabulary", "localize_vocabulary", "match_vocabulary"]

LONGEST_TEXT = 1_000  # characters of a value


class Vocabulary:
    """Options that a request may set, by name."""

    def __init__(self, options: Iterable[Declared], most_keypoints: int | None = None) -> None:
        self.options = {each.key: each for each in options if not _is_path(each)}
        self._most_keypoints = most_keypoints

    def entries(self) -> list[dict[str, Any]]:
        """What there is, for forms."""
        return [self._entry(each) for each in self.options.values()]

    def schema(self) -> dict[str, Any]:
        """The same as a JSON schema."""
        return {
            "type": "object",
            "additionalProperties": False,
            "properties": {name: self._property(each) for name, each in self.options.items()},
        }

    def read(self, values: Any) -> dict[str, Any]:
        """Values of a request by their options' names, as the options' owners take them; null: as if it was not there.

        Raises InputError, RefusedOptionsError.
        """
        if not isinstance(values, Mapping):
            raise FailureError.of(
                422, "input", "options: give an object with a name and a value for each option.", "options"
            )
        if len(values) > len(self.options):
            unknown: Any = next(name for name in values if name not in self.options)
            raise self._unknown(unknown)
        return {name: self._value(name, value) for name, value in values.items() if value is not None}

    def _value(self, name: Any, value: Any) -> Any:
        if name not in self.options:
            raise self._unknown(name)
        option = self.options[name]
        try:
            found = _read(option, value)
        except InputError as error:
            raise RefusedOptionsError(f"{name}: {error}", [option]) from None
        if name == "max_keypoints" and self._most_keypoints is not None and found > self._most_keypoints:
            most = f"{found} is more than this service allows; ask for at most {self._most_keypoints}."
            raise RefusedOptionsError(f"{name}: {most}", [option])
        return found

    def _unknown(self, name: Any) -> FailureError:
        nearest = nearest_name(str(name)[:100], self.options)
        hint = f"did you mean {nearest}?" if nearest else "GET options lists those that there are."
        return FailureError.of(422, "option", f"There is no option {str(name)[:100]!r}; {hint}", str(name)[:100])

    def _entry(self, option: Declared) -> dict[str, Any]:
        low, high = self._range(option)
        return {
            "name": option.key,
            "type": _type(option),
            "default": _as_json(option.default),
            "help": self._help(option),
            "choices": list(option.choices),
            "minimum": low,
            "maximum": high,
            "group": option.info.group,
        }

    def _property(self, option: Declared) -> dict[str, Any]:
        kinds = {"choice": "string", "text": "string"}
        low, high = self._range(option)
        kind = _type(option)
        wanted: Any = [kinds.get(kind, kind), "null"]
        if kind == "text":
            wanted = ["string", "number", "array", "null"]
        found = {"description": self._help(option), "default": _as_json(option.default), "type": wanted}
        if kind == "choice":
            found["enum"] = [*option.choices, None]
        return found | {name: value for name, value in (("minimum", low), ("maximum", high)) if value is not None}

    def _range(self, option: Declared) -> tuple[float | None, float | None]:
        parse = option.info.parse
        low, high = (parse.lowest, parse.highest) if isinstance(parse, Range) else (None, None)
        if option.key == "max_keypoints" and self._most_keypoints is not None:
            high = self._most_keypoints
        return low, high

    def _help(self, option: Declared) -> str:
        """With options by the names that they have here, and without those that there are not."""
        names = {each.flag: name for name, each in self.options.items()}
        return re.sub(r"--[a-z][a-z-]*", lambda found: names.get(found[0], found[0]), option.info.help)


def match_vocabulary(most_keypoints: int | None = None) -> Vocabulary:
    """The options of a match."""
    return Vocabulary(_flat(PairRequest.owner().all_options()), most_keypoints)


def localize_vocabulary() -> Vocabulary:
    """The options of a localization."""
    return Vocabulary(_flat(Owner(LocalizeOptions).all_options()))


def _flat(options: Iterable[Declared]) -> Iterator[Declared]:
    seen = set()
    for each in options:
        if each.key not in seen:
            seen.add(each.key)
            yield each


def _is_path(option: Declared) -> bool:
    """Whether its value names a file, which no request may do."""
    return option.info.parse is Path or option.kind is Path or option.info.metavar in ("FILE", "DIR")


def _type(option: Declared) -> str:
    """What a form shows: boolean, integer, number, choice or text."""
    if option.is_switch:
        return "boolean"
    if option.choices:
        return "choice"
    if len(option.kinds) == 1 and option.kind in (int, float):
        return "integer" if option.kind is int else "number"
    return "text"


def _read(option: Declared, value: Any) -> Any:
    """A value of JSON as one of the option: what a person may type is taken too. Raises InputError."""
    if option.is_switch:
        if not isinstance(value, bool):
            raise InputError(f"{value!r:.80} is neither true nor false.")
        return value
    if (
        _type(option) == "text"
        and isinstance(value, list)
        and value
        and all(isinstance(each, (int, float, str)) for each in value)
    ):
        value = ",".join(_text(each) for each in value)
    if isinstance(value, bool) or not isinstance(value, (str, int, float)):
        raise InputError(f"{value!r:.80} is no value for it.")
    text = _text(value)
    if len(text) > LONGEST_TEXT:
        raise InputError(f"The value has {len(text)} characters; give at most {LONGEST_TEXT}.")
    return option.parse(text)


def _text(value: Any) -> str:
    """As a person would type it. Integers of thousands of digits, which Python refuses to print, are no value."""
    try:
        return value if isinstance(value, str) else repr(value)
    except ValueError:
        raise InputError("The number is too long.") from None


def _as_json(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value
