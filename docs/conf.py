"""How `make docs` builds the site; docs/decisions/021-documentation-site.md says why so."""

from __future__ import annotations

import ast
import dataclasses
import importlib
import inspect
import re
import sys
from pathlib import Path

from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

import lightglue
import lightglue_runtime

sys.path.insert(0, str(Path(__file__).parent))
from commands import as_markdown

ROOT = Path(__file__).parents[1]
FROM_ROOT = {"index": "README.md", "zh": "README.zh.md", "contributing": "CONTRIBUTING.md", "changelog": "CHANGELOG.md"}

project = "lightglue"
author = "The lightglue developers"
copyright = author
version = release = lightglue.__version__

# `make test` checks what is written and leaves out what is derived from it, which takes as long: a page for each
# source file, and the names of functions in the sidebar of every page.
CHECK = tags.has("check")  # noqa: F821  # Sphinx's

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
extensions += [] if CHECK else ["sphinx.ext.viewcode"]
toc_object_entries = not CHECK
source_suffix = {".md": "markdown"}

myst_heading_anchors = 4

# -- the API, from the docstrings --
default_role = "code"
autodoc_member_order = "bysource"
autodoc_preserve_defaults = True
autodoc_typehints = "signature"
autodoc_default_options = {"members": True}
toc_object_entries_show_parents = "hide"
napoleon_numpy_docstring = False
napoleon_use_ivar = True
python_use_unqualified_type_names = True
python_maximum_signature_line_length = 100
nitpicky = True
# Signatures name types of other packages, whose pages are elsewhere, and internal ones, which have none.
nitpick_ignore_regex = [("py:(class|exc|data|obj)", r".*")]
suppress_warnings = ["ref.python"]  # a name in a signature that several modules have, such as Extractor

# -- pages that need no network: system fonts, local search --
html_theme = "furo"
html_title = "lightglue"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_copy_source = False
html_show_sphinx = False
html_theme_options = {"navigation_with_keys": True}


class Commands(SphinxDirective):
    """Every command with its options, as the command line itself declares them."""

    def run(self) -> list:  # noqa: D102
        self.env.note_reread()
        return self.parse_text_to_nodes(as_markdown(), allow_section_headings=True)


class Api(SphinxDirective):
    """Every public name of a room, whose names may be found when they are first used."""

    required_arguments = 1

    def run(self) -> list:  # noqa: D102
        room = importlib.import_module(self.arguments[0])
        lines = [f".. automodule:: {room.__name__}", "   :no-members:", ""]
        for name in room.__all__:
            public = getattr(room, name)
            kind = "autoclass" if inspect.isclass(public) else "autofunction" if callable(public) else "autodata"
            error = isinstance(public, type) and issubclass(
                public, Exception
            )  # lightglue's page has those of both packages
            option = "   :no-value:" if kind == "autodata" else "   :no-index:" if error else ""
            lines += [f".. {kind}:: {room.__name__}.{name}", option, ""]
        return self.parse_text_to_nodes("```{eval-rst}\n" + "\n".join(lines) + "\n```", allow_section_headings=True)


class Modules(SphinxDirective):
    """Every module with the first sentence of its docstring, room by room."""

    def run(self) -> list:  # noqa: D102
        self.env.note_reread()
        package = Path(lightglue.__file__).parent
        without_torch = Path(lightglue_runtime.__file__).parent
        lines: list[str] = []
        rooms = sorted(path for path in package.iterdir() if path.is_dir() and (path / "__init__.py").exists())
        for room in [*rooms, without_torch]:
            lines += [f"## {room.name}", "", "| module | |", "|---|---|"]
            for path in sorted(room.rglob("*.py")):
                said = (ast.get_docstring(ast.parse(path.read_text())) or "").split("\n\n")[0].replace("\n", " ")
                name = ".".join(
                    path.relative_to(package if room in rooms else package.parent).with_suffix("").parts
                ).removesuffix(".__init__")
                lines.append(f"| `{name}` | {said.replace('|', chr(92) + '|')} |")
            lines.append("")
        return self.parse_text_to_nodes("\n".join(lines), allow_section_headings=True)


def front_page(_: Sphinx, name: str, source: list[str]) -> None:
    """Some pages are files of the root; their links are relative to the root, those here to docs/."""
    if name not in FROM_ROOT:
        return
    own = {file: f"{page}.md" for page, file in FROM_ROOT.items()}

    def moved(found: re.Match[str]) -> str:
        target = found[1]
        if re.match(r"https?://|#", target):
            return found[0]
        return f"]({own.get(target) or (target[5:] if target.startswith('docs/') else '../' + target)})"

    source[0] = re.sub(r"\]\(([^)\s]+)\)", moved, (ROOT / FROM_ROOT[name]).read_text()) + source[0]


def fields(_: Sphinx, what: str, name: str, obj: object, options: object, lines: list[str]) -> None:
    """What is said of a dataclass's fields, in the help of options and in comments: shapes, units, remarks."""
    if what != "class" or not dataclasses.is_dataclass(obj):
        return
    try:
        source = inspect.getsource(obj)
    except OSError:
        return
    said = re.findall(r"^    (\w+): [^#\n]*?  # (.+)$", source, re.MULTILINE)
    names = {field.name for field in dataclasses.fields(obj)}
    lines += (
        ["", "Attributes:", *(f"    {field}: {text}" for field, text in said if field in names), ""] if said else []
    )


def plain_text(app: Sphinx, what: str, name: str, obj: object, options: object, lines: list[str]) -> None:
    """Docstrings here are plain text: signs that reStructuredText would take for markup stand for themselves."""
    app.config.napoleon_google_docstring = what not in ("property", "attribute")  # "Name: what it is" is no type
    plain: list[str] = []
    for line in lines:
        code = re.split(r"(`[^`]*`)", line)
        line = "".join(part if part.startswith("`") else re.sub(r"([|*])", r"\\\1", part) for part in code)
        before = plain[-1] if plain else ""
        if before and line and len(before) - len(before.lstrip()) > len(line) - len(line.lstrip()):
            plain.append("")  # a paragraph ends where its indentation does
        plain.append(line)
    lines[:] = plain


def setup(app: Sphinx) -> None:  # noqa: D103
    app.add_directive("commands", Commands)
    app.add_directive("modules", Modules)
    app.add_directive("api", Api)
    app.connect("source-read", front_page)
    app.connect("autodoc-process-docstring", fields, priority=300)
    app.connect("autodoc-process-docstring", plain_text, priority=400)  # before napoleon
