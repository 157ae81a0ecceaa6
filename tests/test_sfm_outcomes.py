"""What a map is said to be is what it is: no depth, no model; two views, and it says so; no reason that is not true."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

pytest.importorskip("pycolmap")
from lightglue.errors import InputError
from lightglue.models.choice import Models
from lightglue.sfm.colmap.mappers import check_mapper
from lightglue.sfm.colmap.models import cam_from_world, open_model, registered
from lightglue.sfm.colmap.shape import Shape
from lightglue.sfm.options import CameraOptions, ExtractOptions, Mapper, MatchOptions, ReconstructOptions, SfmOptions
from lightglue.sfm.pipeline import MapResult, build_map
from lightglue.sfm.stages.outcomes import why_not_registered
from lightglue.sfm.stages.reconstruct import ReconstructResult, reconstruct
from lightglue.sfm.stages.verify import export_database
from lightglue.stores import FeatureStore, MatchStore, PairMatches
from support import ASSETS, NEEDS_SHARED, SHARED
from support.colmap_scene import K, features_at, put
from support.command import lightglue
from support.corner import photograph

Floats = NDArray[np.float64]
KNOWN = CameraOptions("PINHOLE", (600, 600, 319.5, 239.5))
TURNED = "planar or panoramic, and a rotation of the camera explains the matches"
SIFT = ("--features", "sift", "--matcher", "nearest", "--max-keypoints", "400", "--resize", "none", "--threads", "1")
pytestmark = pytest.mark.usefixtures("charts_undrawn")


def rotation(yaw: float, pitch: float = 0, roll: float = 0) -> Floats:
    """(3, 3), degrees."""
    return np.array(cv2.Rodrigues(np.radians([pitch, yaw, roll]))[0], np.float64)


def views(
    poses: list[Floats], points: Floats, tracks: list[slice], folder: Path, cameras: CameraOptions | None
) -> Path:
    """A database of what cameras with these poses (3, 4) see of points (N, 3); each sees those of its slice."""
    features = FeatureStore.open(folder / "features", {"made": 1})
    matches = MatchStore.open(folder / "matches.db", {"made": 2})
    names, shown = [f"{number}.jpg" for number in range(len(poses))], []
    for number, (name, T, track) in enumerate(zip(names, poses, tracks, strict=True)):
        inside = points @ T[:, :3].T + T[:, 3]
        seen = inside @ K.T
        px = seen[:, :2] / seen[:, 2:] + np.random.default_rng(number).normal(0, 0.3, (len(points), 2))
        there = (inside[:, 2] > 0) & (px >= 0).all(axis=1) & (px < (640, 480)).all(axis=1)
        shown.append(np.flatnonzero(there & np.isin(np.arange(len(points)), np.arange(len(points))[track])))
        put(features, name, features_at(px[shown[-1]].astype(np.float32)))
    for i, first in enumerate(names):
        for j, second in enumerate(names[i + 1 :], i + 1):
            _, rows0, rows1 = np.intersect1d(shown[i], shown[j], return_indices=True)
            both = np.stack((rows0, rows1), axis=1).astype(np.int32)
            digests = tuple(features.head(name).digest for name in (first, second))  # type: ignore[union-attr]
            matches.put([PairMatches(first, second, both, np.ones(len(both), np.float32), digests=digests)])
    path = folder / "made.db"
    export_database(features, matches, path, cameras=cameras or CameraOptions(mode="single"))
    return path


def pose(R: Floats, centre: tuple[float, float, float]) -> Floats:
    return np.hstack((R, -R @ np.array(centre)[:, None]))


def box(count: int = 300) -> Floats:
    """Points in a box that the cameras look at."""
    return np.random.default_rng(7).uniform((-3, -2, 4), (3, 2, 9), (count, 3))


def wall(count: int = 300) -> Floats:
    """Points in a plane across the view."""
    points = box(count)
    points[:, 2] = 6 + 0.2 * points[:, 0]
    return points


def mapped(path: Path, folder: Path, mapper: Mapper = "incremental") -> ReconstructResult:
    try:
        check_mapper(mapper)
    except InputError as error:
        pytest.skip(str(error))
    return reconstruct(path, folder, folder / "map", ReconstructOptions(mapper, threads=1))


def whole(count: int) -> list[slice]:
    return [slice(None)] * count


@pytest.mark.parametrize("cameras", [KNOWN, None], ids=["known", "guessed"])
@pytest.mark.parametrize("turns", ["panorama", "roll"])
def test_a_camera_that_only_turned_makes_no_model_whatever_it_saw(
    tmp_path: Path, cameras: CameraOptions | None, turns: str
) -> None:
    turned = [rotation(5 * n - 17, n % 3) if turns == "panorama" else rotation(0, 0, 40 * n) for n in range(6)]
    made = mapped(views([pose(R, (0, 0, 0)) for R in turned], box(), whole(6), tmp_path, cameras), tmp_path)
    assert made.models == ()
    assert made.reason is not None
    assert TURNED in made.reason
    assert "Give images from different places" in made.reason


def test_a_tripod_that_was_shaken_by_a_thousandth_of_the_depth_makes_no_model(tmp_path: Path) -> None:
    poses = [pose(rotation(5 * n - 17), (0.005 * np.sin(n), 0.005 * np.cos(n), 0)) for n in range(6)]
    made = mapped(views(poses, box(), whole(6), tmp_path, None), tmp_path)
    assert made.models == ()
    assert TURNED in str(made.reason)


@pytest.mark.parametrize("cameras", [KNOWN, None], ids=["known", "guessed"])
def test_a_plane_seen_from_several_places_is_mapped_and_said_to_be_one(
    tmp_path: Path, cameras: CameraOptions | None
) -> None:
    poses = [pose(rotation(12 - 4.5 * n, 0, 3 * n), (0.7 * n - 1.7, 0.1 * n, 0.2 * (n % 3))) for n in range(6)]
    made = mapped(views(poses, wall(), whole(6), tmp_path, cameras), tmp_path)
    assert made.models[0].num_images == 6
    assert any("lie in a plane" in remark for remark in made.models[0].remarks)


def test_a_field_seen_from_above_is_mapped(tmp_path: Path) -> None:
    poses = [pose(rotation(0, 0, n), (0.5 * (n % 4) - 1, 0.4 * (n // 4), 1)) for n in range(6)]
    made = mapped(views(poses, wall(), whole(6), tmp_path, KNOWN), tmp_path)
    assert made.models[0].num_images == 6
    assert made.models[0].mean_reprojection_error < 0.6


def test_a_scene_with_depth_is_mapped_without_a_remark(tmp_path: Path) -> None:
    poses = [pose(rotation(12 - 4.5 * n), (0.7 * n - 1.7, 0.1 * n, 0)) for n in range(6)]
    made = mapped(views(poses, box(), whole(6), tmp_path, None), tmp_path)
    assert made.models[0].num_images == 6
    assert made.models[0].remarks == ()


@pytest.mark.parametrize("mapper", ["incremental", "global", "hierarchical"])
def test_two_views_make_a_model_that_says_it_is_of_two_with_every_mapper(tmp_path: Path, mapper: Mapper) -> None:
    poses = [pose(rotation(8), (-1, 0, 0)), pose(rotation(-8, 2), (1, 0.1, 0.2))]
    made = mapped(views(poses, box(), whole(2), tmp_path, KNOWN), tmp_path, mapper)
    assert made.models[0].num_images == 2
    assert made.models[0].num_points > 120
    assert "of two views: no third image confirms its points" in made.models[0].remarks[0]
    found = [cam_from_world(image)[:3, :3] for image in registered(open_model(tmp_path / "map" / "model"))]
    assert degrees(found[1] @ found[0].T, poses[1][:, :3] @ poses[0][:, :3].T) < 0.1
    assert mapped(tmp_path / "made.db", tmp_path, mapper).models == made.models  # as it is read again


def degrees(A: Floats, B: Floats) -> float:
    return float(np.degrees(2 * np.arcsin(np.clip(np.linalg.norm(A - B) / np.sqrt(8), 0, 1))))


def test_three_views_of_which_no_three_see_the_same_make_the_model_of_two_and_say_why_the_third_is_not_in_it(
    tmp_path: Path,
) -> None:
    poses = [pose(rotation(10 * (1 - n)), (1.2 * n - 1.2, 0, 0)) for n in range(3)]
    tracks = [slice(0, 150), slice(None), slice(150, None)]
    made = mapped(views(poses, box(), tracks, tmp_path, KNOWN), tmp_path)
    assert made.models[0].num_images == 2
    (missing,) = made.unregistered
    reason = why_not_registered(tmp_path / "made.db", [model.images for model in made.models])[missing]
    assert "verified pairs with 1 of the images of the largest model" in reason or "smaller model" in reason


def test_two_images_of_too_few_matches_are_told_how_many_they_have(tmp_path: Path) -> None:
    poses = [pose(rotation(8), (-1, 0, 0)), pose(rotation(-8, 2), (1, 0.1, 0.2))]
    made = mapped(views(poses, box(36), whole(2), tmp_path, KNOWN), tmp_path)
    assert made.models == ()
    assert "the best of" in str(made.reason)


def test_each_image_that_is_left_out_has_its_own_reason(tmp_path: Path) -> None:
    poses = [pose(rotation(12 - 4.5 * n), (0.7 * n - 1.7, 0.1 * n, 0)) for n in range(6)]
    path = views(poses, box(), [*whole(4), slice(0, 5), slice(0, 18)], tmp_path, KNOWN)
    made = mapped(path, tmp_path)
    assert set(made.models[0].images) == {f"{n}.jpg" for n in range(4)}
    reasons = why_not_registered(path, [model.images for model in made.models])
    assert "none of its 5 pairs has a verified geometry" in reasons["4.jpg"]
    assert set(reasons) == {"4.jpg", "5.jpg"}


def test_a_plane_with_wrong_points_around_it_is_flat_and_two_walls_are_not() -> None:
    rng = np.random.default_rng(3)
    wrong = rng.uniform(-40, 40, (50, 3))
    corner = box()
    corner[:, 2] = 6 + 0.75 * np.abs(corner[:, 0])
    for points, is_flat in ((wall(), True), (corner, False), (box(), False)):
        shape = Shape((300, 300, 300), False, np.concatenate((points, wrong)), np.full(350, 10.0))
        assert shape.is_flat == is_flat


# --- photographs --------------------------------------------------------------------------------------------------


def small(name: str = "montmartre_close.jpg", width: int = 480) -> NDArray[np.uint8]:
    picture = cv2.imread(str(ASSETS / name))
    assert picture is not None
    shrink = width / picture.shape[1]
    return np.asarray(cv2.resize(picture, None, fx=shrink, fy=shrink, interpolation=cv2.INTER_AREA), np.uint8)


def test_eight_views_of_one_photograph_turned_about_its_middle_end_with_the_reason(tmp_path: Path) -> None:
    picture = small(width=320)
    (tmp_path / "photos").mkdir()
    height, width = picture.shape[:2]
    for n in range(8):
        turn = cv2.getRotationMatrix2D((width / 2 - 0.5, height / 2 - 0.5), 12 * n, 1)
        cv2.imwrite(str(tmp_path / "photos" / f"{n}.png"), cv2.warpAffine(picture, turn, (width, height)))
    told = lightglue("sfm", tmp_path / "photos", "-o", tmp_path / "map", *SIFT)
    assert told.code == 1
    assert "There is no model: All 28 verified pairs of the 8 images are planar or panoramic" in " ".join(
        told.err.split()
    )
    assert told.err.count("28 verified pairs") == 1
    assert not (tmp_path / "map" / "model").exists()
    assert "planar or panoramic" in (tmp_path / "map" / "report.html").read_text()


def test_a_photograph_panned_and_zoomed_has_no_depth_and_is_given_none(tmp_path: Path) -> None:
    picture = small(width=900)
    (tmp_path / "photos").mkdir()
    for n in range(5):
        width, height = 480 - 16 * n, 360 - 12 * n
        part = picture[8 * n : 8 * n + height, 24 * n : 24 * n + width]
        cv2.imwrite(str(tmp_path / "photos" / f"{n}.png"), cv2.resize(part, (480, 360), interpolation=cv2.INTER_AREA))
    made = sift_map(tmp_path)
    for model in made.model.models:  # what a lens and a distance tell apart in a plane is uncertain, and said to be
        assert any("lie in a plane" in remark or "two views" in remark for remark in model.remarks)
    if not made.model.models:
        assert "planar or panoramic" in str(made.model.reason)


def test_a_short_walk_past_a_corner_is_not_taken_for_a_rotation(tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    for n in range(4):
        cv2.imwrite(str(tmp_path / "photos" / f"{n}.png"), photograph(0.7 * n))
    made = sift_map(tmp_path)
    assert made.model.reason is None
    assert made.model.models[0].num_images == 4


def sift_map(folder: Path) -> MapResult:
    models = Models("sift", 600, "cpu", False, matcher="nearest", thresholds={"ratio_threshold": 0.8})
    options = SfmOptions(
        models,
        ExtractOptions(models, {"resize": None}),
        MatchOptions(models),
        reconstruct=ReconstructOptions(threads=1),
    )
    return build_map(folder / "photos", folder / "map", options)


def test_of_a_model_of_two_photographs_view_and_localize_say_what_it_is(tmp_path: Path) -> None:
    for part, numbers in (("photos", (0, 4)), ("queries", (2,))):
        (tmp_path / part).mkdir()
        for n in numbers:
            cv2.imwrite(str(tmp_path / part / f"{n}.png"), photograph(n))
    camera = ("--camera", "PINHOLE:300,300,160,120")
    told = lightglue("sfm", tmp_path / "photos", "-o", tmp_path / "map", *SIFT, *camera)
    assert told.code == 0
    assert "2 of 2 images" in told.out
    for words in (
        ("view", tmp_path / "map", "--png", tmp_path / "map.png"),
        ("localize", tmp_path / "map", tmp_path / "queries", "-o", tmp_path / "poses", *camera),
    ):
        said = lightglue(*words)
        assert said.code == 0
        assert "The model is of two views" in said.err
    assert "The model is of two views" in (tmp_path / "map" / "report.html").read_text()
    assert (tmp_path / "poses" / "poses.txt").read_text().startswith("2.png ")
    assert lightglue("map", "add", tmp_path / "map", tmp_path / "queries").code == 0  # a third view: it says so no more
    assert "of two views" not in lightglue("view", tmp_path / "map", "--png", tmp_path / "map.png").err
    assert "of two views" not in (tmp_path / "map" / "map.json").read_text()


@pytest.mark.parametrize(
    ("scene", "manifest", "names"),
    [
        ("fountain-P11", "loc_fountain.json", ("0000.jpg", "0003.jpg")),
        ("Herz-Jesus-P8", "loc_herzjesu.json", ("0000.jpg", "0005.jpg")),
    ],
)
def test_two_far_photographs_of_a_scene_have_the_true_pose(
    tmp_path: Path, scene: str, manifest: str, names: tuple[str, str]
) -> None:
    data = SHARED / "data"
    if not (data / "strecha1024" / scene).is_dir():
        pytest.skip(f"{NEEDS_SHARED}: strecha1024")
    entries = {Path(each["image"]).name: each for each in json.loads((data / manifest).read_text())["images"]}
    (tmp_path / "photos").mkdir()
    for name in names:
        (tmp_path / "photos" / name).symlink_to(data / "strecha1024" / scene / name)
    fx, fy, cx, cy = np.array(entries[names[0]]["K"])[[0, 1, 0, 1], [0, 1, 2, 2]]
    models = Models("aliked", 512, "cpu", False)
    options = SfmOptions(
        models,
        ExtractOptions(models, {"resize": None}),
        MatchOptions(models),
        cameras=CameraOptions("PINHOLE", (fx, fy, cx, cy)),
        reconstruct=ReconstructOptions(threads=1),
    )
    made = build_map(tmp_path / "photos", tmp_path / "map", options)
    assert made.model.models[0].num_images == 2
    found = [cam_from_world(image) for image in registered(open_model(tmp_path / "map" / "model"))]
    true = [np.array(entries[name]["T_w2c"]) for name in names]
    ours, theirs = (T[1] @ np.linalg.inv(T[0]) for T in (found, true))
    assert degrees(ours[:3, :3], theirs[:3, :3]) < 0.3
    cosine = ours[:3, 3] @ theirs[:3, 3] / np.linalg.norm(ours[:3, 3]) / np.linalg.norm(theirs[:3, 3])
    assert np.degrees(np.arccos(cosine)) < 0.3
