"""The documents say what is true: links lead somewhere, code runs as written, tables name real options and defaults."""

from __future__ import annotations

import inspect
import re
import shlex
import sys
import warnings
from pathlib import Path
from typing import Any
from unittest import mock

import pytest

from lightglue import ALIKED, DISK, SIFT, LightGlue, NearestNeighbor, SuperPoint, XFeat
from lightglue.cli import main
from lightglue.extractors.base import Extractor

ROOT = Path(__file__).parents[1]
README, CHINESE = ROOT / "README.md", ROOT / "README.zh.md"
DOCUMENTS = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")])


def blocks(path: Path, language: str = r"\w*") -> list[str]:
    """The fenced code blocks of a document in a language."""
    return re.findall(rf"^```{language}\n(.*?)^```$", path.read_text(), re.MULTILINE | re.DOTALL)


def prose(path: Path) -> str:
    """A document without its fenced code blocks."""
    return re.sub(r"^```.*?^```$", "", path.read_text(), flags=re.MULTILINE | re.DOTALL)


def links(path: Path) -> list[str]:
    """The targets of links and pictures."""
    return re.findall(r"\]\(([^)\s]+)\)", prose(path))


def table(header: str) -> dict[str, str]:
    """First cell -> second cell of the README's table whose first header is `header`; a row may name several."""
    rows = README.read_text().split(f"\n| {header} |")[1].split("\n\n")[0].splitlines()[2:]
    found = {}
    for row in rows:
        names, defaults = (cell.strip() for cell in re.split(r"(?<!\\)\|", row)[1:3])
        each = defaults.split(", ") if ", " in names else [defaults]
        found |= dict(zip(names.split(", "), each, strict=True))
    return {name.strip("`"): default.strip("`") for name, default in found.items()}


# -- both languages --


def test_both_readmes_have_the_same_code() -> None:
    assert blocks(CHINESE) == blocks(README)


def test_both_readmes_have_the_same_parts() -> None:
    english, chinese = prose(README), prose(CHINESE)
    for pattern in (r"^#+ ", r"^\|", r"^- "):  # headings, rows of tables, points
        assert len(re.findall(pattern, chinese, re.MULTILINE)) == len(re.findall(pattern, english, re.MULTILINE))
    code = [sorted(set(re.findall(r"`[^`\n]+`", text))) for text in (english, chinese)]
    assert code[0] == code[1]


def test_both_readmes_link_to_the_same_places() -> None:
    translated = {"README.zh.md", "README.md"}
    assert [x for x in links(CHINESE) if x not in translated] == [x for x in links(README) if x not in translated]


# -- links --


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_to_local_files_and_headings_lead_somewhere(document: Path) -> None:
    for target in links(document):
        if re.match(r"https?://", target):
            continue
        name, _, anchor = target.partition("#")
        path = document.parent / name if name else document
        assert path.exists(), target
        if anchor:
            headings = re.findall(r"^#+ (.*)$", prose(path), re.MULTILINE)
            assert anchor in {re.sub(r"[^\w\- ]", "", h.lower()).replace(" ", "-") for h in headings}, target


def test_the_picture_of_the_readme_is_small() -> None:
    assert (ROOT / "assets" / "demo.jpg").stat().st_size < 300_000


# -- code --


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder that has the project's photographs, and nothing else."""
    (tmp_path / "assets").symlink_to(ROOT / "assets")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_python_of_the_readme_runs_as_written(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    import matplotlib.pyplot as plt

    plt.switch_backend("Agg")
    names: dict[str, Any] = {}
    for i, snippet in enumerate(blocks(README, "python")):
        exec(compile(snippet, f"README.md, snippet {i}", "exec"), names)
    plt.close("all")
    assert re.match(r"\d{3} matches after \d layers\n", capsys.readouterr().out)
    assert len(names["points0"]) == len(names["points1"]) > 50
    assert len(names["results"]) == 3
    assert names["matcher"].conf.filter_threshold == 0.2
    assert sorted(path.name for path in folder.iterdir()) == ["assets", "matcher.safetensors", "pair.png"]


def test_the_commands_of_the_readme_run_as_written(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    of_maps = blocks(ROOT / "docs" / "map.md", "bash")[0]  # tests/test_docs_map.py runs it
    ours = [block for block in blocks(README, "bash") if block != of_maps]
    assert len(ours) == len(blocks(README, "bash")) - 1
    commands = [line for block in ours for line in block.splitlines() if line.startswith("lightglue")]
    assert len(commands) == 10
    for command in commands:
        with (
            mock.patch.object(sys, "argv", shlex.split(command)),
            mock.patch.object(warnings, "formatwarning"),
            pytest.raises(SystemExit) as ended,
        ):
            main()
        printed = capsys.readouterr()
        assert (ended.value.code or 0, printed.err) == (0, ""), command
        assert printed.out
    assert sorted(path.name for path in folder.iterdir()) == [
        "aligned-overlay.png",
        "aligned.png",
        "assets",
        "eval",
        "features",
        "matches.csv",
        "matches.png",
    ]


# -- tables --


def test_the_options_of_lightglue_are_all_there_with_their_defaults() -> None:
    conf = {**LightGlue.default_conf, "commercial_only": False, "pruning": "published", "weights": "the published file"}
    del conf["name"]
    assert table("option") == {name: str(value) for name, value in conf.items()}


@pytest.mark.parametrize(
    ("extractor", "names"),
    [
        (ALIKED, "`ALIKED`"),
        (DISK, "`DISK`"),
        (XFeat, "`XFeat`"),
        (SuperPoint, "`SuperPoint`"),
        (SIFT, "`SIFT` and `DoGHardNet`"),
        (NearestNeighbor, "`NearestNeighbor`"),
    ],
)
def test_the_options_of_the_extractors_are_all_there_with_their_defaults(
    extractor: type[Extractor | NearestNeighbor], names: str
) -> None:
    parameters = inspect.signature(extractor).parameters.values()
    own = {p.name: p.default for p in parameters if p.kind == inspect.Parameter.KEYWORD_ONLY}
    conf = {name: value for name, value in {**own, **extractor.default_conf}.items() if name != "name"}
    assert table(f"option of {names}") == {name: str(value) for name, value in conf.items()}


def test_the_options_of_the_command_are_all_there_with_their_defaults() -> None:
    from typer.main import get_command

    from lightglue.cli.app import app

    command = get_command(app).commands["match"]  # type: ignore[attr-defined]
    options = {p.opts[0]: p for p in command.params if p.opts[0].startswith("--")}
    told = {name.split(" ")[0]: default for name, default in table("option of `match`").items()}
    assert set(told) == set(options)
    for name, default in told.items():
        value = options[name].default
        assert default == ("off" if value is False else "" if value is None else str(value)), name
