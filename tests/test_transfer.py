"""Matches at any positions say which fixed keypoints show the same."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from lightglue.geometry.transfer import transfer, transfer_one_by_one

Floats = NDArray[np.float64]
H = np.array([[0.4, -0.3, 300.0], [0.5, 1.1, -40.0], [-1e-4, 2e-4, 1.0]])  # a strong tilt, turned


def moved(points: Floats) -> Floats:
    there = np.c_[points, np.ones(len(points))] @ H.T
    return there[:, :2] / there[:, 2:]


def scene(seed: int = 0, pooled: int = 300, keypoints: int = 500) -> tuple[Floats, Floats, Floats, Floats, Floats]:
    """Keypoints of both images, half of which show the same, and matches elsewhere with their scores."""
    rng = np.random.default_rng(seed)
    points0 = rng.uniform(0, 600, (pooled, 2))
    keypoints0 = rng.uniform(0, 600, (keypoints, 2))
    others = moved(rng.uniform(0, 600, (keypoints // 2, 2)))
    keypoints1 = np.concatenate([moved(keypoints0[: keypoints // 2]) + rng.normal(0, 0.3, (keypoints // 2, 2)), others])
    points1 = moved(points0) + rng.normal(0, 0.5, (pooled, 2))
    return keypoints0, keypoints1, points0, points1, rng.uniform(0, 1, pooled)


def test_keypoints_that_show_the_same_are_found_by_matches_beside_them() -> None:
    found = transfer(*scene(), reach=40, error=3)
    right = found.matches[:, 0] == found.matches[:, 1]  # as the scene orders them
    assert right.sum() > 200, "of 250"
    assert right.mean() > 0.85
    assert len(np.unique(found.matches[:, 0])) == len(np.unique(found.matches[:, 1])) == len(found.matches)


@pytest.mark.parametrize("seed", range(3))
def test_all_at_once_is_what_one_by_one_is(seed: int) -> None:
    given = scene(seed, 80, 120)
    fast, plain = (each(*given, reach=40, error=3) for each in (transfer, transfer_one_by_one))
    np.testing.assert_array_equal(fast.matches, plain.matches)
    np.testing.assert_array_equal(fast.scores, plain.scores)


def test_wrong_matches_among_the_right_ones_move_no_keypoint_far() -> None:
    keypoints0, keypoints1, points0, points1, scores = scene()
    points1[::10] = np.random.default_rng(5).uniform(0, 600, (30, 2))
    found = transfer(keypoints0, keypoints1, points0, points1, scores, 40, 3)
    assert (found.matches[:, 0] == found.matches[:, 1]).mean() > 0.85


def test_what_an_image_shows_small_is_judged_where_it_is_large() -> None:
    grid = np.stack(np.meshgrid(np.arange(0.0, 400, 20), np.arange(0.0, 400, 20)), -1).reshape(-1, 2)
    small = grid * (0.1, 1.0)
    off = np.array([[200.0, 200.0]])
    given = np.array([[212.0, 200.0]]), off * (0.1, 1.0), grid, small, np.ones(len(grid))
    assert not len(transfer(*given, reach=40, error=3).matches), "1.2 px there, but 12 here"
    assert len(transfer(*given, reach=40, error=13).matches) == 1


@pytest.mark.parametrize("name", ["keypoints0", "keypoints1", "points"])
def test_without_keypoints_or_matches_there_are_none(name: str) -> None:
    keypoints0, keypoints1, points0, points1, scores = scene(0, 30, 30)
    none = np.empty((0, 2))
    given = {
        "keypoints0": (none, keypoints1, points0, points1, scores),
        "keypoints1": (keypoints0, none, points0, points1, scores),
        "points": (keypoints0, keypoints1, none, none, np.empty(0)),
    }[name]
    for each in (transfer, transfer_one_by_one):
        found = each(*given, reach=40, error=3)
        assert found.matches.shape == (0, 2)
        assert found.scores.shape == (0,)


def test_keypoints_far_from_every_match_have_none() -> None:
    keypoints0, keypoints1, points0, points1, scores = scene()
    near = points0[:, 0] < 100
    found = transfer(keypoints0, keypoints1, points0[near], points1[near], scores[near], 40, 3)
    assert keypoints0[found.matches[:, 0], 0].max() < 140
