"""Where a photograph was taken: estimation, votes, and the stage on real images."""

import numpy as np
import pytest

from lightglue.errors import InputError
from lightglue.geometry.cameras import Camera

pytest.importorskip("pycolmap")

from lightglue.sfm.localization.absolute_pose import Pose, PoseOptions, QueryCamera, estimate_pose
from lightglue.sfm.localization.localize import _Journal, _queries, quaternion
from lightglue.sfm.localization.localizer import LocalizeOptions, best_pose
from lightglue.sfm.localization.places import one_to_one

K = np.array([[900.0, 0, 500], [0, 910, 330], [0, 0, 1]])


def scene(count=200, outliers=100, seed=0, K=K):
    """Points of an image, points of the map, the pose, and which of them go together."""
    rng = np.random.default_rng(seed)
    T = np.eye(4)
    T[:3, :3] = np.linalg.qr(rng.normal(size=(3, 3)))[0]
    T[:3, :3] *= np.sign(np.linalg.det(T[:3, :3]))
    T[:3, 3] = rng.normal(size=3)
    seen = np.stack([rng.uniform(0, 1000, count), rng.uniform(0, 660, count), np.ones(count)], 1)
    rays = seen @ np.linalg.inv(K).T * rng.uniform(3, 9, count)[:, None]
    points3D = (rays - T[:3, 3]) @ T[:3, :3]
    points2D = seen[:, :2].copy()
    points2D[:outliers] = rng.uniform(0, 660, (outliers, 2))
    return points2D, points3D, T, np.arange(count) >= outliers


def query(K=K, **known):
    return QueryCamera(Camera(K), (1000, 660), **{"knows_focal": True, **known})


def test_a_pose_is_found_among_outliers_in_our_pixels():
    points2D, points3D, T, good = scene()
    pose = estimate_pose(points2D, points3D, query())
    assert pose.failure is None
    np.testing.assert_allclose(pose.cam_from_world, T, atol=1e-6)
    assert (pose.inliers & good).sum() == good.sum()


def test_a_focal_length_that_is_not_known_is_found_with_the_pose():
    square = np.array([[900.0, 0, 499.5], [0, 900, 329.5], [0, 0, 1]])
    points2D, points3D, T, _ = scene(K=square)
    guess = square.copy()
    guess[[0, 1], [0, 1]] = 1200
    pose = estimate_pose(points2D, points3D, query(guess, knows_focal=False, guessed=True))
    assert pose.camera.focal == pytest.approx(900, abs=1e-3)
    np.testing.assert_allclose(pose.cam_from_world, T, atol=1e-5)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda p, X, rng: (p[:10], X[:10]), "too few matches"),
        (lambda p, X, rng: (p[rng.permutation(len(p))], X), "too few inliers|no pose"),
    ],
)
def test_what_does_not_agree_is_a_failure_with_its_reason(change, reason):
    points2D, points3D, _, _ = scene(outliers=0)
    pose = estimate_pose(*change(points2D, points3D, np.random.default_rng(1)), query())
    assert pose.cam_from_world is None
    assert __import__("re").search(reason, pose.failure)


def test_no_points_and_uneven_points():
    assert "too few" in estimate_pose(np.empty((0, 2)), np.empty((0, 3)), query()).failure
    with pytest.raises(InputError, match="one for each"):
        estimate_pose(np.zeros((3, 2)), np.zeros((4, 3)), query())


def test_a_keypoint_gets_the_point_that_most_say_and_a_point_one_keypoint():
    rows = np.array([0, 0, 0, 1, 2])
    ids = np.array([7, 8, 8, 8, 9])
    scores = np.array([0.9, 0.6, 0.6, 0.5, 0.1])
    assert [array.tolist() for array in one_to_one(rows, ids, scores)] == [[0, 2], [8, 9]]


def test_the_likeliest_camera_is_left_only_for_far_more_inliers():
    def pose(count, failure=None):
        return Pose(None, None, np.arange(300) < count, failure)

    assert best_pose([a := pose(200), pose(215)]) is a
    assert best_pose([pose(200), b := pose(230)]) is b
    assert best_pose([pose(200, "too few"), b := pose(40)]) is b
    assert best_pose([a := pose(20, "too few"), pose(10, "too few")]) is a


def test_options_are_checked():
    with pytest.raises(InputError, match="candidates"):
        LocalizeOptions(candidates=0)
    with pytest.raises(InputError, match="pixels"):
        PoseOptions(pixels=0)


def test_a_quaternion_turns_back_into_its_rotation():
    _, _, T, _ = scene()
    w, x, y, z = quaternion(T[:3, :3])
    top = [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)]
    np.testing.assert_allclose(top, T[0, :3], atol=1e-12)
    assert w >= 0


def test_a_journal_forgets_the_line_that_a_kill_cut_off(tmp_path):
    journal = _Journal(tmp_path / "queries.jsonl", {"format": 1})
    journal.begin({})
    journal.add({"name": "a", "made_of": "x"})
    with journal.path.open("a") as file:
        file.write('{"name": "b", "ma')
    assert list(journal.read()) == ["a"]
    with pytest.raises(InputError, match="made with others"):
        _Journal(journal.path, {"format": 2}).read()


def test_a_list_of_queries(tmp_path):
    (tmp_path / "list.txt").write_text("# queries\na b.jpg\n\nc.jpg\na b.jpg\n")
    (tmp_path / "c.jpg").touch()
    found = _queries(tmp_path / "list.txt")
    assert (found.folder, found.names, found.cameras) == (tmp_path, ["a b.jpg", "c.jpg"], {})
    with pytest.raises(InputError, match="does not exist"):
        _queries(tmp_path / "none.txt")
