"""Options dataclasses from TOML and to TOML: what is wrong is named with section, key and the nearest right one."""

from __future__ import annotations

import dataclasses
import json
import math
import sys
import types
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from lightglue.errors import InputError
from lightglue.options import nearest_name

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

__all__ = ["build", "canonical", "differences", "flattened", "parse", "read", "write"]

Options = TypeVar("Options")
NONE = "none"  # TOML has no null


def read(path: Path) -> dict[str, Any]:
    """The tables of a TOML file. Raises InputError, which names the file and the line."""
    try:
        text = path.read_text("utf-8")
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror or error}); check the path.") from error
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is not UTF-8 text; save it as such.") from error
    return parse(text, str(path))


def parse(text: str, source: str = "the configuration") -> dict[str, Any]:
    """The tables of a TOML text. Raises InputError."""
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise InputError(f"{source} is not valid TOML: {error}.") from error


def build(kind: type[Options], tables: Any, where: str = "") -> Options:
    """An instance of the dataclass `kind` with what `tables` says over its defaults. Raises InputError.

    where: the section's name, for errors; "" at the top.
    """
    if not isinstance(tables, Mapping):
        raise InputError(f"[{where}] is {tables!r}; give a table of options.")
    hints = get_type_hints(kind)
    fields = {field.name: field for field in dataclasses.fields(kind)}  # type: ignore[arg-type]
    place = f"[{where}] " if where else ""
    for key in tables:
        if key not in fields:
            nearest = nearest_name(str(key), fields)
            hint = f"Did you mean {nearest!r}? " if nearest else ""
            raise InputError(f"{place}{key!r} is unknown. {hint}Valid: {', '.join(fields)}.")
    values = {}
    for key, value in tables.items():
        values[key] = _value(hints[key], value, f"{where}.{key}" if where else str(key))
    missing = [
        name
        for name, field in fields.items()
        if name not in values and field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
    ]
    if missing:
        raise InputError(f"{place}needs {' and '.join(missing)}.")
    try:
        return kind(**values)
    except InputError as error:
        raise InputError(f"{place}{error}") from error


def _value(kind: Any, value: Any, where: str) -> Any:
    """A TOML value as one of the field's type."""
    origin = get_origin(kind)
    if origin in (Union, types.UnionType):
        inner = [each for each in get_args(kind) if each is not types.NoneType]
        if len(inner) < len(get_args(kind)) and value in (NONE, None):
            return None
        return _value(inner[0], value, where)
    if dataclasses.is_dataclass(kind):
        return build(kind, value, where)  # type: ignore[arg-type]
    if origin is tuple:
        if not isinstance(value, (list, tuple)):
            raise InputError(f"{where} is {value!r}; give a list.")
        args = get_args(kind)
        if args[-1:] != (...,) and len(args) != len(value):
            raise InputError(f"{where} has {len(value)} values; give {len(args)}.")
        kinds = [args[0]] * len(value) if args[-1:] == (...,) else list(args)
        return tuple(_value(k, v, f"{where}[{i}]") for i, (k, v) in enumerate(zip(kinds, value, strict=True)))
    if isinstance(origin, type) and issubclass(origin, Mapping):
        if not isinstance(value, Mapping):
            raise InputError(f"{where} is {value!r}; give a table.")
        return {str(k): _value(get_args(kind)[1], v, f"{where}.{k}") for k, v in value.items()}
    return _scalar(kind, value, where)


def _scalar(kind: Any, value: Any, where: str) -> Any:
    if get_origin(kind) is Literal:
        if value not in get_args(kind):
            nearest = nearest_name(str(value), map(str, get_args(kind)))
            hint = f"Did you mean {nearest!r}? " if nearest else ""
            raise InputError(f"{where} is {value!r}. {hint}Valid: {', '.join(map(str, get_args(kind)))}.")
        return value
    names = {bool: "true or false", int: "a whole number", float: "a number", str: "a text", Path: "a path"}
    fits = {
        bool: isinstance(value, bool),
        int: isinstance(value, int) and not isinstance(value, bool),
        float: isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value),
        str: isinstance(value, str),
        Path: isinstance(value, (str, Path)),
    }
    if kind is Any or kind is object:
        return value
    if kind not in fits:
        raise TypeError(f"{where}: options of type {kind} cannot be read")
    if not fits[kind]:
        raise InputError(f"{where} is {value!r}; give {names[kind]}.")
    return kind(value)


def write(options: Any, head: Mapping[str, Any]) -> str:
    """All options as TOML, defaults included; `head` stands at the top. `build` reads it back the same."""
    lines = [f"{key} = {_literal(value)}" for key, value in head.items()]
    lines += _table(options, "")
    return "\n".join(lines) + "\n"


def canonical(options: Any) -> dict[str, Any]:
    """All options for a digest: the same for 3, for 3.0, and for what was written and read back."""
    read: Any = build(type(options), parse(write(options, {})))
    found: dict[str, Any] = {}
    for field in dataclasses.fields(options):
        value, default = getattr(read, field.name), field.default
        if dataclasses.is_dataclass(value):
            found[field.name] = canonical(value)
        elif isinstance(value, tuple) and any(map(dataclasses.is_dataclass, value)):
            found[field.name] = tuple(map(canonical, value))
        else:  # a default as it is written in the code, as digests of earlier versions have it
            found[field.name] = default if value == default else value
    return found


def _table(options: Any, where: str) -> list[str]:
    own: list[str] = []
    inner: list[str] = []
    for field in dataclasses.fields(options):
        value = getattr(options, field.name)
        name = f"{where}.{field.name}" if where else field.name
        if dataclasses.is_dataclass(value):
            inner += ["", f"[{name}]", *_table(value, name)]
        elif isinstance(value, tuple) and value and all(dataclasses.is_dataclass(each) for each in value):
            for each in value:
                inner += ["", f"[[{name}]]", *_table(each, name)]
        elif isinstance(value, Mapping):
            inner += ["", f"[{name}]", *(f"{json.dumps(str(k))} = {_literal(v)}" for k, v in value.items())]
        else:
            own.append(f"{field.name} = {_literal(value)}")
    return own + inner


def _literal(value: Any) -> str:
    if value is None:
        return f'"{NONE}"'
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (tuple, list)):
        return f"[{', '.join(map(_literal, value))}]"
    if isinstance(value, Mapping):
        return f"{{{', '.join(f'{json.dumps(str(k))} = {_literal(v)}' for k, v in value.items())}}}"
    if isinstance(value, (int, float)):
        return repr(value)
    # JSON's strings are TOML's, but for the delete character.
    return json.dumps(str(value), ensure_ascii=False).replace("\x7f", "\\u007F")


def flattened(options: Any, where: str = "") -> Iterator[tuple[str, Any]]:
    """Every option by its full name, such as ("optimiser.lr", 1e-4); tables of lists by their position."""
    if dataclasses.is_dataclass(options):
        pairs: Any = [(field.name, getattr(options, field.name)) for field in dataclasses.fields(options)]
    elif isinstance(options, Mapping):
        pairs = options.items()
    elif isinstance(options, (tuple, list)) and any(map(dataclasses.is_dataclass, options)):
        pairs = enumerate(options)
    else:
        yield where, list(options) if isinstance(options, tuple) else options
        return
    for name, value in pairs:
        yield from flattened(value, f"{where}.{name}" if where else str(name))


def differences(before: Any, now: Any) -> list[str]:
    """What differs between two sets of options, a line each: "optimiser.lr: 0.0001 before, 0.0002 now"."""
    old, new = dict(flattened(before)), dict(flattened(now))
    return [
        f"{name}: {old.get(name, 'nothing')} before, {new.get(name, 'nothing')} now"
        for name in {**old, **new}
        if str(old.get(name)) != str(new.get(name)) or (name in old) != (name in new)
    ]
