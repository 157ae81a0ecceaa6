"""True matches: by hand, and against a slow reference."""

import numpy as np
import pytest
from tests.support.truth_oracle import depth_truth, homography_truth, tracks_truth

from lightglue.errors import InputError
from lightglue.training.contract import IGNORED, UNMATCHABLE
from lightglue.training.truth.homography import from_homography
from lightglue.training.truth.options import TruthOptions
from lightglue.training.truth.posed import from_depth, from_tracks

SHIFT = np.array([[1.0, 0, 10], [0, 1, 0], [0, 0, 1]])


def lists(truth):
    return truth.matches0.tolist(), truth.matches1.tolist()


def test_a_keypoint_matches_the_nearest_within_3_px_has_no_partner_where_none_is_and_is_ignored_otherwise():
    points0 = [[0, 0], [50, 50], [100, 100], [101, 100]]
    points1 = [[12, 0], [110, 100], [200, 200]]
    # 0 is moved to 2 px beside the first, 50, 50 to nothing, 100, 100 to the second, which 101, 100 is near, too.
    expected = [0, UNMATCHABLE, 1, IGNORED], [0, 2, UNMATCHABLE]
    assert lists(from_homography(points0, points1, SHIFT)) == expected


def test_the_larger_of_both_errors_decides():
    # Under a scale of 4, 1 px before is 4 px after: too far there, though not here.
    double = np.diag([4.0, 4.0, 1])
    assert lists(from_homography([[10, 10]], [[44, 40]], double)) == ([UNMATCHABLE], [IGNORED])
    assert lists(from_homography([[10, 10]], [[42, 40]], double)) == ([0], [0])


def test_thresholds_are_options():
    options = TruthOptions(positive=1, negative=6)
    assert lists(from_homography([[0, 0]], [[12, 0]], SHIFT, options)) == ([IGNORED], [IGNORED])
    assert lists(from_homography([[0, 0]], [[17, 0]], SHIFT, options)) == ([UNMATCHABLE], [UNMATCHABLE])


def test_what_lies_behind_the_horizon_has_no_partner():
    H = np.array([[1.0, 0, 0], [0, 1, 0], [-0.02, 0, 1]])
    assert lists(from_homography([[10, 10], [100, 10]], [[12.5, 12.5]], H)) == ([0, UNMATCHABLE], [0])


@pytest.mark.parametrize(("count0", "count1"), [(0, 0), (0, 3), (3, 0)])
def test_without_keypoints_of_one_image_those_of_the_other_have_no_partner(count0, count1):
    truth = from_homography(np.zeros((count0, 2)), np.zeros((count1, 2)), SHIFT)
    assert lists(truth) == ([UNMATCHABLE] * count0, [UNMATCHABLE] * count1)


@pytest.mark.parametrize("seed", range(5))
def test_homography_truth_equals_the_slow_reference(seed):
    rng = np.random.default_rng(seed)
    H = np.array([[1.1, 0.1, 5], [-0.05, 0.9, 3], [2e-4, -1e-4, 1]]) + rng.normal(0, [[0.1], [0.1], [1e-5]], (3, 3))
    points0 = rng.uniform(0, 60, (40, 2))
    moved = np.concatenate([points0, np.ones((40, 1))], 1) @ H.T
    points1 = np.concatenate([moved[:25, :2] / moved[:25, 2:] + rng.normal(0, 2, (25, 2)), rng.uniform(0, 60, (20, 2))])
    options = TruthOptions(positive=2.0, negative=2.5)
    found = lists(from_homography(points0, points1, H, options))
    assert found == homography_truth(points0, points1, H, 2.0, 2.5)
    assert {-2, -1} < set(found[0])


@pytest.mark.parametrize(
    ("points", "H", "said"),
    [
        (np.zeros((2, 3)), SHIFT, "points0"),
        (np.full((2, 2), np.nan), SHIFT, "points0"),
        (np.zeros((2, 2)), np.zeros((3, 3)), "no inverse"),
        (np.zeros((2, 2)), np.eye(2), "H01"),
    ],
)
def test_input_that_is_none_is_refused(points, H, said):
    with pytest.raises(InputError, match=said):
        from_homography(points, np.zeros((2, 2)), H)


def test_a_threshold_for_no_partner_below_that_for_a_match_is_refused():
    with pytest.raises(InputError, match="below positive"):
        TruthOptions(positive=3, negative=2)


# --- with poses ---

K = np.array([[100.0, 0, 50], [0, 100, 50], [0, 0, 1]])
ASIDE = np.eye(4)
ASIDE[0, 3] = -1  # camera 1 stands one unit to the right: at a depth of 10 things move by 10 px to the left


def test_a_depth_says_where_a_keypoint_is_seen_and_what_is_occluded_there_is_no_match():
    points0, depth0 = [[60, 50], [70, 50], [80, 20]], [10, 10, 10]
    # Where the second of image 0 would be seen, at (60, 50), something nearer stands in the way.
    points1, depth1 = [[51, 50], [60, 50], [10, 90]], [10, 5, 10]
    found = lists(from_depth(points0, points1, depth0, depth1, K, K, ASIDE))
    assert found == ([0, IGNORED, UNMATCHABLE], [0, UNMATCHABLE, UNMATCHABLE])


def test_without_a_depth_only_the_epipolar_line_can_say_that_there_is_no_partner():
    # Lines are level. The first may be anywhere on its own, where an undecided keypoint is; the second has none near.
    nothing = float("nan")
    found = lists(from_depth([[60, 50], [60, 80]], [[20, 53]], [nothing, 0], [nothing], K, K, ASIDE))
    assert found == ([IGNORED, UNMATCHABLE], [IGNORED])


def test_what_is_decided_already_is_no_partner_of_a_keypoint_without_depth():
    found = lists(from_depth([[60, 50], [30, 50]], [[50, 50]], [10, np.nan], [10], K, K, ASIDE))
    assert found == ([0, UNMATCHABLE], [0])


def test_what_is_behind_the_other_camera_has_no_partner():
    behind = np.diag([-1.0, 1, -1, 1])
    assert lists(from_depth([[50, 50]], [[50, 50]], [5], [5], K, K, behind)) == ([UNMATCHABLE], [UNMATCHABLE])


def test_of_a_camera_that_did_not_move_no_line_says_anything():
    nothing = [np.nan]
    assert lists(from_depth([[50, 50]], [[90, 10]], nothing, nothing, K, K, np.eye(4))) == ([IGNORED], [IGNORED])


NOWHERE = [np.nan] * 3


def test_keypoints_of_a_track_match_and_what_tracks_miss_is_ignored_never_negative():
    points0, points1 = [[60, 50], [70, 20], [30, 20], [30, 90]], [[50, 50], [60, 20]]
    # The third of image 0 is on the line of the second of image 1: perhaps they match. The fourth is on none.
    found = lists(
        from_tracks(points0, points1, [3, -1, -1, -1], [3, -1], [NOWHERE] * 4, [NOWHERE] * 2, K, K, np.eye(4), ASIDE)
    )
    assert found == ([0, IGNORED, IGNORED, UNMATCHABLE], [0, IGNORED])


def test_a_place_rules_out_what_is_on_the_line_but_elsewhere():
    # (60, 50) at a depth of 10 is seen at (50, 50): what is at (20, 50) in image 1 is something else.
    placed, points = [[1, 0, 10]], ([[60, 50]], [[20, 50]])
    assert lists(from_tracks(*points, [3], [-1], placed, [NOWHERE], K, K, np.eye(4), ASIDE)) == ([-1], [-1])
    assert lists(from_tracks(*points, [-1], [-1], [NOWHERE], [NOWHERE], K, K, np.eye(4), ASIDE)) == ([-2], [-2])


def test_a_track_whose_place_is_seen_elsewhere_is_ignored():
    points = [[60, 50]], [[46, 50]]
    assert lists(from_tracks(*points, [3], [3], [[1, 0, 10]], [NOWHERE], K, K, np.eye(4), ASIDE)) == ([-2], [-2])
    assert lists(from_tracks(*points, [3], [3], [NOWHERE], [NOWHERE], K, K, np.eye(4), ASIDE)) == ([0], [0])


def posed_scene(seed):
    """Points of a box seen by two cameras, some by one alone, with noise."""
    rng = np.random.default_rng(seed)
    turn = 0.1 * rng.normal(size=3)
    R = np.eye(3) + np.array([[0, -turn[2], turn[1]], [turn[2], 0, -turn[0]], [-turn[1], turn[0], 0]])
    T = np.eye(4)
    T[:3, :3], T[:3, 3] = np.linalg.svd(R)[0] @ np.linalg.svd(R)[2], [-1, 0.2, 0.3]
    places = rng.uniform([-3, -3, 8], [3, 3, 14], (45, 3))
    inside = places @ T[:3, :3].T + T[:3, 3]
    some0, some1 = np.arange(45) < 35, np.arange(45) >= 12

    def px(where):
        return where[:, :2] / where[:, 2:] * 100 + 50

    points0 = px(places[some0]) + rng.normal(0, 1, (35, 2))
    points1 = px(inside[some1]) + rng.normal(0, 1, (33, 2))
    return rng, T, places, (some0, some1), (points0, points1), (places[some0, 2], inside[some1, 2])


@pytest.mark.parametrize("seed", range(4))
def test_depth_truth_equals_the_slow_reference(seed):
    rng, T, _, _, points, depths = posed_scene(seed)
    depths = [np.where(rng.uniform(size=len(each)) < 0.3, np.nan, each) for each in depths]
    options = TruthOptions(2.0, 2.0, 3.0, 2.5)
    found = lists(from_depth(*points, *depths, K, K, T, options))
    assert found == depth_truth(*points, *depths, K, K, T, 2.0, 3.0, 2.5)
    assert {IGNORED, UNMATCHABLE} < set(found[0])
    assert max(found[0]) >= 0


@pytest.mark.parametrize("seed", range(4))
def test_tracks_truth_equals_the_slow_reference(seed):
    rng, T, places, some, points, _ = posed_scene(seed)
    numbers, known = np.arange(45), []
    tracks = [np.where(rng.uniform(size=mask.sum()) < 0.4, -1, numbers[mask]) for mask in some]
    for each in tracks:
        placed = (each >= 0) & (rng.uniform(size=len(each)) < 0.7)
        known.append(np.where(placed[:, None], places[each], np.nan))
    options = TruthOptions(2.0, 2.0, 3.0, 2.5)
    found = lists(from_tracks(*points, *tracks, *known, K, K, np.eye(4), T, options))
    assert found == tracks_truth(*points, *tracks, *known, K, K, np.eye(4), T, 2.0, 3.0, 2.5)
    assert {IGNORED, UNMATCHABLE} < set(found[0])
    assert max(found[0]) >= 0


def test_posed_truth_refuses_what_does_not_go_together():
    points = [[1.0, 1]]
    with pytest.raises(InputError, match="depth0"):
        from_depth(points, points, [1, 2], [1], K, K, np.eye(4))
    with pytest.raises(InputError, match="T_0to1"):
        from_depth(points, points, [1], [1], K, K, np.eye(3))
    with pytest.raises(InputError, match="twice"):
        from_tracks(points * 2, points, [3, 3], [3], [NOWHERE] * 2, [NOWHERE], K, K, np.eye(4), ASIDE)
    with pytest.raises(InputError, match="places1"):
        from_tracks(points, points, [3], [3], [NOWHERE], [[1.0, 2]], K, K, np.eye(4), ASIDE)
