"""docs/map.md says what is true: its commands and snippets run as written, on real photographs; its options are those
of the commands."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import sys
import warnings
from pathlib import Path
from typing import Any
from unittest import mock

import click
import numpy as np
import pytest
from typer.main import get_command

from lightglue.cli import main
from lightglue.cli.app import app
from support import NEEDS_SHARED, ROOT, SHARED
from support.command import built_once

DOCUMENT, LOCALIZE = ROOT / "docs" / "map.md", ROOT / "docs" / "localize.md"
FOUNTAIN = SHARED / "data" / "strecha1024" / "fountain-P11"
PHOTOGRAPHS, QUERY = ("0002.jpg", "0003.jpg", "0005.jpg", "0006.jpg"), "0004.jpg"
QUICK = {"max_keypoints=2048": "max_keypoints=512", '"resize": 1024': '"resize": 640'}  # of the snippets
QUICK_OPTIONS = ["--max-keypoints", "512", "--resize", "640"]  # of the commands that extract


def text() -> str:
    return DOCUMENT.read_text() + LOCALIZE.read_text()


def blocks(document: Path) -> list[tuple[str, str]]:
    """(language, code) of the blocks that run."""
    return re.findall(r"^```(bash|python)\n(.*?)^```$", document.read_text(), re.MULTILINE | re.DOTALL)


def commands_of(group: click.Command) -> dict[str, click.Command]:
    """ "sfm", "map extract", ... -> the command."""
    found: dict[str, click.Command] = {}
    for name, command in getattr(group, "commands", {}).items():
        found[name] = command
        found |= {f"{name} {inner}": each for inner, each in commands_of(command).items()}
    return found


COMMANDS = commands_of(get_command(app))


def options_of(name: str) -> set[str]:
    each = (option for parameter in COMMANDS[name].params for option in (*parameter.opts, *parameter.secondary_opts))
    return {option for option in each if option.startswith("-")} | {"--help"}


def called(line: str) -> str:
    """The command that a line calls, such as "map extract"."""
    words = line.split()[1:]
    return max((" ".join(words[:n]) for n in (1, 2) if " ".join(words[:n]) in COMMANDS), key=len, default="")


pytestmark = pytest.mark.usefixtures("each_image_is_looked_at_once", "charts_undrawn")


# -- the names --


def test_every_command_that_is_named_exists_with_its_options() -> None:
    lines = re.findall(r"^ {0,4}(lightglue .*)$", text(), re.MULTILINE) + re.findall(r"`(lightglue [^`]*)`", text())
    assert len(lines) > 15
    for line in lines:
        assert called(line), line
        assert set(re.findall(r"(?<=\s)--?[a-z][a-z0-9-]*", line)) <= options_of(called(line)), line


def test_every_option_that_is_named_exists() -> None:
    named = {re.split(r"[ =]", span)[0] for span in re.findall(r"`(--[^`]*)`", text())}
    known = set().union(
        *(options_of(name) for name in COMMANDS if name.split()[0] in ("sfm", "map", "localize", "view"))
    )
    assert named <= known


def test_every_option_of_sfm_and_localize_is_named() -> None:
    named = set(re.findall(r"(?<![\w-])--?[a-z][a-z-]*", text()))
    for name in ("sfm", "localize"):
        assert options_of(name) - named - {"--output", "--help", "--no-mp", "--no-refine"} == set(), name


def test_the_table_of_stages_has_the_options_of_each() -> None:
    from lightglue.sfm.pipeline import STAGES

    rows = dict(re.findall(r"^\| `(\w+)` \|.*?\| ([^|]*) ?\|$", text().split("| stage |")[1].split("\n\n")[0], re.M))
    assert tuple(rows) == STAGES
    for stage, told in rows.items():
        own = options_of(f"map {stage}") - {"--help", "--json", "--output", "-o", "--no-mp"}
        assert set(re.findall(r"`(--[a-z-]+)", told)) == own, stage


def test_the_table_of_pairs_has_every_source() -> None:
    from lightglue.sfm.stages.pairs import SOURCES

    rows = re.findall(r"^\| `(\w+)` \|", text().split("| source |")[1].split("\n\n")[0], re.M)
    assert tuple(rows) == SOURCES


# -- the tutorial --


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with `photos` and `new.jpg`, as the document has them."""
    if not FOUNTAIN.exists():
        pytest.skip(NEEDS_SHARED)
    (tmp_path / "photos").mkdir()
    for name in PHOTOGRAPHS:
        shutil.copyfile(FOUNTAIN / name, tmp_path / "photos" / name)
    shutil.copyfile(FOUNTAIN / QUERY, tmp_path / "new.jpg")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(command: str) -> Any:
    """Run a command line in this process; the exit code."""
    words = shlex.split(command)
    quick = QUICK_OPTIONS if called(command) in ("sfm", "map extract") else []
    with (
        mock.patch.object(sys, "argv", [*words, *quick]),
        mock.patch.object(warnings, "formatwarning"),
        built_once(),
        pytest.raises(SystemExit) as ended,
    ):
        main()
    return ended.value.code or 0


def test_the_tutorial_runs_as_written(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("pycolmap")
    names: dict[str, Any] = {}
    printed = ""
    first, *rest = blocks(DOCUMENT)
    # What the page on localization shows goes on from the first block, before images are added and removed.
    for number, (language, block) in enumerate([first, *blocks(LOCALIZE), *rest]):
        if language == "python":
            for slow, quick in QUICK.items():
                assert number != 1 + len(blocks(LOCALIZE)) or slow in block
                block = block.replace(slow, quick)
            exec(compile(block, f"docs/map.md, block {number}", "exec"), names)
            printed += capsys.readouterr().out
            continue
        for command in block.splitlines():
            ended = run(command)
            told = capsys.readouterr()
            said = [
                line for line in told.err.splitlines() if not re.search(r" \.\.\.$|^\w+: .* left$", line)
            ]  # progress
            assert (ended, said) == (0, []), command
            printed += told.out

    count = len(PHOTOGRAPHS)
    assert f"{count} of {count} images" in printed
    rows = re.findall(r"^\| (.*?) \|", text().split("| in the map's folder |")[1].split("\n\n")[0], re.MULTILINE)
    parts = {part for row in rows for part in re.findall(r"`([a-z.]+)/?0?`", row)}
    written = {path.name for path in (folder / "map").iterdir()}
    assert len(parts) == 15
    assert parts - written <= {"frames", "listed.txt", "retrieval.npz", "rotated.json"}  # of videos, lists, many images
    assert (folder / "map.png").stat().st_size > 10_000
    assert f"{count} images\n{count * (count - 1) // 2} pairs\n" in printed  # of hloc's files, read back
    of_both = [json.loads((folder / name / "map.json").read_text())["stages"] for name in ("map", "stages")]
    assert of_both[0]["verify"]["counts"]["inliers"] > 0
    assert of_both[1]["reconstruct"]["counts"]["registered"] == count

    name, *pose = (folder / "poses" / "poses.txt").read_text().split()
    assert (name, len(pose)) == ("new.jpg", 7)
    assert (folder / "poses" / "failures.txt").read_text() == ""
    assert names["found"].success
    assert np.linalg.norm(names["found"].t - np.array(pose[4:], float)) < 0.02  # of about 1 to 2 between neighbours
