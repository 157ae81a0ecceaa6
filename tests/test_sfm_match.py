"""Matching of a collection: each pair once, faults end nothing, and a killed run ends with the same bits."""

from __future__ import annotations

import itertools
import signal
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from lightglue.errors import InputError
from lightglue.models.choice import Models
from lightglue.sfm.stages.extract import ExtractOptions, extract
from lightglue.sfm.stages.match import BATCH_CPU, MatchOptions, MatchResult, PairTable, match
from lightglue.stores import FeatureStore, ImageFeatures, MatchStore, Source
from lightglue.workers.local import LocalEngine
from support import NEEDS_SHARED, SHARED
from support.child import run_python

ROOT = Path(__file__).parents[1]
MODELS = Models("sift", 150, "cpu", False, matcher="nearest", thresholds={"ratio_threshold": 0.9})  # no weights
OPTIONS = MatchOptions(MODELS)
NAMES = [f"{i}.png" for i in range(8)]
PAIRS = list(itertools.combinations(NAMES, 2))


@pytest.fixture
def store(tmp_path: Path) -> Path:
    folder = tmp_path / "photographs"
    folder.mkdir()
    image = cv2.imread(str(ROOT / "assets" / "montmartre_close.jpg"))
    for i, name in enumerate(NAMES):
        cv2.imwrite(str(folder / name), image[9 * i : 9 * i + 150, 12 * i : 12 * i + 200])
    extract(folder, tmp_path / "features", ExtractOptions(MODELS, {"resize": None}))
    return tmp_path / "features"


def run(store: Path, pairs: Any = PAIRS, **options: Any) -> MatchResult:
    return match(store, pairs, store.parent / "matches.db", OPTIONS, **options)


def content(path: Path) -> list[Any]:
    return [
        (pair.name0, pair.name1, pair.matches.tolist(), pair.scores.tolist(), pair.overlap, pair.note, pair.digests)
        for pair in MatchStore.open(path).read()
    ]


def test_each_pair_has_the_matches_that_the_matcher_gives(store):
    told = []
    result = run(store, progress=lambda done, total: told.append((done, total)))
    assert (result.pairs, result.matched, result.kept, result.skipped) == (28, 28, 0, ())
    assert told[-1] == (28, 28)
    features = FeatureStore.open(store)
    expected = MODELS.load_matcher().match([(features.get("2.png").torch(), features.get("5.png").torch())])[0]
    found = MatchStore.open(store.parent / "matches.db").get("2.png", "5.png")
    assert found.matches.tolist() == expected["matches"][0].tolist()
    assert len(found.matches) > 10
    assert found.digests == (features.get("2.png").digest, features.get("5.png").digest)


def test_order_and_repetition_of_pairs_change_nothing(store):
    run(store)
    again = [(b, a) for a, b in PAIRS[::-1]] + PAIRS[:5] + [("3.png", "3.png")]
    result = match(store, again, store.parent / "again.db", OPTIONS)
    assert result.pairs == 28
    assert [fault.name for fault in result.skipped] == ["3.png, 3.png"]
    assert content(store.parent / "again.db") == content(store.parent / "matches.db")


def test_only_pairs_of_changed_images_are_done_again(store):
    run(store)
    assert (run(store).matched, run(store).kept) == (0, 28)
    features = FeatureStore.open(store)
    features.put("3.png", features.get("4.png"), Source(1, 1, "0"))
    result = run(store)
    assert (result.matched, result.kept) == (7, 21)
    assert MatchStore.open(store.parent / "matches.db").get("3.png", "0.png").digests[0] == features.get("4.png").digest


def test_absent_and_damaged_images_are_told_and_the_rest_is_done(store):
    place = FeatureStore.open(store)._path("6.png")
    content = bytearray(place.read_bytes())
    content[-3000] ^= 255  # its head is whole
    place.write_bytes(bytes(content))
    result = run(store, [*PAIRS, ("0.png", "absent.png")])
    assert result.matched == 21
    told = {fault.name: fault.reason for fault in result.skipped}
    assert len(told) == 8
    assert "no features of 'absent.png'; extract them first" in told["0.png, absent.png"]
    assert "damaged" in told["0.png, 6.png"]
    assert "6.png" not in FeatureStore.open(store)  # so that it is extracted again


def test_images_without_keypoints_have_no_matches(store):
    none = np.zeros((0, 2), np.float32), np.zeros((0, 128), np.float16), np.zeros(0, np.float32)
    FeatureStore.open(store).put("black.png", ImageFeatures(*none, (80, 60), "sift"), Source(1, 1, "0"))
    result = run(store, [("0.png", "black.png")])
    assert (result.matched, result.matches, result.skipped) == (1, 0, ())


class Shuffled(LocalEngine):
    """Gives results in another order than that of the jobs."""

    def run(self, work: Any, jobs: Any) -> Any:
        return reversed(list(super().run(work, jobs)))


def test_the_order_in_which_batches_are_done_changes_nothing(store):
    run(store)
    match(store, PAIRS, store.parent / "again.db", OPTIONS, engine=Shuffled())
    assert content(store.parent / "again.db") == content(store.parent / "matches.db")


def test_memory_that_is_short_for_a_batch_is_enough_for_its_pairs(store, monkeypatch):
    from lightglue.sfm.stages.match import MatchWorker

    usual = MatchWorker._match_all

    def short(self: MatchWorker, pairs: Any, images: Any) -> Any:
        if len(pairs) > 1 or pairs[0] == ("0.png", "1.png"):
            raise MemoryError
        return usual(self, pairs, images)

    monkeypatch.setattr(MatchWorker, "_match_all", short)
    result = run(store)
    assert result.matched == 27
    assert [(fault.name, "not enough memory" in fault.reason) for fault in result.skipped] == [("0.png, 1.png", True)]


def test_a_small_budget_of_memory_changes_nothing(store):
    run(store)
    match(store, PAIRS, store.parent / "again.db", MatchOptions(MODELS, memory=0))
    assert content(store.parent / "again.db") == content(store.parent / "matches.db")


KILLED = """
import os, signal, sys
import lightglue.sfm.stages.match as stage
from lightglue.stores import MatchStore
stage.SECONDS = 0
usual, count = MatchStore.put, 0
def put(*arguments):
    global count
    count += 1
    if count == 2:
        os.kill(os.getpid(), signal.SIGKILL)
    return usual(*arguments)
MatchStore.put = put
sys.path.insert(0, {tests!r})
from test_sfm_match import {options}, PAIRS
stage.match({store!r}, {pairs}, {out!r}, {options})
"""


def kill_and_go_on(store: Path, options: str, pairs: Any) -> MatchResult:
    out = store.parent / "killed.db"
    place = {"tests": str(ROOT / "tests"), "store": str(store), "out": str(out)}
    code = KILLED.format(options=options, pairs=repr(pairs), **place)
    assert run_python(code, check=False).returncode == -signal.SIGKILL
    return match(store, pairs, out, globals()[options])


def test_a_killed_run_goes_on_and_ends_like_an_undisturbed_one(store):
    run(store)
    result = kill_and_go_on(store, "OPTIONS", PAIRS)
    assert (result.kept, result.matched) == (BATCH_CPU, 28 - BATCH_CPU)  # the first batch was written whole
    assert content(store.parent / "killed.db") == content(store.parent / "matches.db")


LIGHTGLUE = MatchOptions(Models("aliked", 128, "cpu"), min_overlap=0.5)  # in the precision that the machine likes


def test_real_matches_are_the_same_to_the_last_bit_after_a_kill_and_hopeless_pairs_have_none(tmp_path):
    scenes = SHARED / "data" / "strecha1024"
    if not scenes.is_dir():
        pytest.skip(NEEDS_SHARED)
    chosen = [f"{scene}/000{i}.jpg" for scene in ("Herz-Jesus-P8", "fountain-P11") for i in range(4)]
    chosen = [name for name in chosen if (scenes / name).exists()]
    if not (Path.home() / ".cache/torch/hub/checkpoints/aliked_lightglue_v0-1_arxiv.pth").exists():
        pytest.skip("the published weights are not on this machine")
    options = ExtractOptions(LIGHTGLUE.models, {"resize": 320})
    extract(scenes, tmp_path / "features", options, names=chosen)
    pairs = list(itertools.combinations(chosen, 2))
    result = match(tmp_path / "features", pairs, tmp_path / "matches.db", LIGHTGLUE)
    assert result.matched == len(pairs) > 16
    assert 0 < result.without_overlap < len(pairs)
    heads = MatchStore.open(tmp_path / "matches.db").pairs()
    assert all((head.overlap < 0.5) == (head.note == "no overlap") for head in heads)
    assert kill_and_go_on(tmp_path / "features", "LIGHTGLUE", pairs).kept == BATCH_CPU
    assert content(tmp_path / "killed.db") == content(tmp_path / "matches.db")


# -- options and lists --


def test_pairs_are_gone_through_in_squares_of_images():
    names = [f"{i:04}" for i in range(300)]
    table = PairTable.of(itertools.combinations(names, 2))
    assert sorted(table) == list(itertools.combinations(names, 2))
    first = list(table)[: 128 * 127 // 2]
    assert {name for pair in first for name in pair} == set(names[:128])


@pytest.mark.parametrize("pairs", [[("a",)], ["ab"], [("a", 1)], [("a", "")], [None]])
def test_what_is_no_pair_is_refused(pairs):
    with pytest.raises(InputError, match="is no pair; give two names"):
        PairTable.of(pairs)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (lambda: MatchOptions(LIGHTGLUE.models, min_overlap=1.5), "min_overlap is 1.5; give a probability"),
        (lambda: MatchOptions(MODELS, min_overlap=0.5), "sift with nearest gives no probability"),
        (lambda: MatchOptions(LIGHTGLUE.models, memory=-1), "memory is -1"),
        (lambda: MatchOptions(Models("aliked", 100, matcher="guess")), "matcher is 'guess'"),
    ],
)
def test_options_that_make_no_sense_are_refused(options, message):
    with pytest.raises(InputError, match=message):
        options()


def test_features_of_another_kind_are_refused(store):
    with pytest.raises(InputError, match="holds features of sift; match them as such, not as aliked"):
        match(store, PAIRS, store.parent / "matches.db", LIGHTGLUE)
