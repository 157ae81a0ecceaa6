"""Extraction of a collection: each image is done once, faults end nothing, and a kill loses nothing."""

from __future__ import annotations

import os
import signal
import threading
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from lightglue.errors import InputError
from lightglue.images import load_image
from lightglue.models.choice import Models
from lightglue.sfm.engines.choice import make_engine
from lightglue.sfm.stages.extract import ExtractOptions, ExtractResult, ExtractWorker, extract
from lightglue.stores import FeatureStore
from lightglue.workers.local import pipelined
from lightglue.workers.work import Budget
from support.child import run_python

ROOT = Path(__file__).parents[1]
OPTIONS = ExtractOptions(Models("sift", 100, "cpu", False), {"resize": None})  # no weights


@pytest.fixture
def photographs(tmp_path: Path) -> Path:
    folder = tmp_path / "photographs"
    (folder / "more").mkdir(parents=True)
    image = cv2.imread(str(ROOT / "assets" / "montmartre_close.jpg"))
    for i, name in enumerate(("a.png", "b.png", "more/a.png", "more/c.png")):
        cv2.imwrite(str(folder / name), image[20 * i : 20 * i + 150, 30 * i : 30 * i + 200])
    return folder


def run(photographs: Path, **options: Any) -> ExtractResult:
    return extract(photographs, photographs.parent / "features", OPTIONS, **options)


def content(folder: Path) -> dict[str, str]:
    store = FeatureStore.open(folder)
    return {name: store.get(name).digest for name in store.names()}


def test_all_images_have_the_features_that_the_extractor_gives(photographs):
    told = []
    result = run(photographs, progress=lambda done, total: told.append((done, total)))
    assert (result.images, result.extracted, result.kept, result.skipped) == (4, 4, 0, ())
    assert told == [(1, 4), (2, 4), (3, 4), (4, 4)]
    store = FeatureStore.open(photographs.parent / "features")
    expected = OPTIONS.models.load_extractor().extract(load_image(photographs / "more/c.png"), resize=None)
    found = store.get("more/c.png")
    assert np.array_equal(found.keypoints, expected["keypoints"][0].numpy())
    assert np.array_equal(found.descriptors, expected["descriptors"][0].numpy().astype(np.float16))
    assert found.image_size == (200, 150)


def test_only_what_is_new_changed_or_damaged_is_done_again(photographs):
    run(photographs)
    assert (run(photographs).extracted, run(photographs).kept) == (0, 4)
    store = FeatureStore.open(photographs.parent / "features")
    (photographs / "b.png").write_bytes((photographs / "a.png").read_bytes())
    os.utime(photographs / "more/a.png")  # touched, but the same
    place = store._path("more/c.png")
    place.write_bytes(place.read_bytes()[:-400])
    (photographs / "a.png").unlink()
    result = run(photographs)
    assert (result.extracted, result.kept, result.gone) == (2, 1, ("a.png",))
    assert store.get("b.png").digest == store.get("a.png").digest


def test_faults_are_told_and_the_rest_is_done(photographs):
    cv2.imwrite(str(photographs / "black.png"), np.zeros((60, 80, 3), np.uint8))
    (photographs / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n and no more")
    (photographs / "empty.jpg").write_bytes(b"")
    (photographs / "text.jpg").write_text("no image")
    cv2.imwrite(str(photographs / "large.png"), np.zeros((300, 300, 3), np.uint8))
    options = ExtractOptions(OPTIONS.models, OPTIONS.extract, max_pixels=50_000)
    result = extract(photographs, photographs.parent / "features", options)
    assert result.extracted == 5
    left_out = [fault for fault in result.skipped if not fault.is_used]
    assert [fault.name for fault in left_out] == ["broken.png", "empty.jpg", "large.png", "text.jpg"]
    assert "more than max_pixels=50,000" in left_out[2].reason
    assert [(fault.name, fault.reason) for fault in result.skipped if fault.is_used] == [
        ("black.png", "it has no keypoints: it is black")
    ]
    assert len(FeatureStore.open(photographs.parent / "features").get("black.png")) == 0


def test_an_image_that_became_unreadable_loses_its_features(photographs):
    run(photographs)
    (photographs / "a.png").write_bytes(b"\x89PNG\r\n\x1a\n and no more")
    assert [fault.name for fault in run(photographs).skipped] == ["a.png"]
    assert "a.png" not in FeatureStore.open(photographs.parent / "features")


def test_named_images_only(photographs):
    result = run(photographs, names=["b.png", "absent.png", "b.png"])
    assert (result.images, result.extracted, result.gone) == (2, 1, ())
    assert [(fault.name, "no image" in fault.reason) for fault in result.skipped] == [("absent.png", True)]


def test_memory_that_is_short_is_a_fault_of_the_image(photographs, monkeypatch):
    usual = ExtractWorker.features

    def short(self: ExtractWorker, pixels: Any, mask: Any) -> Any:
        if pixels.shape[0] == 77:
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory")
        return usual(self, pixels, mask)

    cv2.imwrite(str(photographs / "tall.png"), np.zeros((77, 9, 3), np.uint8))
    monkeypatch.setattr(ExtractWorker, "features", short)
    result = run(photographs)
    assert result.extracted == 4
    assert [(fault.name, "not enough memory" in fault.reason) for fault in result.skipped] == [("tall.png", True)]


def test_other_settings_are_refused(photographs):
    run(photographs)
    other = ExtractOptions(Models("sift", 200, "cpu", False), OPTIONS.extract)
    with pytest.raises(InputError, match="max_keypoints is 100 there and 200 here"):
        extract(photographs, photographs.parent / "features", other)


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"descriptor_dtype": "int8"}, "descriptor_dtype is 'int8'"),
    ],
)
def test_options_that_make_no_sense_are_refused(options, told):
    with pytest.raises(InputError, match=told):
        ExtractOptions(**{"models": OPTIONS.models, **options})


def test_features_that_there_are_not_are_refused():
    with pytest.raises(InputError, match="features is 'surf'; choose one of aliked"):
        ExtractOptions(Models("surf", 100))


def test_an_option_that_extract_does_not_know_is_an_error_and_no_fault_of_the_images(photographs):
    with pytest.raises(InputError, match="rezise"):
        extract(photographs, photographs.parent / "features", ExtractOptions(OPTIONS.models, {"rezise": 100}))


KILLED = """
import os, signal, sys
from lightglue.sfm.stages.extract import extract
from lightglue.stores import FeatureStore
sys.path.insert(0, {tests!r})
from test_sfm_extract import OPTIONS
usual, count = FeatureStore.put, 0
def put(*arguments):
    global count
    count += 1
    if count == {after}:
        os.kill(os.getpid(), signal.SIGKILL)
    return usual(*arguments)
FeatureStore.put = put
extract({images!r}, {store!r}, OPTIONS)
"""


def test_a_killed_run_goes_on_and_ends_like_an_undisturbed_one(photographs):
    run(photographs)
    store = photographs.parent / "killed"
    code = KILLED.format(tests=str(ROOT / "tests"), after=3, images=str(photographs), store=str(store))
    assert run_python(code, check=False).returncode == -signal.SIGKILL
    assert extract(photographs, store, OPTIONS).kept == 2
    assert content(store) == content(photographs.parent / "features")


# -- the engine --


class Counting:
    """Reads with some threads under a budget, which a job takes as much of as it says."""

    threads = 3

    def __init__(self) -> None:
        self.budget, self.lock = Budget(10), threading.Lock()
        self.held, self.most = 0, 0

    def read(self, job: int) -> int:
        self.budget.take(job)
        with self.lock:
            self.held += job
            self.most = max(self.most, self.held)
        return job

    def compute(self, job: int, read: int) -> int:
        with self.lock:
            self.held -= job
        self.budget.give_back(job)
        return job

    def close(self) -> None:
        self.budget.close()


def test_reading_ahead_holds_no_more_than_the_budget_or_one_job_alone():
    worker, jobs = Counting(), [4, 4, 500, 4, 4, 4, 500, 500, 1]
    assert sorted(pipelined(worker, jobs)) == sorted(jobs)
    assert worker.most == 500


def test_what_one_thread_reads_comes_in_the_order_of_the_jobs():
    worker = Counting()
    worker.threads = 1
    assert list(pipelined(worker, range(1, 200))) == list(range(1, 200))


def test_results_that_are_no_longer_wanted_leave_no_thread_waiting():
    before = threading.active_count()
    results = pipelined(Counting(), [9] * 20)
    next(results)
    results.close()
    assert threading.active_count() == before


def test_an_unknown_engine_is_refused():
    with pytest.raises(InputError, match="engine is 'spark'; choose local or ray"):
        make_engine("spark")
