"""Samples of images with poses: own tracks of a COLMAP model, depth in MegaDepth's layout; of a generated scene."""

import os
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
from tests.support.posed_scene import SIZE, K, pose, render, write_colmap, write_images, write_megadepth

from lightglue.errors import InputError, StoreError
from lightglue.training.data_options import DataOptions, FeatureOptions
from lightglue.training.own_tracks import guided_matches, teacher_of
from lightglue.training.samples import open_samples
from lightglue.training.sources.depth import depths_at, sample_depth
from lightglue.training.sources.options import SourceOptions
from lightglue.training.sources.scene_info import list_scene_info
from lightglue.training.sources.triangulation import join, triangulate
from lightglue.training.truth.posed import from_depth

pytest.importorskip("pycolmap")
FEATURES = FeatureOptions("sift", 256, fewest=8, device="cpu")


def options(kind, path, **changes):
    source = {name: changes.pop(name) for name in ("teacher", "images") if name in changes}
    sources = (SourceOptions(kind, str(path), **{"teacher": "nearest", **source}),)
    given = {"posed_size": 320, "overlaps": (0.1, 0.5, 0.95), "pairs_per_scene": 8, "validation": 0.3, **changes}
    return DataOptions(sources=sources, **given)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return write_colmap(tmp_path_factory.mktemp("scene"))


@pytest.fixture(scope="module")
def tracked(model, tmp_path_factory):
    return open_samples(options("model", model), FEATURES, tmp_path_factory.mktemp("pool"), 0, workers=1)


@pytest.fixture(scope="module")
def megadepth(tmp_path_factory):
    pytest.importorskip("h5py")
    return write_megadepth(tmp_path_factory.mktemp("megadepth"))


@pytest.fixture(scope="module")
def measured(megadepth, tmp_path_factory):
    return open_samples(options("depth", megadepth), FEATURES, tmp_path_factory.mktemp("pool"), 0, workers=1)


def exact(sample):
    """The truth by the rendered depths."""
    numbers = [int(Path(view.partition("#")[0]).stem) for view in sample.views]
    features = sample.features0, sample.features1
    depths = [
        sample_depth(render(pose(n))[1], each.keypoints.astype(float))
        for n, each in zip(numbers, features, strict=True)
    ]
    T = pose(numbers[1]) @ np.linalg.inv(pose(numbers[0]))
    return from_depth(features[0].keypoints, features[1].keypoints, *depths, K, K, T)


def test_labels_of_own_tracks_are_true(tracked):
    right = labelled = wrong_negatives = negatives = findable = 0
    for k in range(tracked.epoch):
        sample = tracked.sample(k)
        truth, known = exact(sample), sample.truth
        rows = np.flatnonzero(known.matches0 >= 0)
        keypoints = sample.features0.keypoints, sample.features1.keypoints
        # Several keypoints of one place are as good as each other.
        theirs = truth.matches0[rows]
        beside = np.linalg.norm(keypoints[1][theirs] - keypoints[1][known.matches0[rows]], axis=1) < 3
        labelled += len(rows)
        right += int(((theirs >= 0) & beside).sum())
        far = known.matches0 == -1
        negatives += int(far.sum())
        wrong_negatives += int((far & (truth.matches0 >= 0)).sum())
        findable += int((truth.matches0 >= 0).sum())
    assert right / labelled > 0.95
    assert right / findable > 0.5
    assert negatives > labelled / 4
    assert wrong_negatives / negatives < 0.01


def test_images_of_a_single_scene_are_held_out_that_overlap(tracked):
    held = [tracked.validation_sample(i).views for i in range(tracked.num_validation)]
    assert len(held) == 1
    learnt = {name for k in range(tracked.epoch) for name in tracked.sample(k).views}
    assert not set(held[0]) & learnt
    assert len(learnt) == 4


def test_tracks_are_made_once_and_again_where_what_they_are_made_of_changed(model, tracked):
    told = []
    again = open_samples(
        options("model", model), FEATURES, tracked.pool.folder, 0, workers=1, progress=lambda *each: told.append(each)
    )
    assert [each for each in told if each[0] != "features"] == []
    assert again.fingerprint == tracked.fingerprint
    assert np.array_equal(again.sample(3).truth.matches0, tracked.sample(3).truth.matches0)


def test_depth_truth_of_a_pool_is_that_of_the_depth_maps(measured):
    for k in range(3):
        sample = measured.sample(k)
        truth = exact(sample)
        assert np.array_equal(sample.truth.matches0, truth.matches0)
        assert np.array_equal(sample.truth.matches1, truth.matches1)
        assert len(truth.positives) > 20
    assert measured.num_validation >= 1


def test_sizes_and_cameras_are_those_of_the_views(model, tmp_path):
    made = open_samples(options("model", model, posed_size=200), FEATURES, tmp_path, 0, workers=1)
    sample = made.sample(0)
    assert sample.features0.image_size == (200, 150)
    assert made.picture(sample.views[0]).shape == (150, 200, 3)
    assert len(sample.truth.positives) > 10


def test_a_map_of_the_same_images_in_another_size_is_scaled(model, tmp_path):
    shutil.copytree(model, tmp_path / "scene")
    for path in (tmp_path / "scene" / "images").iterdir():
        cv2.imwrite(str(path), cv2.resize(cv2.imread(str(path)), (480, 360)))
    made = open_samples(options("model", tmp_path / "scene", posed_size=480), FEATURES, tmp_path / "pool", 0, workers=1)
    assert len(made.sample(0).truth.positives) > 10


def test_several_scenes_are_held_out_whole_and_drawn_from_each(megadepth, tmp_path):
    root = tmp_path / "root"
    shutil.copytree(megadepth, root)
    write_megadepth(root, 5, "0008")
    made = open_samples(options("depth", root), FEATURES, tmp_path / "pool", 0, workers=1)
    scenes = {name.split("/")[2] for k in range(made.epoch) for name in made.sample(k).views}
    held = {name.split("/")[2] for i in range(made.num_validation) for name in made.validation_sample(i).views}
    assert scenes | held == {"0007", "0008"}
    assert not scenes & held


def test_the_folder_of_the_scenes_may_be_named_itself(megadepth):
    named, whole = (
        list_scene_info("key", SourceOptions("depth", str(each))) for each in (megadepth / "scene_info", megadepth)
    )
    assert named.images == whole.images


def test_sources_of_all_kinds_are_mixed(model, megadepth, tmp_path):
    write_images(tmp_path / "photos", 3)
    kinds = (("images", tmp_path / "photos", 2.0), ("model", model, 1.0), ("depth", megadepth, 1.0))
    sources = tuple(SourceOptions(kind, str(path), weight, teacher="nearest") for kind, path, weight in kinds)
    data = DataOptions(sources=sources, views=3, view_size=(160, 120), posed_size=320, overlaps=(0.1, 0.95))
    made = open_samples(data, FEATURES, tmp_path / "pool", 0, workers=1)
    owners = [made.sample(k).views[0].partition("/")[0] for k in range(100)]
    assert sorted(owners.count(each) for each in set(owners)) == [25, 25, 50]
    assert made.num_validation >= 3


# --- parts ---


def test_matches_become_tracks_and_no_image_is_twice_in_one():
    matches = [(0, 1, [[0, 0], [1, 1]], [0.9, 0.8]), (1, 2, [[0, 0]], [0.7]), (0, 2, [[1, 0]], [0.6])]
    # The last would bring both keypoints of image 0 together, by way of image 2.
    numbers = join([3, 2, 1], [(a, b, np.array(rows), np.array(scores)) for a, b, rows, scores in matches])
    assert [each.tolist() for each in numbers] == [[0, 1, -1], [0, 1], [0]]
    assert [len(each) for each in join([2, 0], [])] == [2, 0]


def test_tracks_are_placed_where_rays_meet_and_what_does_not_fit_is_left_out():
    poses = np.stack([pose(number) for number in range(4)])
    places = np.array([[0.3, 0.2, 6.0], [1.0, -1, 10], [0, 0, 400.0]])
    rays = [((places @ T[:3, :3].T + T[:3, 3]) / (places @ T[:3, :3].T + T[:3, 3])[:, 2:])[:, :2] for T in poses]
    rays[3][0] += 0.05  # 15 px
    numbers = [np.arange(3)] * 4
    shift = np.eye(4)
    shift[:3, 3] = [4e6, 5e5, 5e6]  # as geographic coordinates have it
    tracks = triangulate(numbers, rays, poses @ np.linalg.inv(shift), np.full(4, 300.0), 2.0)
    assert [each[0] for each in tracks.numbers] == [0, 0, 0, -1]
    assert tracks.places[:2] - shift[:3, 3] == pytest.approx(places[:2], abs=1e-6)
    assert np.isnan(tracks.places[2]).all()  # it is so far away that the rays are parallel
    assert tracks.numbers[0][2] == 2


def test_without_a_match_there_are_no_tracks():
    numbers = join([3, 0], [])
    tracks = triangulate(numbers, [np.zeros((3, 2)), np.zeros((0, 2))], np.stack([pose(0), pose(1)]), np.ones(2), 2.0)
    assert [each.tolist() for each in tracks.numbers] == [[-1, -1, -1], []]
    assert tracks.places.shape == (0, 3)


def test_depths_are_interpolated_where_all_around_is_known():
    depth = np.array([[1, 2, 0], [3, 4, 5]], np.float32)
    points = np.array([[0.5, 0.5], [1.5, 0.5], [2, 1], [0, 0], [-0.4, 0], [3, 0]])
    assert sample_depth(depth, points).tolist() == pytest.approx([2.5, np.nan, 5, 1, 1, np.nan], nan_ok=True)


def test_depth_maps_may_be_of_another_size_than_the_view(tmp_path):
    np.save(tmp_path / "depth.npy", np.repeat(np.repeat(np.arange(1, 9, dtype=np.float32), 10)[None], 60, 0))
    found = depths_at(str(tmp_path / "depth.npy"), np.array([[4.5, 3.0], [19.5, 10]]), (40, 30))
    assert found.tolist() == pytest.approx([1.0 + 0.5, 4.5], abs=0.6)


def test_a_depth_map_that_is_none_is_said(tmp_path):
    (tmp_path / "depth.npy").write_bytes(b"no array")
    with pytest.raises(StoreError, match="holds no depths"):
        depths_at(str(tmp_path / "depth.npy"), np.zeros((1, 2)), (4, 3))


def test_guided_matches_are_mutual_clear_and_near(tracked):
    features = tracked.sample(0).features0
    near = np.eye(len(features), dtype=bool)
    matches, scores = guided_matches(features, features, near)
    assert matches.tolist() == [[i, i] for i in range(len(features))]
    assert scores.min() > 0.99
    assert len(guided_matches(features, features, ~np.ones_like(near))[0]) == 0


# --- bad input ---


def test_a_model_without_its_images_says_where_they_were_looked_for(model, tmp_path):
    shutil.copytree(model / "sparse", tmp_path / "sparse")
    with pytest.raises(InputError, match=r"6 cannot, such as 0.png: there is no image in .*relative to"):
        open_samples(options("model", tmp_path), FEATURES, tmp_path / "pool", 0, workers=1)
    made = open_samples(
        options("model", tmp_path, images=str(model / "images")), FEATURES, tmp_path / "pool", 0, workers=1
    )
    assert made.epoch > 0


def test_images_that_a_model_lacks_are_left_out_and_the_rest_is_used(model, tmp_path):
    shutil.copytree(model, tmp_path / "scene")
    (tmp_path / "scene" / "images" / "0.png").unlink()
    cv2.imwrite(str(tmp_path / "scene" / "images" / "1.png"), np.zeros((200, 200, 3), np.uint8))
    made = open_samples(options("model", tmp_path / "scene", validation=0), FEATURES, tmp_path / "pool", 0, workers=1)
    told = {each.name: each.reason for each in made.pool.left_out}
    assert "there is no image" in told["scene/0.png"]
    assert "200 x 200" in told["scene/1.png"]


def test_a_folder_without_a_model_is_refused(tmp_path):
    with pytest.raises(InputError, match="There is no COLMAP model"):
        open_samples(options("model", tmp_path), FEATURES, tmp_path / "pool", 0)
    with pytest.raises(InputError, match="There is no scene"):
        open_samples(options("depth", tmp_path), FEATURES, tmp_path / "pool", 0)


def test_a_model_of_no_image_is_refused(model, tmp_path):
    shutil.copytree(model, tmp_path / "scene")
    for part in ("images", "points3D"):
        (tmp_path / "scene" / "sparse" / f"{part}.txt").write_text("")
    with pytest.raises(InputError, match="no image with a pose"):
        open_samples(options("model", tmp_path / "scene"), FEATURES, tmp_path / "pool", 0)


@pytest.mark.parametrize("teacher", ["nearest", "lightglue"])
def test_a_model_of_one_image_is_refused(model, tmp_path, teacher):
    shutil.copytree(model, tmp_path / "scene")
    for image in (tmp_path / "scene" / "images").iterdir():
        if image.name != "0.png":
            image.unlink()
    with pytest.raises(
        InputError, match=r"No pair can be made of .*of use is 1 view of 1 image \(5 x there is no image in"
    ):
        open_samples(options("model", tmp_path / "scene", teacher=teacher), FEATURES, tmp_path / "pool", 0, workers=1)


def test_a_model_whose_images_have_another_shape_says_so_without_a_wrong_remedy(model, tmp_path):
    shutil.copytree(model, tmp_path / "scene")
    for image in (tmp_path / "scene" / "images").iterdir():
        cv2.imwrite(str(image), np.zeros((200, 200, 3), np.uint8))
    with pytest.raises(InputError, match=r"6 cannot, such as 0.png: its camera is .*; scale the one or the other\.$"):
        open_samples(options("model", tmp_path / "scene"), FEATURES, tmp_path / "pool", 0, workers=1)


def test_images_that_hardly_overlap_make_no_pairs(model, tmp_path):
    with pytest.raises(InputError, match="No pair can be made"):
        open_samples(options("model", model, overlaps=(0.99, 1.0)), FEATURES, tmp_path, 0, workers=1)


def test_a_teacher_that_does_not_know_the_features_is_refused():
    own = FeatureOptions("my_module:Extractor")
    assert teacher_of(SourceOptions("model", "a"), own) == "nearest"
    assert teacher_of(SourceOptions("model", "a"), FeatureOptions("disk")) == "lightglue"
    with pytest.raises(InputError, match="nearest"):
        teacher_of(SourceOptions("model", "a", teacher="lightglue"), own)


class _Harm:
    def __init__(self, folder):
        self.folder = str(folder)

    def __reduce__(self):
        return os.mkdir, (self.folder,)


def test_a_scene_file_can_do_no_harm(tmp_path):
    pytest.importorskip("h5py")
    write_megadepth(tmp_path, 2, depth_paths=np.array([_Harm(tmp_path / "harm"), None, None], object))
    with pytest.raises(InputError, match=r"is no scene .*it holds a \w+\.mkdir"):
        list_scene_info("a", SourceOptions("depth", str(tmp_path)))
    assert not (tmp_path / "harm").exists()


def test_a_scene_file_that_lacks_something_says_what(tmp_path):
    (tmp_path / "scene_info").mkdir()
    np.savez(tmp_path / "scene_info" / "a.npz", poses=np.eye(4)[None])
    with pytest.raises(InputError, match="has no image_paths, depth_paths, intrinsics, overlap_matrix, but poses"):
        list_scene_info("a", SourceOptions("depth", str(tmp_path)))
    (tmp_path / "scene_info" / "a.npz").write_bytes(b"PK no archive")
    with pytest.raises(InputError, match="is no scene"):
        list_scene_info("a", SourceOptions("depth", str(tmp_path)))


def test_an_image_whose_depth_map_is_gone_is_left_out(megadepth, tmp_path):
    shutil.copytree(megadepth, tmp_path / "root")
    (tmp_path / "root" / "depth_undistorted" / "0007" / "0.h5").unlink()
    listed = list_scene_info("a", SourceOptions("depth", str(tmp_path / "root")))
    assert len(listed.images) == 5
    assert "no depth map at" in listed.skipped[0].reason
    assert listed.images[0].posed.camera.size == SIZE
