"""True matches: by hand, and against a slow reference."""

import numpy as np
import pytest
from tests.support.truth_oracle import homography_truth

from lightglue.errors import InputError
from lightglue.training.contract import IGNORED, UNMATCHABLE
from lightglue.training.truth.homography import from_homography
from lightglue.training.truth.options import TruthOptions

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
