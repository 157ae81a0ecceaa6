"""docs/architecture.md says what is true: its picture is that of the code, its table has every room."""

from __future__ import annotations

import importlib.util
import re
from types import ModuleType

import pytest

from support import ROOT

DOCUMENT = ROOT / "docs" / "architecture.md"


@pytest.fixture(scope="module")
def drawing() -> ModuleType:
    spec = importlib.util.spec_from_file_location("draw_architecture", ROOT / "scripts" / "draw_architecture.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_picture_of_imports_is_that_of_the_code(drawing: ModuleType) -> None:
    """Else run `python scripts/draw_architecture.py`."""
    assert drawing.draw() == drawing.PICTURE.read_text()


def test_no_import_goes_upwards(drawing: ModuleType) -> None:
    order = [room for layer in drawing.layers() for room in layer]
    order.insert(order.index("lightglue"), drawing.PUBLISHED)
    assert all(order.index(one) < order.index(other) for one, other in drawing.edges())


def test_the_table_of_rooms_has_every_room(drawing: ModuleType) -> None:
    table = DOCUMENT.read_text().split("\n| room |")[1].split("\n\n")[0]
    named = re.findall(r"`([a-z0-9_]+)`", "\n".join(row.split("|")[1] for row in table.splitlines()[2:]))
    assert sorted(named) == sorted(room for layer in drawing.layers() for room in layer)
