"""The documents say what is true: links lead somewhere, code runs as written, tables name real options and defaults."""

from __future__ import annotations

import inspect
import json
import os
import re
import shlex
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any
from unittest import mock

import pytest

import lightglue
from lightglue import ALIKED, DISK, SIFT, LightGlue, NearestNeighbor, SuperPoint, XFeat
from lightglue.cli import main
from lightglue.extractors.base import Extractor
from support.command import built_once

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
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


def headings(path: Path) -> set[str]:
    """The anchors of a document's headings."""
    found = re.findall(r"^#+ (.*)$", prose(path), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in found}


def table(header: str) -> dict[str, str]:
    """First cell -> second cell of the table of docs/options.md with that header; a row may name several."""
    text = (DOCS / "options.md").read_text()
    rows = text.split(f"\n| {header} |")[1].split("\n\n")[0].splitlines()[2:]
    found = {}
    for row in rows:
        names, defaults = (cell.strip() for cell in re.split(r"(?<!\\)\|", row)[1:3])
        each = defaults.split(", ") if ", " in names else [defaults]
        found |= dict(zip(names.split(", "), each, strict=True))
    return {name.strip("`"): default.strip("`") for name, default in found.items()}


pytestmark = pytest.mark.usefixtures("each_image_is_looked_at_once", "charts_undrawn")


# -- both languages --


def test_the_front_pages_are_short() -> None:
    assert all(len(page.read_text().splitlines()) <= 180 for page in (README, CHINESE))


def test_both_readmes_have_the_same_code() -> None:
    assert blocks(CHINESE) == blocks(README)


def test_both_readmes_have_the_same_parts() -> None:
    english, chinese = prose(README), prose(CHINESE)
    for pattern in (r"^#+ ", r"^\|", r"^- "):  # headings, rows of tables, points
        assert len(re.findall(pattern, chinese, re.MULTILINE)) == len(re.findall(pattern, english, re.MULTILINE))
    code = [sorted(set(re.findall(r"`[^`]+`", text))) for text in (english, chinese)]
    assert code[0] == code[1]
    numbers = [re.findall(r"^\|.*?((?:\|[\d ,./]+)+)\|$", text, re.MULTILINE) for text in (english, chinese)]
    assert numbers[0] == numbers[1]
    assert len(numbers[0]) == 16  # the rows of both tables of figures


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
        assert not anchor or anchor in headings(path), target


def test_the_picture_of_the_readme_is_small() -> None:
    assert (ROOT / "assets" / "demo.jpg").stat().st_size < 300_000


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_files_that_are_named_exist(document: Path) -> None:
    for name in re.findall(
        r"(?<![\w/.])(?:src|tests|scripts|docs)/[\w./-]*\w\.(?:py|md|png|json)", document.read_text()
    ):
        assert (ROOT / name).exists(), name


def test_code_refers_to_documents_that_exist() -> None:
    for source in [*ROOT.glob("src/**/*.py"), *ROOT.glob("scripts/**/*.py"), *ROOT.glob("tests/*.py")]:
        for name in re.findall(r"(?<![\w/])docs/[\w./-]+\.md", source.read_text()):
            assert (ROOT / name).exists(), f"{source.name}: {name}"


# -- code --


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder that has the project's images, and nothing else."""
    (tmp_path / "assets").symlink_to(ROOT / "assets")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run_python(document: Path) -> dict[str, Any]:
    """Run a document's Python from its first block to its last in one namespace, which is returned."""
    import matplotlib.pyplot as plt

    plt.switch_backend("Agg")
    names: dict[str, Any] = {}
    for i, snippet in enumerate(blocks(document, "python")):
        exec(compile(snippet, f"{document.name}, snippet {i}", "exec"), names)
    plt.close("all")
    return names


def run_commands(commands: list[str], capsys: pytest.CaptureFixture[str]) -> list[str]:
    """Run command lines in this process; what each prints. Each ends well; on stderr a line a stage at the most."""
    printed = []
    for command in commands:
        with (
            mock.patch.object(sys, "argv", shlex.split(command)),
            mock.patch.object(warnings, "formatwarning"),
            built_once(),
            pytest.raises(SystemExit) as ended,
        ):
            main()
        out, err = capsys.readouterr()
        said = [line for line in err.splitlines() if not line.endswith(" ...")]
        assert (ended.value.code or 0, said) == (0, []), command
        assert out, command
        printed.append(out)
    return printed


def commands_of(*found: str, program: str = "lightglue") -> list[str]:
    return [line for block in found for line in block.splitlines() if line.startswith(f"{program} ")]


def test_the_python_of_the_readme_runs_as_written(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    names = run_python(README)
    assert re.match(
        r"\d{3} matches of 2048 and 2048 keypoints, overlap 1.00\nrelative pose: rotation ", capsys.readouterr().out
    )
    assert len(names["points0"]) == len(names["points1"]) == len(names["inliers"]) > 300
    assert names["T"].shape == (4, 4)
    assert set(names["matches01"]) >= {"matches", "scores", "stop", "points0", "points1"}
    assert sorted(path.name for path in folder.iterdir()) == ["assets"]


def test_the_commands_of_the_readme_run_as_written(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    *ours, of_maps, _of_runtimes = blocks(README, "bash")
    assert of_maps == blocks(DOCS / "map.md", "bash")[0]  # which tests/test_docs_map.py runs
    commands = commands_of(*ours)
    assert len(commands) == 6
    printed = run_commands(commands, capsys)
    [shown] = blocks(README, "text")  # what `make demo` prints has the rows of the first command
    labels = [re.split(r"  +", line)[0] for line in shown.splitlines()]
    assert labels[:-1] == [re.split(r"  +", line)[0] for line in printed[0].splitlines()][: len(labels) - 1]
    written = ["aligned-overlay.png", "aligned.png", "assets", "eval", "features", "matches.csv", "matches.png"]
    assert sorted(path.name for path in folder.iterdir()) == written


def test_the_commands_for_other_runtimes_run_as_written(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("onnxruntime")
    *_, block = blocks(README, "bash")
    ours, [without_torch] = commands_of(block), commands_of(block, program="lightglue-runtime")
    assert len(ours) == 1
    run_commands(ours, capsys)
    started = [sys.executable, "-c", "from lightglue_runtime.command import main; main()"]
    done = subprocess.run([*started, *shlex.split(without_torch)[1:]], capture_output=True, text=True, check=True)
    assert re.search(r"^matches +\d{3}$", done.stdout, re.MULTILINE)
    assert done.stderr == ""
    assert sorted(path.name for path in folder.iterdir()) == ["assets", "matches.npz", "models"]


def test_the_guide_to_matching_runs_as_written(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    names = run_python(DOCS / "match.md")
    printed = capsys.readouterr().out
    assert re.search(r"^\d{3} matches of 2048 and 2048 keypoints, overlap 1.00$", printed, re.MULTILINE)
    assert re.search(r"^\d{3} matches after \d layers\nrotated by \d+ degrees, overlap ", printed, re.MULTILINE)
    assert len(names["matches"]) == len(names["points0"]) > 300
    assert names["estimate"].model.shape == (3, 3)
    assert names["matcher"].conf.filter_threshold == 0.2
    assert sorted(path.name for path in folder.iterdir()) == ["assets", "matcher.safetensors", "pair.png"]


def test_the_commands_of_the_guide_to_matching_run_as_written(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    commands = commands_of(*blocks(DOCS / "match.md", "bash"))
    assert len(commands) == 4
    run_commands(commands, capsys)
    assert sorted(path.name for path in folder.iterdir()) == ["assets"]


def test_the_guide_to_batches_runs_as_written(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    names = run_python(DOCS / "batches.md")
    assert len(names["results"]) == 3
    assert len(names["pairs"]) == 2
    assert min(len(pair.points0) for pair in names["pairs"]) > 100


def test_the_guide_to_own_features_runs_as_written(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    names = run_python(DOCS / "own-features.md")
    assert names["network"].transformers[0].self_attn.Wqkv.weight.grad.abs().sum() > 0
    lines = capsys.readouterr().out.splitlines()
    assert int(lines[0].split()[0]) > 50
    assert lines[1] == "300 of 300 matched with themselves"


def test_the_guide_to_deployment_runs_as_written(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("openvino")
    commands = commands_of(*blocks(DOCS / "deployment.md", "bash"))
    assert len(commands) == 5
    run_commands(commands, capsys)
    names = run_python(DOCS / "deployment.md")
    assert re.match(r"\d{3} matches after \d layers\n", capsys.readouterr().out)
    found = names["found"]
    assert (names["matches0"] == found["matches0"]).all()
    assert (names["result"]["matches0"] == found["matches0"]).all()
    full = {(i, int(j)) for i, j in enumerate(names["mutual"]) if j >= 0}
    assert set(names["pairs"]) == full
    assert len({tuple(match) for match in found["matches"].tolist()} & full) > 0.8 * len(full)
    assert (names["named"]["matches0"] >= 0).sum() > 50
    answers = [json.loads(answer) for answer in names["answers"]]
    assert [len(answer["points0"]) > 50 for answer in answers] == [True, True]
    assert len(answers[0]["inliers"]) == len(answers[0]["points0"])


def test_the_guide_to_evaluation_runs_as_written(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    commands = commands_of(*blocks(DOCS / "evaluation.md", "bash"))
    assert len(commands) == 4
    run_commands(commands, capsys)
    assert (folder / "eval" / "refined" / "report.html").stat().st_size > 10_000
    names = run_python(DOCS / "evaluation.md")
    assert names["figure"].name in capsys.readouterr().out
    written = {path.name for path in (folder / "eval" / "aliked").iterdir()}
    table = (DOCS / "evaluation.md").read_text().split("\n| file |")[1].split("\n\n")[0]
    assert {name.split("/")[0] for name in re.findall(r"`([\w./]+\.(?:jsonl?|npz|md|html))`", table)} == written


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


def test_the_extras_are_all_there() -> None:
    section = (ROOT / "pyproject.toml").read_text().split("[project.optional-dependencies]\n")[1].split("\n[")[0]
    extras = set(re.findall(r"^(\w+) = \[", section, re.MULTILINE)) - {"dev"}
    assert set(re.findall(r"^\| `\.\[(\w+)\]`", (DOCS / "deployment.md").read_text(), re.MULTILINE)) == extras


# -- the site --


def test_every_public_name_has_its_entry_in_the_reference() -> None:
    page = (DOCS / "api" / "lightglue.md").read_text()
    named = re.findall(r"auto\w+:: lightglue\.(\w+)$", page, re.MULTILINE)  # others are of a room
    assert sorted(named) == sorted(set(lightglue.__all__) - {"__version__"})


def test_every_room_of_the_reference_is_there() -> None:
    text = "\n".join(page.read_text() for page in (DOCS / "api").glob("*.md"))
    for module in ("geometry", "evaluation", "stores", "stores.hloc", "sfm", "viz2d", "kornia", "types"):
        assert f"```{{api}} lightglue.{module}\n" in text


def test_every_page_is_in_the_navigation() -> None:
    """Sphinx warns of the others; this says so without building the site."""
    text = "\n".join(block for page in DOCS.glob("**/index.md") for block in blocks(page, r"\{toctree\}"))
    listed = set(re.findall(r"^([\w/-]+)$", text, re.MULTILINE))
    pages = {page.stem for page in DOCS.glob("*.md")} - {"index", "zh"}
    assert pages <= listed


def test_the_reference_of_commands_is_made_of_the_commands() -> None:
    script = "from commands import as_markdown; print(as_markdown())"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(DOCS), *sys.path])}
    made = subprocess.run(
        [sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=True, timeout=60
    ).stdout
    assert made.startswith("## lightglue match\n")
    for command in (
        "extract",
        "sfm",
        "localize",
        "view",
        "explain",
        "benchmark",
        "weights pull",
        "eval pairs",
        "map add",
    ):
        assert f"\n## lightglue {command}\n" in made
    assert re.search(r"^\| `--max-keypoints N` \| `2048` \| .+ \|$", made, re.MULTILINE)


# -- decisions and citation --


@pytest.mark.parametrize("record", sorted(DOCS.glob("decisions/0*.md")), ids=lambda path: path.stem)
def test_a_decision_is_short(record: Path) -> None:
    text = record.read_text()
    assert len(text.split()) <= 400
    assert text.startswith(f"# {record.name[:3]}: ")


def test_the_citation_file_names_this_version() -> None:
    text = (ROOT / "CITATION.cff").read_text()
    fields = dict(re.findall(r"^([a-z-]+): *(.*)$", text, re.MULTILINE))
    assert {"cff-version", "message", "title", "authors", "license", "references"} <= set(fields)
    assert (fields["cff-version"], fields["version"]) == ("1.2.0", lightglue.__version__)
    for title in re.findall(r"title\s+= \{\{(.*)\}\}", (DOCS / "citing.md").read_text()):
        assert title in text
