"""Commands whose options come from dataclasses, completion, version, and how threads wait."""

import json
import os
import re
import subprocess
import sys
from dataclasses import dataclass, field, make_dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import pytest
import typer
from typer.testing import CliRunner

from lightglue import __version__
from lightglue.benchmark.plan import FEATURES as BENCHMARKED
from lightglue.cli.from_options import Given, Only, command
from lightglue.models.registry import FEATURES
from lightglue.options import option
from lightglue.support.checks import check_int
from lightglue.support.parsers import known
from lightglue.support.revision import commit


@dataclass(frozen=True)
class Blur:
    sigma: float = option(1.6, "Standard deviation of the blur, px.", group="Features")
    kind: Literal["box", "gauss"] = option("box", "What is blurred with.", group="Features")
    seed: int = option(0, "Of what is random.", group="Machine")
    fast: bool = option(True, "Blur slowly.", group="Features", flag="--no-fast")
    inner: int = option(7, "Not offered on command lines.")


@dataclass(frozen=True)
class Toy:
    count: int = option(3, "How many.", group="Features", old=("--number",))
    sizes: tuple[int, ...] = option((), "Several.", group="Features")
    mp: bool | None = option(None, "Reduced precision.", group="Machine", flag="--mp/--no-mp")
    output: Path | None = option(None, "Where to.", group="Output", flag="--output -o")
    sources: tuple[str, ...] = option(
        ("auto",),
        "Where from.",
        group="Pairs",
        choices=("auto", "gps"),
        parse=lambda text: tuple(known(part, ("auto", "gps")) for part in text.split(",")),
    )
    seed: int = option(0, "Of what is random.", group="Machine")
    blur: Blur = field(default_factory=Blur)
    again: Blur | None = option(None, "Blur again.", group="Features")

    def __post_init__(self) -> None:
        check_int("count", self.count, 1, "a number of at least 1")


def run(kind: Any, *words: str) -> Any:
    """What a command with the options of `kind` gets, or its output where it fails or prints help."""
    app, got = typer.Typer(), []

    @command(app, example="toy a.jpg --count 4")
    def toy(image: Annotated[Path, typer.Argument()], options: kind, given: Given) -> None:
        """Play."""
        got.append((image, options, set(given)))

    result = CliRunner().invoke(app, list(words), env={"COLUMNS": "100"})
    return got[0] if got else (result.exit_code, result.output)


def test_defaults_are_the_owners_and_nothing_counts_as_given() -> None:
    assert run(Toy, "a.jpg") == (Path("a.jpg"), Toy(), set())


def test_options_reach_the_dataclass_and_those_nested_in_it() -> None:
    line = "a --count 5 --sizes 1 --sizes 2 --no-mp -o x.png --sources gps,auto --kind gauss --seed 4 --again --no-fast"
    words = line.split()
    _, options, given = run(Toy, *words)
    expected = Toy(5, (1, 2), False, Path("x.png"), ("gps", "auto"), 4, Blur(kind="gauss", seed=4, fast=False), Blur())
    assert options == expected
    assert given == {"count", "sizes", "mp", "output", "sources", "kind", "seed", "again", "no_fast"}


def test_a_new_field_is_a_new_option() -> None:
    wider = make_dataclass(
        "Wider", [("depth", int, option(2, "How deep.", group="Mapping"))], bases=(Toy,), frozen=True
    )
    code, before = run(Toy, "--help")
    assert code == 0
    assert "--depth" not in before
    assert "--depth" in run(wider, "--help")[1]
    assert run(wider, "a", "--depth", "3")[1].depth == 3


def test_help_has_groups_defaults_choices_and_an_example() -> None:
    _, text = run(Toy, "--help")
    assert [text.index(f"─ {group} ─") for group in ("Features", "Output", "Machine")] == sorted(
        text.index(f"─ {group} ─") for group in ("Features", "Output", "Machine")
    )
    assert "How many. [default: 3]" in text
    assert "Valid: box, gauss." in text
    assert "Example: toy a.jpg --count 4" in text
    assert "--number" not in text
    assert "--inner" not in text


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--count", "0"], "--count: count is 0; give a number of at least 1."),
        (["--count", "x"], "'x' is not a whole number."),
        (["--sigma", "x"], "'x' is not a number."),
        (["--kind", "gaus"], "Did you mean 'gauss'?"),
        (["--sources", "auto,gqs"], "Did you mean 'gps'?"),
        (["--kind", "box", "--count", "0"], "--count: count is 0"),
    ],
)
def test_wrong_values_are_usage_errors_that_name_the_option(words: list[str], message: str) -> None:
    code, text = run(Toy, "a", *words)
    assert code == 2
    assert message in " ".join(text.replace("│", " ").split())
    assert words[-2] in text


def test_former_names_work_with_a_warning(capfd: pytest.CaptureFixture[str]) -> None:
    app = typer.Typer()

    @command(app, example="x")
    def toy(options: Toy) -> None:
        """Play."""
        typer.echo(options.count)

    result = CliRunner().invoke(app, ["--number", "9"])
    assert result.stdout == "9\n"
    assert result.stderr == "warning: --number is now called --count.\n"


def test_a_command_may_offer_some_fields_only() -> None:
    code, text = run(Annotated[Toy, Only(("count",))], "--help")
    assert code == 0
    assert "--count" in text
    assert "--sigma" not in text
    assert "--sizes" not in text


def lightglue(*words: str, code: str | None = None, **env: str) -> subprocess.CompletedProcess[str]:
    """The command in a process of its own; code: what to run after it, or instead."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("OMP_WAIT", "_LIGHTGLUE"))}
    program = code or "import sys\nfrom lightglue.cli import main\nmain()"
    return subprocess.run(
        [sys.executable, "-c", program, *words], capture_output=True, text=True, env={**clean, **env}, check=False
    )


def test_the_package_can_be_run_as_a_module_which_is_the_command() -> None:
    words = [sys.executable, "-m", "lightglue", "match", "--featurs"]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "Usage: lightglue match" in done.stderr
    assert "--features" in done.stderr


COMPLETIONS = {
    "lightglue match --fea": {"--features"},
    "lightglue match a b --features super": {"superpoint"},
    "lightglue match a b --geometry h": {"homography"},
    "lightglue match a b --matcher n": {"nearest"},
    "lightglue extract a b --features super": {"superpoint"},
    "lightglue eval hpatches --matcher n": {"nearest"},
    "lightglue sfm a --pairs auto,g": {"auto,gps", "auto,growing"},
}
COMPLETING = """
import json, os, sys
from contextlib import redirect_stdout, suppress
from io import StringIO
from lightglue.cli import main
found = {}
for line in sys.argv[1:]:
    os.environ.update(COMP_WORDS=line, COMP_CWORD=str(len(line.split()) - 1))
    with redirect_stdout(StringIO()) as printed, suppress(SystemExit):
        main()
    found[line] = printed.getvalue().split(), "torch" in sys.modules, "numpy" in sys.modules
print(json.dumps(found))
"""


@pytest.fixture(scope="module")
def completed() -> dict[str, list[Any]]:
    """By line, what the command prints when a shell asks, and whether torch and NumPy were loaded for it."""
    done = lightglue(*COMPLETIONS, code=COMPLETING, _LIGHTGLUE_COMPLETE="complete_bash")
    found: dict[str, list[Any]] = json.loads(done.stdout)
    return found


@pytest.mark.parametrize("line", COMPLETIONS)
def test_shells_complete_options_and_values_without_torch(completed: dict[str, list[Any]], line: str) -> None:
    offered, *loaded = completed[line]
    assert set(offered) == COMPLETIONS[line]
    assert loaded == [False, False]


def test_show_completion_prints_a_script() -> None:
    done = lightglue("--show-completion", "bash", _TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION="1")
    assert done.returncode == 0, done.stderr
    assert "_LIGHTGLUE_COMPLETE=complete_bash" in done.stdout


def test_version_and_commit() -> None:
    at = commit()
    expected = f"lightglue {__version__}" + (f" (commit {at})" if at else "")
    assert lightglue("--version").stdout == f"{expected}\n"


def test_commit_is_read_from_a_clones_files(tmp_path: Path) -> None:
    package, git = tmp_path / "src" / "lightglue", tmp_path / ".git"
    package.mkdir(parents=True)
    (tmp_path / "pyproject.toml").touch()
    assert commit(package) is None  # no clone
    (git / "refs" / "heads").mkdir(parents=True)
    (git / "HEAD").write_text("a" * 40 + "\n")
    assert commit(package) == "a" * 12
    (git / "HEAD").write_text("ref: refs/heads/main\n")
    assert commit(package) is None  # a branch without commits
    (git / "packed-refs").write_text(f"# pack-refs\n{'b' * 40} refs/heads/other\n{'c' * 40} refs/heads/main\n")
    assert commit(package) == "c" * 12
    (git / "refs" / "heads" / "main").write_text("d" * 40 + "\n")
    assert commit(package) == "d" * 12
    tree = git / "worktrees" / "side"
    tree.mkdir(parents=True)
    (tree / "HEAD").write_text("ref: refs/heads/main\n")
    (tree / "commondir").write_text("../..\n")
    side = tmp_path / "side"
    (side / "src" / "lightglue").mkdir(parents=True)
    (side / "pyproject.toml").touch()
    (side / ".git").write_text(f"gitdir: {tree}\n")
    assert commit(side / "src" / "lightglue") == "d" * 12
    (git / "HEAD").write_text("nonsense")
    assert commit(package) is None


RUN = "from lightglue.cli import main\ntry: main()\nexcept SystemExit: pass"
WAITING = "import os, sys\n{}\nprint(os.environ.get('OMP_WAIT_POLICY'), file=sys.stderr)"


@pytest.mark.parametrize(
    ("code", "env", "expected"),
    [
        ("from lightglue.cli import main\ntry: main()\nexcept SystemExit: pass", {}, "PASSIVE"),
        (
            "from lightglue.cli import main\ntry: main()\nexcept SystemExit: pass",
            {"OMP_WAIT_POLICY": "ACTIVE"},
            "ACTIVE",
        ),
        ("import lightglue, lightglue.cli\nlightglue.LightGlue", {}, "None"),
    ],
)
def test_threads_wait_passively_under_the_command_line_alone(code: str, env: dict[str, str], expected: str) -> None:
    done = lightglue("--version", code=WAITING.format(code), **env)
    assert done.stderr.splitlines()[-1] == expected


def test_worker_processes_inherit_how_threads_wait(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(
        "import os, sys\nfrom concurrent.futures import ProcessPoolExecutor\nfrom multiprocessing import get_context\n"
        "if __name__ == '__main__':\n    sys.argv = ['lightglue', '--version']\n    from lightglue.cli import main\n"
        "    try: main()\n    except SystemExit: pass\n"
        "    with ProcessPoolExecutor(1, mp_context=get_context('spawn')) as pool:\n"
        "        print(pool.submit(os.getenv, 'OMP_WAIT_POLICY').result())\n"
    )
    env = {name: value for name, value in os.environ.items() if name != "OMP_WAIT_POLICY"}
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, env=env, check=True)
    assert done.stdout.splitlines()[-1] == "PASSIVE"


GROUPS = {
    "match": ["Features", "Matching", "Geometry", "Output", "Machine"],
    "sfm": ["Features", "Pairs", "Matching", "Geometry", "Output", "Machine"],
    "extract": ["Features", "Output", "Machine"],
    "localize": ["Matching", "Geometry", "Output", "Machine"],
    "eval hpatches": ["Features", "Matching", "Output", "Machine"],
    "benchmark": ["Measurement", "Comparison", "Features", "Matching", "Output", "Machine"],
}


@pytest.mark.parametrize("columns", [80, 120])
@pytest.mark.parametrize("words", GROUPS)
def test_help_is_in_groups_with_unbroken_choices_and_an_example(words: str, columns: int) -> None:
    from lightglue.cli.app import app as root

    env = {"COLUMNS": str(columns)}
    text = CliRunner().invoke(root, [*words.split(), "--help"], env=env).output
    headings = re.findall(r"^╭─ (.+?) ─", text, re.M)
    assert [heading for heading in headings if heading not in ("Arguments", "Data")] == GROUPS[words]
    assert max(map(len, text.splitlines())) <= columns
    assert "…" not in text  # nothing is cut
    flat = " ".join(text.replace("│", " ").split())
    if "--features" in text:
        kinds = flat.partition("Kind of keypoints. Valid: ")[2].partition(".")[0]
        assert kinds.split(", ") == [name for name in FEATURES if words != "benchmark" or name in BENCHMARKED]
    assert f"Example: lightglue {words}" in flat
