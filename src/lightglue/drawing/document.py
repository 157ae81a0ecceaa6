"""A document of sections, once written, twice rendered: one self-contained page of HTML, and Markdown.

All text is data: it is escaped where it is rendered and never read as markup. The same document gives the same bytes.
"""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from typing import Literal, TypeAlias

from lightglue.drawing.page import COLOURS, STYLE
from lightglue.support.printable import printable

__all__ = [
    "Block",
    "Cards",
    "Cell",
    "Chart",
    "Document",
    "Facts",
    "Fold",
    "Picture",
    "Section",
    "Table",
    "Text",
    "Tone",
    "to_html",
    "to_markdown",
]


Tone = Literal["", "good", "bad", "quiet"]


@dataclass(frozen=True)
class Text:
    """A paragraph."""

    text: str
    kind: Literal["plain", "note", "warning"] = "plain"


@dataclass(frozen=True)
class Cards:
    """Figures to be seen first: each a label, a value, and a small addition."""

    cards: tuple[tuple[str, str, str], ...]


@dataclass(frozen=True)
class Cell:
    """A cell of a table."""

    text: str
    bar: float | None = None  # 0 to 1, drawn below the text
    tone: Tone = ""


@dataclass(frozen=True)
class Table:
    """Rows below a head."""

    head: tuple[str, ...]
    rows: tuple[tuple[str | Cell, ...], ...]
    words: int = 1  # how many columns on the left are words; the others are numbers


@dataclass(frozen=True)
class Facts:
    """Terms and what is said of them."""

    facts: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Chart:
    """A drawing as an <svg> element, with a legend of (index in `COLOURS`, text)."""

    title: str
    svg: str
    caption: str = ""
    legend: tuple[tuple[int, str], ...] = ()
    wide: bool = False  # a row of its own


@dataclass(frozen=True)
class Picture:
    """An image, as JPEG or PNG, or the reason why there is none."""

    title: str
    image: bytes | None
    caption: str
    dark: bytes | None = None  # the same for pages that are light on dark


@dataclass(frozen=True)
class Fold:
    """Blocks that are shown when asked for."""

    title: str
    blocks: tuple[Block, ...]


Block: TypeAlias = "Text | Cards | Table | Facts | Chart | Picture | Fold"


@dataclass(frozen=True)
class Section:
    """Blocks below a heading; `id` is its anchor, which begins with a letter and holds letters, digits and dashes."""

    id: str
    title: str
    blocks: tuple[Block, ...]
    comment: str = ""  # put around the section as <!-- comment --> and <!-- /comment -->


@dataclass(frozen=True)
class Document:
    """A whole report."""

    title: str
    subtitle: str
    sections: tuple[Section, ...]


def to_html(document: Document) -> str:
    """One page without any reference to another file."""
    links = "".join(f'<li><a href="#{each.id}">{_text(each.title)}</a></li>' for each in document.sections)
    body = "\n".join(_section(each) for each in document.sections)
    policy = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<meta http-equiv="Content-Security-Policy" content="{policy}">
<title>{_text(document.title)}</title>
<style>
{STYLE}</style>
</head>
<body>
<header><div>
<h1>{_text(document.title)}</h1>
<p>{_text(document.subtitle)}</p>
</div></header>
<div class="columns">
<nav aria-label="Contents"><ul>{links}</ul></nav>
<main>
{body}
</main>
</div>
</body>
</html>
"""


def to_markdown(document: Document) -> str:
    """The same in Markdown. Charts and pictures are in the HTML only; their captions stay."""
    lines = [f"# {_plain(document.title)}", "", _plain(document.subtitle), ""]
    for section in document.sections:
        lines += [f"<!-- {section.comment} -->", ""] if section.comment else []
        lines += [f"## {_plain(section.title)}", ""]
        for block in section.blocks:
            lines += [*_markdown(block), ""]
        lines += [f"<!-- /{section.comment} -->", ""] if section.comment else []
    return "\n".join(lines).rstrip("\n") + "\n"


def _text(text: object) -> str:
    return escape(printable(text), quote=True)


def _section(section: Section) -> str:
    before, after = (f"<!-- {mark}{section.comment} -->\n" if section.comment else "" for mark in ("", "/"))
    return (
        f'{before}<section id="{section.id}">\n<h2>{_text(section.title)}</h2>\n{_blocks(section.blocks)}\n'
        f"</section>\n{after}".rstrip("\n")
    )


def _blocks(blocks: Sequence[Block]) -> str:
    """Blocks below each other; charts that follow each other share a row where there is room."""
    parts, charts = [], False
    for block in blocks:
        if isinstance(block, Chart) != charts:
            parts.append("</div>" if charts else '<div class="charts">')
            charts = not charts
        parts.append(_block(block))
    return "\n".join([*parts, "</div>"] if charts else parts)


def _block(block: Block) -> str:
    if isinstance(block, Text):
        return f'<p class="{block.kind}">{_text(block.text)}</p>'
    if isinstance(block, Cards):
        return f'<div class="cards">{"".join(_card(*card) for card in block.cards)}</div>'
    if isinstance(block, Table):
        return _table(block)
    if isinstance(block, Facts):
        return f"<dl>{''.join(f'<dt>{_text(term)}</dt><dd>{_text(said)}</dd>' for term, said in block.facts)}</dl>"
    if isinstance(block, Chart):
        return _chart(block)
    if isinstance(block, Picture):
        return _picture(block)
    return f"<details><summary>{_text(block.title)}</summary>\n{_blocks(block.blocks)}\n</details>"


def _card(label: str, value: str, small: str) -> str:
    return f"<div><span>{_text(label)}</span><strong>{_text(value)}</strong><small>{_text(small)}</small></div>"


def _table(table: Table) -> str:
    head = "".join(f"<th{_number(i, table)}>{_text(each)}</th>" for i, each in enumerate(table.head))
    rows = "\n".join(
        "<tr>" + "".join(_cell(i, each, table) for i, each in enumerate(row)) + "</tr>" for row in table.rows
    )
    return (
        f'<div class="scroll" tabindex="0"><table>\n<thead><tr>{head}</tr></thead>\n<tbody>\n{rows}\n</tbody>\n'
        "</table></div>"
    )


def _cell(column: int, cell: str | Cell, table: Table) -> str:
    if isinstance(cell, str):
        return f"<td{_number(column, table)}>{_text(cell)}</td>"
    kinds = " ".join(filter(None, ("n" if column >= table.words else "", cell.tone)))
    kind = f' class="{kinds}"' if kinds else ""
    if cell.bar is None:
        return f"<td{kind}>{_text(cell.text)}</td>"
    width = 100 * min(max(cell.bar, 0), 1)
    return f'<td{kind}>{_text(cell.text)}<i class="bar"><i style="width:{width:.1f}%"></i></i></td>'


def _number(column: int, table: Table) -> str:
    return ' class="n"' if column >= table.words else ""


def _chart(chart: Chart) -> str:
    keys = "".join(
        f'<li><i style="background:var(--s{index % len(COLOURS)})"></i>{_text(text)}</li>'
        for index, text in chart.legend
    )
    legend = f"<ul>{keys}</ul>" if keys else ""
    caption = f"<p>{_text(chart.caption)}</p>" if chart.caption else ""
    svg = chart.svg.replace('role="img"', f'role="img" aria-label="{_text(chart.title)}"', 1)
    wide = ' class="wide"' if chart.wide else ""
    return f"<figure{wide}><h3>{_text(chart.title)}</h3>{legend}{svg}<figcaption>{caption}</figcaption></figure>"


def _picture(picture: Picture) -> str:
    if picture.image is None:
        shown = ""
    else:
        shown = f'<img alt="{_text(picture.title)}" src="{_data(picture.image)}">'
        if picture.dark is not None:
            dark = f'<source media="(prefers-color-scheme: dark)" srcset="{_data(picture.dark)}">'
            shown = f"<picture>{dark}{shown}</picture>"
    return (
        f'<figure class="photo"><h3>{_text(picture.title)}</h3>{shown}'
        f"<figcaption><p>{_text(picture.caption)}</p></figcaption></figure>"
    )


def _data(image: bytes) -> str:
    kind = "png" if image.startswith(b"\x89PNG") else "jpeg"
    return f"data:image/{kind};base64,{base64.b64encode(image).decode()}"


def _markdown(block: Block) -> list[str]:
    if isinstance(block, Text):
        return [f"{'**Note.** ' if block.kind == 'warning' else ''}{_plain(block.text)}"]
    if isinstance(block, Cards):
        return [
            f"- {_plain(label)}: **{_plain(value)}**{' ' + _plain(small) if small else ''}"
            for label, value, small in block.cards
        ]
    if isinstance(block, Table):
        rule = ["---" if i < block.words else "---:" for i in range(len(block.head))]
        rows = [[each if isinstance(each, str) else each.text for each in row] for row in block.rows]
        lines = [[_plain(each) for each in block.head], rule, *([_plain(each) for each in row] for row in rows)]
        return [f"| {' | '.join(line)} |" for line in lines]
    if isinstance(block, Facts):
        return [f"- {_plain(term)}: {_plain(said)}" for term, said in block.facts]
    if isinstance(block, Chart):
        return [f"*Chart in the HTML report: {_plain(block.title)}.* {_plain(block.caption)}".rstrip()]
    if isinstance(block, Picture):
        return [f"- {_plain(block.title)}: {_plain(block.caption)}"]
    inner = [line for each in block.blocks for line in ["", *_markdown(each)]]
    return ["<details>", f"<summary>{_plain(block.title)}</summary>", *inner, "", "</details>"]


def _plain(text: object) -> str:
    """Text that Markdown shows as it is."""
    shown = printable(text).replace("\\", "\\\\")
    for mark in "`*_[]|~$#":
        shown = shown.replace(mark, f"\\{mark}")
    return shown.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
