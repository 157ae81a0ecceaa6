"""The benchmark loop: every pair has a record, whatever it is like; a killed run goes on and ends the same."""

from __future__ import annotations

import json
import os
import re
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from lightglue.errors import InputError
from lightglue.evaluation.datasets.manifest import load_manifest
from lightglue.evaluation.matches import read_matches
from lightglue.evaluation.pair import Pair
from lightglue.evaluation.records import Record, Run, matches_path, read_run
from lightglue.evaluation.report import write_report
from lightglue.evaluation.run import Job, _chunks, evaluate
from lightglue.evaluation.summary import summarize
from lightglue.geometry.points import transform
from lightglue.models.choice import Models
from support.child import Child
from support.command import lightglue

ROOT = Path(__file__).parents[1]
PHOTOGRAPH = ROOT / "assets" / "montmartre_close.jpg"
SIFT = Job(Models("sift", 300, "cpu", False, matcher="nearest", thresholds={"ratio_threshold": 0.8}))  # no weights
H = [[0.9, 0.05, 12.0], [-0.04, 0.95, 8.0], [1e-5, 2e-5, 1.0]]
SIZE = (320, 220)
COMMAND = "from lightglue.cli import main; main()"

pytestmark = pytest.mark.usefixtures("each_image_is_looked_at_once")


@pytest.fixture(scope="module")
def photographs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a small photograph, what H makes of it, and files that are of no use."""
    folder = tmp_path_factory.mktemp("photographs")
    image = cv2.resize(cv2.imread(str(PHOTOGRAPH)), SIZE, interpolation=cv2.INTER_AREA)
    cv2.imwrite(str(folder / "a.png"), image)
    cv2.imwrite(str(folder / "b.png"), cv2.warpPerspective(image, np.array(H), SIZE))
    cv2.imwrite(str(folder / "black.png"), np.zeros_like(image))
    (folder / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n and no more")
    return folder


def pair(image0: str = "a.png", image1: str = "b.png", scene: str = "dome", **truth: Any) -> dict[str, Any]:
    return {"scene": scene, "image0": image0, "image1": image1, **(truth or {"H": H})}


def manifest(folder: Path, pairs: list[dict[str, Any]], kind: str = "homography", **fields: Any) -> Path:
    path = folder / f"{kind}{len(pairs)}.json"
    path.write_text(json.dumps({"name": "test", "kind": kind, "max_keypoints": 300, "pairs": pairs, **fields}))
    return path


def without_times(records: tuple[Record, ...]) -> list[Record]:
    return [replace(record, seconds={}) for record in records]


def run_of(
    photographs: Path, pairs: list[dict[str, Any]], folder: Path, kind: str = "homography", **options: Any
) -> Run:
    return evaluate(load_manifest(manifest(photographs, pairs, kind)), SIFT, folder, **options)


# -- figures --


def test_an_exact_homography_is_found_and_judged(photographs, tmp_path):
    run = run_of(photographs, [pair()], tmp_path)
    (record,) = run.records
    assert run.is_complete
    assert record.failure is None
    assert record.values["corner_error/opencv@0.5"] < 0.5
    assert record.values["precision@3"] > 0.9
    assert record.values["num_matches"] == record.num_matches > 30
    assert max(record.num_keypoints) <= 300
    assert set(record.seconds) == {"extract", "match", "refine", "estimate"}
    kept = read_matches(matches_path(tmp_path, 0))
    assert len(kept.points0) == record.num_matches
    errors = np.linalg.norm(transform(np.array(H), kept.points0) - kept.points1, axis=1)
    assert ((errors < 3) == kept.correct).mean() > 0.98


def test_images_are_judged_at_the_protocols_size(photographs, tmp_path):
    """Errors are in the px of the resized images, so that half the size halves them."""
    benchmark = load_manifest(manifest(photographs, [pair()]))
    small = replace(benchmark, protocol=replace(benchmark.protocol, resize=160))
    full, half = (evaluate(each, SIFT, tmp_path / str(i)).records[0] for i, each in enumerate((benchmark, small)))
    assert half.values["corner_error/opencv@0.5"] < 1.5
    assert half.num_matches < full.num_matches
    kept = read_matches(matches_path(tmp_path / "1", 0))
    assert kept.points0.max() > 160  # what is kept is in px of the files


@pytest.mark.parametrize("kind", ["pose", "points"])
def test_other_kinds_of_truth(kind, photographs, tmp_path):
    """A camera that only turns: K R K^-1 is the homography."""
    K = np.array([[300.0, 0, 160], [0, 300, 110], [0, 0, 1]])
    T = np.eye(4)
    T[:3, 3] = (0.3, 0, 0)
    marked = [[10.0, 20.0], [200.0, 100.0], [150.0, 60.0], [300.0, 200.0]]
    truth = {
        "pose": {"K0": K.tolist(), "K1": K.tolist(), "T_0to1": T.tolist()},
        "points": {"points0": marked, "points1": transform(np.array(H), np.array(marked)).tolist()},
    }[kind]
    run = run_of(photographs, [pair(**truth)], tmp_path, kind)
    (record,) = run.records
    assert record.failure is None
    if kind == "points":
        assert record.values["mAA/opencv@0.5"] > 0.8  # a plane leaves F free, but its points are on their lines
    else:
        assert 0 <= record.values["pose_error/poselib@1"] <= 180
        assert {name for name in record.values if name.startswith("epipolar@")}


def test_refined_matches_are_nearer(photographs, tmp_path):
    benchmark = load_manifest(manifest(photographs, [pair()]))
    plain, refined = (evaluate(benchmark, replace(SIFT, refine=on), tmp_path / str(on)) for on in (False, True))
    assert refined.settings["refine"]
    assert plain.settings["refine"] is None
    assert refined.records[0].num_matches == plain.records[0].num_matches
    assert refined.records[0].values["precision@1"] >= plain.records[0].values["precision@1"]
    assert refined.records[0].seconds["refine"] > 0


# -- pairs that fail --


NAN = float("nan")
HOSTILE = {
    "a missing file": (pair("nowhere.png"), "nowhere.png"),
    "a broken file": (pair("broken.png"), "broken.png"),
    "no matches": (pair("black.png"), "different matches"),
    "no keypoints in both": (pair("black.png", "black.png"), "different matches"),
    "a singular truth": (pair(H=[[0, 0, 0]] * 3), "singular"),
    "NaN in the truth": (pair(H=[[NAN, 0, 0], [0, 1, 0], [0, 0, 1]]), "NaN"),
    "no truth": (pair(points0=[]), "H"),
    "a folder": (pair("."), "folder"),
}


def test_pairs_that_fail_are_named_and_count_as_failures(photographs, tmp_path):
    run = run_of(photographs, [pair(), *(each for each, _ in HOSTILE.values()), pair()], tmp_path)
    assert run.is_complete
    assert [record.failure is None for record in run.records] == [True, *[False] * len(HOSTILE), True]
    for record, (_, reason) in zip(run.failures, HOSTILE.values(), strict=True):
        assert reason in record.failure
        assert set(record.values) == {metric.name for metric in run.metrics}
        assert record.values["corner_error/opencv@0.5"] == np.inf
        assert record.values["precision@1"] == 0
    for text in (path.read_text() for path in write_report(run)):
        assert all(Path(record.image0).name in text for record in run.failures)
    areas = [each.value for each in summarize(run).figures if each.name.startswith("corner_error/opencv@0.5 auc")]
    assert len(areas) == 4
    assert max(areas) <= 20  # percent: 2 of 10 pairs succeed, and the others are in the average


def test_matchers_may_share_the_features_of_images(photographs, tmp_path):
    benchmark = load_manifest(manifest(photographs, [pair(), pair(scene="again")]))
    loose = replace(SIFT, models=replace(SIFT.models, thresholds={}))
    seen: dict[Path, Any] = {}
    evaluate(benchmark, SIFT, tmp_path / "first", seen=seen)
    assert len(seen) == 2
    shared, alone = evaluate(benchmark, loose, tmp_path / "2", seen=seen), evaluate(benchmark, loose, tmp_path / "3")
    assert without_times(shared.records) == without_times(alone.records)
    assert shared.records[0].num_matches > read_run(tmp_path / "first").records[0].num_matches


def test_features_that_are_kept_and_several_processes_exclude_each_other(photographs, tmp_path):
    benchmark = load_manifest(manifest(photographs, [pair()]))
    with pytest.raises(InputError, match="workers is 2, and `seen` keeps features in this process"):
        evaluate(benchmark, SIFT, tmp_path / "run", seen={}, workers=2)
    assert not (tmp_path / "run").exists()


def test_nan_cameras_are_failures_of_their_pair(photographs, tmp_path):
    K = [[300.0, 0, 160], [0, 300, 110], [0, 0, 1]]
    wrong = [[NAN, 0, 160], [0, 300, 110], [0, 0, 1]]
    T = [[1, 0, 0, 0.3], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]]
    truths = [{"K0": K, "K1": wrong, "T_0to1": T}, {"K0": K, "K1": K, "T_0to1": [[NAN] * 4] * 4}, {"K0": K, "K1": K}]
    run = run_of(photographs, [pair(**truth) for truth in truths], tmp_path, "pose")
    assert len(run.failures) == 3
    assert [record.values["pose_error/poselib@1"] for record in run.records] == [np.inf] * 3
    assert all(record.failure for record in run.records)


def test_a_pair_without_enough_memory_is_a_failure(photographs, tmp_path, monkeypatch):
    def too_large(*_: Any) -> None:
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 1 bytes")

    monkeypatch.setattr("lightglue.evaluation.run._Worker._match", too_large)
    assert "memory" in run_of(photographs, [pair()], tmp_path).records[0].failure


def test_an_image_that_does_not_fit_its_lens_is_a_failure(photographs, tmp_path):
    camera = {"model": "OPENCV", "width": 640, "height": 440, "params": [300, 300, 160, 110, 0.1, 0, 0, 0]}
    T = [[1, 0, 0, 0.3], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]]
    truth = {"camera0": camera, "camera1": camera, "T_0to1": T}
    run = run_of(photographs, [pair(**truth), pair("x" * 300, "nowhere.png", **truth)], tmp_path, "pose")
    assert "320 x 220" in run.records[0].failure
    assert "x" * 300 in run.records[1].failure  # a name that no file can have


def test_a_benchmark_without_pairs_is_an_error(photographs, tmp_path):
    benchmark = load_manifest(manifest(photographs, [pair()]))
    with pytest.raises(InputError, match="no pairs"):
        evaluate(replace(benchmark, pairs=()), SIFT, tmp_path)


# -- going on --


def test_what_is_done_is_not_done_again(photographs, tmp_path):
    pairs = [pair(), pair("b.png", "a.png", H=np.linalg.inv(H).tolist()), pair("black.png")]
    whole = run_of(photographs, pairs, tmp_path)
    counted: list[tuple[int, int]] = []
    again = run_of(photographs, pairs, tmp_path, progress=lambda done, total: counted.append((done, total)))
    assert counted == []
    assert again.records == whole.records  # to the times
    lines = (tmp_path / "records.jsonl").read_text().splitlines()
    (tmp_path / "records.jsonl").write_text(lines[0] + "\n" + lines[1][:40])  # half a line
    again = run_of(photographs, pairs, tmp_path, progress=lambda done, total: counted.append((done, total)))
    assert counted == [(2, 3), (3, 3)]
    assert without_times(again.records) == without_times(whole.records)


def test_other_settings_are_never_mixed(photographs, tmp_path):
    run_of(photographs, [pair()], tmp_path)
    benchmark = load_manifest(manifest(photographs, [pair()]))
    other = replace(SIFT, models=replace(SIFT.models, thresholds={"ratio_threshold": 0.7}))
    with pytest.raises(InputError, match=r"another run.*0\.7"):
        evaluate(benchmark, other, tmp_path)
    with pytest.raises(InputError, match="what is known"):  # the same pairs, of which something else is known now
        run_of(photographs, [pair(H=np.eye(3).tolist())], tmp_path)
    run_of(photographs, [pair("gone.png", "b.png")], tmp_path / "gone")
    (photographs / "gone.png").write_bytes((photographs / "a.png").read_bytes())
    with pytest.raises(InputError, match="image files"):
        run_of(photographs, [pair("gone.png", "b.png")], tmp_path / "gone")
    (photographs / "gone.png").unlink()
    with pytest.raises(InputError, match="pairs are others"):
        run_of(photographs, [pair(), pair()], tmp_path)
    assert len(read_run(tmp_path).records) == 1


@pytest.mark.skipif(sys.platform != "linux", reason="processes are looked up in /proc")
def test_worker_processes_give_the_same_records_also_where_one_is_killed_and_replaced(photographs, tmp_path):
    pairs = [pair(scene=str(i)) for i in range(16)] + [pair("nowhere.png")]
    killed = []

    def kill(done: int, total: int) -> None:
        if not killed:
            mine = Path(f"/proc/{os.getpid()}/task/{os.getpid()}/children").read_text().split()
            killed.extend(int(pid) for pid in mine if b".workers." in Path(f"/proc/{pid}/cmdline").read_bytes())
            os.kill(killed[0], signal.SIGKILL)

    together = run_of(photographs, pairs, tmp_path / "2", workers=2, progress=kill)
    alone = run_of(photographs, pairs, tmp_path / "1", workers=1)
    assert len(killed) == 2
    assert together.is_complete
    assert without_times(together.records) == without_times(alone.records)
    for i in range(16):
        ends = [read_matches(matches_path(tmp_path / each, i)).points1 for each in ("1", "2")]
        assert np.array_equal(*ends)


def test_pairs_that_share_images_go_to_one_worker():
    a, b = Path("a"), Path("b")
    chain = [(i, Pair(str(i), "", a, b, None)) for i in range(30)]
    assert [len(chunk) for chunk in _chunks(chain)] == [12, 12, 6]
    apart = [(i, Pair(str(i), "", Path(f"{i}a"), Path(f"{i}b"), None)) for i in range(9)]
    assert [len(chunk) for chunk in _chunks(apart)] == [4, 4, 1]
    assert [each for chunk in _chunks([*chain, *apart]) for each in chunk] == [*chain, *apart]


def test_options_that_were_refused_are_named_by_workers_too_and_leave_the_folder_to_others(photographs, tmp_path):
    benchmark = load_manifest(manifest(photographs, [pair()] * 8))
    wrong = replace(SIFT, models=replace(SIFT.models, thresholds={"ratio_threshold": 5}))
    for workers in (1, 2):
        with pytest.raises(InputError, match="ratio_threshold.*at most 1, not 5"):
            evaluate(benchmark, wrong, tmp_path, workers=workers)
    assert evaluate(benchmark, SIFT, tmp_path).is_complete


SPOILT = {
    "seconds": {"extract": "soon"},
    "num_keypoints": [1],
    "num_matches": "many",
    "scene": 4,
    "failure": {},
    "values": 3,
}


@pytest.mark.parametrize("field", SPOILT)
def test_a_damaged_record_is_an_error_that_names_its_line(field, photographs, tmp_path):
    run_of(photographs, [pair(), pair()], tmp_path)
    records = tmp_path / "records.jsonl"
    first, second = records.read_text().splitlines()
    records.write_text("\n".join((first, json.dumps({**json.loads(second), field: SPOILT[field]}), "")))
    with pytest.raises(InputError, match=r"records\.jsonl, line 2, is damaged"):
        read_run(tmp_path)


@pytest.mark.skipif(sys.platform != "linux", reason="processes are looked up in /proc")
def test_workers_end_when_their_run_is_killed(photographs, tmp_path):
    path = manifest(photographs, [pair(scene=str(i)) for i in range(60)])
    words = ["eval", "pairs", str(path), "--features", "sift", "--matcher", "nearest", "--device", "cpu"]
    records = tmp_path / "records.jsonl"
    with Child(COMMAND, *words, "--workers", "2", "--output", tmp_path) as process:
        wait_until(lambda: records.exists() and records.read_bytes())
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        process.kill()
    assert len(children) >= 2
    wait_until(lambda: not any(map(is_alive, children)))
    assert not any(map(is_alive, children))


def wait_until(true: Callable[[], object]) -> None:
    """For two minutes at the most, however long what came before has taken."""
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and not true():
        time.sleep(0.02)


def is_alive(process: str) -> bool:
    try:
        return bool(Path(f"/proc/{process}/cmdline").read_bytes())  # empty once it has ended
    except OSError:
        return False


def test_a_report_finds_its_images_from_any_folder(photographs, tmp_path, monkeypatch):
    path = manifest(photographs, [pair(), pair("broken.png")])
    monkeypatch.chdir(photographs)
    run = evaluate(load_manifest(path.name), SIFT, tmp_path)
    monkeypatch.chdir("/")
    assert [Path(record.image0) for record in run.records] == [photographs / "a.png", photographs / "broken.png"]
    markdown, _ = write_report(run)
    assert "There is no image" not in markdown.read_text()


def test_a_run_killed_at_half_ends_with_the_identical_report(photographs, tmp_path):
    """SIGKILL in the middle; the same command again; beside it the run that nothing disturbed."""
    pairs = [pair(scene=f"scene {i % 3}") for i in range(30)] + [pair("nowhere.png"), pair("black.png")]
    path = manifest(photographs, pairs)
    words = ["eval", "pairs", str(path), "--features", "sift", "--matcher", "nearest", "--device", "cpu", "--output"]
    killed, whole = tmp_path / "killed", tmp_path / "whole"
    records, deadline = killed / "records.jsonl", time.monotonic() + 120
    with Child(COMMAND, *words, killed) as process:
        while process.poll() is None and time.monotonic() < deadline:
            if records.exists() and records.read_bytes().count(b"\n") >= len(pairs) // 2:
                process.kill()
                break
            time.sleep(0.002)
        assert process.wait() == -signal.SIGKILL
    assert len(pairs) // 2 <= len(read_run(killed).records) < len(pairs)
    assert not (killed / "report.html").exists()
    for folder in (killed, whole):
        assert lightglue(*words, folder).code == 0
    first, second = read_run(killed), read_run(whole)
    assert without_times(first.records) == without_times(second.records)
    for name in ("report.md", "report.html"):
        texts = [
            re.sub(r"<!-- time -->.*?<!-- /time -->", "", (folder / name).read_text(), flags=re.DOTALL)
            for folder in (killed, whole)
        ]
        assert texts[0] == texts[1]
        assert len(texts[0]) > 1000
