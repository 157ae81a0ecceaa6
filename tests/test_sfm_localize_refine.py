"""Points of a query are refined by the images of the map that show the same points, and the pose with them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch

from support.colmap_model import FOCAL, HEIGHT, WIDTH, quaternion, rotation_towards
from support.colmap_scene import features_at

pytest.importorskip("pycolmap")

from lightglue.errors import InputError
from lightglue.geometry.intrinsics import Intrinsics
from lightglue.geometry.references import combine, combine_one_by_one
from lightglue.sfm.colmap.models import open_model
from lightglue.sfm.hard import Found, HardSearch, View
from lightglue.sfm.localization.localize import _decisive
from lightglue.sfm.localization.localizer import Localization, LocalizeOptions, Localizer
from lightglue.sfm.localization.refine import References
from lightglue.sfm.options import QueryRefineOptions
from lightglue.stores import FeatureStore, Source

CAMERA = Intrinsics("PINHOLE", (WIDTH, HEIGHT), (FOCAL, FOCAL, (WIDTH - 1) / 2, (HEIGHT - 1) / 2))
POINTS = np.stack(np.meshgrid(np.linspace(-1.2, 1.2, 13), [0.0], np.linspace(-0.8, 0.8, 9)), -1).reshape(-1, 3)
NAMES = ("a.png", "b.png", "c.png")
TEXTURE = 300.0  # px of the texture for a unit of the wall
NOISE = 1.2  # px, of the detector


def view(number: float) -> tuple[np.ndarray, np.ndarray]:
    """Rotation and centre of a camera in front of a textured wall, y = 0."""
    centre = np.array([1.5 * number, -4.0, 0.3])
    return rotation_towards(-centre), centre


def project(points: np.ndarray, number: float) -> np.ndarray:
    """(N, 2) px."""
    rotation, centre = view(number)
    inside = (points - centre) @ rotation.T
    return FOCAL * inside[:, :2] / inside[:, 2:] + ((WIDTH - 1) / 2, (HEIGHT - 1) / 2)


def photograph(number: float) -> np.ndarray:
    """(H, W, 3) uint8 of the wall."""
    rng = np.random.default_rng(1)
    texture = sum(
        cv2.resize(rng.normal(size=(1200 // size, 1600 // size)).astype(np.float32), (1600, 1200), interpolation=3)
        for size in (8, 16, 40)
    )
    texture = np.clip(127 + 40 * texture, 0, 255).astype(np.uint8)
    corners = np.array([[-2.0, 0, 1.5], [2.0, 0, 1.5], [2.0, 0, -1.5], [-2.0, 0, -1.5]])
    at = np.stack([(corners[:, 0] + 2) * TEXTURE, (1.5 - corners[:, 2]) * TEXTURE], 1).astype(np.float32)
    H = cv2.getPerspectiveTransform(at, project(corners, number).astype(np.float32))
    gray = cv2.warpPerspective(texture, H, (WIDTH, HEIGHT), flags=cv2.INTER_AREA)
    return np.repeat(gray[..., None], 3, axis=2)


def write_wall(folder: Path) -> Any:
    """A model of the wall in three images, exact but for the rounding of pictures."""
    folder.mkdir()
    images, seen = [], [project(POINTS, number) + 0.5 for number in range(len(NAMES))]
    for number, name in enumerate(NAMES):
        rotation, centre = view(number - 1)
        pose = " ".join(f"{value:.17g}" for value in (*quaternion(rotation), *(-rotation @ centre)))
        images.append(f"{number + 1} {pose} 1 {name}")
        seen = project(POINTS, number - 1) + 0.5
        images.append(" ".join(f"{x:.17g} {y:.17g} {j + 1}" for j, (x, y) in enumerate(seen)))
    track = [" ".join(f"{number + 1} {j}" for number in range(len(NAMES))) for j in range(len(POINTS))]
    told = [f"{j + 1} {X[0]:.17g} {X[1]:.17g} {X[2]:.17g} 1 1 1 0 {track[j]}" for j, X in enumerate(POINTS)]
    (folder / "cameras.txt").write_text(f"1 PINHOLE {WIDTH} {HEIGHT} {FOCAL} {FOCAL} {WIDTH / 2} {HEIGHT / 2}\n")
    (folder / "images.txt").write_text("\n".join(images) + "\n")
    (folder / "points3D.txt").write_text("\n".join(told) + "\n")
    return open_model(folder)


class Extractor:
    """Finds the points with an error of a detector's."""

    def extract(self, image: torch.Tensor, **options: Any) -> dict[str, torch.Tensor]:
        noise = np.random.default_rng(3).normal(0, NOISE, (len(POINTS), 2))
        points = torch.from_numpy((project(POINTS, 0.4) + noise).astype(np.float32))[None]
        return {"keypoints": points, "descriptors": torch.zeros(1, len(POINTS), 4)}


class Matcher:
    def match(self, pairs: Sequence[tuple[Any, Any]]) -> list[dict[str, list[torch.Tensor]]]:
        rows = torch.arange(len(POINTS))
        return [{"matches": [torch.stack([rows, rows], 1)], "scores": [torch.ones(len(rows))]} for _ in pairs]


@pytest.fixture(scope="module")
def wall(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, FeatureStore, Path]:
    """A model, its features and its photographs."""
    folder = tmp_path_factory.mktemp("wall")
    store = FeatureStore.open(folder / "features", {"features": "made"})
    (folder / "images").mkdir()
    for number, name in enumerate(NAMES):
        at = features_at(project(POINTS, number - 1).astype(np.float32), (WIDTH, HEIGHT))
        store.put(name, at, Source(1, 1, "0"))
        cv2.imwrite(str(folder / "images" / name), photograph(number - 1))
    return write_wall(folder / "0"), store, folder / "images"


def localizer(wall: tuple[Any, FeatureStore, Path], images: Path, refine: QueryRefineOptions | None) -> Localizer:
    model, store, _ = wall
    options = LocalizeOptions(first=1, enough=20, refine=refine)
    references = None if refine is None else References.open(model, images, False, refine, "cpu")
    return Localizer(model, store, None, (Extractor(), Matcher()), "cpu", options, references=references)


def localized(
    wall: tuple[Any, FeatureStore, Path], refine: QueryRefineOptions | None, brightness: float = 1.0
) -> Localization:
    query = torch.from_numpy(photograph(0.4)).permute(2, 0, 1).float() / 255 * brightness
    return localizer(wall, wall[2], refine).localize(query, CAMERA)


def moved(found: Localization) -> float:
    """How far a camera is from where it stood."""
    return float(np.linalg.norm(found.centre - view(0.4)[1]))


def test_refined_points_of_a_query_are_ten_times_as_exact_and_give_a_better_pose(
    wall: tuple[Any, FeatureStore, Path],
) -> None:
    plain, refined = localized(wall, None), localized(wall, QueryRefineOptions(), brightness=0.7)
    off = [np.linalg.norm(each.points - project(POINTS, 0.4)[each.point_ids - 1], axis=1) for each in (plain, refined)]
    assert np.median(off[0]) > 1
    assert np.median(off[1]) < 0.1
    assert moved(refined) < moved(plain) / 4
    assert plain.num_refined == 0
    assert refined.num_refined == refined.num_inliers > 100
    assert refined.images == plain.images  # it was matched with no more of them


def test_an_image_of_the_map_that_is_gone_is_named_and_the_others_do(
    wall: tuple[Any, FeatureStore, Path], tmp_path: Path
) -> None:
    model, _, images = wall
    for name in NAMES[:2]:
        (tmp_path / name).write_bytes((images / name).read_bytes())
    (tmp_path / NAMES[2]).write_text("no photograph")
    found = localizer(wall, tmp_path, QueryRefineOptions())
    query = torch.from_numpy(photograph(0.4)).permute(2, 0, 1).float() / 255
    refined = found.localize(query, CAMERA)
    assert moved(refined) < 0.003
    assert any("nothing is refined by c.png" in remark for remark in found.remarks)
    with pytest.raises(InputError, match="their folder .* is gone"):
        References.open(model, tmp_path / "none", False, QueryRefineOptions(), "cpu")


def test_where_nothing_can_be_measured_the_pose_stays(wall: tuple[Any, FeatureStore, Path]) -> None:
    plain, flat = localized(wall, None), localized(wall, QueryRefineOptions(), brightness=0.0)
    np.testing.assert_array_equal(flat.cam_from_world, plain.cam_from_world)
    np.testing.assert_array_equal(flat.points, plain.points)
    assert flat.num_refined == 0


@pytest.mark.parametrize(("enough", "matched"), [(50, 1), (10_000, 3)])
def test_at_fast_one_candidate_will_do_where_enough_of_its_points_agree(
    wall: tuple[Any, FeatureStore, Path], enough: int, matched: int
) -> None:
    model, store, _ = wall
    options = LocalizeOptions(first=2, enough=enough)
    loaded = Extractor(), Matcher()
    fast, normal = (
        Localizer(model, store, None, loaded, "cpu", options, effort=effort).localize(
            torch.zeros(3, HEIGHT, WIDTH), CAMERA
        )
        for effort in ("fast", "normal")
    )
    assert len(fast.images) == matched
    assert normal.images[:2] == NAMES[:2]
    assert moved(fast) < 0.05


@pytest.mark.parametrize(
    ("effort", "settings", "enough", "looked_at"),
    [
        ("fast", {"extract": {"resize": 1024}}, 50, [768]),
        ("fast", {"extract": {}}, 50, [750]),  # of the extractor's own size
        ("fast", {"extract": {"resize": 1024}}, 400, [768, 1024]),  # too few points agree
        ("fast", {"extract": {"resize": 800}}, 50, [800]),  # would be too small
        ("fast", {"extract": {"resize": 1024}, "max_keypoints": 150}, 50, [1024]),  # would have too few keypoints
        ("fast", {"extract": {"resize": 1024, "tile": 1024}}, 50, [1024]),
        ("normal", {"extract": {"resize": 1024}}, 50, [1024]),
    ],
)
def test_at_fast_a_smaller_query_will_do_where_enough_of_its_points_agree(
    effort: Any, settings: dict[str, Any], enough: int, looked_at: list[int], wall: tuple[Any, FeatureStore, Path]
) -> None:
    model, store, _ = wall
    sizes = []

    class Sized(Extractor):
        preprocess_conf = {"resize": 1000}  # noqa: RUF012

        def extract(self, image: torch.Tensor, resize: int = 1000, **options: Any) -> dict[str, torch.Tensor]:
            sizes.append(resize)
            return super().extract(image)

    store = replace(store, settings={"features": "made", "max_keypoints": 2048, **settings})
    localizer = Localizer(
        model, store, None, (Sized(), Matcher()), "cpu", LocalizeOptions(enough=enough), effort=effort
    )
    found = localizer.localize(torch.zeros(3, HEIGHT, WIDTH), CAMERA)
    assert sizes == looked_at
    assert moved(found) < 0.05
    assert found.images == NAMES if enough == 400 else found.images[0] == NAMES[0]


@pytest.mark.parametrize("is_found", [True, False])
def test_at_hard_a_query_without_a_pose_is_searched_in_the_likeliest_images(
    wall: tuple[Any, FeatureStore, Path], is_found: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Blind(Matcher):
        def match(self, pairs: Sequence[tuple[Any, Any]]) -> list[dict[str, list[torch.Tensor]]]:
            return [{"matches": [torch.zeros(0, 2, dtype=torch.long)], "scores": [torch.zeros(0)]} for _ in pairs]

    searched = []

    def between(self: HardSearch, query: View, other: View) -> Found | None:
        searched.append(other.pixels.shape)
        there = project(POINTS, 0.4)
        rows = np.zeros((0, 2), np.int64)
        return Found(there, other.keypoints, np.ones(len(there)), "tilt 4", rows, np.zeros(0)) if is_found else None

    monkeypatch.setattr(HardSearch, "between", between)
    model, store, images = wall
    loaded = Extractor(), Blind()
    found = Localizer(model, store, None, loaded, "cpu", LocalizeOptions(), effort="hard", images=images).localize(
        torch.zeros(3, HEIGHT, WIDTH), CAMERA
    )
    assert found.success == is_found
    assert len(searched) == (1 if is_found else 3)
    assert is_found or "no overlap found" in str(found.failure)
    assert "search" in found.seconds


def test_what_references_say_is_combined_as_point_by_point() -> None:
    rng = np.random.default_rng(0)
    rows = rng.integers(0, 30, 200)
    offsets, deviations = rng.normal(0, 0.3, (200, 2)), rng.uniform(0.02, 0.4, 200)
    given = rows, offsets, deviations, 31, 2.0, 0.05, 0.5
    for fast, plain in zip(combine(*given), combine_one_by_one(*given), strict=True):
        np.testing.assert_allclose(fast, plain, atol=1e-12)
        assert not fast[30].any(), "a point that nothing was measured of stays"


def test_one_wrong_reference_of_four_has_no_say() -> None:
    offsets = np.array([[1.0, 0.5], [1.02, 0.5], [0.98, 0.5], [-4.0, 3.0]])
    shift, support = combine(np.zeros(4, np.int64), offsets, np.full(4, 0.1), 1, 2.0, 0.05, 0.5)
    np.testing.assert_allclose(shift[0], (1.0, 0.5), atol=0.02)
    assert support[0] == pytest.approx(3, abs=0.05)


def test_a_journal_without_refining_and_effort_is_as_earlier_versions_wrote_it() -> None:
    usual = _decisive(LocalizeOptions())
    assert set(usual) == {"options"}
    assert set(usual["options"]) == {"candidates", "first", "enough", "map_camera", "pose", "memory"}
    assert _decisive(LocalizeOptions(refine=QueryRefineOptions()))["options"]["refine"]["images"] > 0
    assert _decisive(LocalizeOptions(), "fast") == {**usual, "effort": "fast"}
    assert _decisive(LocalizeOptions(max_seconds=3), "hard")["options"]["max_seconds"] == 3


def test_options_are_checked() -> None:
    with pytest.raises(InputError, match="images"):
        QueryRefineOptions(images=0)
    for name in ("pixels", "loss"):
        with pytest.raises(InputError, match=name):
            QueryRefineOptions(**{name: 0})
