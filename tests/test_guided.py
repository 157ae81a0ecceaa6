"""Guided matching: what is compared with what, what is chosen of it, and the geometry that guides."""

from __future__ import annotations

import numpy as np
import pytest

from lightglue.matching.coarse_to_fine import CoarseToFineOptions
from lightglue.matching.guided import (
    Evidence,
    Guess,
    GuidedOptions,
    Keypoints,
    Pairs,
    candidates,
    confidence,
    guess_by,
    guided_matches,
    mutual_best,
    predict,
    reference_candidates,
)
from lightglue.matching.seed_geometry import Model, fit_model, refit, residuals, turned

WIDTH, HEIGHT = 640, 480
OPTIONS = GuidedOptions()


def points(count: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).random((count, 2)) * (WIDTH, HEIGHT)


def described(positions: np.ndarray, seed: int = 0) -> Keypoints:
    descriptors = np.random.default_rng(seed).normal(size=(len(positions), 32))
    return Keypoints(
        positions, (descriptors / np.linalg.norm(descriptors, axis=1)[:, None]).astype(np.float32), float(WIDTH)
    )


def epipolar(seed: int = 0) -> tuple[Model, np.ndarray, np.ndarray]:
    """A scene of 300 points seen by two cameras, and its fundamental matrix."""
    rng = np.random.default_rng(seed)
    world = np.c_[rng.uniform(-2, 2, (300, 2)), rng.uniform(4, 8, 300)]
    K = np.array([[500, 0, 320], [0, 500, 240], [0, 0, 1.0]])
    angle, t = 0.15, np.array([1.0, 0.1, 0.2])
    R = np.array([[np.cos(angle), 0, np.sin(angle)], [0, 1, 0], [-np.sin(angle), 0, np.cos(angle)]])
    E = np.array([[0, -t[2], t[1]], [t[2], 0, -t[0]], [-t[1], t[0], 0]]) @ R
    F = np.linalg.inv(K).T @ E @ np.linalg.inv(K)
    views = [world @ K.T, (world @ R.T + t) @ K.T]
    first, second = (view[:, :2] / view[:, 2:] for view in views)
    return Model("fundamental", F), first, second


HOMOGRAPHY = Model("homography", np.array([[0.9, 0.1, 20], [-0.1, 1.1, 5], [1e-4, -2e-4, 1]]))
LINES = {
    "oblique": epipolar()[0],
    "horizontal": Model("fundamental", np.array([[0, 0, 0], [0, 0, -1.0], [0, 1, 0]])),
    "vertical": Model("fundamental", np.array([[0, 0, 1.0], [0, 0, 0], [-1, 0, 0]])),
    "through an epipole in the image": Model("fundamental", np.array([[0, -1, 200], [1, 0, -300], [-200, 300, 0.0]])),
    "homography": HOMOGRAPHY,
}


@pytest.mark.parametrize("name", LINES)
@pytest.mark.parametrize("error", [0.5, 12.0, 1e4])
def test_candidates_are_those_of_the_reference(name: str, error: float) -> None:
    model, rng = LINES[name], np.random.default_rng(1)
    points0, points1 = points(70, 2), points(90, 3)
    guess = Guess(points1[rng.integers(90, size=70)] + rng.normal(size=(70, 2)) * 20, rng.random(70) * 200)
    if name == "homography":  # near where the model points, or there are none
        guess = guess._replace(points=guess_by(model, points0, points0, points0, described(points1), OPTIONS).points)
    expected = reference_candidates(points0, points1, guess, model, error)
    found = candidates(points0, points1, guess, model, error)
    assert len(expected.first) or error < 1
    assert found.first.tolist() == expected.first.tolist()
    assert found.second.tolist() == expected.second.tolist()


def test_candidates_at_the_very_edge_of_a_circle_are_found() -> None:
    # whole numbers, so that distances equal the radius exactly; many keypoints on the borders of the grid's rows
    grid = np.stack(np.meshgrid(np.arange(0, 40, 5.0), np.arange(0, 40, 5.0)), -1).reshape(-1, 2)
    guess = Guess(grid, np.full(len(grid), 10.0))
    anything = Model("fundamental", np.array([[0, 0, 0], [0, 0, -1.0], [0, 1, 0]]))
    expected = reference_candidates(grid, grid, guess, anything, 5.0)
    found = candidates(grid, grid, guess, anything, 5.0)
    assert list(zip(*found, strict=True)) == list(zip(*expected, strict=True))
    assert len(expected.first) > 500


@pytest.mark.parametrize(("count0", "count1"), [(0, 5), (5, 0), (0, 0), (1, 1), (3, 1)])
def test_candidates_of_few_keypoints(count0: int, count1: int) -> None:
    guess = Guess(points(count0, 0), np.full(count0, 1e3))
    found = candidates(points(count0, 1), points(count1, 2), guess, LINES["oblique"], 1e6)
    assert len(found.first) == count0 * count1


def test_the_best_of_both_is_that_of_the_whole_matrix_and_of_equals_the_first() -> None:
    rng = np.random.default_rng(0)
    rows = np.unique(rng.integers(0, 40, (300, 2)), axis=0)
    similarity = np.round(rng.random(len(rows)), 2)  # many equals
    matrix = np.full((40, 40), -1.0)
    matrix[tuple(rows.T)] = similarity
    kept, margin = mutual_best(Pairs(*rows.T), similarity, absent=-1.0)
    expected = []
    for n, (i, j) in enumerate(rows):
        if matrix[i].argmax() == j and matrix[:, j].argmax() == i:
            others = max(np.delete(matrix[i], j).max(), np.delete(matrix[:, j], i).max())
            expected.append((n, similarity[n] - others))
    assert np.allclose(np.stack([kept, margin], 1), expected)
    assert len(mutual_best(Pairs(*np.zeros((2, 0), np.int64)), np.zeros(0), 0.0)[0]) == 0


def test_keypoints_are_looked_for_where_an_affine_map_sends_them() -> None:
    A, t = np.array([[1.2, -0.3], [0.4, 0.9]]), np.array([30.0, -10.0])
    seeds, others = points(40, 0), points(3000, 1)
    guess = predict(others, seeds, seeds @ A.T + t, described(others), OPTIONS)
    assert np.abs(guess.points - (others @ A.T + t)).max() < 1e-6
    assert (guess.radii <= OPTIONS.largest_radius * WIDTH).all()
    alone = predict(others[5:6], seeds, seeds @ A.T + t, described(others), OPTIONS)
    assert np.allclose(alone.points[0], guess.points[5])


@pytest.mark.parametrize("seeds", [points(1, 0), np.repeat(points(1, 0), 9, 0), np.c_[np.arange(9.0), np.arange(9.0)]])
def test_seeds_in_one_place_or_on_a_line_give_finite_guesses(seeds: np.ndarray) -> None:
    guess = predict(points(20, 1), seeds, seeds + 5, described(seeds), OPTIONS)
    assert np.isfinite(guess.points).all()
    assert (guess.radii > 0).all()


def test_distances_from_a_model() -> None:
    model, first, second = epipolar()
    assert residuals(model, first, second).max() < 1e-6
    sideways = Model("fundamental", np.array([[0, 0, 0], [0, 0, -1.0], [0, 1, 0]]))  # lines of equal y
    assert residuals(sideways, np.array([[10.0, 20]]), np.array([[99.0, 23.5]])).tolist() == [3.5]
    moved = Model("homography", np.array([[1.0, 0, 3], [0, 1, 4], [0, 0, 1]]))
    assert residuals(moved, np.array([[10.0, 20]]), np.array([[10.0, 20]])) == pytest.approx([5.0])
    flattening = Model("homography", np.array([[1.0, 0, 0], [0, 1, 0], [1, 0, 0.0]]))  # singular; (0, 0) to infinity
    assert residuals(flattening, np.array([[0.0, 0]]), np.array([[0.0, 0]])).tolist() == [np.inf]


def test_a_flat_scene_is_seen_by_a_homography_and_another_by_a_fundamental_matrix() -> None:
    _, first, second = epipolar()
    noise = np.random.default_rng(0).normal(size=first.shape) * 0.3
    found, inliers, share = fit_model(first, second + noise, 1.5)
    assert found is not None
    assert (found.geometry, inliers.mean() > 0.9) == ("fundamental", True)
    assert share < CoarseToFineOptions().maybe_flat
    flat = guess_by(HOMOGRAPHY, first, first, first, described(first), OPTIONS).points
    found, inliers, share = fit_model(first, flat + noise, 1.5)
    assert found is not None
    assert (found.geometry, inliers.mean() > 0.9, share) == ("homography", True, 1.0)
    assert np.median(residuals(found, first, flat)) < 0.3
    blurred = flat + np.random.default_rng(1).normal(size=first.shape) * 2  # as keypoints of another scale are
    found, _, _ = fit_model(first, blurred, 1.5)
    assert found is not None
    assert found.geometry == "homography"


def test_the_model_of_images_the_other_way_round() -> None:
    model, first, second = epipolar()
    assert residuals(turned(model), second, first).max() < 1e-6
    sent = guess_by(HOMOGRAPHY, first, first, first, described(first), OPTIONS).points
    assert residuals(turned(HOMOGRAPHY), sent, first).max() < 1e-6
    assert fit_model(first[:3], second[:3], 1.5)[0] is None
    assert fit_model(first[:0], second[:0], 1.5)[1].shape == (0,)


@pytest.mark.parametrize("geometry", ["fundamental", "homography"])
def test_refitting_to_all_matches_mends_a_rough_model_in_spite_of_outliers(geometry: str) -> None:
    true, first, second = epipolar()
    if geometry == "homography":
        true, second = HOMOGRAPHY, guess_by(HOMOGRAPHY, first, first, first, described(first), OPTIONS).points
    rng = np.random.default_rng(0)
    noisy = second + rng.normal(size=second.shape) * 0.2
    noisy[:30] += rng.uniform(5, 12, (30, 2))
    rough, _, _ = fit_model(first[30:60] + rng.normal(size=(30, 2)), noisy[30:60], 3)
    assert rough is not None
    rough = Model(true.geometry, rough.matrix) if geometry == "fundamental" else rough
    fitted = refit(rough, first, noisy, 1.5)
    assert residuals(fitted, first, second).mean() < min(0.15, residuals(rough, first, second).mean() / 2)


def test_refitting_to_nothing_leaves_a_model_as_it_is() -> None:
    model = epipolar()[0]
    same = np.tile([[3.0, 4.0]], (20, 1))
    assert np.isfinite(refit(model, same, same, 1.5).matrix).all()
    assert np.isfinite(refit(HOMOGRAPHY, same, same, 1.5).matrix).all()


def test_all_keypoints_of_a_scene_are_matched_from_a_few_seeds() -> None:
    model, first, second = epipolar()
    rng = np.random.default_rng(0)
    image0 = described(np.r_[first, points(200, 5)], 1)
    image1 = described(np.r_[second, points(200, 6)], 2)
    descriptors = image0.descriptors + rng.normal(size=image0.descriptors.shape).astype(np.float32) * 0.08
    image1.descriptors[:300] = descriptors[:300] / np.linalg.norm(descriptors[:300], axis=1)[:, None]
    seeds = np.stack([np.arange(0, 300, 6)] * 2, 1)
    found, evidence = guided_matches(image0, image1, seeds, model, OPTIONS)
    sure = found[confidence(evidence) > OPTIONS.least_confidence]
    assert not set(found[:, 0]) & set(seeds[:, 0])
    right = sure[:, 0] == sure[:, 1]
    assert right.mean() > 0.95
    assert right.sum() > 240  # of 250


def test_confidence_grows_with_each_piece_of_evidence_and_is_a_probability() -> None:
    usual = Evidence(*(np.array([value]) for value in (0.0, 2.0, 3.0, 25.0)))
    base = confidence(usual)[0]
    assert 0.5 < base < 1
    assert confidence(usual._replace(similarity=np.array([-3.0])))[0] < base
    assert confidence(usual._replace(margin=np.array([0.1])))[0] < base
    assert confidence(usual._replace(distance=np.array([20.0])))[0] < base
    extreme = Evidence(*(np.array([-1e9, 1e9]) for _ in range(2)), np.array([1e9, 0.0]), np.array([20.0, 20]))
    assert ((confidence(extreme) >= 0) & (confidence(extreme) <= 1)).all()
