"""Options: frozen dataclasses beside their owner, each field with what people and the command line must know of it.

Keyword options: published names in, a frozen dataclass out, with a hint where a name is misspelt.
Published code accepts any keyword and ignores the ones it does not know, so a typing error passes in silence.
Here an unknown keyword gives a warning with the nearest valid name, and the call goes on as published code would.
"""

from __future__ import annotations

import dataclasses
import difflib
import warnings
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

__all__ = [
    "KNOWN_CALLER_KEYWORDS",
    "OptionInfo",
    "build_config",
    "nearest_name",
    "option",
    "option_info",
    "warn_unknown",
]

Config = TypeVar("Config")

# Keywords that known callers add to every model's options, for their own use.
# hloc passes `name` and `compile`; glue-factory the rest (gluefactory/models/base_model.py).
KNOWN_CALLER_KEYWORDS = frozenset(
    {"name", "compile", "trainable", "timeit", "freeze_batch_normalization", "force_num_keypoints"}
)


@dataclass(frozen=True)
class OptionInfo:
    """How an option is presented: the one place from which command lines, forms and documents take it."""

    help: str
    group: str = ""  # heading of --help, such as "Features"; "": for Python alone, no command line has it
    flag: str | None = None  # where it is not the field's name: "--output -o", "--mp/--no-mp", "--no-flash"
    metavar: str | None = None
    choices: tuple[str, ...] = ()  # for help, checks and completion; a Literal's values need not be repeated here
    parse: Callable[[str], Any] | None = None  # from a user's text; raises InputError (or ValueError)
    repeated: bool = False  # of a tuple with a parser: this is of one value, and the option is repeated for others
    old: tuple[str, ...] = ()  # former flags, which work with a warning: "--scales"


def option(default: Any, help: str, **info: Any) -> Any:
    """A field of a frozen options dataclass: its default, and the fields of `OptionInfo`.

    >>> @dataclass(frozen=True)
    ... class Blur:
    ...     sigma: float = option(1.6, "Standard deviation of the blur, px.", group="Features")
    >>> Blur().sigma, option_info(Blur, "sigma").help
    (1.6, 'Standard deviation of the blur, px.')
    """
    return dataclasses.field(default=default, metadata={"option": OptionInfo(help, **info)})


def option_info(owner: Any, name: str) -> OptionInfo:
    """What is known of the option `name` of the dataclass `owner`. Raises KeyError where that is no option."""
    fields = {field.name: field for field in dataclasses.fields(owner)}
    info: OptionInfo = fields[name].metadata["option"]
    return info


def nearest_name(name: str, valid: Iterable[str]) -> str | None:
    """The valid name that is spelt most like `name`, or None where none is close."""
    close = difflib.get_close_matches(name, list(valid), n=1, cutoff=0.5)
    return close[0] if close else None


def warn_unknown(owner: str, unknown: Iterable[str], valid: Iterable[str], stacklevel: int = 3) -> None:
    """Warn (UserWarning) about each keyword in `unknown`, naming the nearest valid one.

    Keywords that known callers pass to every model (`KNOWN_CALLER_KEYWORDS`) are let through in silence.
    """
    valid = sorted(valid)
    for name in unknown:
        if name in KNOWN_CALLER_KEYWORDS:
            continue
        nearest = nearest_name(name, valid)
        hint = f"did you mean {nearest!r}?" if nearest else f"valid names: {', '.join(valid)}."
        warnings.warn(f"{owner} ignores the unknown option {name!r}; {hint}", stacklevel=stacklevel)


def build_config(
    owner: str, config: Config, overrides: Mapping[str, Any], stacklevel: int = 4, also_valid: Iterable[str] = ()
) -> Config:
    """A copy of the frozen dataclass instance `config` with the known ones of `overrides` put in.

    `owner` is the name that the user wrote, for the warning: `LightGlue`, `ALIKED.extract`.
    `also_valid` are names that the owner takes besides the configuration, for the hint.
    The dataclass checks its own values in `__post_init__` and raises `InputError`.
    """
    valid = {field.name for field in dataclasses.fields(config)}  # type: ignore[arg-type]
    warn_unknown(owner, [k for k in overrides if k not in valid], {*valid, *also_valid}, stacklevel)
    known = {k: v for k, v in overrides.items() if k in valid}
    return dataclasses.replace(config, **known)  # type: ignore[type-var]
