"""Processes that do jobs: nothing is lost, nothing done twice, nothing left behind, whoever is killed."""

from __future__ import annotations

import io
import itertools
import os
import signal
import subprocess
import sys
import time
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch

from lightglue.errors import InputError, LightGlueError
from lightglue.models.choice import Models
from lightglue.pairs.match import match_pairs
from lightglue.sfm.engines.choice import make_engine
from lightglue.sfm.options import EngineOptions
from lightglue.sfm.stages.extract import ExtractOptions, extract
from lightglue.sfm.stages.match import MatchOptions, MatchWork, match
from lightglue.stores import FeatureStore, MatchStore
from lightglue.workers import count
from lightglue.workers.count import fitting, is_short, worthwhile
from lightglue.workers.crew import Crew
from lightglue.workers.engine import ProcessEngine, standing, started
from lightglue.workers.local import LocalEngine
from lightglue.workers.parcels import Parcel, unpack
from lightglue.workers.work import Engine
from support import ASSETS
from support.jobs import Refusing, Squares, Stillborn

TESTS = str(Path(__file__).parent)


def run(work: Any, jobs: Any) -> list[Any]:
    with Crew(work, 1) as crew:
        return list(crew.run(jobs))


@pytest.fixture(scope="module")
def crew() -> Iterator[Crew]:
    with Crew(Squares(), 2) as crew:
        yield crew


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def processes(engine: Any) -> set[int]:
    """Of a standing engine: one that starts late may find nothing left to do, and stays all the same."""
    return set() if engine._crew is None else set(engine._crew.processes)


def test_processes_stay_from_one_run_to_the_next_and_do_other_work(tmp_path):
    one, other = Squares(), Squares(str(tmp_path))
    with standing(ProcessEngine(2)) as engine:
        assert {pid for pid, _ in engine.run(one, ["process"] * 8)} <= (there := processes(engine))
        assert len(there) == 2
        assert sorted(engine.run(one, [2, 3])) == [4, 9]
        assert sorted(engine.run(other, [4, 5])) == [16, 25]
        assert {pid for pid, _ in engine.run(other, ["process"] * 8)} <= there
        assert processes(engine) == there
    assert not any(map(is_alive, there))


def test_memory_that_processes_hold_already_is_not_asked_for_again(tmp_path, monkeypatch):
    from lightglue.workers import engine as module

    with standing(ProcessEngine()) as engine:
        monkeypatch.setattr(module, "fitting", lambda: 2)
        list(engine.run(Squares(), ["process"] * 8))
        there = processes(engine)
        monkeypatch.setattr(module, "fitting", lambda: 1)  # now that these two have it
        assert {pid for pid, _ in engine.run(Squares(str(tmp_path)), ["process"] * 8)} <= there
        assert os.getpid() not in there


def test_more_processes_come_where_those_that_stay_are_too_few(tmp_path):
    with standing(ProcessEngine(3)) as engine:
        list(engine.run(Squares(), [1, 2]))
        few = processes(engine)
        assert sorted(engine.run(Squares(), [1, 2, 3])) == [1, 4, 9]
        there = processes(engine)
        assert (len(few), len(there)) == (2, 3)
        assert few < there
        list(engine.run(Squares(str(tmp_path)), [1, 2, 3]))
        assert processes(engine) == there
    assert not any(map(is_alive, there))


def test_processes_that_start_before_there_is_work_are_those_that_do_it():
    with started(ProcessEngine(2), ("csv",)) as engine:
        ahead = set(engine.ahead.processes)
        with standing(engine) as same:
            assert processes(same) == ahead
            assert {pid for pid, _ in same.run(Squares(), ["process"] * 8)} <= ahead
            assert sorted(same.run(Squares(), [3])) == [9]
        assert not any(map(is_alive, ahead))


@pytest.mark.parametrize(
    ("engine", "modules"), [(ProcessEngine(2), ()), (ProcessEngine(1), ("csv",)), (ProcessEngine(), ("csv",))]
)
def test_processes_start_before_there_is_work_only_where_it_is_known_how_many(engine, modules):
    with started(engine, modules) as same:
        assert same is engine


def test_processes_that_start_in_vain_end():
    with started(ProcessEngine(2), ("csv",)) as engine:
        ahead = engine.ahead.processes
    assert len(ahead) == 2
    assert not any(map(is_alive, ahead))


def test_what_processes_cannot_load_is_an_error_of_the_work():
    with (
        started(ProcessEngine(2), ("lightglue.no_such_module",)) as engine,
        standing(engine) as same,
        pytest.raises(ModuleNotFoundError, match="no_such_module"),
    ):
        list(same.run(Squares(), [1, 2]))


def test_a_process_that_loads_other_work_is_given_jobs_once_it_has_loaded_the_last():
    with Crew(Squares(), 1) as crew:
        member = crew._members[0]
        assert crew.hand_over(Squares())
        member.is_ready(1)  # for the first
        assert member.room == 0
        member.is_ready(1)
        assert member.room == 2
        member.loading = 2  # as it has been all the time: its own answers follow
        member.room = 0
        assert sorted(crew.run([2, 3])) == [4, 9]


def test_processes_that_do_other_work_are_replaced_like_all_others(tmp_path):
    with standing(ProcessEngine(2)) as engine:
        list(engine.run(Squares(), [1, 2]))
        work = Squares(str(tmp_path))
        assert sorted(map(str, engine.run(work, ["die once", 3, 4]))) == ["16", "9", "die once"]
        with pytest.raises(InputError, match="no such model"):
            list(engine.run(Refusing(), [1, 2]))
        assert sorted(engine.run(Squares(), [5, 6])) == [25, 36]


@pytest.mark.parametrize("engine", [LocalEngine(), ProcessEngine(1)])
def test_this_process_keeps_its_worker_too_until_one_fails_or_is_not_wanted(engine, tmp_path, monkeypatch):
    made = []
    monkeypatch.setattr(Squares, "worker", lambda self: made.append(self) or self)
    with standing(engine) as same:
        assert [list(same.run(Squares(), jobs)) for jobs in ([1, 2], [], [3])] == [[1, 4], [], [9]]
        assert len(made) == 1
        assert list(same.run(Squares(str(tmp_path)), [4])) == [16]
        assert len(made) == 2
        with pytest.raises(ZeroDivisionError):
            list(same.run(Squares(str(tmp_path)), ["bug", 5]))
        next(same.run(Squares(str(tmp_path)), [5, 6])).bit_length()  # and no more
        assert list(same.run(Squares(str(tmp_path)), [7])) == [49]
        assert len(made) == 4


def test_an_engine_of_another_kind_is_left_as_it_is():
    class Another:
        pass

    another = Another()
    with standing(another) as engine:  # type: ignore[arg-type]
        assert engine is another


def wait_until(true: Any, seconds: float = 30) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end
        time.sleep(0.02)


# --- what comes back ----------------------------------------------------------------------------------------------


def test_every_job_is_done_once_by_several_processes(crew):
    assert sorted(crew.run(range(50))) == [i * i for i in range(50)]
    done = set()
    wait_until(lambda: done.update(crew.run(["process"] * 40)) or len(done) == 2)  # once both have started
    assert done == {(pid, os.getpid()) for pid in crew.processes}
    assert list(crew.run([])) == []


def test_jobs_are_taken_as_they_are_needed(crew):
    taken = []
    results = crew.run(i for i in range(100) if not taken.append(i))
    next(results)
    assert len(taken) <= 2 * 2 + 1
    assert len(list(results)) == 99


def test_after_a_run_that_was_left_or_failed_the_next_one_gets_its_own_results_only(crew):
    results = crew.run(range(20))
    next(results)
    results.close()
    with pytest.raises(InputError, match="the number is wrong"):
        list(crew.run([1, 2, "input error", 3]))
    assert sorted(crew.run([10, 11])) == [100, 121]


def test_large_arrays_go_and_come(crew):
    array = np.arange(300_000.0).reshape(3, -1)
    (found,) = crew.run([array])
    assert np.array_equal(found, array * array)


def test_each_process_computes_with_one_thread(crew):
    assert list(crew.run(["environment"])) == [{"OMP_NUM_THREADS": "1", "OPENCV_FOR_THREADS_NUM": "1"}]


def test_what_a_worker_prints_does_not_come_between_the_results(capfd):
    assert run(Squares(), ["print"]) == [""]  # and its standard input is empty
    out, err = capfd.readouterr()
    assert out == ""
    assert "to standard output" in err
    assert "also from C" in err


def test_warnings_of_workers_are_warnings_here_each_once(crew):
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("default")
        list(crew.run(["warn"] * 8))
    assert [(str(each.message), each.category) for each in told] == [("this is old", UserWarning)]
    with pytest.raises(UserWarning, match="this is old"):  # as tests have it
        run(Squares(), ["warn"])


def test_errors_of_workers_are_raised_here_as_what_they_are():
    with pytest.raises(InputError, match="the number is wrong; give another") as caught:
        run(Squares(), [1, "input error"])
    assert caught.value.__cause__ is None
    with pytest.raises(ZeroDivisionError, match="a mistake of ours") as fault:
        run(Squares(), [1, "bug"])
    assert "in compute" in str(fault.value.__cause__)  # where it came from


def test_workers_that_cannot_start_say_why():
    with pytest.raises(InputError, match="no such model"):
        run(Refusing(), [1])
    with pytest.raises(LightGlueError, match="do not start.*with 1 worker none is needed"):
        run(Stillborn(), [1])


def test_what_cannot_be_sent_is_one_clear_error():
    with pytest.raises(InputError, match="Another process cannot have this.*use 1 worker"):
        Crew(Squares(folder=lambda: None), 2)  # type: ignore[arg-type]
    script = type("Own", (Squares,), {"__module__": "__main__"})
    with pytest.raises(InputError, match="does not know Own, which a script or a notebook defines"):
        Crew(script(), 2)

    class Stubborn:
        def __reduce__(self) -> Any:
            raise NotImplementedError("not with me")

    with pytest.raises(InputError, match="Another process cannot have this \\(not with me\\)"):
        Parcel(Stubborn())


@pytest.mark.skipif(os.name != "posix", reason="a nameless file is handed on by its number")
def test_a_program_without_a_standard_input_shares_its_file_all_the_same():
    kept = os.dup(0)
    os.close(0)
    try:
        parcel = Parcel(np.zeros(100_000))
    finally:
        os.dup2(kept, 0)
        os.close(kept)
    assert parcel.handed_on[0] > 2
    parcel.close()


@pytest.mark.skipif(os.name != "posix", reason="a nameless file is handed on by its number")
def test_no_room_for_temporary_files_is_one_clear_error(monkeypatch):
    class Full(io.BytesIO):
        def fileno(self) -> int:
            return 9

        def write(self, *_: Any) -> int:
            raise OSError(28, "No space left on device")

    monkeypatch.setattr("tempfile.TemporaryFile", lambda **_: Full())
    with pytest.raises(LightGlueError, match=r"no place for the 1 MB.*No space left.*TMPDIR, or use 1 worker"):
        Parcel(np.zeros(100_000))


# --- who is killed ------------------------------------------------------------------------------------------------


def test_what_a_dead_worker_had_is_done_again(tmp_path):
    with Crew(Squares(str(tmp_path)), 2) as crew:
        before = crew.processes
        results = list(crew.run([*range(10), "die once", *range(10, 20)]))
        assert len(set(crew.processes) - set(before)) == 1
    assert sorted(each for each in results if each != "die once") == [i * i for i in range(20)]
    assert (tmp_path / "died").exists()


def test_a_job_that_kills_every_worker_is_left_out_and_the_rest_done():
    for deadly in ("die", "unreadable"):  # while it is computed, or read
        with Crew(Squares(), 2) as crew:
            results = list(crew.run([*range(6), deadly, *range(6, 12)]))
        (failure,) = (each for each in results if isinstance(each, str))
        assert failure.startswith(f"{deadly}: 3 workers died of it")
        assert sorted(each for each in results if each != failure) == [i * i for i in range(12)]


def test_where_memory_is_short_a_dead_worker_is_not_replaced(tmp_path):
    with Crew(Squares(str(tmp_path)), 2, lambda: True) as crew:
        assert len(list(crew.run([*range(10), "die once"]))) == 11
        assert len(crew.processes) == 1


def test_a_loop_that_is_left_ends_the_workers_at_once(tmp_path):
    pids = []

    def interrupted() -> None:
        with Crew(Squares(str(tmp_path)), 2) as crew:
            pids.extend(crew.processes)
            for _ in crew.run([1, "sleep", "sleep"]):
                wait_until((tmp_path / "asleep").exists)
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert not any(map(is_alive, pids))


SCRIPT = """
import sys, time
sys.path.insert(0, sys.argv[1])
from lightglue.workers.parcels import Parcel, unpack
from lightglue.workers.work import Engine
from support import ASSETS
from support.jobs import Squares
from lightglue.workers.crew import Crew
print("once", flush=True)
with Crew(Squares(sys.argv[2]), 2) as crew:
    print(*crew.processes, flush=True)
    print(sorted(crew.run(range(5))), flush=True)
    list(crew.run(["sleep", "sleep"]))
"""  # without `if __name__ == "__main__"`


def start(tmp_path: Path) -> tuple[subprocess.Popen[str], list[int]]:
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    process = subprocess.Popen(
        [sys.executable, str(script), TESTS, str(tmp_path)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "once\n"
    pids = [int(word) for word in process.stdout.readline().split()]
    assert process.stdout.readline() == "[0, 1, 4, 9, 16]\n"
    wait_until((tmp_path / "asleep").exists)
    return process, pids


@pytest.mark.skipif(sys.platform != "linux", reason="processes are looked up in /proc")
def test_a_script_without_a_main_guard_works_and_ctrl_c_is_one_traceback(tmp_path):
    process, pids = start(tmp_path)
    os.killpg(process.pid, signal.SIGINT)  # what a terminal does
    out, err = process.communicate(timeout=30)
    assert process.returncode in (-signal.SIGINT, 130)
    assert (out, err.count("Traceback"), err.count("KeyboardInterrupt")) == ("", 1, 1)
    assert not any(map(is_alive, pids))


@pytest.mark.skipif(sys.platform != "linux", reason="processes are looked up in /proc")
def test_workers_end_when_who_started_them_is_killed(tmp_path):
    process, pids = start(tmp_path)
    process.kill()
    process.communicate(timeout=30)
    wait_until(lambda: not any(map(is_alive, pids)))
    assert not any(map(is_alive, pids))


# --- maps ---------------------------------------------------------------------------------------------------------


MODELS = Models("sift", 200, "cpu", False, matcher="nearest", thresholds={"ratio_threshold": 0.9})  # no weights


@pytest.fixture(scope="module")
def photographs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("photographs")
    image = cv2.imread(str(ASSETS / "montmartre_close.jpg"))
    for i in range(12):
        cv2.imwrite(str(folder / f"{i}.png"), image[10 * i : 10 * i + 200, 8 * i : 8 * i + 240])
    (folder / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n and no more")
    return folder


def content(photographs: Path, out: Path, engine: Engine, matching: Engine) -> tuple[Any, ...]:
    """All that the stores hold after both stages, and what was left out."""
    extracted = extract(photographs, out / "features", ExtractOptions(MODELS, {"resize": None}), engine=engine)
    store = FeatureStore.open(out / "features")
    pairs = list(itertools.combinations(store.names(), 2))
    matched = match(out / "features", pairs, out / "matches.db", MatchOptions(MODELS), engine=matching)
    matches = [
        (pair.name0, pair.name1, pair.matches.tolist(), pair.scores.tolist(), pair.digests)
        for pair in MatchStore.open(out / "matches.db").read()
    ]
    features = {name: store.get(name).digest for name in store.names()}
    return features, matches, [each.name for each in (*extracted.skipped, *matched.skipped)]


@dataclass
class Others:
    """Other processes; one is killed after the first result."""

    count: int
    kill: bool = False

    def run(self, work: Any, jobs: Any) -> Iterator[Any]:
        with Crew(work, self.count) as crew:
            results = crew.run(jobs)
            yield next(results)
            if self.kill:
                os.kill(crew.processes[0], signal.SIGKILL)
            yield from results


def test_processes_give_the_map_that_one_gives_also_where_one_is_killed(photographs, tmp_path):
    alone = content(photographs, tmp_path / "1", ProcessEngine(1), ProcessEngine(1))
    assert content(photographs, tmp_path / "2", Others(1), Others(2, kill=True)) == alone
    assert (len(alone[0]), len(alone[1]), alone[2]) == (12, 66, ["broken.png"])


def test_what_a_map_asks_for_is_planned_by_what_it_takes():
    quick, slow = MatchWork("", MatchOptions(MODELS)), MatchWork("", MatchOptions(Models("aliked", 2048, "cpu")))
    assert 0 < quick.seconds < 1 < slow.seconds
    fast = MatchWork("", MatchOptions(Models("aliked", 2048, "cpu", effort="fast")))
    assert quick.seconds < fast.seconds < slow.seconds
    assert (slow.on_cpu, MatchWork("", MatchOptions(Models(device="cuda:1"))).on_cpu) == (True, False)


def test_workers_go_with_this_machine_only():
    with pytest.raises(InputError, match="--workers 2 has an effect with --engine local only"):
        EngineOptions("ray", workers=2)
    with pytest.raises(InputError, match="workers is 0"):
        EngineOptions(workers=0)
    assert make_engine("local", workers=None) == ProcessEngine()
    assert make_engine() == LocalEngine()


# --- pairs --------------------------------------------------------------------------------------------------------


def test_pairs_in_processes_are_those_of_this_one():
    photographs = [cv2.imread(str(ASSETS / f"montmartre_{name}.jpg"))[:300, :300] for name in ("close", "far")]
    pairs = [(photographs[0], photographs[i % 2]) for i in range(6)]
    extractor, matcher = MODELS.load()
    asked: dict[str, Any] = {"resize": None, "refine": True, "geometry": "homography", "auto_rotate": 180}
    alone = match_pairs(extractor, matcher, pairs, **asked)
    together = match_pairs(extractor, matcher, pairs, workers=2, **asked)
    for one, other in zip(alone, together, strict=True):
        assert list(one.matches01) == list(other.matches01)
        assert torch.equal(one.points1, other.points1)
        assert torch.equal(one.keypoints0, other.keypoints0)
        assert one.rotation == other.rotation
        assert np.array_equal(one.geometry.inliers, other.geometry.inliers)
    assert together[0].keypoints0.data_ptr() == together[5].keypoints0.data_ptr()  # the same tensor


def test_weights_are_in_memory_once_and_arrive_whole():
    module = torch.nn.Linear(300, 400).requires_grad_(True)
    things = {"module": module, "half": module.weight.detach().bfloat16(), "none": torch.zeros(0, 3), "of": np.eye(200)}
    parcel = Parcel(things)
    head, files, places, inline = parcel.message()
    assert (len(head) < 10_000, len(files), len(places), inline) == (True, 1, 3, [])
    found = unpack((head, (os.dup(files[0]),), places, inline))
    assert torch.equal(found["module"].weight, module.weight)
    assert found["module"].weight.requires_grad
    assert torch.equal(found["half"], things["half"])
    assert found["none"].shape == (0, 3)
    found["of"][0] = 7  # a page of its own
    assert np.array_equal(unpack((head, (os.dup(files[0]),), places, inline))["of"], things["of"])
    parcel.close()


def test_numbers_of_workers_are_checked_before_anything_is_done():
    with pytest.raises(InputError, match="workers is -1"):
        match_pairs(None, None, [], workers=-1)


# --- how many -----------------------------------------------------------------------------------------------------


def test_as_many_as_there_are_cores_and_room_for(monkeypatch):
    monkeypatch.setattr(count, "usable_cores", lambda: 6)
    monkeypatch.setattr(count, "usable_memory", lambda: None)
    assert fitting() == 6
    monkeypatch.setattr(count, "usable_memory", lambda: 5_000_000_000)  # a fifth is left to others
    assert fitting() == 4
    monkeypatch.setattr(count, "usable_memory", lambda: 300_000_000)
    assert fitting() == 1
    assert is_short()
    monkeypatch.setattr(sys, "frozen", True, raising=False)
    monkeypatch.setattr(count, "usable_memory", lambda: None)
    assert fitting() == 1


def test_a_worker_is_started_where_there_is_work_for_it():
    assert [worthwhile(8, jobs, 1.0) for jobs in (0, 1, 9, 10, 20, 1000)] == [1, 1, 1, 2, 4, 8]
    assert worthwhile(8, 3, 100.0) == 3  # no more than jobs


class Counted(Crew):
    sizes: list[int] = []  # noqa: RUF012

    def __init__(self, work: Any, size: int, is_short: Any) -> None:
        self.sizes.append(size)
        super().__init__(work, 1)


def test_the_engine_starts_what_is_worth_it_and_computes_small_things_itself(monkeypatch):
    from lightglue.workers import engine

    monkeypatch.setattr(engine, "Crew", Counted)
    monkeypatch.setattr(engine, "fitting", lambda: 4)
    Counted.sizes = []
    assert sorted(ProcessEngine().run(Squares(), range(9))) == [i * i for i in range(9)]
    assert list(ProcessEngine(3).run(Squares(), range(2))) == [0, 1]
    assert Counted.sizes == [4, 2]
    assert set(ProcessEngine().run(Squares(seconds=0.1), ["process"])) == {(os.getpid(), os.getppid())}
    assert set(ProcessEngine(1).run(Squares(), ["process"] * 9)) == {(os.getpid(), os.getppid())}
    assert Counted.sizes == [4, 2]


def test_this_process_computes_with_one_thread_too_and_has_its_own_back():
    before = torch.get_num_threads()
    seen = []
    torch.set_num_threads(2)
    try:
        for _ in ProcessEngine(1).run(Squares(), range(2)):
            seen.append(torch.get_num_threads())
        seen.append(torch.get_num_threads())
        for _ in LocalEngine().run(Squares(), range(1)):
            seen.append(torch.get_num_threads())
    finally:
        torch.set_num_threads(before)
    assert seen == [1, 1, 2, 2]


@pytest.mark.parametrize("workers", [0, -1, 1025, 2.0, "2", True])
def test_what_is_no_number_of_workers_is_refused(workers):
    with pytest.raises(InputError, match="give a number of processes from 1 to 1,024"):
        ProcessEngine(workers)


def test_a_gpu_is_not_shared_by_processes():
    work = Squares(on_cpu=False)
    with pytest.raises(InputError, match="workers is 2, which are processes for the CPU"):
        list(ProcessEngine(2).run(work, []))
    assert set(ProcessEngine().run(work, ["process"] * 9)) == {(os.getpid(), os.getppid())}
