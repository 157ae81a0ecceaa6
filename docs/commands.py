"""The reference of the command line, written from the command line's own declarations."""

from __future__ import annotations

import inspect
import re
from typing import Any

from typer.main import get_command

from lightglue.cli.app import app


def as_markdown() -> str:
    """A section for each command: what it does, and its arguments and options in their groups."""
    return "\n".join(_sections("lightglue", get_command(app)))


def _sections(name: str, command: Any) -> list[str]:
    lines: list[str] = []
    for word, each in getattr(command, "commands", {}).items():
        if each.hidden:
            continue
        full = f"{name} {word}"
        lines += [f"## {full}", "", _text(each.help), "", *_tables(each), *_sections(full, each)]
    return lines


def _tables(command: Any) -> list[str]:
    """One table a group of options, in the order in which `--help` shows them."""
    groups: dict[str, list[Any]] = {}
    for parameter in command.params:
        if not parameter.hidden and "--help" not in parameter.opts:
            kind = "Options" if _is_option(parameter) else "Arguments"
            groups.setdefault(parameter.rich_help_panel or kind, []).append(parameter)
    lines = []
    for group, parameters in groups.items():
        rows = [f"| {_names(each)} | {_default(each)} | {_text(each.help)} |" for each in parameters]
        lines += [f"| {group} | default | |", "|---|---|---|", *rows, ""]
    return lines


def _is_option(parameter: Any) -> bool:
    return any(name.startswith("-") for name in parameter.opts)


def _names(parameter: Any) -> str:
    metavar = (parameter.metavar or "").replace("|", r" \| ")  # so that a long list of choices wraps
    if not _is_option(parameter):
        return f"`{metavar or parameter.name.upper()}`"
    names = ", ".join(sorted(parameter.opts, key=len, reverse=True) + parameter.secondary_opts)
    return f"`{names} {metavar}`".replace(" `", "`")


def _default(parameter: Any) -> str:
    value = parameter.default
    if callable(value) or value in (None, False, "", ()):
        return ""
    return "on" if value is True else f"`{getattr(value, 'value', value)}`"


def _text(text: str | None) -> str:
    """Help as it stands, with options as code."""
    plain = inspect.cleandoc(text or "").replace("\b", "").replace("|", r"\|")
    return re.sub(r"(?<![`\w-])(--[a-z][\w-]*)", r"`\1`", plain)
