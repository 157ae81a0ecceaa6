"""A query of a place that another place of the map looks like."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from support.colmap_model import FOCAL, HEIGHT, WIDTH, quaternion, rotation_towards
from support.colmap_scene import features_at, make_scene

pytest.importorskip("pycolmap")

from lightglue.geometry.intrinsics import Intrinsics
from lightglue.sfm.colmap.database import create_database
from lightglue.sfm.colmap.judged import Judgement, drop
from lightglue.sfm.colmap.models import open_model
from lightglue.sfm.colmap.pair_ids import pair_id
from lightglue.sfm.localization.added import unsure_images
from lightglue.sfm.localization.localizer import Localization, LocalizeOptions, Localizer
from lightglue.sfm.localization.look_alikes import far_apart, read_look_alikes, twins_of
from lightglue.sfm.stages.verify import verify
from lightglue.stores import FeatureStore, MatchStore, PairMatches, Source

CAMERA = Intrinsics("PINHOLE", (WIDTH, HEIGHT), (FOCAL, FOCAL, (WIDTH - 1) / 2, (HEIGHT - 1) / 2))
POINTS = np.random.default_rng(0).uniform(-1, 1, (100, 3))
APART = np.array([40.0, 0.0, 0.0])  # from the first place to the second
TWINS = {"a0.jpg": ("b0.jpg",), "b0.jpg": ("a0.jpg",)}


def view(number: int) -> tuple[np.ndarray, np.ndarray]:
    """Rotation and centre of a camera that looks at a place from somewhere."""
    angle = 0.3 * number
    centre = np.array([6 * np.sin(angle), -6 * np.cos(angle), 1.0])
    return rotation_towards(-centre), centre


def pixels(number: int) -> np.ndarray:
    """(N, 2) px of the points of a place, (0, 0) the centre of the first pixel."""
    rotation, centre = view(number)
    inside = (POINTS - centre) @ rotation.T
    return FOCAL * inside[:, :2] / inside[:, 2:] + ((WIDTH - 1) / 2, (HEIGHT - 1) / 2)


def write_places(folder: Path, places: Sequence[int]) -> Any:
    """A model of two images of each place, whose points look the same."""
    folder.mkdir()
    images, points, number = [], [], 0
    tracks = [f" {2 * place + 1} {j} {2 * place + 2} {j}" for place in places for j in range(len(POINTS))]
    for place in places:
        for at in range(2):
            rotation, centre = view(at)
            centre = centre + place * APART
            pose = " ".join(f"{value:.17g}" for value in (*quaternion(rotation), *(-rotation @ centre)))
            images.append(f"{2 * place + at + 1} {pose} 1 {'ab'[place]}{at}.jpg")
            seen = pixels(at) + 0.5
            images.append(" ".join(f"{x:.17g} {y:.17g} {number + j + 1}" for j, (x, y) in enumerate(seen)))
        points += [" ".join(f"{v:.17g}" for v in X) for X in POINTS + place * APART]
        number += len(POINTS)
    camera = f"1 PINHOLE {WIDTH} {HEIGHT} {FOCAL} {FOCAL} {WIDTH / 2} {HEIGHT / 2}\n"
    told = [f"{n + 1} {xyz} 1 1 1 0{track}" for n, (xyz, track) in enumerate(zip(points, tracks, strict=True))]
    (folder / "cameras.txt").write_text(camera)
    (folder / "images.txt").write_text("\n".join(images) + "\n")
    (folder / "points3D.txt").write_text("\n".join(told) + "\n")
    return open_model(folder)


class Extractor:
    def extract(self, image: torch.Tensor, **options: Any) -> dict[str, torch.Tensor]:
        points = torch.from_numpy(pixels(0).astype(np.float32) + 0.0)[None]
        return {"keypoints": points, "descriptors": torch.zeros(1, len(POINTS), 4)}


class Matcher:
    """Matches the points of a place that an image of it shows: as many as its descriptors say."""

    def match(self, pairs: Sequence[tuple[Any, Any]]) -> list[dict[str, list[torch.Tensor]]]:
        found = []
        for _, features in pairs:
            count = int(features["descriptors"][0, 0, 0])
            rows = torch.arange(count)
            found.append({"matches": [torch.stack([rows, rows], 1)], "scores": [torch.ones(count)]})
        return found


def localized(
    tmp_path: Path, matched: dict[str, int], twins: dict[str, tuple[str, ...]], separate: bool = False
) -> Localization:
    """A query of the first place. matched: how many matches it has with the images of each; separate: two models."""
    store = FeatureStore.open(tmp_path / "features", {"features": "made"})
    for name in ("a0.jpg", "a1.jpg", "b0.jpg", "b1.jpg"):
        at = features_at(pixels(int(name[1])).astype(np.float32), (WIDTH, HEIGHT))
        descriptors = np.full((len(POINTS), 4), matched[name[0]], np.float16)
        store.put(name, replace(at, descriptors=descriptors), Source(1, 1, "0"))
    model = write_places(tmp_path / "0", [0] if separate else [0, 1])
    others = [write_places(tmp_path / "1", [1])] if separate else []
    loaded = (Extractor(), Matcher())
    options = LocalizeOptions(first=1, enough=20)
    localizer = Localizer(model, store, None, loaded, "cpu", options, look_alikes=twins, others=others)
    return localizer.localize(torch.zeros(3, HEIGHT, WIDTH), CAMERA)


def test_a_query_that_fits_two_places_equally_well_has_no_pose(tmp_path: Path):
    found = localized(tmp_path, {"a": 100, "b": 90}, TWINS)
    assert not found.success
    assert found.failure is not None
    assert "fits two places equally well" in found.failure
    assert "near a0.jpg, and 90 with one near b0.jpg" in found.failure


def test_a_query_that_fits_one_place_far_better_is_there(tmp_path: Path):
    found = localized(tmp_path, {"a": 100, "b": 45}, TWINS)
    assert found.images == ("a0.jpg", "b0.jpg")
    np.testing.assert_allclose(found.centre, view(0)[1], atol=1e-3)


def test_a_query_whose_first_candidate_only_looks_like_its_place_is_put_where_it_fits_better(tmp_path: Path):
    found = localized(tmp_path, {"a": 45, "b": 100}, TWINS)
    assert found.success
    np.testing.assert_allclose(found.centre, view(0)[1] + APART, atol=1e-3)
    assert found.num_inliers == 100


def test_a_place_of_another_model_counts_too(tmp_path: Path):
    found = localized(tmp_path, {"a": 100, "b": 90}, TWINS, separate=True)
    assert "fits two places equally well" in str(found.failure)


def test_a_query_of_another_model_is_not_put_into_the_largest(tmp_path: Path):
    found = localized(tmp_path, {"a": 45, "b": 100}, TWINS, separate=True)
    assert "near b0.jpg, which is in another model of the map" in str(found.failure)


def added(tmp_path: Path, elsewhere: int, dropped: bool = True, separate: bool = False) -> dict[str, str]:
    """What is said of a1.jpg, put beside a0.jpg. elsewhere: its matches with b0.jpg; separate: in two models."""
    names = ("a0.jpg", "a1.jpg", "b0.jpg", "b1.jpg")
    store = FeatureStore.open(tmp_path / "features", {"features": "made"})
    for name in names:
        store.put(name, features_at(pixels(int(name[1])).astype(np.float32), (WIDTH, HEIGHT)), Source(1, 1, "0"))
    matches = MatchStore.open(tmp_path / "matches.db", {"made": 1})
    for name0, name1, count in (("a0.jpg", "a1.jpg", 100), ("a1.jpg", "b0.jpg", elsewhere)):
        rows = np.repeat(np.arange(count, dtype=np.int32)[:, None], 2, axis=1)
        matches.put([PairMatches(name0, name1, rows, np.ones(count, np.float32))])
    database = tmp_path / "database.db"
    create_database(database, store, matches, None)
    reason = "contradicts" if dropped else None
    drop(database, [Judgement(pair_id(2, 3), 0.1, 90.0, elsewhere, reason, False)], "made of")
    model = write_places(tmp_path / "0", [0] if separate else [0, 1])
    others = [write_places(tmp_path / "1", [1])] if separate else []
    return unsure_images(model, ["a1.jpg"], matches, database, others)


def test_an_added_image_that_fits_two_places_is_named_and_how(tmp_path: Path):
    assert "agree with a pose near a0.jpg, and 90 with one near b0.jpg" in added(tmp_path, 90)["a1.jpg"]


def test_an_added_image_may_fit_a_place_of_another_model(tmp_path: Path):
    assert "fits two places equally well" in added(tmp_path, 90, separate=True)["a1.jpg"]


@pytest.mark.parametrize(("elsewhere", "dropped"), [(40, True), (90, False)])
def test_an_added_image_that_fits_one_place_better_or_has_no_dropped_pair_stays(
    elsewhere: int, dropped: bool, tmp_path: Path
):
    assert added(tmp_path, elsewhere, dropped) == {}


def test_a_map_without_look_alikes_is_searched_no_further(tmp_path: Path):
    found = localized(tmp_path, {"a": 100, "b": 90}, {})
    assert found.success
    assert found.images == ("a0.jpg",)


def test_the_strongest_twin_of_each_image_comes_first():
    twins = {"a": ("p", "q"), "b": ("q", "r", "s")}
    assert twins_of(["a", "b", "c"], twins) == ["p", "q", "r", "s"]
    assert twins_of(["b"], twins) == ["q", "r", "s"]


def test_poses_that_differ_little_are_one():
    one, near, far = np.eye(4), np.eye(4), np.eye(4)
    near[0, 3], far[0, 3] = 0.5, 2.0
    points = np.array([[0.0, 0.0, 10.0]])
    assert not far_apart(one, near, points)
    assert far_apart(one, far, points)
    turned = np.diag([-1.0, 1.0, -1.0, 1.0])
    assert far_apart(one, turned, points)


def test_images_of_dropped_pairs_look_alike(tmp_path: Path):
    scene = make_scene(tmp_path)
    path = tmp_path / "database.db"
    assert read_look_alikes(path) == {}
    create_database(path, scene.features, scene.matches, None)
    verify(path)
    assert read_look_alikes(path) == {}
    kept = Judgement(pair_id(1, 2), 0.9, 0.1, 100, None, False)
    dropped = [Judgement(pair_id(1, n), 0.1, 90.0, 10 * n, "contradicts", False) for n in (3, 4)]
    drop(path, [kept, *dropped], "made of")
    names = scene.names
    assert read_look_alikes(path) == {names[0]: (names[3], names[2]), names[2]: (names[0],), names[3]: (names[0],)}
