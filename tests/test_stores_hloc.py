"""Features and matches go to hloc's files and come from them, exactly, or it is said what could not."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import h5py
import numpy as np
import pytest

from lightglue.errors import InputError, StoreError
from lightglue.stores import FeatureStore, ImageFeatures, MatchStore, PairMatches, Source
from lightglue.stores import hloc as module
from lightglue.stores.hloc import (
    UNKNOWN,
    read_features,
    read_matches,
    write_features,
    write_matches,
)
from test_stores_features import SOURCE, features

NAMES = ["db/with space/é.jpg", "db/with-dash.jpg", "query.jpg"]


@pytest.fixture
def store(tmp_path: Path) -> FeatureStore:
    store = FeatureStore.open(tmp_path / "features", {})
    for seed, name in enumerate(NAMES):
        store.put(name, features(40 + seed, seed=seed, sift=seed == 2), SOURCE)
    return store


@pytest.fixture
def matches(tmp_path: Path, store: FeatureStore) -> MatchStore:
    found = MatchStore.open(tmp_path / "matches.db", {})
    digests = [store.get(name).digest for name in NAMES]
    some = np.array([[0, 5], [3, 1], [39, 40]], np.int32)
    scores = np.array([0.5, 0.123456, 1], np.float32)
    found.put(
        [
            PairMatches(NAMES[0], NAMES[1], some, scores, 0.9, None, (digests[0], digests[1])),
            PairMatches(NAMES[1], NAMES[2], some[:0], scores[:0], None, None, (digests[1], digests[2])),
        ]
    )
    return found


def new(tmp_path: Path) -> tuple[FeatureStore, MatchStore]:
    return FeatureStore.open(tmp_path / "new", {}), MatchStore.open(tmp_path / "new.db", {})


def as_hloc(path: Path, name: str, count: int = 40, seed: int = 0, half: bool = True) -> dict[str, np.ndarray]:
    """Features as hloc writes them."""
    random, kind = np.random.default_rng(seed), np.float16 if half else np.float32
    arrays = {
        "keypoints": (random.random((count, 2)) * 500).astype(kind),
        "descriptors": random.random((8, count)).astype(kind),
        "scores": random.random(count).astype(kind),
        "image_size": np.array([640, 480]),
    }
    with h5py.File(path, "a", libver="latest") as file:
        group = file.create_group(name)
        for key, array in arrays.items():
            group.create_dataset(key, data=array)
        group["keypoints"].attrs["uncertainty"] = 2.0
    return arrays


def matches_as_hloc(path: Path, key: str, matches0: np.ndarray, scores: bool = True) -> None:
    with h5py.File(path, "a", libver="latest") as file:
        group = file.create_group(key)
        group.create_dataset("matches0", data=matches0)
        if scores:
            group.create_dataset("matching_scores0", data=np.full(len(matches0), 0.5, np.float16))


def test_features_come_back_bit_for_bit(tmp_path: Path, store: FeatureStore) -> None:
    done = write_features(store, tmp_path / "features.h5")
    assert (done.count, done.skipped) == (3, ())
    assert "digest" in done.notes[0]
    back, _ = new(tmp_path)
    assert read_features(tmp_path / "features.h5", back, "aliked").count == 3
    assert back.names() == store.names()
    for name in NAMES:
        assert back.get(name).digest == store.get(name).digest


def test_the_file_is_laid_out_as_hloc_reads_it(tmp_path: Path, store: FeatureStore, matches: MatchStore) -> None:
    write_features(store, tmp_path / "features.h5")
    write_matches(matches, store, tmp_path / "matches.h5")
    with h5py.File(tmp_path / "features.h5") as file:
        group = file["db"]["with space"]["é.jpg"]
        assert (group["keypoints"].shape, group["keypoints"].dtype) == ((40, 2), np.float32)
        assert group["descriptors"].shape == (8, 40)
        assert group["image_size"][()].tolist() == [640, 480]
        np.testing.assert_array_equal(group["keypoints"], store.get(NAMES[0]).keypoints)  # no shift: one convention
    with h5py.File(tmp_path / "matches.h5") as file:
        group = file["db-with space-é.jpg/db-with-dash.jpg"]
        matches0 = group["matches0"][()]
        assert matches0.dtype == np.int32
        assert np.flatnonzero(matches0 != -1).tolist() == [0, 3, 39]
        assert matches0[[0, 3, 39]].tolist() == [5, 1, 40]
        assert group["matching_scores0"][3] == np.float32(0.123456)


def test_matches_come_back_exactly(tmp_path: Path, store: FeatureStore, matches: MatchStore) -> None:
    done = write_matches(matches, store, tmp_path / "matches.h5")
    assert (done.count, done.skipped) == (2, ())
    assert done.notes == ("1 pairs have an estimated overlap, which hloc's file cannot hold",)
    _, back = new(tmp_path)
    assert read_matches(tmp_path / "matches.h5", store, back).count == 2
    for one, other in zip(matches.read(), back.read(), strict=True):
        np.testing.assert_array_equal(one.matches, other.matches)
        np.testing.assert_array_equal(one.scores, other.scores)
        assert (one.name0, one.name1, one.digests) == (other.name0, other.name1, other.digests)


def test_hlocs_own_narrow_types_are_read_and_told(tmp_path: Path) -> None:
    path = tmp_path / "features.h5"
    arrays = as_hloc(path, "a/b.jpg")
    back, _ = new(tmp_path)
    done = read_features(path, back, "superpoint")
    got = back.get("a/b.jpg")
    np.testing.assert_array_equal(got.keypoints, arrays["keypoints"].astype(np.float32))
    np.testing.assert_array_equal(got.descriptors, arrays["descriptors"].T)
    assert (got.keypoints.dtype, got.descriptors.dtype, got.image_size) == (np.float32, np.float16, (640, 480))
    told = " ".join(done.notes)
    assert all(word in told for word in ("float16", "uncertainty", "image file"))
    head = back.head("a/b.jpg")
    assert head is not None
    assert head.source == UNKNOWN


def test_the_images_folder_tells_what_features_are_of(tmp_path: Path) -> None:
    as_hloc(tmp_path / "features.h5", "a.jpg")
    (tmp_path / "a.jpg").write_bytes(b"pixels")
    back, _ = new(tmp_path)
    read_features(tmp_path / "features.h5", back, "superpoint", tmp_path)
    head = back.head("a.jpg")
    assert head is not None
    assert head.source == Source.of(tmp_path / "a.jpg")


def test_what_is_no_features_is_skipped_with_a_reason(tmp_path: Path) -> None:
    path = tmp_path / "features.h5"
    as_hloc(path, "good.jpg")
    as_hloc(path, "turned.jpg")
    with h5py.File(path, "a") as file:
        file["turned.jpg"].move("descriptors", "was")
        file["turned.jpg/descriptors"] = np.zeros((40, 8), np.float32)
        file["global.jpg/global_descriptor"] = np.zeros(4)
        file["text.jpg/keypoints"] = "words"
        file["text.jpg/image_size"] = [1, 1]
    back, _ = new(tmp_path)
    done = read_features(path, back, "superpoint")
    assert done.count == 1
    reasons = dict(done.skipped)
    assert reasons.keys() == {"turned.jpg", "global.jpg", "text.jpg"}
    assert "global_descriptor" in reasons["global.jpg"]


@pytest.mark.parametrize("key", ["q.jpg/db-1_x.jpg", "db-1_x.jpg/q.jpg", "q.jpg_db-1_x.jpg"])
def test_old_and_new_names_of_pairs_are_read_either_way(tmp_path: Path, key: str) -> None:
    features_store, back = new(tmp_path)
    for name in ("db/1_x.jpg", "q.jpg"):
        features_store.put(name, features(40), SOURCE)
    matches0 = np.full(40, -1, np.int16)
    matches0[7] = 39
    matches_as_hloc(tmp_path / "m.h5", key, matches0)
    assert read_matches(tmp_path / "m.h5", features_store, back).count == 1
    found = back.get("db/1_x.jpg", "q.jpg")
    assert found is not None
    assert found.matches.tolist() == ([[7, 39]] if key.startswith("db") else [[39, 7]])
    assert found.scores.tolist() == [0.5]


def test_images_that_hloc_takes_for_one_are_refused_both_ways(tmp_path: Path) -> None:
    features_store, back = new(tmp_path)
    for name in ("a/b.jpg", "a-b.jpg", "c.jpg"):
        features_store.put(name, features(4), SOURCE)
    matches_as_hloc(tmp_path / "m.h5", "a-b.jpg/c.jpg", np.full(4, -1, np.int16))
    with pytest.raises(InputError, match=r"a-b\.jpg.*a/b\.jpg|a/b\.jpg.*a-b\.jpg"):
        read_matches(tmp_path / "m.h5", features_store, back)
    assert back.pairs() == []
    none = np.zeros((0, 2), np.int32), np.zeros(0, np.float32)
    back.put([PairMatches("a/b.jpg", "c.jpg", *none), PairMatches("a-b.jpg", "c.jpg", *none)])
    with pytest.raises(InputError, match=r"'a-b\.jpg' and 'a/b\.jpg'"):
        write_matches(back, features_store, tmp_path / "out.h5")
    assert not (tmp_path / "out.h5").exists()


def test_an_image_that_is_a_folder_too_is_refused(tmp_path: Path) -> None:
    store, _ = new(tmp_path)
    for name in ("a", "a/keypoints"):
        store.put(name, features(4), SOURCE)
    with pytest.raises(InputError, match="'a' is the folder of 'a/keypoints' too"):
        write_features(store, tmp_path / "out.h5")


def test_names_that_hdf5_cannot_hold_are_skipped(tmp_path: Path) -> None:
    store, _ = new(tmp_path)
    bad = ["not-utf8-\udcff.jpg", "a//b.jpg", "./c.jpg", "", "n\0ul"]
    for name in [*bad, "../up.jpg", "new\nline"]:
        store.put(name, features(4), SOURCE)
    done = write_features(store, tmp_path / "out.h5")
    assert done.count == 2
    assert sorted(name for name, _ in done.skipped) == sorted(bad)


def test_damaged_or_foreign_pairs_are_skipped_with_a_reason(tmp_path: Path) -> None:
    features_store, back = new(tmp_path)
    for name, count in (("a", 40), ("b", 40), ("many", 32_800)):
        features_store.put(name, features(count, 2), SOURCE)
    path = tmp_path / "m.h5"
    matches_as_hloc(path, "a/b", np.full(40, 1, np.int16), scores=False)
    matches_as_hloc(path, "b/a", np.full(40, 1, np.int16))
    matches_as_hloc(path, "a/many", np.full(40, -1, np.int16))
    matches_as_hloc(path, "b/many", np.full(39, -1, np.int32))
    matches_as_hloc(path, "many/b", np.full(32_800, 40, np.int32))
    matches_as_hloc(path, "a/stranger", np.full(40, -1, np.int16))
    done = read_matches(path, features_store, back)
    assert done.count == 1
    reasons = dict(done.skipped)
    assert "int16 cannot hold" in reasons["a/many"]
    assert "no features" in reasons["a/stranger"]
    assert "there as 'a/b' too" in reasons["b/a"]
    assert reasons.keys() == {"a/many", "b/many", "many/b", "a/stranger", "b/a"}
    assert any("no scores" in note for note in done.notes)


def test_indices_beyond_int16_come_back(tmp_path: Path) -> None:
    features_store, back = new(tmp_path)
    for name in ("a", "b"):
        features_store.put(name, features(40_000, 1), SOURCE)
    back.put([PairMatches("a", "b", np.array([[39_999, 39_998]]), np.ones(1, np.float32))])
    write_matches(back, features_store, tmp_path / "m.h5")
    other = MatchStore.open(tmp_path / "other.db", {})
    read_matches(tmp_path / "m.h5", features_store, other)
    found = other.get("a", "b")
    assert found is not None
    assert found.matches.tolist() == [[39_999, 39_998]]


def test_pairs_that_hlocs_arrays_cannot_hold_are_skipped(tmp_path: Path, store: FeatureStore) -> None:
    _, back = new(tmp_path)
    scores = np.ones(2, np.float32)
    back.put(
        [
            PairMatches(NAMES[0], NAMES[1], np.array([[1, 2], [1, 3]]), scores),
            PairMatches(NAMES[0], NAMES[2], np.array([[1, 2], [2, 99]]), scores),
            PairMatches(NAMES[1], NAMES[2], np.array([[1, 2], [2, 3]]), scores, digests=("old", "older")),
            PairMatches(NAMES[1], "unknown", np.array([[1, 2], [2, 3]]), scores),
        ]
    )
    done = write_matches(back, store, tmp_path / "m.h5")
    assert done.count == 0
    told = " ".join(reason for _, reason in done.skipped)
    assert all(word in told for word in ("two matches", "keypoint that there is not", "other features", "no features"))


def test_a_file_that_is_damaged_or_missing_is_told(tmp_path: Path, store: FeatureStore) -> None:
    back, pairs = new(tmp_path)
    with pytest.raises(InputError, match="no file"):
        read_features(tmp_path / "none.h5", back, "aliked")
    path = tmp_path / "features.h5"
    write_features(store, path)
    made = path.read_bytes()
    for damaged in (b"", b"no HDF5", made[: len(made) // 2]):
        path.write_bytes(damaged)
        for read in (lambda: read_features(path, back, "aliked"), lambda: read_matches(path, back, pairs)):
            with pytest.raises(StoreError, match=r"features\.h5 cannot be read"):
                read()


def test_an_export_that_fails_leaves_the_file_that_was_there(
    tmp_path: Path, store: FeatureStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "features.h5"
    path.write_bytes(b"before")

    def fail(self: FeatureStore, name: str) -> ImageFeatures:
        raise KeyboardInterrupt

    monkeypatch.setattr(FeatureStore, "get", fail)
    with pytest.raises(KeyboardInterrupt):
        write_features(store, path)
    assert path.read_bytes() == b"before"
    assert not list(tmp_path.glob(".*.part"))


def test_a_disk_that_fills_is_told_before_h5py_loses_arrays(
    tmp_path: Path, store: FeatureStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    free = iter([10**9, 10**7])
    monkeypatch.setattr(module.shutil, "disk_usage", lambda folder: SimpleNamespace(free=next(free)))
    with pytest.raises(StoreError, match=r"features\.h5 cannot be written \(No space left.*make room"):
        write_features(store, tmp_path / "features.h5")
    assert not list(tmp_path.glob("*.h5"))
    assert not list(tmp_path.glob(".*.part"))


def test_the_stores_do_without_h5py() -> None:
    code = "import sys, lightglue.stores; sys.exit('h5py' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
