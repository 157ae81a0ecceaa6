"""`effort="hard"`: matches made exact, and the epipolar geometry of a scene that is mostly one plane."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from lightglue import load_image
from lightglue.geometry import epipolar_error
from lightglue.pairs.hard.exact import FARTHEST, sharpened
from lightglue.pairs.hard.finish import _chosen
from lightglue.pairs.hard.looks import Correspondences, Image, Looks
from lightglue.pairs.hard.models import fit
from lightglue.pairs.hard.parallax import with_parallax
from lightglue.pairs.hard.rematch import Frame, common_frame
from lightglue.pairs.hard.warping import moved, scaling, warp

ASSETS = Path(__file__).parents[1] / "assets"
H = np.array([[0.55, 0.1, 30], [-0.05, 0.95, 25], [1e-4, 2e-4, 1]])


def matches(points0: np.ndarray, points1: np.ndarray) -> Correspondences:
    ones = torch.ones(len(points0))
    scores = np.full(len(points0), 0.9)
    return Correspondences(points0, points1, scores, ones, ones, ones[:, None], ones[:, None], (len(ones), len(ones)))


@pytest.fixture(scope="module")
def images() -> tuple[Image, Image]:
    """A photograph, and the same under H, darker."""
    photo = load_image(ASSETS / "montmartre_far.jpg").permute(1, 2, 0).contiguous().numpy()
    scale = 400 / photo.shape[1]
    small = warp(photo, scaling(scale, scale), (400, int(photo.shape[0] * scale)))
    size = small.shape[1], small.shape[0]
    return Image(small, (1.0, 1.0), None), Image(0.1 + 0.6 * warp(small, H, size), (1.0, 1.0), None)


@pytest.fixture(scope="module")
def textured(images: tuple[Image, Image]) -> tuple[np.ndarray, Frame]:
    """Positions in image 0 with corners around them that both images show, and the frame of H."""
    import cv2

    grey = images[0].pixels.mean(axis=2)
    corners = cv2.goodFeaturesToTrack(grey, 200, 0.02, 8)[:, 0].astype(float)
    there = moved(H, corners)
    inside = ((corners > 20) & (corners < np.array(images[0].size) - 20)).all(axis=1)
    frame = common_frame(H, images, 400)
    assert frame is not None
    return corners[inside & ((there > 20) & (there < np.array(images[1].size) - 20)).all(axis=1)], frame


def test_ends_that_are_off_by_a_px_come_to_lie_where_the_images_fit(images, textured):
    points, frame = textured
    rough = moved(H, points) + np.random.default_rng(0).normal(0, 0.7, points.shape)
    found = sharpened(Looks(images, torch.device("cpu")), matches(points, rough), frame)
    before, after = (np.linalg.norm(each - moved(H, points), axis=1) for each in (rough, found.points1))
    assert len(points) > 60
    assert np.median(before) > 0.7
    assert np.median(after) < 0.15
    assert np.array_equal(found.points0, points)


def test_no_end_is_moved_far(images, textured):
    """Of a wrong match nothing can be made: it stays about where it is, and the model does not agree with it."""
    points, frame = textured
    rough = moved(H, points) + np.array([15.0, -9.0])
    found = sharpened(Looks(images, torch.device("cpu")), matches(points, rough), frame)
    moved_by = np.linalg.norm(moved(frame.matrices[1], found.points1) - moved(frame.matrices[1], rough), axis=1)
    assert moved_by.max() < FARTHEST


def test_nothing_stays_nothing_and_beyond_the_horizon_it_stays_too(images, textured):
    looks, frame = Looks(images, torch.device("cpu")), textured[1]
    assert len(sharpened(looks, matches(np.zeros((0, 2)), np.zeros((0, 2))), frame)) == 0
    beyond = moved(np.linalg.inv(frame.matrices[1]), np.full((1, 2), 1e9)) * 2
    found = sharpened(looks, matches(np.full((1, 2), 50.0), beyond), frame)
    assert np.array_equal(found.points1, beyond)


K = np.array([[400, 0, 200], [0, 400, 150], [0, 0, 1.0]])
T = np.eye(4)
T[:3, :3] = [[0.96, 0.0, 0.28], [0.0, 1.0, 0.0], [-0.28, 0.0, 0.96]]
T[:3, 3] = [-1.5, 0.1, 0.3]


def seen(depths: np.ndarray, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Where two cameras see points of these depths."""
    points0 = np.random.default_rng(seed).uniform([20, 20], [380, 280], (len(depths), 2))
    rays = np.column_stack((points0, np.ones(len(depths)))) @ np.linalg.inv(K).T
    x = (rays * depths[:, None]) @ T[:3, :3].T + T[:3, 3]
    x = x @ K.T
    return points0, x[:, :2] / x[:, 2:]


@pytest.fixture(scope="module")
def true_F() -> np.ndarray:
    Kinv = np.linalg.inv(K)
    tx = T[:3, 3]
    cross = np.array([[0, -tx[2], tx[1]], [tx[2], 0, -tx[0]], [-tx[1], tx[0], 0]])
    return Kinv.T @ cross @ T[:3, :3] @ Kinv


PLANE = K @ (T[:3, :3] + np.outer(T[:3, 3], [0, 0, 1 / 6.0])) @ np.linalg.inv(K)  # of all points of depth 6


def test_a_plane_and_what_lies_off_it_give_the_epipolar_geometry(true_F):
    points = seen(np.random.default_rng(1).uniform(3, 5, 40), 2)
    points[1][30:] = np.random.default_rng(3).uniform(20, 280, (10, 2))  # wrong matches
    F, agree = with_parallax(PLANE, *points, 1.0)
    assert agree[:30].all()
    assert agree[30:].sum() <= 2
    assert epipolar_error(F, *seen(np.linspace(2, 20, 50), 4)).max() < 0.5
    assert epipolar_error(true_F, *seen(np.linspace(2, 20, 50), 4)).max() < 1e-6


def test_two_matches_off_a_plane_say_nothing():
    assert with_parallax(PLANE, *seen(np.array([3.0, 4.0]), 0), 1.0) is None


def test_a_scene_that_is_mostly_one_plane_has_a_fundamental_matrix_where_enough_lies_off_it():
    """500 matches of a plane, and 40 of a box before it: any robust estimate is content with the plane."""
    flat = seen(np.full(500, 6.0), 5)
    box = seen(np.random.default_rng(6).uniform(3, 4.5, 40), 7)
    found = matches(*(np.vstack(both) for both in zip(flat, box, strict=True)))
    frame, scene = (
        common_frame(PLANE, (blank(), blank()), 400),
        Frame((np.eye(3), np.eye(3)), (0, 0), (flat[0][0],) * 2),
    )
    model = _chosen(found, frame, scene)
    assert model.geometry == "fundamental"
    assert epipolar_error(model.matrix, *seen(np.linspace(2, 20, 50), 4)).mean() < 1.0
    only = _chosen(found.only(np.arange(505)), frame, scene)
    assert only.geometry == "homography"
    wrong = found.points1.copy()
    wrong[500:] = np.random.default_rng(8).uniform(20, 280, (40, 2))
    assert _chosen(replace(found, points1=wrong), frame, scene).geometry == "homography"


def test_without_matches_of_a_plane_there_is_no_plane():
    frame = common_frame(PLANE, (blank(), blank()), 400)
    assert fit(matches(np.zeros((0, 2)), np.zeros((0, 2))), "homography", 1.0, frame) is None


def blank() -> Image:
    return Image(np.zeros((300, 400, 3), np.float32), (1.0, 1.0), None)
