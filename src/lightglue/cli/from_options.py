"""Commands whose options come from their owners: frozen dataclasses whose fields are declared with `option(...)`.

A command's function takes arguments as typer has them, and instances of options dataclasses. Each field of these, and
of the dataclasses nested in them, that is declared with `lightglue.options.option` and a group becomes an option of the
command: its name, default, help, choices and completion. What the dataclass refuses is a wrong command line.
"""

from __future__ import annotations

import dataclasses
import inspect
import re
import types
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import wraps
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

import typer
from typer.core import TyperCommand, TyperGroup

from lightglue.cli.printing import echo
from lightglue.errors import InputError, LightGlueError
from lightglue.options import OptionInfo
from lightglue.support.parsers import known
from lightglue.support.printable import escaped

__all__ = ["Command", "Given", "Group", "Only", "command", "wrong_command_line"]

GROUPS = ("Training", "Features", "Pairs", "Matching", "Geometry", "Output", "Machine")  # as --help has them


class Given(frozenset[str]):
    """A parameter of this type gets the names of the options that the user has set, such as "max_keypoints"."""


class Only(tuple[str, ...]):
    """`Annotated[Models, Only(("device", "mp"))]`: a command that offers these fields of a dataclass alone."""


class Command(TyperCommand):
    """A command whose --help stands in the last group."""

    def get_help_option(self, ctx: Any) -> Any:
        """As typer has it, but in a group."""
        found = super().get_help_option(ctx)
        if found is not None:
            found.rich_help_panel, found.metavar = GROUPS[-1], ""
        return found

    def collect_usage_pieces(self, ctx: Any) -> list[str]:
        """[OPTIONS] A B: arguments by their names alone."""
        arguments = [each for each in self.params if each.param_type_name == "argument"]
        return ["[OPTIONS]", *(f"{each.metavar}" if each.required else f"[{each.metavar}]" for each in arguments)]

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """As typer has it, but with --mp and --no-mp in one column, which leaves room for the texts."""
        each: Any
        for each in self.params:
            each.opts, each.secondary_opts = [*each.opts, *each.secondary_opts], []
            if each.param_type_name == "argument":
                each.display_type_rich = lambda ctx: None  # `<list[Path]>`; the text says what it is
        super().format_help(ctx, formatter)


class Group(TyperGroup):
    """Commands whose errors show what was typed, without what it could do to the terminal."""

    def make_context(self, *args: Any, **extra: Any) -> Any:
        """As typer does."""
        with _shown_as_text():
            return super().make_context(*args, **extra)

    def invoke(self, ctx: Any) -> Any:
        """As typer does, and those of all commands below."""
        with _shown_as_text():
            return super().invoke(ctx)


@contextmanager
def _shown_as_text() -> Iterator[None]:
    try:
        yield
    except Exception as error:
        if hasattr(error, "format_message") and hasattr(error, "message"):  # of a wrong command line
            error.message = escaped(error.message)
        raise


def command(app: typer.Typer, name: str | None = None, *, example: str, **settings: Any) -> Callable[[Any], Any]:
    """Register a function as a command of `app`. example: a line that is shown at the end of its --help."""

    def register(function: Callable[..., None]) -> Callable[..., None]:
        paragraphs = (inspect.getdoc(function) or "").split("\n\n")
        texts = {"help": "\n\n".join(" ".join(each.split()) for each in paragraphs), "epilog": f"Example: {example}"}
        app.command(name, **{"cls": Command, **texts, **settings})(with_options(function))
        return function

    return register


def with_options(function: Callable[..., None]) -> Callable[..., None]:
    """`function` as typer takes it: with a parameter for each option of its options dataclasses."""
    own: list[inspect.Parameter] = []
    owners: dict[str, _Owner] = {}
    given = None
    for parameter in inspect.signature(function, eval_str=True).parameters.values():
        kind, *notes = get_args(parameter.annotation) or (parameter.annotation,)
        if dataclasses.is_dataclass(kind):
            owners[parameter.name] = _Owner(kind, next((each for each in notes if isinstance(each, Only)), None))
        elif kind is Given:
            given = parameter.name
        else:
            own.append(parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY))
    options: dict[str, _Option] = {}
    for owner in owners.values():
        for each in owner.all_options():
            options.setdefault(each.key, each)  # several owners may have one: a seed, which goes to all
    added = [made for each in options.values() for made in each.parameters()]

    @wraps(function)
    def run(context: typer.Context, **values: Any) -> None:
        arguments = {parameter.name: values.pop(parameter.name) for parameter in own}
        with _flags_named(options.values()):
            asked = _asked(context, options, values)
            built = {name: owner.build(asked) for name, owner in owners.items()}
            function(**arguments, **built, **({given: Given(asked)} if given else {}))

    context = inspect.Parameter("context", inspect.Parameter.KEYWORD_ONLY, annotation=typer.Context)
    parameters = [context, *sorted([*added, *own], key=_group)]
    run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    run.__annotations__ = {each.name: each.annotation for each in parameters}
    return run


@contextmanager
def wrong_command_line() -> Iterator[None]:
    """Options that are refused in here are a wrong command line."""
    try:
        yield
    except InputError as error:
        raise typer.BadParameter(str(error)) from None


@contextmanager
def _flags_named(options: Iterable[_Option]) -> Iterator[None]:
    """Errors name options as they are typed here, where Python has `camera0: ...` and `give auto_rotate too`."""
    flags = {each.field: each.flag for each in options}
    names = [name for name in flags if not name.isalpha()]  # the others may be words of a sentence
    pattern = re.compile(rf"(?<![\w./'-])({'|'.join(names) or '(?!)'})(?![\w/'-]|\.\w)")
    try:
        yield
    except typer.BadParameter as error:
        name, colon, rest = error.message.partition(": ")
        if colon and name in flags:
            error.message, error.param_hint = rest, flags[name]
        error.message = pattern.sub(lambda found: flags[found[1]], error.message)
        raise
    except LightGlueError as error:
        error.args = (pattern.sub(lambda found: flags[found[1]], str(error)),)
        raise


def _group(parameter: inspect.Parameter) -> int:
    """Where a parameter stands in --help: the arguments first, then group by group."""
    panels = [getattr(note, "rich_help_panel", None) for note in get_args(parameter.annotation)]
    return max((GROUPS.index(panel) + 1 for panel in panels if panel in GROUPS), default=0)


def _asked(context: typer.Context, options: Mapping[str, _Option], values: Mapping[str, Any]) -> dict[str, Any]:
    """What the user has set, by the options' keys."""
    found = {}
    for key, each in options.items():
        for flag in (*each.info.old, each.flag):
            source = context.get_parameter_source(_key(flag))
            if source is None or source.name == "DEFAULT":
                continue
            if flag != each.flag:
                echo(f"warning: {flag} is now called {each.flag}.", err=True)
            found[key] = each.converted(values[_key(flag)])
    return found


def _key(flag: str) -> str:
    return flag.removeprefix("--").replace("-", "_")


@dataclass(frozen=True)
class _Owner:
    """An options dataclass of a command."""

    kind: Any
    only: Only | None = None

    def own_options(self) -> dict[str, _Option]:
        """The options of its own fields, by the fields' names."""
        hints = get_type_hints(self.kind)
        found = {
            field.name: _Option(field.name, hints[field.name], field.default, field.metadata["option"])
            for field in dataclasses.fields(self.kind)
            if "option" in field.metadata and (self.only is None or field.name in self.only)
        }
        return {name: each for name, each in found.items() if each.info.group}

    def nested(self) -> dict[str, _Owner]:
        """The options dataclasses nested in it, by the fields' names."""
        hints = get_type_hints(self.kind)
        inner = {
            field.name: _Owner(hints[field.name])
            for field in dataclasses.fields(self.kind)
            if self.only is None and "option" not in field.metadata and dataclasses.is_dataclass(hints[field.name])
        }
        return {name: owner for name, owner in inner.items() if any(owner.all_options())}

    def all_options(self) -> Iterator[_Option]:
        """Its options, and those of the dataclasses nested in it."""
        yield from self.own_options().values()
        for owner in self.nested().values():
            yield from owner.all_options()

    def build(self, asked: Mapping[str, Any]) -> Any:
        """An instance with what the user has set. Raises BadParameter, which names the option."""
        inner = {name: owner.build(asked) for name, owner in self.nested().items()}
        own = {name: each for name, each in self.own_options().items() if each.key in asked}
        try:
            return self.kind(**inner, **{name: asked[each.key] for name, each in own.items()})
        except InputError as error:
            wrong = [each.flag for name, each in own.items() if not self._takes(inner, name, asked[each.key])]
            flags = wrong[:1] or [each.flag for each in own.values()]
            raise typer.BadParameter(str(error), param_hint=", ".join(flags) or None) from None

    def _takes(self, inner: Mapping[str, Any], name: str, value: Any) -> bool:
        """Whether the value is good in itself, without the others that the user has set."""
        try:
            self.kind(**inner, **{name: value})
        except InputError:
            return False
        return True


@dataclass(frozen=True)
class _Option:
    """A field of an options dataclass, as an option of a command."""

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
        """Its name among a command's parameters: "max_keypoints"."""
        return _key(self.flag)

    @property
    def kind(self) -> Any:
        """The type of a value, without None; of one value where the option is repeated for several."""
        return get_args(self._whole)[0] if get_origin(self._whole) is tuple else self._whole

    @property
    def _whole(self) -> Any:
        if get_origin(self.hint) in (Union, types.UnionType):
            return next(each for each in get_args(self.hint) if each is not types.NoneType)
        return self.hint

    @property
    def is_repeated(self) -> bool:
        """Whether the option takes several values by being repeated."""
        return get_origin(self._whole) is tuple and (self.info.parse is None or self.info.repeated)

    @property
    def _is_list(self) -> bool:
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

    def parameters(self) -> Iterator[inspect.Parameter]:
        """For typer: the option, and its former names, which --help does not show."""
        for flags in (self.flags, *([flag] for flag in self.info.old)):
            made = typer.Option(*flags, hidden=flags != self.flags, rich_help_panel=self.info.group, **self._settings())
            kind: Any = (bool | None if self.default is None else bool) if self.is_switch else Any
            default = self.default
            if dataclasses.is_dataclass(self.kind):
                kind, default = bool, default is not None
            elif self.is_negative:
                default = not default
            elif self.is_repeated:
                kind, default = list[Any], list(default or ())
            name = _key(flags[0].partition("/")[0])
            yield inspect.Parameter(
                name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=Annotated[kind, made]
            )

    def _settings(self) -> dict[str, Any]:
        shown = not (self.default is None or self.default is False or self.default in ((), ""))
        if self.is_switch:
            return {"help": self.info.help, "show_default": False, "metavar": ""}
        help = self.info.help
        if not all(choice in help for choice in self.choices):  # in the text they are wrapped between words
            help = f"{help} Valid: {', '.join(self.choices)}."
        metavar = self.info.metavar or {int: "N", float: "X", Path: "FILE"}.get(self.kind, "NAME")
        completion = {"autocompletion": self._complete} if self.choices else {}
        return {"help": help, "metavar": metavar, "show_default": shown, "parser": self._parse, **completion}

    def _parse(self, value: object) -> Any:
        """A user's text as a value. Raises BadParameter."""
        if not isinstance(value, str):
            return value  # the default
        try:
            if self.info.parse is not None:
                return self.info.parse(value)
            if self.choices:
                return known(value, self.choices)
            return self.kind(value) if self.kind in (int, float, Path) else value
        except InputError as error:
            raise typer.BadParameter(str(error)) from None
        except ValueError:
            what = {int: "a whole number", float: "a number"}.get(self.kind, "such a value")
            raise typer.BadParameter(f"'{value}' is not {what}.") from None

    def _complete(self, incomplete: str) -> list[str]:
        begin, comma, last = incomplete.rpartition(",") if self._is_list else ("", "", incomplete)
        return [f"{begin}{comma}{each}" for each in self.choices if each.startswith(last)]

    def converted(self, value: Any) -> Any:
        """What typer gives, as a value of the field."""
        if dataclasses.is_dataclass(self.kind):
            return self.kind() if value else None  # type: ignore[operator]
        if self.is_negative:
            return not value
        return tuple(value) if self.is_repeated else value
