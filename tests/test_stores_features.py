"""The store of features: any name, whole files or none, and nothing wrong is ever read."""

from __future__ import annotations

import errno
import os
import sys
import time
import zipfile
from pathlib import Path
from unittest import mock

import numpy as np
import pytest

from lightglue.errors import InputError, StoreError
from lightglue.stores import FeatureStore, ImageFeatures, Source
from support.child import Child

SOURCE = Source(10, 20, "ab")
NAMES = [
    "plain.jpg",
    "CAPS.jpg",
    "caps.jpg",
    "a/b.jpg",
    "a-b.jpg",
    "c/b.jpg",
    "with space\tand tab.jpg",
    "new\nline.jpg",
    "é.jpg",
    "e\u0301.jpg",
    "not-utf8-\udcff.jpg",
    "../up.jpg",
    "..",
    "",
    "x" * 5000,
    "\U0001f600.jpg",
]


def features(count: int = 40, length: int = 8, seed: int = 0, sift: bool = False) -> ImageFeatures:
    random = np.random.default_rng(seed)
    more = {name: random.random(count, dtype=np.float32) for name in ("scales", "oris")} if sift else {}
    return ImageFeatures(
        random.random((count, 2), dtype=np.float32) * 500,
        random.random((count, length)).astype(np.float16),
        random.random(count, dtype=np.float32),
        (640, 480),
        "aliked",
        **more,
    )


@pytest.fixture
def store(tmp_path: Path) -> FeatureStore:
    return FeatureStore.open(tmp_path / "features", {"extractor": {"name": "aliked", "count": 40}})


def test_any_name_has_its_own_features(store: FeatureStore) -> None:
    for seed, name in enumerate(NAMES):
        store.put(name, features(seed=seed), SOURCE)
    assert store.names() == sorted(NAMES)
    for seed, name in enumerate(NAMES):
        assert store.get(name).digest == features(seed=seed).digest
        assert name in store


@pytest.mark.parametrize(("count", "length", "sift"), [(0, 8, False), (0, 0, True), (5, 0, False), (7, 3, True)])
def test_what_was_put_is_got_bit_for_bit(store: FeatureStore, count: int, length: int, sift: bool) -> None:
    put = features(count, length, sift=sift)
    head = store.put("a", put, SOURCE)
    got = store.get("a")
    assert got.descriptors.dtype == np.float16
    assert got.descriptors.shape == (count, length)
    assert (got.scales is not None) is sift
    for name, array in put._arrays().items():
        np.testing.assert_array_equal(getattr(got, name), array)
    assert store.head("a") == head
    assert (head.num_keypoints, head.image_size, head.source) == (count, (640, 480), SOURCE)


def test_the_digest_is_of_the_content_whatever_kind_of_number_the_size_is() -> None:
    one = features()
    same = ImageFeatures(one.keypoints, one.descriptors, one.scores, tuple(np.array([640, 480])), "aliked")  # type: ignore[arg-type]
    assert same.digest == one.digest
    assert features(seed=1).digest != one.digest


def test_a_flipped_bit_anywhere_is_an_error_or_changes_nothing(store: FeatureStore) -> None:
    put = features(12, 5, sift=True)
    head = store.put("a", put, SOURCE)
    (place,) = store.folder.glob("??/*.npz")
    content = place.read_bytes()
    told = []
    for position in range(len(content)):
        damaged = bytearray(content)
        damaged[position] ^= 1 << position % 8
        place.write_bytes(damaged)
        assert store.head("a") in (None, head)
        try:
            assert store.get("a").digest == put.digest
        except StoreError as error:
            told.append(str(error))
    assert len(told) > 0.6 * len(content)  # the rest are dates, padding and the like
    assert all(str(place) in error and "extract the image again" in error for error in told)


def test_a_truncated_file_is_an_error(store: FeatureStore) -> None:
    store.put("a", features(), SOURCE)
    (place,) = store.folder.glob("??/*.npz")
    content = place.read_bytes()
    for length in (0, 1, 100, len(content) // 2, len(content) - 1):
        place.write_bytes(content[:length])
        assert store.head("a") is None
        with pytest.raises(StoreError, match=r"is damaged"):
            store.get("a")
    np.save(place.with_suffix(""), np.zeros(3))
    place.with_suffix(".npy").replace(place)
    assert store.head("a") is None


def test_a_head_is_read_once_a_version_of_the_file_and_again_after_a_failure(
    store: FeatureStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = store.put("a", features(seed=1), SOURCE)
    opened, original = [], zipfile.ZipFile

    def open_file(path: Path) -> zipfile.ZipFile:
        opened.append(path)
        if len(opened) == 1:
            raise OSError(errno.EMFILE, "Too many open files")
        return original(path)

    monkeypatch.setattr("lightglue.stores.features.zipfile", mock.Mock(ZipFile=open_file))
    assert [store.head("a") for _ in range(3)] == [None, first, first]
    assert len(opened) == 2
    second = store.put("a", features(seed=2), SOURCE)
    assert store.head("a") == second != first


def test_files_that_changed_places_are_noticed(store: FeatureStore) -> None:
    for name in ("a", "b"):
        store.put(name, features(), SOURCE)
    store._path("b").write_bytes(store._path("a").read_bytes())
    assert store.head("b") is None
    assert store.names() == ["a"]
    with pytest.raises(StoreError, match="it is of the image 'a'"):
        store.get("b")


def test_absent_and_removed_features_are_said_to_be_absent(store: FeatureStore) -> None:
    store.put("a", features(), SOURCE)
    store.remove("a")
    store.remove("a")
    assert store.head("a") is None
    with pytest.raises(InputError, match="no features of 'a'"):
        store.get("a")


def test_other_settings_are_refused_by_name(store: FeatureStore) -> None:
    FeatureStore.open(store.folder, store.settings)
    assert FeatureStore.open(store.folder).settings == store.settings
    with pytest.raises(InputError, match=r"extractor\.count is 40 there and 50 here"):
        FeatureStore.open(store.folder, {"extractor": {"name": "aliked", "count": 50}})


@pytest.mark.parametrize("content", ["", "[]", "{", '{"format": 1, "kind": "features"}', '{"format": 9}'])
def test_a_damaged_settings_file_is_an_error(store: FeatureStore, content: str) -> None:
    (store.folder / "store.json").write_text(content)
    with pytest.raises(StoreError, match=r"store\.json"):
        FeatureStore.open(store.folder)


def test_a_store_that_is_not_there_is_made_only_to_be_written(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="extract them first"):
        FeatureStore.open(tmp_path / "none")
    with pytest.raises(InputError, match="extract them first"):
        FeatureStore.open(tmp_path / "none", {}, read_only=True)
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="file"):
        FeatureStore.open(tmp_path / "file", {})


def test_a_store_for_reading_is_not_written(store: FeatureStore) -> None:
    reader = FeatureStore.open(store.folder, read_only=True)
    with pytest.raises(StoreError, match="for reading only"):
        reader.put("a", features(), SOURCE)
    with pytest.raises(StoreError, match="for reading only"):
        reader.remove("a")


def test_an_error_in_writing_is_told_once_and_leaves_nothing(store: FeatureStore) -> None:
    place = store._path("a")
    place.parent.write_text("a file where a folder should be")
    with pytest.raises(StoreError) as caught:
        store.put("a", features(), SOURCE)
    assert str(caught.value).count("cannot be written") == 1
    assert not list(store.folder.glob(".*.part"))


def test_what_a_killed_process_left_is_removed_once_it_is_old(store: FeatureStore) -> None:
    old, young, other = (store.folder / name for name in (f".{'0' * 16}.part", f".{'1' * 16}.part", ".mine.part"))
    for path in (old, young, other):
        path.write_bytes(b"half")
    for path in (old, other):
        os.utime(path, (time.time() - 7200,) * 2)
    FeatureStore.open(store.folder, read_only=True)
    assert old.exists()
    FeatureStore.open(store.folder)
    assert [path.exists() for path in (old, young, other)] == [False, True, True]
    assert store.names() == []


WRITER = """
import sys
sys.path.insert(0, {tests!r})
from test_stores_features import SOURCE, features
from lightglue.stores import FeatureStore
store = FeatureStore.open({folder!r}, {{}})
print("open", flush=True)
for number in range(300):
    name = f"{{number:03}}.jpg"
    if name not in store:
        store.put(name, features(400, 64, number), SOURCE)
"""


def _writer(folder: Path) -> Child:
    child = Child(WRITER.format(tests=str(Path(__file__).parent), folder=str(folder)))
    child.wait_for("open\n")
    return child


def test_two_writers_and_kills_leave_what_an_undisturbed_run_leaves(tmp_path: Path) -> None:
    for pause in (0.01, 0.05):
        with _writer(tmp_path) as process:
            time.sleep(pause)
            process.kill()
        store = FeatureStore.open(tmp_path)
        assert all(store.get(name).digest for name in store.names())
    with _writer(tmp_path) as one, _writer(tmp_path) as other:
        assert (one.wait(60), other.wait(60)) == (0, 0)
    heads = {head.name: head.digest for head in FeatureStore.open(tmp_path).heads()}
    assert heads == {f"{number:03}.jpg": features(400, 64, number).digest for number in range(300)}


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"keypoints": np.zeros((3, 3), np.float32)}, "keypoints"),
        ({"keypoints": np.full((3, 2), np.nan, np.float32)}, "NaN"),
        ({"descriptors": np.zeros(3, np.float32)}, "descriptors"),
        ({"descriptors": np.zeros((3, 4), np.float64)}, "float16 or float32"),
        ({"scores": np.zeros((), np.float32)}, "scores"),
        ({"oris": np.zeros(2, np.float32)}, "oris"),
        ({"image_size": (0, 4)}, "image_size"),
    ],
)
def test_arrays_that_do_not_go_together_are_refused(change: dict[str, object], told: str) -> None:
    good: dict[str, object] = {
        "keypoints": np.zeros((3, 2), np.float32),
        "descriptors": np.zeros((3, 4), np.float32),
        "scores": np.zeros(3, np.float32),
        "image_size": (4, 4),
        "feature_type": "aliked",
    }
    with pytest.raises(InputError, match=told):
        ImageFeatures(**{**good, **change})  # type: ignore[arg-type]


def test_features_go_to_torch_and_back() -> None:
    put = features(sift=True)
    assert ImageFeatures.from_torch(put.torch(), "aliked").digest == put.digest


def test_a_source_knows_its_file_by_content(tmp_path: Path) -> None:
    path = tmp_path / "image.jpg"
    path.write_bytes(b"pixels")
    source = Source.of(path)
    os.utime(path, (1, 1))
    assert source.is_still(path)
    path.write_bytes(b"others")
    assert not source.is_still(path)
    assert not source.is_still(tmp_path / "none")


@pytest.mark.skipif(sys.platform != "linux", reason="mapped files are looked up in /proc")
def test_mapped_features_are_the_same_and_lie_in_the_file(store: FeatureStore) -> None:
    for seed, count in enumerate((0, 1, 40)):
        store.put("a", features(count, seed=seed, sift=True), SOURCE)
        mapped = store.get("a", mapped=True)
        assert mapped.digest == features(count, seed=seed, sift=True).digest
        assert str(store._path("a")) in Path("/proc/self/maps").read_text()
        assert {key: value.shape for key, value in mapped.torch().items()} == {
            key: value.shape for key, value in store.get("a").torch().items()
        }
    store.put("a", features(seed=7), SOURCE)  # a new file: what is mapped stays as it was
    assert mapped.digest == features(40, seed=2, sift=True).digest
    del mapped
    assert str(store._path("a")) not in Path("/proc/self/maps").read_text()


def test_no_file_stays_open_for_what_is_mapped(store: FeatureStore) -> None:
    for i in range(5):
        store.put(str(i), features(), SOURCE)
    before = set(os.listdir("/dev/fd"))
    mapped = [store.get(str(i), mapped=True) for i in range(5)]
    assert set(os.listdir("/dev/fd")) == before
    assert len(mapped) == 5


def test_damage_is_noticed_in_mapped_features_too(store: FeatureStore) -> None:
    store.put("a", features(), SOURCE)
    path = store._path("a")
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    with pytest.raises(StoreError, match="damaged"):
        store.get("a", mapped=True)
