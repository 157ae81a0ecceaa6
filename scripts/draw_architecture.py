"""The picture of imports in docs/architecture.md, drawn from the code: `python scripts/draw_architecture.py`.

Rooms (and single files at the top) stand in the layers of pyproject.toml. A mark in the matrix means that a module of
the row's room imports one of the column's, at its top, under TYPE_CHECKING or inside a function.
tests/test_docs_architecture.py holds the file to the code.
"""

from __future__ import annotations

import html
from pathlib import Path

import grimp

try:
    import tomllib
except ModuleNotFoundError:  # Python 3.10
    import tomli as tomllib  # type: ignore[no-redef]

ROOT = Path(__file__).parents[1]
PICTURE = ROOT / "docs" / "architecture.svg"
PUBLISHED = "published paths"  # one row for all of them: each only hands on names
PATHS = {"lightglue", "superpoint", "disk", "aliked", "sift", "dog_hardnet", "utils", "viz2d", "kornia", "model_choice"}
CELL, LEFT, TOP = 24, 150, 120  # px


def layers() -> list[list[str]]:
    """The rooms of each layer, the top first, as the import contract states them."""
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    [rows] = [each["layers"] for each in contracts if each["type"] == "layers" and each["containers"] == ["lightglue"]]
    return [row.replace("|", " ").split() for row in rows]


def room_of(module: str) -> str | None:
    """The room of a module; None for the package itself, which resolves names when they are first used or hands on."""
    room = module.split(".")[1] if "." in module else None
    if room == "__main__":
        return None
    return PUBLISHED if room in PATHS else room


def edges() -> set[tuple[str, str]]:
    """(importing room, imported room) of every import between two rooms."""
    graph = grimp.build_graph("lightglue", cache_dir=None)
    found = set()
    for importer in graph.modules:
        for imported in graph.find_modules_directly_imported_by(importer):
            one, other = room_of(importer), room_of(imported)
            if one and other and one != other:
                found.add((one, other))
    return found


def draw() -> str:
    """The picture as SVG."""
    rows = [[PUBLISHED] if "viz2d" in layer else layer for layer in layers()]
    rooms = [room for layer in rows for room in layer]
    found = edges()
    width, height = LEFT + CELL * len(rooms) + 30, TOP + CELL * len(rooms) + 10
    font = 'font-family="sans-serif" font-size="13"'
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" {font}>',
        f'<rect width="{width}" height="{height}" fill="white"/>',
    ]
    start = 0
    for number, layer in enumerate(rows):  # the bands of the layers
        y, size = TOP + CELL * start, CELL * len(layer)
        shade = "#eef2f7" if number % 2 == 0 else "#ffffff"
        parts.append(f'<rect x="4" y="{y}" width="{width - 8}" height="{size}" fill="{shade}"/>')
        start += len(layer)
    for i, room in enumerate(rooms):
        x, y = LEFT + CELL * (i + 0.5), TOP + CELL * (i + 0.5)
        name = html.escape(room)
        parts += [
            f'<text x="{LEFT - 10}" y="{y + 4:g}" text-anchor="end">{name}</text>',
            f'<text transform="translate({x + 4:g} {TOP - 8}) rotate(-60)">{name}</text>',
            f'<rect x="{x - CELL / 2:g}" y="{y - CELL / 2:g}" width="{CELL}" height="{CELL}" fill="#c9d3df"/>',
        ]
        for j, other in enumerate(rooms):
            if (room, other) in found:
                colour = "#1f6f4a" if j > i else "#c0392b"  # red: an import upwards, which the contract forbids
                title = f"<title>{name} imports {html.escape(other)}</title>"
                across = LEFT + CELL * (j + 0.5)
                parts.append(f'<circle cx="{across:g}" cy="{y:g}" r="6" fill="{colour}">{title}</circle>')
    return "\n".join([*parts, "</svg>", ""])


if __name__ == "__main__":
    PICTURE.write_text(draw())
    print(PICTURE.relative_to(ROOT))
