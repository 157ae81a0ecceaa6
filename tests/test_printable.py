"""Names of files are text: what they could do to a terminal or a page is shown as codes, wherever they are printed."""

from __future__ import annotations

import ast
import json
import re
from pathlib import Path

import cv2
import numpy as np
import pytest

from lightglue.support.printable import escaped, printable
from lightglue.support.progress import progress_display
from support import ROOT
from support.command import Run, lightglue

# Clears the screen, sets the title, turns the direction of writing, begins a line with "error:".
NAME = "a\x1b[2J\x1b]0;owned\x07\u202egpj\nerror: b\x7f\x9b31m.jpg"
RAW = "\x1b\x07\x7f\x9b\u202e"


def told(run: Run) -> str:
    """What a command has printed, of which nothing is raw."""
    printed = run.out + run.err
    assert not set(RAW) & set(printed)
    assert not any(line.startswith("error: b") for line in printed.splitlines())
    return printed


def test_what_cannot_be_seen_is_shown_as_a_code_of_json() -> None:
    assert escaped(NAME, keep="") == (r"a\u001b[2J\u001b]0;owned\u0007\u202egpj\u000aerror: b\u007f\u009b31m.jpg")
    assert json.loads(f'"{escaped(NAME, keep="")}"') == NAME
    assert escaped("ß  数é👩‍🔬\udcff\n") == "ß  数é👩‍🔬\\udcff\n"
    assert json.loads(f'"{escaped(chr(0xE0001))}"') == chr(0xE0001)
    assert printable("a\n b\tc\u2028d") == "a b c\\u2028d"


def test_commands_print_through_one_function() -> None:
    for path in sorted((ROOT / "src/lightglue/cli").glob("*.py")):
        if path.name in ("printing.py", "__init__.py"):
            continue
        calls = [node.func for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call)]
        names = [ast.unparse(call) for call in calls]
        assert not {"print", "typer.echo", "typer.secho"} & set(names), path.name


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with a file of that name, which is no image, and one that is."""
    folder = tmp_path / "photos"
    folder.mkdir()
    (folder / NAME).write_text("none")
    (folder / "x\x1b[31m.png").write_text("none")
    cv2.imwrite(str(folder / "good.png"), np.full((40, 60, 3), 128, np.uint8))
    return folder


def test_errors_of_images(folder: Path, tmp_path: Path) -> None:
    assert "error: b\\u007f" in told(lightglue("match", folder / NAME, folder / "good.png"))
    assert r"x\u001b[31m.png" in told(
        lightglue("extract", folder / "x\x1b[31m.png", "--features", "sift", "-o", tmp_path)
    )
    assert r"c\u001b[2J.jpg" in told(lightglue("match", "c\x1b[2J.jpg", "c\x1b[2J.jpg"))


def test_wrong_command_lines(tmp_path: Path) -> None:
    for words in (
        ["match", "a", "b", "c\x1b[2J"],
        ["mat\x1b[2Jch"],
        ["match", "a", "b", "--featu\x1b[2J"],
        ["match", "a", "b", "--features", "\x1b[2J"],
        ["extract", "a/\x1b[2J.png", "b/\x1b[2J.png", "-o", tmp_path],
    ):
        run = lightglue(*words)
        assert run.code == 2
        assert re.search(r"\\(u00|x)1b\[2J", re.sub(r"[│\s]", "", told(run))), words  # Python's way too


def test_what_a_map_leaves_out_and_its_report(folder: Path, tmp_path: Path) -> None:
    pytest.importorskip("pycolmap")
    run = lightglue("map", "extract", folder, "-o", tmp_path / "map", "--features", "sift")
    printed = told(run)
    assert (run.code, r"x\u001b[31m.png" in printed, r"\u000aerror: b" in printed) == (0, True, True)
    told(lightglue("map", "report", tmp_path / "map"))
    page = (tmp_path / "map/report.html").read_text()
    assert r"x\u001b[31m.png" in page
    assert not set(RAW) & set(page)


def test_progress(capsys: pytest.CaptureFixture[str]) -> None:
    with progress_display() as show:
        show("fetch x\x1b[2J", 0, 1)
    assert capsys.readouterr().err == "fetch x\\u001b[2J ...\n"
