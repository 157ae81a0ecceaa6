"""Simulated views: where their pixels go, and how they are made."""

from __future__ import annotations

import numpy as np
import pytest

from lightglue.pairs.hard.views import PLAIN, View
from lightglue.pairs.hard.warping import covered, inverse_of, linear_at, moved, scaling, warp

VIEWS = [
    PLAIN,
    View(turn=90),
    View(turn=33),
    View(scale=0.5),
    View(2, 0),
    View(4, 90),
    View(2, 45, turn=180),
    View(4, 30, turn=20, scale=0.7),
]
SIZE = (120, 90)


def dot(at: tuple[float, float]) -> np.ndarray:
    """A picture (H, W) with one soft dot."""
    x, y = np.meshgrid(np.arange(SIZE[0]), np.arange(SIZE[1]))
    return np.exp(-((x - at[0]) ** 2 + (y - at[1]) ** 2) / (2 * 6.0**2)).astype(np.float32)


@pytest.mark.parametrize("view", VIEWS, ids=str)
def test_positions_go_to_the_view_and_back(view: View):
    made = view.of(*SIZE)
    points = np.random.default_rng(0).uniform(-0.5, 89.5, (50, 2))
    there = moved(made.matrix, points)
    assert np.abs(moved(inverse_of(made.matrix), there) - points).max() < 1e-9


@pytest.mark.parametrize("view", VIEWS, ids=str)
def test_pixels_go_where_the_matrix_says(view: View):
    """The centroid of a dot lies where the dot's middle is mapped to."""
    made, at = view.of(*SIZE), (52.25, 47.5)
    seen = made.apply(dot(at)).astype(np.float64)
    x, y = np.meshgrid(np.arange(seen.shape[1]), np.arange(seen.shape[0]))
    centroid = np.array([(seen * x).sum(), (seen * y).sum()]) / seen.sum()
    assert seen.shape == made.size[::-1]
    assert np.abs(centroid - moved(made.matrix, np.array(at))).max() < 1e-2


@pytest.mark.parametrize("view", VIEWS, ids=str)
def test_a_view_holds_all_of_the_image_and_says_what_is_image(view: View):
    made = view.of(*SIZE)
    corners = moved(made.matrix, np.array([[0, 0], [119, 0], [119, 89], [0, 89]]))
    assert (corners > -1).all()
    assert (corners < np.array(made.size)).all()
    inside, outside = np.array([[60.0, 45.0]]), np.array([[-3.0, 45.0], [60.0, 93.0]])
    assert covered(made.matrix, moved(made.matrix, inside), SIZE).all()
    assert not covered(made.matrix, moved(made.matrix, outside), SIZE).any()
    mask = made.mask()
    assert (mask is not None) == (view.turn % 90 != 0 or view.direction % 90 != 0)
    if mask is not None:
        assert mask.shape == made.size[::-1]
        assert 0.2 < mask.mean() < 0.98


def test_a_tilt_shrinks_along_its_direction_and_turns_nothing():
    linear = View(4, 30).linear()
    along, across = np.array([np.cos(np.pi / 6), 0.5]), np.array([-0.5, np.cos(np.pi / 6)])
    assert linear @ along == pytest.approx(along / 4)
    assert linear @ across == pytest.approx(across)


def test_shrinking_blurs_before_it_samples():
    """Stripes of two px are grey at a quarter of the width, whichever of them are sampled."""
    stripes = np.tile(np.array([0, 1], np.float32), (64, 64))
    seen = View(4, 0).of(128, 64).apply(stripes)
    assert seen.shape == (64, 32)
    assert np.abs(seen[:, 2:-2] - 0.5).max() < 0.02


def test_points_beyond_the_horizon_are_nowhere():
    H = np.array([[1, 0, 0], [0, 1, 0], [0, -0.02, 1.0]])
    assert np.isfinite(moved(H, np.array([10.0, 49.0]))).all()
    assert not np.isfinite(moved(H, np.array([10.0, 51.0]))).any()
    assert moved(-H, np.array([10.0, 20.0])) == pytest.approx(moved(H, np.array([10.0, 20.0])))


def test_the_linear_part_of_a_homography_is_its_derivative():
    H = np.array([[1.1, 0.2, 3], [-0.1, 0.9, 4], [1e-3, -5e-4, 1]])
    at, step = np.array([30.0, 40.0]), 1e-5
    found = [(moved(H, at + step * axis) - moved(H, at)) / step for axis in np.eye(2)]
    assert linear_at(H, at) == pytest.approx(np.array(found).T, abs=1e-5)


def test_resizing_moves_the_middle_of_the_first_pixel():
    """The origin is the middle of a pixel: its left side is at -0.5."""
    assert moved(scaling(0.5, 0.25), np.array([-0.5, -0.5])) == pytest.approx([-0.5, -0.5])
    small = warp(dot((60, 45)), scaling(0.5, 0.5), (60, 45))
    assert np.unravel_index(small.argmax(), small.shape) in ((22, 30), (22, 29))
