"""Refined keypoints: each has one place, and all its matches agree."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from lightglue.errors import InputError
from lightglue.geometry.tracks import Measurements, solve_densely, solve_displacements
from lightglue.sfm.stages.refine import TrackOptions, TracksResult, read_refined, refine_keypoints
from lightglue.stores import FeatureStore, ImageFeatures, MatchStore, PairMatches, Source

W, H = 260, 200
NAMES = ["a.png", "b/c d.png", "e.png", "f.png"]
MAPS = {  # from the first image to each
    "a.png": np.eye(3),
    "b/c d.png": np.array([[1.05, 0.06, -8.3], [-0.05, 0.97, 6.4], [0, 0, 1]]),
    "e.png": np.array([[0.96, -0.08, 9.6], [0.07, 1.02, -7.2], [0, 0, 1]]),
    "f.png": np.array([[1.02, 0.02, 3.7], [0.01, 1.04, -4.1], [0, 0, 1]]),
}


def warp(homography: np.ndarray, points: np.ndarray) -> np.ndarray:
    mapped = np.c_[points, np.ones(len(points))] @ homography.T
    return mapped[:, :2] / mapped[:, 2:]


def picture(homography: np.ndarray, size: tuple[int, int] = (W, H)) -> np.ndarray:
    """(H, W) uint8: waves of 9 to 40 px of the first image, known everywhere, seen after `homography`."""
    y, x = np.mgrid[: size[1], : size[0]].astype(float)
    x, y = warp(np.linalg.inv(homography), np.c_[x.ravel(), y.ravel()]).T
    rng, value = np.random.default_rng(0), np.zeros(len(x))
    for _ in range(40):
        length, angle, phase = rng.uniform(9, 40), rng.uniform(0, np.pi), rng.uniform(0, 2 * np.pi)
        value += np.sin(2 * np.pi * (x * np.cos(angle) + y * np.sin(angle)) / length + phase)
    return np.clip(127 + 255 * value / 30, 0, 255).round().astype(np.uint8).reshape(size[::-1])


class Collection:
    """Four pictures of one plane on disk, the same keypoints in each half a pixel off, and their matches."""

    def __init__(self, folder: Path, wrong: int = 0, matched: bool = True, scale: int = 1) -> None:
        self.folder, self.images, rng = folder, folder / "images", np.random.default_rng(3)
        grid = np.stack(np.meshgrid(np.arange(40, W - 40, 12.0), np.arange(40, H - 40, 12.0)), -1).reshape(-1, 2)
        self.count = len(grid)
        self.features = FeatureStore.open(folder / "features", {})
        up = np.array([[scale, 0, (scale - 1) / 2], [0, scale, (scale - 1) / 2], [0, 0, 1]])
        self.maps = {name: up @ MAPS[name] for name in NAMES}
        self.noisy = {}
        for name in NAMES:
            path = self.images / name
            path.parent.mkdir(parents=True, exist_ok=True)
            cv2.imwrite(str(path), picture(self.maps[name], (W * scale, H * scale)))
            self.noisy[name] = warp(self.maps[name], grid) + rng.normal(0, 0.5 * scale, grid.shape)
            points, ones = self.noisy[name].astype(np.float32), np.ones(len(grid), np.float32)
            each = ImageFeatures(points, np.zeros((len(grid), 8), np.float16), ones, (W * scale, H * scale), "aliked")
            self.features.put(name, each, Source.of(path))
        self.matches = MatchStore.open(folder / "matches.db", {})
        self.pairs = []
        for k, name0 in enumerate(NAMES if matched else []):
            for name1 in NAMES[k + 1 :]:
                rows = np.repeat(np.arange(len(grid), dtype=np.int32)[:, None], 2, 1)
                spoilt = rng.permutation(len(grid))[:wrong]
                rows[spoilt, 1] = np.roll(rows[spoilt, 1], 1)
                self.pairs.append(PairMatches(name0, name1, rows, np.ones(len(grid), np.float32)))
        self.matches.put(self.pairs)

    def refine(self, out: str = "refined", **options: object) -> TracksResult:
        return refine_keypoints(
            self.images,
            self.features,
            self.matches,
            self.folder / out,
            TrackOptions(**options),  # type: ignore[arg-type]
        )

    def disagreement(self, points: dict[str, np.ndarray]) -> np.ndarray:
        """(N,) px of the first picture: how far apart the observations of each keypoint are."""
        seen = np.stack([warp(np.linalg.inv(self.maps[name]), points[name]) for name in NAMES])
        return np.linalg.norm(seen - seen.mean(0), axis=2).max(0)

    def refined(self, out: str = "refined") -> dict[str, np.ndarray]:
        return {name: read_refined(self.folder / out, name).keypoints for name in NAMES}


@pytest.fixture
def collection(tmp_path: Path) -> Collection:
    return Collection(tmp_path)


def test_the_observations_of_a_track_come_to_agree(collection: Collection) -> None:
    told = collection.refine()
    before, after = collection.disagreement(collection.noisy), collection.disagreement(collection.refined())
    assert np.median(before) > 0.5
    assert np.median(after) < 0.05
    assert (told.images, told.pairs, told.measured, told.skipped) == (4, 6, 6, ())
    assert told.moved > 0.9 * told.keypoints > 0


def test_what_moved_stays_near_its_detection(collection: Collection) -> None:
    collection.refine()
    for name, points in collection.refined().items():
        assert points.dtype == np.float32
        assert np.linalg.norm(points - collection.noisy[name], axis=1).max() < 3


def test_wrong_matches_do_not_pull(tmp_path: Path) -> None:
    spoilt = Collection(tmp_path, wrong=20)
    spoilt.refine()
    after = spoilt.disagreement(spoilt.refined())
    assert np.median(after) < 0.05
    assert np.quantile(after, 0.9) < 0.2


def test_the_result_is_the_same_again_and_in_whatever_order_pairs_were_matched(
    collection: Collection, tmp_path: Path
) -> None:
    collection.refine()
    collection.refine("again")
    collection.matches = MatchStore.open(tmp_path / "others.db", {})
    for pair in collection.pairs[::-1]:
        collection.matches.put([pair])
    collection.refine("others")
    for name in NAMES:
        assert np.array_equal(collection.refined()[name], collection.refined("again")[name])
        assert np.array_equal(collection.refined()[name], collection.refined("others")[name])


def test_a_second_run_measures_nothing_and_one_after_a_change_what_has_changed(collection: Collection) -> None:
    collection.refine()
    before = collection.refined()
    assert collection.refine().measured == 0
    changed = collection.pairs[0]
    collection.matches.put([PairMatches(changed.name0, changed.name1, changed.matches[:50], changed.scores[:50])])
    assert collection.refine().measured == 1
    collection.matches.put([changed])
    assert collection.refine().measured == 1
    assert all(np.array_equal(before[name], collection.refined()[name]) for name in NAMES)


def test_a_run_that_was_cut_off_goes_on_where_it_stopped(
    collection: Collection, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(done: int, total: int) -> None:
        if done == 4:
            raise KeyboardInterrupt

    monkeypatch.setattr("lightglue.sfm.stages.refine._PAIRS_AT_ONCE", 2)
    arguments = collection.images, collection.features, collection.matches
    with pytest.raises(KeyboardInterrupt):
        refine_keypoints(*arguments, collection.folder / "refined", progress=stop)
    assert refine_keypoints(*arguments, collection.folder / "refined").measured == 2
    collection.refine("whole")
    assert all(np.array_equal(collection.refined("whole")[name], collection.refined()[name]) for name in NAMES)


def test_an_image_that_is_missing_keeps_its_keypoints_and_the_others_agree(collection: Collection) -> None:
    (collection.images / "b/c d.png").unlink()
    told = collection.refine()
    assert [each.name for each in told.skipped] == ["b/c d.png"]
    assert not read_refined(told.out, "b/c d.png").moved.any()
    assert np.array_equal(collection.refined()["b/c d.png"], collection.noisy["b/c d.png"].astype(np.float32))
    seen = [warp(np.linalg.inv(MAPS[name]), collection.refined()[name]) for name in ("a.png", "f.png")]
    assert np.median(np.linalg.norm(seen[0] - seen[1], axis=1)) < 0.05


def test_without_matches_all_stays_where_it_was(tmp_path: Path) -> None:
    alone = Collection(tmp_path, matched=False)
    told = alone.refine()
    assert (told.pairs, told.keypoints, told.moved) == (0, 0, 0)
    assert all(np.array_equal(alone.refined()[name], alone.noisy[name].astype(np.float32)) for name in NAMES)


def test_large_images_are_reduced_and_places_are_those_of_the_original(tmp_path: Path) -> None:
    large = Collection(tmp_path, scale=3)
    large.refine(max_edge=W)
    assert np.median(large.disagreement(large.noisy)) > 0.5  # px of a picture that is not enlarged
    assert np.median(large.disagreement(large.refined())) < 0.05


def test_other_options_need_another_folder(collection: Collection) -> None:
    collection.refine()
    with pytest.raises(InputError, match="prior"):
        collection.refine(prior=1.0)


@pytest.mark.parametrize("options", [{"prior": 0}, {"outlier": float("nan")}, {"max_edge": 5}])
def test_options_without_a_meaning_are_refused(options: dict[str, float]) -> None:
    with pytest.raises(InputError, match=next(iter(options))):
        TrackOptions(**options)  # type: ignore[arg-type]


def test_keypoints_that_were_never_refined_are_an_error(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="refine"):
        read_refined(tmp_path, "a.png")


@pytest.mark.parametrize("direct", [64, 5, 0])  # keypoints of a part that is solved for directly; others by steps
@pytest.mark.parametrize("numbers", [1 << 22, 1])  # of parts that are solved for at once
def test_the_quick_solution_is_that_of_the_normal_equations(
    direct: int, numbers: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of parts of 12, 5, 2, 2 and 2 keypoints, in no order, and of one that nothing is measured of."""
    monkeypatch.setattr("lightglue.geometry.tracks._DIRECT", direct)
    monkeypatch.setattr("lightglue.geometry.tracks._NUMBERS", numbers)
    rng = np.random.default_rng(0)
    i, j = rng.integers(0, 12, (2, 60))
    i, j = np.append(i, [12, 13, 14, 15, 12, 17, 19, 22, 17]), np.append(j, [13, 14, 15, 16, 16, 18, 20, 21, 18])
    order = rng.permutation(24)
    i, j = order[i[i != j]], order[j[i != j]]
    matrix = np.eye(2) + rng.normal(0, 0.1, (len(i), 2, 2))
    found = Measurements(i, j, rng.normal(0, 1, (len(i), 2)), matrix, np.full(len(i), 0.1))
    quick, plain = solve_displacements(found, 24, 2, 0.05, 2.0), solve_densely(found, 24, 2, 0.05, 2.0)
    atol = 1e-9 if direct == 64 else 1e-3
    assert np.allclose(quick.displacements, plain.displacements, atol=atol)
    assert np.allclose(quick.weights, plain.weights, atol=atol)
    assert np.array_equal(quick.support > 0, np.isin(np.arange(24), [*i, *j]))


def test_what_contradicts_the_others_has_no_weight() -> None:
    """Four keypoints in a ring and across, 0.3 px apart: all agree but for one, which says 5 px."""
    i, j = np.array([0, 1, 2, 3, 0, 1, 0]), np.array([1, 2, 3, 0, 2, 3, 3])
    truth = np.array([[0.3, 0], [0, -0.3], [-0.3, 0], [0, 0.3]])
    offset = truth[j] - truth[i]
    offset[-1] += 5
    found = Measurements(i, j, offset, np.broadcast_to(np.eye(2), (7, 2, 2)), np.full(7, 0.05))
    told = solve_displacements(found, 4, 2, 0.05, 0.5)
    assert told.weights[-1] < 0.01 < 0.9 < told.weights[:-1].min()
    assert np.allclose(told.displacements, truth, atol=0.05)


def test_the_result_does_not_depend_on_threads(collection: Collection, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lightglue.sfm.stages.refine._MATCHES_AT_ONCE", 300)
    before = torch.get_num_threads()
    for threads in (1, 3):
        with monkeypatch.context() as patched:
            patched.setattr(torch, "get_num_threads", lambda threads=threads: threads)
            collection.refine(f"of {threads}")
    torch.set_num_threads(before)
    one, three = collection.refined("of 1"), collection.refined("of 3")
    assert all(np.array_equal(one[name], three[name]) for name in NAMES)


def test_torch_has_as_many_threads_afterwards_as_before(collection: Collection) -> None:
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        collection.refine()
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)
