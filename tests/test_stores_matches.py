"""The store of matches: each pair once, transactions whole or not at all, and nothing wrong is ever read."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from lightglue.errors import InputError, StoreError
from lightglue.stores import FeatureStore, ImageFeatures, MatchStore, PairMatches, Source
from lightglue.stores import matches as module
from lightglue.stores.settings import differences
from support.child import Child
from test_stores_features import NAMES


def pair(name0: str = "a", name1: str = "b", count: int = 5, seed: int = 0, note: str | None = None) -> PairMatches:
    random = np.random.default_rng(seed)
    matches = random.integers(0, 2**31 - 1, (count, 2)).astype(np.int32)
    return PairMatches(name0, name1, matches, random.random(count, dtype=np.float32), 0.25, note, ("d" * 16, "e" * 16))


def content(found: PairMatches | None) -> tuple[object, ...]:
    assert found is not None
    arrays = found.matches.tolist(), found.scores.tolist()
    return (found.name0, found.name1, *arrays, found.overlap, found.note, found.digests)


def everything(path: Path) -> list[tuple[object, ...]]:
    return [content(found) for found in MatchStore.open(path, read_only=True).read()]


@pytest.fixture
def store(tmp_path: Path) -> MatchStore:
    return MatchStore.open(tmp_path / "matches.db", {"matcher": "lightglue", "depth": 0.95})


@pytest.fixture
def tiny(tmp_path: Path) -> Iterator[Path]:
    """A file system of 64 KiB, where it may be mounted."""
    folder = tmp_path / "tiny"
    folder.mkdir()
    try:
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", folder], check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("a file system cannot be mounted here")
    yield folder
    subprocess.run(["umount", "-l", folder], check=True)


def test_a_pair_is_got_in_the_order_asked_for(store: MatchStore) -> None:
    put = pair("b", "a", 40)
    store.put([put])
    assert content(store.get("b", "a")) == content(put)
    turned = store.get("a", "b")
    assert turned is not None
    assert turned.matches.tolist() == put.matches[:, ::-1].tolist()
    assert turned.digests == ("e" * 16, "d" * 16)
    assert turned.matches.dtype == np.int32
    turned.matches[0] = 1  # the arrays are the caller's own
    assert [(head.name0, head.name1, head.num_matches) for head in store.pairs()] == [("a", "b", 40)]
    assert store.get("a", "c") is None
    assert store.get("a", "a") is None


def test_any_names_make_pairs_sorted_as_python_sorts(store: MatchStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_NEXT", module._NEXT.replace("LIMIT 1000", "LIMIT 7"))
    names = [*NAMES, "\ue000.jpg", "\ud7ff.jpg"]  # around the surrogates, and beyond 16 bits
    pairs = [(name0, name1) for place, name0 in enumerate(names) for name1 in names[:place]]
    store.put(pair(*both, seed=seed) for seed, both in enumerate(pairs))
    order = sorted((min(both), max(both)) for both in pairs)
    assert [(head.name0, head.name1) for head in store.iter_pairs()] == order
    assert [(found.name0, found.name1) for found in store.read()] == order
    for seed, both in enumerate(pairs):
        assert content(store.get(*both)) == content(pair(*both, seed=seed))


def test_no_matches_and_a_note_are_kept(store: MatchStore) -> None:
    put = pair(count=0, note="no overlap, said of \udcff and é")
    store.put([put])
    assert content(store.get("a", "b")) == content(put)
    assert store.pairs()[0].note == put.note


def test_a_pair_put_again_takes_the_place_of_the_first(store: MatchStore) -> None:
    store.put([pair("a", "b", seed=1)])
    store.put([pair("b", "a", seed=2)])
    assert content(store.get("b", "a")) == content(pair("b", "a", seed=2))
    assert len(store.pairs()) == 1


def test_removed_images_take_all_their_pairs_along(store: MatchStore) -> None:
    store.put([pair("a", "b"), pair("b", "c"), pair("a", "c")])
    store.remove_images(["b", "unknown"])
    assert [(head.name0, head.name1) for head in store.pairs()] == [("a", "c")]


def test_those_that_are_asked_for_come_in_their_order(store: MatchStore) -> None:
    store.put([pair("a", "b"), pair("b", "c"), pair("a", "c")])
    asked = [("c", "b"), ("x", "y"), ("a", "b")]
    assert [(found.name0, found.name1) for found in store.read(asked)] == [("c", "b"), ("a", "b")]


@pytest.mark.parametrize(
    ("matches", "scores", "overlap", "told"),
    [
        (np.zeros((2, 3), np.int32), np.zeros(2, np.float32), None, r"\(K, 2\)"),
        (np.zeros((2, 2), np.int32), np.zeros(3, np.float32), None, r"\(K,\)"),
        (np.zeros((2, 2), np.float32), np.zeros(2, np.float32), None, "int32"),
        (np.full((1, 2), -1), np.zeros(1, np.float32), None, "indices"),
        (np.full((1, 2), 2**31), np.zeros(1, np.float32), None, "indices"),
        (np.zeros((0, 2), np.int32), np.zeros(0, np.float32), float("nan"), "probability"),
    ],
)
def test_what_would_be_stored_as_something_else_is_refused(
    matches: np.ndarray, scores: np.ndarray, overlap: float | None, told: str
) -> None:
    with pytest.raises(InputError, match=told):
        PairMatches("a", "b", matches, scores, overlap)


def test_an_image_is_not_paired_with_itself() -> None:
    with pytest.raises(InputError, match="paired with itself"):
        pair("a", "a")


def test_other_settings_are_refused_by_name(store: MatchStore) -> None:
    assert MatchStore.open(store.path).settings == store.settings
    with pytest.raises(InputError, match=r"depth is 0\.95 there and -1 here"):
        MatchStore.open(store.path, {"matcher": "lightglue", "depth": -1})


def test_what_a_record_does_not_say_is_told_as_what_it_means() -> None:
    hard = {"effort": "hard", "max_seconds": 30.0, "backend": "onnx"}
    assert sorted(differences({}, hard)) == [
        "backend is 'torch' there and 'onnx' here",
        "effort is 'normal' there and 'hard' here",
    ]
    assert differences({"models": {"effort": "fast"}}, {"models": {}}) == [
        "models.effort is 'fast' there and 'normal' here"
    ]
    assert differences(hard, {**hard, "max_seconds": None}) == ["max_seconds is 30.0 there and None here"]
    assert not differences({"effort": "normal"}, {})


def test_a_store_that_is_not_there_is_made_only_to_be_written(tmp_path: Path) -> None:
    for settings, read_only in ((None, False), ({}, True)):
        with pytest.raises(InputError, match="match the images first"):
            MatchStore.open(tmp_path / "none.db", settings, read_only)
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="file"):
        MatchStore.open(tmp_path / "file" / "matches.db", {})
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_a_store_for_reading_is_not_written(store: MatchStore) -> None:
    reader = MatchStore.open(store.path, read_only=True)
    for write in (lambda: reader.put([pair()]), lambda: reader.remove_images(["a"])):
        with pytest.raises(StoreError, match="for reading only"):
            write()


def test_what_is_no_store_is_an_error_that_names_it(tmp_path: Path) -> None:
    path = tmp_path / "other.db"
    for made in (b"", b"no database" * 100):
        path.write_bytes(made)
        with pytest.raises(StoreError, match=r"other\.db"):
            MatchStore.open(path, {})
    path.unlink()
    connection = sqlite3.connect(path)
    connection.executescript("CREATE TABLE images(x); CREATE TABLE about(key, value); CREATE TABLE pairs(y);")
    connection.execute("INSERT INTO about VALUES('format', NULL)")
    connection.commit()
    connection.close()
    before = path.read_bytes()
    with pytest.raises(StoreError, match="no store of matches"):
        MatchStore.open(path, {})
    assert path.read_bytes() == before
    with pytest.raises(StoreError):
        MatchStore.open(tmp_path, {})


def test_flipped_bits_and_truncation_never_give_wrong_matches(store: MatchStore) -> None:
    store.put(pair(f"{number}", f"{number + 1}", 150, number) for number in range(9))
    whole = {(row[0], row[1]): row for row in everything(store.path)}
    made = store.path.read_bytes()
    random = np.random.default_rng(0)
    changed = [
        bytes([*made[:at], made[at] ^ 1 << at % 8, *made[at + 1 :]]) for at in random.integers(0, len(made), 250)
    ]
    told = []
    for damaged in [*changed, *(made[:length] for length in (1, 100, 4096, len(made) // 2, len(made) - 1))]:
        store.path.write_bytes(damaged)
        try:
            for found in MatchStore.open(store.path).read():
                assert content(found) == whole[found.name0, found.name1]
        except StoreError as error:
            told.append(str(error))
    assert len(told) > 60  # the rest are in room that is not used
    assert all(str(store.path) in error for error in told)


def test_another_process_that_writes_is_waited_for_and_then_told(
    store: MatchStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lightglue.support.sqlite._PATIENCE_S", 0.05)
    other = sqlite3.connect(store.path)
    other.execute("BEGIN EXCLUSIVE")
    with pytest.raises(StoreError, match="another process writes to it"):
        store.put([pair()])
    other.rollback()
    other.close()
    store.put([pair()])
    assert len(store.pairs()) == 1


def test_a_reader_in_the_middle_does_not_keep_a_writer_waiting(
    store: MatchStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lightglue.support.sqlite._PATIENCE_S", 0.05)
    names = [(f"{number:02}", "z") for number in range(20)]
    store.put(pair(*both) for both in names)
    for reader in (store.read(), store.read(names)):
        next(reader)
        store.put([pair("y", "z")])
        assert len(list(reader)) >= 19


def test_a_full_disk_is_told_and_keeps_what_was_there(tiny: Path) -> None:
    store = MatchStore.open(tiny / "matches.db", {})
    store.put([pair()])
    with pytest.raises(StoreError, match="make room"):
        store.put([pair("c", "d", 20_000)])
    assert everything(store.path) == [content(pair())]
    (tiny / "filler").write_bytes(bytes(max(os.statvfs(tiny).f_bavail * os.statvfs(tiny).f_bsize, 0)))
    with pytest.raises(StoreError, match=r"second\.db cannot be") as caught:
        MatchStore.open(tiny / "second.db", {})
    assert ".part" not in str(caught.value)
    assert sorted(path.name for path in tiny.iterdir()) == ["filler", "matches.db"]


def test_a_read_only_folder_is_read_and_not_written(tiny: Path) -> None:
    MatchStore.open(tiny / "matches.db", {}).put([pair()])
    subprocess.run(["mount", "-o", "remount,ro", tiny], check=True)
    assert everything(tiny / "matches.db") == [content(pair())]
    with pytest.raises(StoreError, match="may be written to"):
        MatchStore.open(tiny / "matches.db", {}).put([pair("c", "d")])
    with pytest.raises(StoreError, match="cannot be written"):
        MatchStore.open(tiny / "second.db", {})


def test_the_journal_of_a_removed_store_does_not_spoil_the_next(tmp_path: Path) -> None:
    path = tmp_path / "matches.db"
    path.with_name("matches.db-journal").write_bytes(b"\xd9\xd5\x05\xf9\x20\xa1\x63\xd7" + bytes(1000))
    MatchStore.open(path, {}).put([pair()])
    assert everything(path) == [content(pair())]


WRITER = """
import sys
sys.path.insert(0, {tests!r})
from test_stores_matches import pair
from lightglue.stores import MatchStore
store = MatchStore.open({path!r}, {{}})
print("open", flush=True)
done = {{(head.name0, head.name1) for head in store.iter_pairs()}}
todo = [(f"{{number:03}}", f"{{number + 1:03}}") for number in range(400)]
todo = [both for both in todo if both not in done]
for place in range(0, len(todo), 10):
    store.put(pair(*both, 300, int(both[0])) for both in todo[place:place + 10])
"""


def _writer(path: Path) -> Child:
    child = Child(WRITER.format(tests=str(Path(__file__).parent), path=str(path)))
    child.wait_for("open\n")
    return child


def test_kills_and_restarts_leave_what_an_undisturbed_run_leaves(tmp_path: Path) -> None:
    path = tmp_path / "matches.db"
    for pause in (0.01, 0.03, 0.06):
        with _writer(path) as process:
            time.sleep(pause)
            process.kill()
        assert len(everything(path)) % 10 == 0  # whole transactions; a reader that comes first may take one back
    with _writer(path) as process:
        assert process.wait(60) == 0
    wanted = [content(pair(f"{number:03}", f"{number + 1:03}", 300, number)) for number in range(400)]
    assert everything(path) == wanted
    assert [place.name for place in tmp_path.iterdir()] == ["matches.db"]


# --- damage -------------------------------------------------------------------------------------------------------


def with_features(folder: Path, count: int) -> None:
    features = FeatureStore.open(folder / "features", {})
    zeros = np.zeros((count, 2), np.float32)
    for name in ("a", "b"):
        image = ImageFeatures(zeros, zeros, zeros[:, 0], (64, 64), "made")
        features.put(name, image, Source(1, 1, "0"))


def test_indices_beyond_the_keypoints_or_below_zero_are_refused(store: MatchStore) -> None:
    with_features(store.path.parent, 10)
    scores = np.ones(1, np.float32)
    store.put([PairMatches("a", "b", np.array([[9, 9]], np.int32), scores)])
    with pytest.raises(InputError, match=r"keypoint 10 of 'b', which has 10; give indices"):
        store.put([PairMatches("a", "b", np.array([[9, 10]], np.int32), scores)])
    with pytest.raises(InputError, match=r"keypoint 2147483647 of 'a'"):
        store.put([PairMatches("b", "a", np.array([[0, 2**31 - 1]], np.int64), scores)])
    with pytest.raises(InputError, match="give indices of keypoints"):
        store.put([PairMatches("a", "b", np.array([[-1, 0]], np.int32), scores)])
    assert store.get("a", "b") is not None


def test_matches_of_keypoints_that_there_are_not_are_told_and_taken_out(store: MatchStore) -> None:
    store.put([PairMatches("a", "b", np.array([[50, 0]], np.int32), np.ones(1, np.float32)), pair("c", "d", 5, 0)])
    with_features(store.path.parent, 10)
    with pytest.raises(StoreError, match="damaged at the pair 'a', 'b'"):
        store.get("a", "b")
    assert store.mend() == 1
    assert [(head.name0, head.name1) for head in store.pairs()] == [("c", "d")]


def test_what_is_mended_is_what_was_there_without_what_was_damaged(store: MatchStore) -> None:
    store.put(pair(f"{number}", f"{number + 1}", 150, number) for number in range(9))
    whole = {(found.name0, found.name1): content(found) for found in store.read()}
    made = store.path.read_bytes()
    random = np.random.default_rng(1)
    mended = refused = 0
    for at in [*random.integers(0, 200, 40).tolist(), *random.integers(0, len(made), 150).tolist()]:
        store.path.write_bytes(bytes([*made[:at], made[at] ^ 1 << at % 8, *made[at + 1 :]]))
        try:
            again = MatchStore.open(store.path)
        except StoreError:  # not even what made it is known
            refused += 1
            continue
        lost = again.mend()
        found = {(each.name0, each.name1): content(each) for each in again.read()}
        assert all(found[key] == whole[key] for key in found)
        assert lost or len(found) == 9
        again.put([pair("0", "1", 150, 0)])
        assert [(head.name0, head.name1) for head in again.pairs()] == sorted({*found, ("0", "1")})
        mended += bool(lost)
    assert mended > 30
    assert refused < 60
