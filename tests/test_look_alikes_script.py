"""What scripts/look_alikes judges maps by."""

import importlib
import sys
from pathlib import Path
from types import ModuleType

import cv2
import numpy as np
import pytest

SCRIPTS = Path(__file__).parents[1] / "scripts" / "look_alikes"


@pytest.fixture(scope="module", autouse=True)
def _on_the_path():
    before = sys.path.copy()
    sys.path.insert(0, str(SCRIPTS))
    yield
    sys.path[:] = before


def module(name: str) -> ModuleType:
    return importlib.import_module(name)


def pose(degrees: float, centre: tuple[float, float, float]) -> np.ndarray:
    T = np.eye(4)
    T[:3, :3] = cv2.Rodrigues(np.radians([0.0, degrees, 0.0]))[0]
    T[:3, 3] = -T[:3, :3] @ np.array(centre)
    return T


def ring(count: int, degrees: float = 351.0) -> dict[str, np.ndarray]:
    angles = np.radians(np.linspace(0, degrees, count))
    return {f"{i:04d}.jpg": pose(0, (np.cos(a), 0.1, np.sin(a))) for i, a in enumerate(angles)}


def scene_of(poses: dict[str, np.ndarray]):
    return module("scenes").Scene("scene", Path(), tuple(sorted(poses)), {}, (poses,))


def circle_of(poses: dict[str, np.ndarray]):
    return module("scenes").Scene("cup", Path(), tuple(sorted(poses)))


def walk() -> dict[str, np.ndarray]:
    return {f"{i}.jpg": pose(10.0 * i, (i, 0.3 * i * i, 0.1 * i**3)) for i in range(6)}


def test_relative_poses_are_chained_where_pairs_hang_together():
    T = walk()
    edges = {
        (a, b): T[b] @ np.linalg.inv(T[a]) for a, b in [("0.jpg", "2.jpg"), ("1.jpg", "2.jpg"), ("4.jpg", "5.jpg")]
    }
    groups = module("scenes").chained(edges)
    assert [sorted(group) for group in groups] == [["0.jpg", "1.jpg", "2.jpg"], ["4.jpg", "5.jpg"]]
    np.testing.assert_allclose(groups[0]["1.jpg"], T["1.jpg"] @ np.linalg.inv(T["0.jpg"]), atol=1e-12)


def test_a_model_in_another_frame_is_right():
    truth = walk()
    turn = pose(40, (1, 2, 3))
    found = {}
    for name, T in truth.items():
        moved = T @ turn
        moved[:3, 3] *= 2.5
        found[name] = moved
    judged = module("judge").judge(scene_of(truth), found)
    assert judged["median"] == pytest.approx(0, abs=1e-9)
    assert not judged["wrong"]
    assert judged["right"] == sorted(truth)


def test_a_model_with_an_image_at_another_place_names_the_others_as_right():
    truth = walk()
    found = {**truth, "5.jpg": pose(140, (0.0, 0.0, 0.0))}
    judged = module("judge").judge(scene_of(truth), found)
    assert judged["worst"] > 2
    assert judged["right"] == sorted(set(truth) - {"5.jpg"})


def test_few_images_are_judged_by_their_rotations():
    truth = dict(list(walk().items())[:3])
    found = {**truth, "2.jpg": pose(170, (2, 1.2, 0.8)), "1.jpg": pose(-100, (1, 0.3, 0.1))}
    assert not module("judge").judge(scene_of(truth), truth)["wrong"]
    assert module("judge").judge(scene_of(truth), found)["wrong"]


def test_once_round_in_order_is_right():
    judged = module("judge").judge(circle_of(ring(64)), ring(64))
    assert judged["degrees"] == pytest.approx(351, abs=0.5)
    assert not judged["wrong"]


@pytest.mark.parametrize("degrees", [170.0, 702.0])
def test_half_a_circle_and_two_are_wrong(degrees: float):
    assert module("judge").judge(circle_of(ring(64)), ring(64, degrees))["wrong"]


def test_a_circle_in_another_order_is_wrong():
    names, found = sorted(ring(64)), ring(64)
    mixed = {name: found[names[(7 * i) % 64]] for i, name in enumerate(names)}
    assert module("judge").judge(circle_of(found), mixed)["wrong"]


def matches(T: np.ndarray, K: np.ndarray) -> list[np.ndarray]:
    points = np.random.default_rng(0).uniform((-2, -2, 5), (2, 2, 9), (60, 3))
    seen = [points @ K.T, (points @ T[:3, :3].T + T[:3, 3]) @ K.T]
    return [each[:, :2] / each[:, 2:] for each in seen]


def test_a_pair_is_true_if_its_inliers_fit_the_known_cameras_and_false_if_not():
    K = np.array([[900.0, 0, 500], [0, 900, 350], [0, 0, 1]])
    poses = {"a": pose(0, (0, 0, 0)), "b": pose(8, (-1, 0.1, 0))}
    scene = module("scenes").Scene("scene", Path(), ("a", "b"), {"a": K, "b": K}, (poses,))
    judge = module("pair_truth").judge
    true = judge(scene, "a", "b", matches(poses["b"], K))
    false = judge(scene, "a", "b", matches(pose(-30, (2, 1.5, 1)), K))
    assert (true["truth"], true["share"]) == ("true", 1.0)
    assert true["rotation"] < 0.1
    assert false["truth"] == "false"


def test_a_camera_of_the_second_place_sees_it_as_the_first_is_seen():
    G = np.eye(4)
    G[:3, :3] = 1.3 * cv2.Rodrigues(np.array([0.3, -0.5, 0.8]))[0]
    G[:3, 3] = 4, 5, 6
    T, X = pose(20, (1, 2, 3)), np.array([2.0, 1.0, 9.0, 1.0])
    first, second = T @ X, module("doubles").moved(T, G) @ (G @ X)
    np.testing.assert_allclose(second[:3] / second[2], first[:3] / first[2])
