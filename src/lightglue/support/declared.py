"""Options dataclasses as forms: which options they declare, and an instance from what a user has set.

The command line and the web service build what they offer from this, and nothing is said of an option twice.
"""

from __future__ import annotations

import dataclasses
import types
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from lightglue.errors import InputError
from lightglue.options import OptionInfo
from lightglue.support.parsers import known

__all__ = ["Declared", "Owner", "RefusedOptionsError"]

_WORDS = {int: "a whole number", float: "a number"}


class RefusedOptionsError(InputError):
    """What an options dataclass says of values that it does not take, and which of the options that concerns."""

    def __init__(self, message: str, options: Collection[Declared]) -> None:
        super().__init__(message)
        self.options = tuple(options)


@dataclass(frozen=True)
class Declared:
    """A field of an options dataclass that is declared with `lightglue.options.option`."""

    field: str
    hint: Any
    default: Any
    info: OptionInfo

    @property
    def flags(self) -> list[str]:
        """As click takes them: the name, shorter ones, the negative."""
        if self.info.flag:
            return self.info.flag.split()
        name = self.field.replace("_", "-")
        return [f"--{name}/--no-{name}" if self.kind is bool and self.default is not False else f"--{name}"]

    @property
    def flag(self) -> str:
        """Its name on the command line: "--max-keypoints"."""
        return self.flags[0].partition("/")[0]

    @property
    def key(self) -> str:
        """Its name in a command's or a request's values: "max_keypoints"."""
        return self.flag.removeprefix("--").replace("-", "_")

    @property
    def kind(self) -> Any:
        """The type of a value, without None; of one value where the option is repeated for several."""
        return get_args(self._whole)[0] if get_origin(self._whole) is tuple else self._whole

    @property
    def kinds(self) -> tuple[Any, ...]:
        """The types that the field takes, without None."""
        if get_origin(self.hint) in (Union, types.UnionType):
            return tuple(each for each in get_args(self.hint) if each is not types.NoneType)
        return (self.hint,)

    @property
    def _whole(self) -> Any:
        return self.kinds[0]

    @property
    def is_repeated(self) -> bool:
        """Whether the option takes several values by being repeated."""
        return get_origin(self._whole) is tuple and (self.info.parse is None or self.info.repeated)

    @property
    def is_list(self) -> bool:
        """Whether one text holds several values: auto,gps."""
        return get_origin(self._whole) is tuple and not self.is_repeated

    @property
    def is_switch(self) -> bool:
        """Whether the option has no value: of a bool, or of options that are None where something is off."""
        return self.info.parse is None and (self.kind is bool or dataclasses.is_dataclass(self.kind))

    @property
    def is_negative(self) -> bool:
        """Whether the option switches off what is on by default: --no-flash."""
        return self.kind is bool and self.flag.startswith("--no-")

    @property
    def choices(self) -> tuple[str, ...]:
        """The valid values, where they are named."""
        return self.info.choices or (get_args(self.kind) if get_origin(self.kind) is Literal else ())

    def parse(self, text: str) -> Any:
        """A user's text as a value. Raises InputError."""
        try:
            if self.info.parse is not None:
                return self.info.parse(text)
            if self.choices:
                return known(text, self.choices)
            return self.kind(text) if self.kind in (int, float, Path) else text
        except InputError:
            raise
        except ValueError:
            raise InputError(f"'{text}' is not {_WORDS.get(self.kind, 'such a value')}.") from None


@dataclass(frozen=True)
class Owner:
    """An options dataclass, and which of its fields are offered; None: all that have a group."""

    kind: Any
    only: Collection[str] | None = None

    def own_options(self) -> dict[str, Declared]:
        """The options of its own fields, by the fields' names."""
        hints = _hints(self.kind)
        found = {
            field.name: Declared(field.name, hints[field.name], field.default, field.metadata["option"])
            for field in dataclasses.fields(self.kind)
            if "option" in field.metadata and (self.only is None or field.name in self.only)
        }
        return {name: each for name, each in found.items() if each.info.group}

    def nested(self) -> dict[str, Owner]:
        """The options dataclasses nested in it, by the fields' names."""
        hints = _hints(self.kind)
        inner = {
            field.name: Owner(hints[field.name])
            for field in dataclasses.fields(self.kind)
            if self.only is None and "option" not in field.metadata and dataclasses.is_dataclass(hints[field.name])
        }
        return {name: owner for name, owner in inner.items() if any(owner.all_options())}

    def all_options(self) -> Iterator[Declared]:
        """Its options, and those of the dataclasses nested in it."""
        yield from self.own_options().values()
        for owner in self.nested().values():
            yield from owner.all_options()

    def build(self, asked: Mapping[str, Any]) -> Any:
        """An instance with what the user has set, by the options' keys. Raises RefusedOptionsError."""
        inner = {name: owner.build(asked) for name, owner in self.nested().items()}
        own = {name: each for name, each in self.own_options().items() if each.key in asked}
        try:
            return self.kind(**inner, **{name: asked[each.key] for name, each in own.items()})
        except InputError as error:
            wrong = [each for name, each in own.items() if not self._takes(inner, name, asked[each.key])]
            raise RefusedOptionsError(str(error), wrong[:1] or own.values()) from None

    def _takes(self, inner: Mapping[str, Any], name: str, value: Any) -> bool:
        """Whether the value is good in itself, without the others that the user has set."""
        try:
            self.kind(**inner, **{name: value})
        except InputError:
            return False
        return True


@cache  # a request asks for those of each of its dataclasses
def _hints(kind: Any) -> Mapping[str, Any]:
    return get_type_hints(kind)
