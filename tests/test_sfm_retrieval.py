"""Which images are alike, by descriptors that are learnt from the collection itself."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from lightglue.errors import InputError, LightGlueError, StoreError
from lightglue.sfm.retrieval import global_descriptor
from lightglue.sfm.retrieval.index import RetrievalIndex, RetrievalOptions, build_index
from lightglue.sfm.retrieval.search import cosine, most_alike, quantize
from lightglue.stores import FeatureStore, ImageFeatures, Source

SMALL = RetrievalOptions(words=16, dimensions=16, sample=5000)


def features_of(places: np.ndarray, rng: np.random.Generator, noise: float = 0.05) -> ImageFeatures:
    """An image that shows some places of the world, each with a descriptor of its own."""
    world = np.random.default_rng(7).normal(size=(3000, 32))
    descriptors = world[places] + noise * rng.normal(size=(len(places), 32))
    descriptors /= np.linalg.norm(descriptors, axis=1, keepdims=True)
    points = rng.random((len(places), 2)).astype(np.float32) * 600
    return ImageFeatures(points, descriptors.astype(np.float16), np.ones(len(places), np.float32), (640, 480), "made")


def source(name: str) -> Source:
    return Source(1, 2, name)


@pytest.fixture
def store(tmp_path: Path) -> FeatureStore:
    """Twelve images along a street: image i shows the places 100 i to 100 i + 300, so that neighbours overlap."""
    store = FeatureStore.open(tmp_path / "features", {})
    rng = np.random.default_rng(0)
    for i in range(12):
        places = np.arange(100 * i, 100 * i + 300)
        store.put(f"street/{i:02}.jpg", features_of(places, rng), source(str(i)))
    return store


def test_the_images_most_alike_are_those_that_show_the_same(store: FeatureStore, tmp_path: Path) -> None:
    index = build_index(store, tmp_path / "retrieval.npz", SMALL)
    for name, best in index.nearest(index.names, 2):
        i = int(name[-6:-4])
        assert all(abs(int(other[-6:-4]) - i) <= 2 for other, _ in best), (name, best)
        assert name not in dict(best)
        assert best[0][1] >= best[1][1]


def test_a_photograph_from_elsewhere_finds_the_place_it_shows(store: FeatureStore, tmp_path: Path) -> None:
    index = build_index(store, tmp_path / "retrieval.npz", SMALL)
    found = index.query(features_of(np.arange(610, 880), np.random.default_rng(5)), 3)
    assert found[0][0] == "street/06.jpg"
    assert len(found) == 3


def test_the_same_features_give_the_same_file(store: FeatureStore, tmp_path: Path) -> None:
    build_index(store, tmp_path / "a.npz", SMALL)
    build_index(store, tmp_path / "b.npz", SMALL)
    assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "b.npz").read_bytes()


def test_an_index_that_fits_is_left_alone_and_one_that_does_not_is_made_anew(
    store: FeatureStore, tmp_path: Path
) -> None:
    path = tmp_path / "retrieval.npz"
    build_index(store, path, SMALL)
    before = path.stat().st_mtime_ns
    build_index(store, path, SMALL)
    assert path.stat().st_mtime_ns == before
    store.put("street/00.jpg", features_of(np.arange(2000, 2300), np.random.default_rng(9)), source("new"))
    again = build_index(store, path, SMALL)
    assert path.stat().st_mtime_ns != before
    assert again.digests[0] == store.head("street/00.jpg").digest


def test_update_keeps_the_vocabulary_and_takes_what_is_there(store: FeatureStore, tmp_path: Path) -> None:
    index = build_index(store, tmp_path / "retrieval.npz", SMALL)
    store.put("new.jpg", features_of(np.arange(310, 600), np.random.default_rng(1)), source("new"))
    store.remove("street/11.jpg")
    changed = index.update(store)
    assert changed.names == tuple(sorted(store.names()))
    assert np.array_equal(changed.vocabulary.words, index.vocabulary.words)
    assert np.array_equal(changed.descriptors[1], index.descriptors[0])  # street/00.jpg
    assert dict(changed.nearest(["new.jpg"], 1))["new.jpg"][0][0] in ("street/03.jpg", "street/04.jpg")


def test_what_is_written_is_read(store: FeatureStore, tmp_path: Path) -> None:
    index = build_index(store, tmp_path / "retrieval.npz", SMALL)
    read = RetrievalIndex.open(tmp_path / "retrieval.npz")
    assert read.names == index.names
    assert list(read.nearest(read.names, 3)) == list(index.nearest(index.names, 3))


def test_an_image_without_keypoints_is_like_no_other(store: FeatureStore, tmp_path: Path) -> None:
    store.put("blank.jpg", features_of(np.arange(0), np.random.default_rng(0)), source("blank"))
    index = build_index(store, tmp_path / "retrieval.npz", SMALL)
    assert dict(index.nearest(["blank.jpg"], 3)) == {"blank.jpg": []}
    assert all("blank.jpg" not in dict(best) for _, best in index.nearest(index.names, 20))


def test_a_collection_smaller_than_the_vocabulary_is_described(tmp_path: Path) -> None:
    store = FeatureStore.open(tmp_path / "features", {})
    store.put("a.jpg", features_of(np.arange(3), np.random.default_rng(0)), source("a"))
    store.put("b.jpg", features_of(np.arange(2), np.random.default_rng(0)), source("b"))
    index = build_index(store, tmp_path / "retrieval.npz", SMALL)
    assert dict(index.nearest(["a.jpg"], 5))["a.jpg"][0][0] == "b.jpg"


def test_images_without_any_keypoints_are_refused_with_a_reason(tmp_path: Path) -> None:
    store = FeatureStore.open(tmp_path / "features", {})
    store.put("a.jpg", features_of(np.arange(0), np.random.default_rng(0)), source("a"))
    with pytest.raises(InputError, match="No image has keypoints"):
        build_index(store, tmp_path / "retrieval.npz", SMALL)


def test_a_damaged_index_is_told_and_made_anew(store: FeatureStore, tmp_path: Path) -> None:
    path = tmp_path / "retrieval.npz"
    build_index(store, path, SMALL)
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(StoreError, match="damaged"):
        RetrievalIndex.open(path)
    build_index(store, path, SMALL)
    assert path.read_bytes() == whole


def test_no_index_is_an_error_with_the_remedy(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="stage `pairs`"):
        RetrievalIndex.open(tmp_path / "none.npz")


def test_unknown_names_are_named(store: FeatureStore, tmp_path: Path) -> None:
    index = build_index(store, tmp_path / "retrieval.npz", SMALL)
    with pytest.raises(InputError, match="'nowhere.jpg'"):
        list(index.nearest(["nowhere.jpg"], 1))


@pytest.mark.parametrize(
    "option",
    [{"descriptor": "net"}, {"search": "fast"}, {"words": 0}, {"dimensions": -1}, {"sample": 1.5}, {"seed": True}],
)
def test_options_without_meaning_are_refused(option: dict[str, object]) -> None:
    with pytest.raises(InputError, match=next(iter(option))):
        RetrievalOptions(**option)


def test_damaged_features_leave_their_image_out_and_the_rest_is_described(store: FeatureStore, tmp_path: Path) -> None:
    place = store._path("street/05.jpg")
    content = bytearray(place.read_bytes())
    content[-2000] ^= 255
    place.write_bytes(content)
    index = build_index(store, tmp_path / "retrieval.npz", SMALL)
    assert set(store.names()) - set(index.names) <= {"street/05.jpg"}
    assert len(index.names) >= 11


def test_features_of_another_kind_are_refused_with_a_reason(store: FeatureStore, tmp_path: Path) -> None:
    index = build_index(store, tmp_path / "retrieval.npz", SMALL)
    other = ImageFeatures(
        np.zeros((1, 2), np.float32), np.ones((1, 7), np.float32), np.ones(1, np.float32), (9, 9), "x"
    )
    with pytest.raises(InputError, match="7 numbers"):
        index.query(other, 3)


def unit(count: int, size: int, seed: int = 0) -> torch.Tensor:
    return torch.nn.functional.normalize(torch.randn(count, size, generator=torch.Generator().manual_seed(seed)))


@pytest.mark.parametrize("size", [1, 7, 512, 4096])
def test_quantized_descriptors_have_products_that_single_precision_holds_exactly(size: int) -> None:
    found = np.stack([quantize(row) for row in unit(50, size)]).astype(np.int64)
    assert (found**2).sum(axis=1).max() <= 4096**2
    assert cosine((found**2).sum(axis=1), size) == pytest.approx(np.ones(50), abs=0.04)


def test_the_search_is_exact_whatever_the_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    descriptors = np.stack([quantize(row) for row in unit(90, 64)])
    descriptors[60:] = descriptors[30:60]  # equal ones: the first counts
    whole = descriptors.astype(np.int64) @ descriptors.astype(np.int64).T
    wanted = np.argsort(-whole, axis=1, kind="stable")[:, :7]
    for rows in (1, 13, 89, 5000):
        monkeypatch.setattr("lightglue.sfm.retrieval.search._BLOCK_BYTES", rows * 4 * 64)
        indices, scores = (np.concatenate(part) for part in zip(*most_alike(descriptors, descriptors, 7), strict=True))
        assert np.array_equal(indices, wanted)
        assert np.array_equal(scores, np.take_along_axis(whole, wanted, axis=1))


def test_faiss_finds_what_the_exact_search_finds(store: FeatureStore, tmp_path: Path) -> None:
    store.put("blank.jpg", features_of(np.arange(0), np.random.default_rng(0)), source("blank"))
    exact = build_index(store, tmp_path / "exact.npz", SMALL)
    nearly = build_index(store, tmp_path / "nearly.npz", replace(SMALL, search="faiss"))
    assert list(nearly.nearest(nearly.names, 4)) == list(exact.nearest(exact.names, 4))


def test_without_faiss_the_error_names_the_extra(
    store: FeatureStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "faiss", None)
    monkeypatch.delitem(sys.modules, "lightglue.sfm.retrieval.with_faiss", raising=False)
    index = build_index(store, tmp_path / "retrieval.npz", replace(SMALL, search="faiss"))
    with pytest.raises(LightGlueError, match=r"lightglue\[faiss\]"):
        list(index.nearest(index.names, 4))


class Hub:
    """A network in MegaLoc's place: the mean colours of a grid of cells."""

    def __init__(self) -> None:
        self.calls: list[tuple[object, ...]] = []
        self.seen = 0

    def load(self, *arguments: object, **options: object) -> Hub:
        self.calls.append((*arguments, options))
        return self

    def eval(self) -> Hub:
        return self

    def to(self, device: object) -> Hub:
        return self

    def __call__(self, images: torch.Tensor) -> torch.Tensor:
        assert images.shape == (1, 3, 322, 322)
        self.seen += 1
        return torch.nn.functional.adaptive_avg_pool2d(images, (64, 44)).flatten(1)


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    fake = Hub()
    monkeypatch.setattr(torch.hub, "load", fake.load)
    global_descriptor._model.cache_clear()
    yield fake
    global_descriptor._model.cache_clear()


@pytest.fixture
def photographs(tmp_path: Path) -> tuple[FeatureStore, Path]:
    """Two scenes of two photographs, and one file that is none, all with features."""
    store, folder = FeatureStore.open(tmp_path / "features", {}), tmp_path / "images"
    folder.mkdir()
    rng = np.random.default_rng(0)
    for scene in "ab":
        picture = rng.integers(0, 255, (60, 80, 3), np.uint8)
        for view in range(2):
            cv2.imwrite(str(folder / f"{scene}{view}.png"), np.roll(picture, view, axis=1))
    (folder / "c.png").write_text("no image")
    for path in folder.iterdir():
        store.put(path.name, features_of(np.arange(5), rng), source(path.name))
    return store, folder


def test_a_network_from_the_hub_describes_the_images_where_it_is_asked_for(
    photographs: tuple[FeatureStore, Path], tmp_path: Path, hub: Hub
) -> None:
    store, folder = photographs
    options = RetrievalOptions(descriptor="megaloc")
    index = build_index(store, tmp_path / "retrieval.npz", options, images=folder)
    assert hub.calls == [("gmberton/MegaLoc", "get_trained_model", {"trust_repo": True})]
    assert index.names == ("a0.png", "a1.png", "b0.png", "b1.png")
    assert {name: best[0][0] for name, best in index.nearest(index.names, 1)}["b1.png"] == "b0.png"
    read = RetrievalIndex.open(tmp_path / "retrieval.npz")
    assert read.query(store.get("a0.png"), 1, folder / "a0.png")[0][0] == "a0.png"
    with pytest.raises(InputError, match="give the images"):
        read.query(store.get("a0.png"), 1)


def test_what_the_network_has_described_is_not_described_again(
    photographs: tuple[FeatureStore, Path], tmp_path: Path, hub: Hub
) -> None:
    store, folder = photographs
    options, path = RetrievalOptions(descriptor="megaloc"), tmp_path / "retrieval.npz"
    build_index(store, path, options, images=folder, names=["a0.png", "b0.png"])
    assert hub.seen == 2
    build_index(store, path, options, images=folder)
    assert hub.seen == 4
    whole = path.read_bytes()
    path.unlink()
    build_index(store, path, options, images=folder)
    assert path.read_bytes() == whole


def test_a_hub_out_of_reach_is_one_sentence_with_the_remedy(
    photographs: tuple[FeatureStore, Path], tmp_path: Path, hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unreachable(*_: object, **__: object) -> None:
        raise OSError("Name or service not known")

    monkeypatch.setattr(torch.hub, "load", unreachable)
    with pytest.raises(LightGlueError, match="torch.hub.*not known.*descriptor='vlad'"):
        build_index(photographs[0], tmp_path / "r.npz", RetrievalOptions(descriptor="megaloc"), images=photographs[1])
