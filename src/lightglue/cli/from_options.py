"""Commands whose options come from their owners: frozen dataclasses whose fields are declared with `option(...)`.

A command's function takes arguments as typer has them, and instances of options dataclasses. Each field of these, and
of the dataclasses nested in them, that is declared with `lightglue.options.option` and a group becomes an option of the
command: its name, default, help, choices and completion. What the dataclass refuses is a wrong command line.
"""

from __future__ import annotations

import dataclasses
import inspect
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import wraps
from pathlib import Path
from typing import Annotated, Any, get_args

import typer
from typer.core import TyperCommand, TyperGroup

from lightglue.cli.printing import echo
from lightglue.errors import InputError, LightGlueError
from lightglue.support.declared import Declared, Owner, RefusedOptionsError
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
    owners: dict[str, Owner] = {}
    given = None
    for parameter in inspect.signature(function, eval_str=True).parameters.values():
        kind, *notes = get_args(parameter.annotation) or (parameter.annotation,)
        if dataclasses.is_dataclass(kind):
            owners[parameter.name] = Owner(kind, next((each for each in notes if isinstance(each, Only)), None))
        elif kind is Given:
            given = parameter.name
        else:
            own.append(parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY))
    options: dict[str, Declared] = {}
    for owner in owners.values():
        for each in owner.all_options():
            options.setdefault(each.key, each)  # several owners may have one: a seed, which goes to all
    added = [made for each in options.values() for made in _parameters(each)]

    @wraps(function)
    def run(context: typer.Context, **values: Any) -> None:
        arguments = {parameter.name: values.pop(parameter.name) for parameter in own}
        with _flags_named(options.values()):
            asked = _asked(context, options, values)
            built = {name: _built(owner, asked) for name, owner in owners.items()}
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
def _flags_named(options: Iterable[Declared]) -> Iterator[None]:
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


def _asked(context: typer.Context, options: Mapping[str, Declared], values: Mapping[str, Any]) -> dict[str, Any]:
    """What the user has set, by the options' keys."""
    found = {}
    for key, each in options.items():
        for flag in (*each.info.old, each.flag):
            source = context.get_parameter_source(_key(flag))
            if source is None or source.name == "DEFAULT":
                continue
            if flag != each.flag:
                echo(f"warning: {flag} is now called {each.flag}.", err=True)
            found[key] = _converted(each, values[_key(flag)])
    return found


def _key(flag: str) -> str:
    return flag.removeprefix("--").replace("-", "_")


def _built(owner: Owner, asked: Mapping[str, Any]) -> Any:
    """An instance with what the user has set. Raises BadParameter, which names the option."""
    try:
        return owner.build(asked)
    except RefusedOptionsError as error:
        flags = ", ".join(each.flag for each in error.options)
        raise typer.BadParameter(str(error), param_hint=flags or None) from None


def _parameters(option: Declared) -> Iterator[inspect.Parameter]:
    """For typer: the option, and its former names, which --help does not show."""
    for flags in (option.flags, *([flag] for flag in option.info.old)):
        is_old = flags != option.flags
        made = typer.Option(*flags, hidden=is_old, rich_help_panel=option.info.group, **_settings(option))
        kind: Any = (bool | None if option.default is None else bool) if option.is_switch else Any
        default = option.default
        if dataclasses.is_dataclass(option.kind):
            kind, default = bool, default is not None
        elif option.is_negative:
            default = not default
        elif option.is_repeated:
            kind, default = list[Any], list(default or ())
        name = _key(flags[0].partition("/")[0])
        yield inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=Annotated[kind, made])


def _settings(option: Declared) -> dict[str, Any]:
    shown = not (option.default is None or option.default is False or option.default in ((), ""))
    if option.is_switch:
        return {"help": option.info.help, "show_default": False, "metavar": ""}
    help = option.info.help
    if not all(choice in help for choice in option.choices):  # in the text they are wrapped between words
        help = f"{help} Valid: {', '.join(option.choices)}."
    metavar = option.info.metavar or {int: "N", float: "X", Path: "FILE"}.get(option.kind, "NAME")
    completion = {"autocompletion": _completion(option)} if option.choices else {}
    return {"help": help, "metavar": metavar, "show_default": shown, "parser": _parser(option), **completion}


def _parser(option: Declared) -> Callable[[object], Any]:
    def parse(value: object) -> Any:
        """A user's text as a value. Raises BadParameter."""
        if not isinstance(value, str):
            return value  # the default
        try:
            return option.parse(value)
        except InputError as error:
            raise typer.BadParameter(str(error)) from None

    return parse


def _completion(option: Declared) -> Callable[[str], list[str]]:
    def complete(incomplete: str) -> list[str]:
        begin, comma, last = incomplete.rpartition(",") if option.is_list else ("", "", incomplete)
        return [f"{begin}{comma}{each}" for each in option.choices if each.startswith(last)]

    return complete


def _converted(option: Declared, value: Any) -> Any:
    """What typer gives, as a value of the field."""
    if dataclasses.is_dataclass(option.kind):
        return option.kind() if value else None  # type: ignore[operator]
    if option.is_negative:
        return not value
    return tuple(value) if option.is_repeated else value
