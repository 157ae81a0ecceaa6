"""Samples of a folder of images: pure functions of (seed, number), out of a pool that a kill does not harm."""

import json
import shutil
import sys
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from lightglue.errors import InputError, StoreError
from lightglue.training.contract import IGNORED, UNMATCHABLE
from lightglue.training.data_options import DataOptions, FeatureOptions, source_keys
from lightglue.training.extraction import ImageJob, ViewWork, as_features, load_extractor
from lightglue.training.pool import fill_pool, open_pool
from lightglue.training.samples import open_samples, samples_of
from lightglue.training.sources.options import SourceOptions
from lightglue.training.sources.record import SourceImage
from lightglue.training.streams import BinnedStream, Bins, Mixture, PlainStream
from lightglue.workers.crew import Crew
from lightglue.workers.local import LocalEngine

ASSETS = Path(__file__).parents[1] / "assets"
FEATURES = FeatureOptions("sift", 128, fewest=8, device="cpu")


def picture(path, seed, size=(320, 240)):
    """Random blobs: SIFT finds some hundreds of keypoints."""
    rng = np.random.default_rng(seed)
    image = cv2.GaussianBlur(rng.integers(0, 255, (size[1], size[0], 3), np.uint8), (0, 0), 3)
    cv2.imwrite(str(path), cv2.normalize(image, None, 0, 255, cv2.NORM_MINMAX))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    made = tmp_path_factory.mktemp("photos")
    for number in range(5):
        picture(made / f"{number}.png", number)
    return made


def options(folder, **changes):
    given = {"views": 3, "view_size": (160, 120), "validation": 0.2, **changes}
    return DataOptions(sources=(SourceOptions(path=str(folder)),), **given)


@pytest.fixture(scope="module")
def pool(folder, tmp_path_factory):
    where = tmp_path_factory.mktemp("pool")
    fill_pool(where, options(folder), FEATURES, workers=1)
    return where


@pytest.fixture(scope="module")
def samples(folder, pool):
    return open_samples(options(folder), FEATURES, pool, seed=0, workers=1)


def described(sample):
    return sample.views, sample.features0.digest, sample.features1.digest, sample.truth.matches0.tolist()


def test_all_pairs_of_the_views_of_each_image_come_once_in_an_epoch_in_another_order_each(samples):
    assert samples.epoch == 4 * 3  # 5 images, one held out; 3 views have 3 pairs
    epochs = [[samples.sample(k + start).views for k in range(samples.epoch)] for start in (0, samples.epoch)]
    assert len(set(epochs[0])) == 12
    assert set(epochs[0]) == set(epochs[1])
    assert epochs[0] != epochs[1]
    for first, second in epochs[0]:
        assert first.partition("#")[0] == second.partition("#")[0]


def test_a_sample_is_a_pure_function_of_seed_and_number(folder, pool, samples):
    again = open_samples(options(folder), FEATURES, pool, seed=0, workers=1)
    assert [described(again.sample(k)) for k in (17, 3, 5)] == [described(samples.sample(k)) for k in (17, 3, 5)]
    assert again.fingerprint == samples.fingerprint
    other = open_samples(options(folder), FEATURES, pool, seed=1, workers=1)
    assert other.fingerprint != samples.fingerprint
    assert [other.sample(k).views for k in range(12)] != [samples.sample(k).views for k in range(12)]


def test_held_out_images_are_in_no_sample_and_the_same_for_every_seed(folder, pool, samples):
    def images(views):
        return {name.partition("#")[0] for pair in views for name in pair}

    held = [samples.validation_sample(i) for i in range(samples.num_validation)]
    assert len(held) == 3
    learnt = images(samples.sample(k).views for k in range(samples.epoch))
    assert not images(each.views for each in held) & learnt
    other = open_samples(options(folder), FEATURES, pool, seed=1, workers=1)
    assert [described(other.validation_sample(i)) for i in range(3)] == [described(each) for each in held]


def test_samples_hold_true_matches_and_what_features_there_are(samples):
    sample = samples.sample(0)
    assert (samples.feature_type, samples.descriptor_dim, samples.has_scale_ori) == ("sift", 128, True)
    assert len(sample.truth.positives) > 10
    assert {UNMATCHABLE, IGNORED} & set(sample.truth.matches0.tolist())
    assert sample.features0.image_size == (160, 120)
    i, j = sample.truth.positives.T
    descriptors = [each.descriptors.astype(np.float32) for each in (sample.features0, sample.features1)]
    assert (descriptors[0][i] * descriptors[1][j]).sum(1).mean() > 0.6  # they do show the same


def test_the_picture_of_a_view_is_the_one_that_its_features_are_of(samples):
    view = samples.sample(0).views[0]
    picture = samples.picture(view)
    assert picture.shape == (120, 160, 3)
    assert picture.dtype == np.uint8
    assert np.array_equal(samples.picture(view), picture)
    with pytest.raises(InputError, match="no view"):
        samples.picture("nothing#0")


def test_a_sample_may_be_asked_for_in_other_processes(samples):
    import pickle

    again = pickle.loads(pickle.dumps(samples))
    assert described(again.sample(5)) == described(samples.sample(5))


@pytest.mark.parametrize("k", [-1, 1.5, "a"])
def test_a_number_that_is_none_is_refused(samples, k):
    with pytest.raises(InputError, match="integer from 0"):
        samples.sample(k)


# --- the pool ---


def test_a_pool_that_was_killed_is_completed_to_the_same(folder, pool, samples, tmp_path):
    half = tmp_path / "pool"
    shutil.copytree(pool, half)
    lines = (half / "views.jsonl").read_bytes().splitlines(keepends=True)
    kept = b"".join(lines[:7])
    (half / "views.jsonl").write_bytes(kept + lines[7][:40])  # killed while it wrote a line
    next(iter(sorted((half / "features").glob("??/*.npz")))).write_bytes(b"cut off")
    counts = []
    again = fill_pool(half, options(folder), FEATURES, workers=1, progress=lambda *told: counts.append(told))
    assert counts[0][1] < 15  # some are made again
    assert counts[-1] == ("features", 15, 15)
    made = samples_of(again, options(folder), FEATURES, 0)
    assert made.fingerprint == samples.fingerprint
    assert all(json.loads(line) for line in (half / "views.jsonl").read_bytes().splitlines())


def test_another_process_makes_the_same_views_and_features(folder, corners):
    image = SourceImage("photos", "", "0.png", str(folder / "0.png"))
    work, job = ViewWork(options(folder), corners), ImageJob(image, (0, 2))
    (here,) = LocalEngine().run(work, [job])
    with Crew(work, 1) as crew:
        (there,) = crew.run([job])
    assert [each.number for each in there.views] == [0, 2]
    for one, other in zip(here.views, there.views, strict=True):
        assert one.features.digest == other.features.digest
        assert np.array_equal(one.homography, other.homography)


def test_a_whole_pool_needs_its_images_no_more(folder, pool, samples, tmp_path):
    moved = tmp_path / folder.name  # where nothing is
    alone = open_samples(options(moved), FEATURES, pool, seed=0, workers=1)
    assert alone.fingerprint == samples.fingerprint


def test_more_views_are_added_to_those_that_are_there(folder, pool, tmp_path):
    more = tmp_path / "pool"
    shutil.copytree(pool, more)
    counts = []
    made = open_samples(
        options(folder, views=4), FEATURES, more, 0, workers=1, progress=lambda *told: counts.append(told)
    )
    assert counts[0] == ("features", 15, 20)
    assert made.epoch == 4 * 6


def test_a_file_that_was_removed_is_made_again(folder, pool, tmp_path):
    less = tmp_path / "pool"
    shutil.copytree(pool, less)
    next((less / "features").glob("??/*.npz")).unlink()
    counts = []
    open_samples(options(folder), FEATURES, less, 0, workers=1, progress=lambda *told: counts.append(told))
    assert counts[0] == ("features", 14, 15)


def test_other_features_than_those_of_the_pool_are_refused(folder, pool):
    with pytest.raises(InputError, match=r"features is 'sift' there and 'aliked' here"):
        open_pool(pool, options(folder), FeatureOptions("aliked", 128))
    with pytest.raises(InputError, match=r"views.size is \[160, 120\] there"):
        open_pool(pool, options(folder, view_size=(320, 240)), FEATURES)


def test_a_damaged_file_of_features_is_said_by_the_sample_that_needs_it(folder, pool, tmp_path):
    damaged = tmp_path / "pool"
    shutil.copytree(pool, damaged)
    made = open_samples(options(folder), FEATURES, damaged, 0, workers=1)
    for path in (damaged / "features").glob("??/*.npz"):
        path.write_bytes(path.read_bytes()[:-50])
    with pytest.raises(StoreError, match="damaged"):
        [made.sample(k) for k in range(12)]


# --- features of the user's own ---

OWN = """
import cv2
import numpy as np
import torch


class Corners:
    def __init__(self, count=60, **answer):
        self.count, self.answer = count, answer

    def extract(self, image, **options):
        gray = (image.mean(0) * 255).byte().numpy()
        found = cv2.goodFeaturesToTrack(gray, self.count, 0.01, 3)[:, 0]
        patches = [cv2.getRectSubPix(gray, (5, 5), tuple(map(float, point))).reshape(-1) for point in found]
        descriptors = torch.nn.functional.normalize(torch.tensor(np.array(patches)).float(), dim=1)
        features = {"keypoints": torch.tensor(found), "descriptors": descriptors, **self.answer}
        return {name: value for name, value in features.items() if value is not None}


class Raising:
    def extract(self, image, **options):
        raise KeyError("my own fault")


class Endless:
    def extract(self, image, **options):
        return {"keypoints": torch.rand(60, 2) * 100, "descriptors": torch.full((60, 4), torch.inf)}


class Unasked:
    def extract(self, image):
        return {}


def make(**options):
    return Corners(40, **options)


ready = Corners(50)
number = 3
"""


@pytest.fixture
def corners(tmp_path, monkeypatch):
    """The options of an extractor in a module of the working directory."""
    name = f"corners_of_{tmp_path.name}".replace("-", "_")
    (tmp_path / f"{name}.py").write_text(OWN)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.path", [*sys.path])
    return FeatureOptions(f"{name}:Corners", 30, fewest=8, device="cpu")


@pytest.mark.parametrize(("what", "count"), [("Corners", 60), ("make", 40), ("ready", 50)])
def test_features_may_be_those_of_a_class_a_function_or_an_object_of_the_users(folder, tmp_path, corners, what, count):
    own = replace(corners, type=corners.type.replace("Corners", what), keypoints=1000)
    made = open_samples(options(folder, views=2), own, tmp_path / "pool", 0, workers=1)
    assert (made.feature_type, made.descriptor_dim, made.has_scale_ori) == (own.type, 25, False)
    sample = made.sample(0)
    assert count / 2 < len(sample.features0) <= count
    assert sample.features0.scores.tolist() == [1.0] * len(sample.features0)
    assert len(sample.truth.positives) > 3


def test_of_more_keypoints_than_wanted_the_best_are_kept(folder, tmp_path, corners):
    made = open_samples(options(folder, views=2), corners, tmp_path / "pool", 0, workers=1)
    assert len(made.sample(0).features0) == 30


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        ({"descriptors": None}, "gave no descriptors, but keypoints"),
        ({"keypoints": np.full((60, 2), np.nan)}, "keypoints with NaN"),
        ({"keypoints": np.zeros((60, 3))}, r"keypoints of the shape \(60, 3\)"),
        ({"keypoint_scores": np.zeros(7)}, "unequal numbers"),
        ({"descriptors": np.full((60, 4), 1e6)}, "set descriptor_dtype to float32"),
        ({"keypoints": np.full((60, 2), 0.5)}, "y from 0.5 to 0.5 in an image of 300 x 200 px; give x and y in px"),
        ({"keypoints": np.full((60, 2), 250.0)}, "in an image of 300 x 200 px; give x and y in px"),
    ],
)
def test_features_that_are_none_are_said_to_be_the_extractors_fault(folder, tmp_path, corners, answer, said):
    own = replace(corners, extractor={"count": 60, **answer})
    with pytest.raises(InputError, match=f"{own.type} gave .*{said}|{said}"):
        as_features(load_extractor(own).extract(torch.rand(3, 200, 300)), own, (300, 200))


@pytest.mark.parametrize(
    ("what", "said"),
    [
        ("Endless", "gave descriptors with NaN or infinity"),
        ("Raising", r"raised KeyError \(\w+.py, line \d+\): 'my own fault'; mend it, and the same command goes on"),
        ("Unasked", r"raised TypeError: .*unexpected keyword argument"),
    ],
)
def test_the_image_at_which_an_extractor_fails_is_named(folder, tmp_path, corners, what, said):
    own = replace(corners, type=corners.type.replace("Corners", what))
    with pytest.raises(InputError, match=rf"\d\.png: {own.type} {said}"):
        open_samples(options(folder, views=2), own, tmp_path / "pool", 0, workers=1)


def test_features_may_be_arrays_of_other_dtypes_without_scores(corners):
    answer = {"keypoints": np.full((60, 2), 90.0), "descriptors": np.ones((1, 60, 4)), "keypoint_scores": None}
    own = replace(corners, extractor={"count": 60, **answer})
    found = as_features(load_extractor(own).extract(torch.rand(3, 200, 300)), own, (300, 200))
    assert {name: value.dtype for name, value in found.items() if name != "image_size"} == {
        "keypoints": torch.float32, "descriptors": torch.float32
    }  # fmt: skip
    assert found["descriptors"].shape == (60, 4)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("no_such_module:Corners", "There is no module 'no_such_module'"),
        ("{module}:Corner", "did you mean 'Corners'"),
        ("{module}:number", "is a int; name a class"),
        ("{module}:Corners.extract", "gives a|missing"),
    ],
)
def test_an_extractor_that_cannot_be_had_is_said(corners, name, said):
    own = replace(corners, type=name.format(module=corners.type.partition(":")[0]))
    with pytest.raises((InputError, TypeError), match=said):
        load_extractor(own)


# --- bad input ---


def test_an_image_that_changed_is_extracted_again(tmp_path):
    for number in range(2):
        picture(tmp_path / f"{number}.png", number)
    data = options(tmp_path)
    before = open_samples(data, FEATURES, tmp_path / "pool", 0, workers=1)
    picture(tmp_path / "1.png", 7)
    after = open_samples(data, FEATURES, tmp_path / "pool", 0, workers=1)
    assert after.fingerprint != before.fingerprint


def test_what_cannot_be_used_is_left_out_and_the_rest_is_used(folder, tmp_path):
    photos = tmp_path / "photos"
    shutil.copytree(folder, photos)
    (photos / "broken.jpg").write_bytes(b"\xff\xd8\xff\xe0 no image")
    (photos / "empty.png").write_bytes(b"")
    picture(photos / "small.png", 0, (100, 50))
    cv2.imwrite(str(photos / "flat.png"), np.full((240, 320, 3), 90, np.uint8))
    made = open_samples(options(photos), FEATURES, tmp_path / "pool", 0, workers=1)
    assert made.epoch == 12
    left_out = {each.name: each.reason for each in made.pool.left_out}
    assert {name.partition("/")[2] for name in left_out} == {"broken.jpg", "empty.png", "small.png"}
    assert "below 120 px" in left_out["photos/small.png"]
    counts = []
    progress = lambda *told: counts.append(told)  # noqa: E731
    open_samples(options(photos), FEATURES, tmp_path / "pool", 0, workers=1, progress=progress)
    assert len(counts) == 1  # nothing is tried again
    smaller = open_samples(options(photos, smallest=40), FEATURES, tmp_path / "pool", 0, workers=1)
    assert "photos/small.png#0" in smaller.pool.views


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        (None, b"", "There is no image in"),
        ("a.jpg", b"no image", "No image can be used to learn from.*1 x"),
    ],
)
def test_a_folder_without_an_image_that_can_be_used_is_refused(tmp_path, name, content, said):
    photos = tmp_path / "photos"
    photos.mkdir()
    if name:
        (photos / name).write_bytes(content)
    with pytest.raises(InputError, match=said):
        open_samples(options(photos), FEATURES, tmp_path / "pool", 0, workers=1)


def test_images_of_nothing_are_refused_with_what_is_wrong(tmp_path):
    cv2.imwrite(str(tmp_path / "flat.png"), np.full((240, 320, 3), 90, np.uint8))
    with pytest.raises(
        InputError, match=r"\(3 views have fewer than 8 keypoints\); name other images, or set features"
    ):
        open_samples(options(tmp_path), FEATURES, tmp_path / "pool", 0, workers=1)


def test_copies_of_one_image_cannot_be_learnt_from_and_validated_with(tmp_path):
    for number in range(3):
        picture(tmp_path / f"{number}.png", 0)
    with pytest.raises(InputError, match="the 3 images that can be used look alike"):
        open_samples(options(tmp_path), FEATURES, tmp_path / "pool", 0, workers=1)
    without = open_samples(options(tmp_path, validation=0), FEATURES, tmp_path / "pool", 0, workers=1)
    assert (without.epoch, without.num_validation) == (9, 0)


def test_one_image_cannot_be_learnt_from_and_validated_with(tmp_path):
    picture(tmp_path / "only.png", 0)
    with pytest.raises(InputError, match=r"there is one image that can be used\. Give more images, or set data.valid"):
        open_samples(options(tmp_path), FEATURES, tmp_path / "pool", 0, workers=1)


def test_copies_are_held_out_together(folder, tmp_path):
    photos = tmp_path / "photos"
    shutil.copytree(folder, photos)
    for number in range(5):
        shutil.copy(photos / f"{number}.png", photos / f"copy of {number}.png")
    made = open_samples(options(photos), FEATURES, tmp_path / "pool", 0, workers=1)
    held = {made.validation_sample(i).views[0].partition("/")[2][:-2] for i in range(made.num_validation)}
    assert len(held) == 2
    assert min(held, key=len) in max(held, key=len)


@pytest.mark.parametrize(
    ("sources", "said"),
    [((), "no sources"), ((SourceOptions(path="nowhere at all"),), "does not exist")],
)
def test_sources_that_are_not_there_are_refused(tmp_path, sources, said):
    with pytest.raises(InputError, match=said):
        open_samples(DataOptions(sources=sources), FEATURES, tmp_path, 0)


def test_a_full_disk_is_said_and_what_was_made_is_kept(folder, tmp_path, monkeypatch):
    from lightglue.stores import FeatureStore

    put = FeatureStore.put
    written = []

    def full(self, name, *rest, **more):
        if len(written) == 7:
            raise StoreError("features cannot be written (No space left on device); make room.")
        written.append(name)
        return put(self, name, *rest, **more)

    monkeypatch.setattr(FeatureStore, "put", full)
    with pytest.raises(StoreError, match="No space left"):
        open_samples(options(folder), FEATURES, tmp_path, 0, workers=1)
    monkeypatch.undo()
    counts = []
    open_samples(options(folder), FEATURES, tmp_path, 0, workers=1, progress=lambda *told: counts.append(told))
    assert counts[0] == ("features", 6, 15)  # two images were finished


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: SourceOptions(path=""), "no path"),
        (lambda: SourceOptions("video", "a"), "kind"),
        (lambda: SourceOptions(path="a", weight=0), "weight"),
        (lambda: DataOptions(views=1), "views"),
        (lambda: DataOptions(view_size=(640,)), "view_size"),
        (lambda: DataOptions(overlaps=(0.5, 0.1)), "overlaps"),
        (lambda: DataOptions(validation=1), "validation"),
        (lambda: FeatureOptions("alikd"), "did you mean 'aliked'"),
        (lambda: FeatureOptions("my module:Extractor"), "my_module:Extractor"),
        (lambda: FeatureOptions("sift", 0), "keypoints"),
    ],
)
def test_options_that_make_no_sense_are_refused(make, said):
    with pytest.raises(InputError, match=said):
        make()


def test_sources_of_the_same_name_are_told_apart():
    sources = tuple(SourceOptions(path=path) for path in ("a/images", "b/images", "c/images"))
    assert source_keys(sources) == ["images", "images-2", "images-3"]


# --- streams ---


def test_sources_are_mixed_by_weight_in_every_hundred_samples():
    streams = [PlainStream((0, n), np.arange(200, dtype=np.int32).reshape(-1, 2) + 1000 * n) for n in range(3)]
    mixture = Mixture((0,), streams, [2.0, 1.0, 1.0])
    pairs = [mixture.pair(k) for k in range(400)]
    for start in range(0, 400, 100):
        owners = [pair[0] // 1000 for pair in pairs[start : start + 100]]
        assert [owners.count(n) for n in range(3)] == [50, 25, 25]
    assert len({pair for pair in pairs if pair[0] < 1000}) == 100  # all 100 of the first, twice
    assert mixture.epoch == 400
    assert [mixture.pair(k) for k in (250, 3)] == [pairs[250], pairs[3]]


def test_a_source_of_little_weight_still_comes():
    streams = [PlainStream((0, n), np.zeros((5, 2), np.int32) + n) for n in range(3)]
    mixture = Mixture((0,), streams, [1000.0, 1.0, 1.0])
    assert {mixture.pair(k)[0] for k in range(100)} == {0, 1, 2}


def test_pairs_of_scenes_are_drawn_from_bins_of_overlap_anew_each_epoch():
    bins = Bins([np.arange(2 * n, dtype=np.int32).reshape(-1, 2) + 1000 * at for at, n in enumerate((50, 2, 50))])
    assert bins.counts(30) == [14, 2, 14]
    assert bins.counts(200) == [50, 2, 50]
    assert bins.counts(2) == [1, 1, 0]
    assert Bins([np.zeros((0, 2), np.int32)]).counts(5) == [0]
    stream = BinnedStream((0,), [bins], 30)
    epochs = [{tuple(sorted(stream.pair(n))) for n in range(start, start + 30)} for start in (0, 30)]
    assert [len(each) for each in epochs] == [30, 30]
    for each in epochs:
        assert [sum(pair[0] // 1000 == at for pair in each) for at in range(3)] == [14, 2, 14]
    assert epochs[0] != epochs[1]
