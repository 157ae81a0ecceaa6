"""What the parts of training hand to each other: true matches are the same from both images."""

import numpy as np
import pytest

from lightglue.errors import InputError
from lightglue.training.contract import IGNORED, UNMATCHABLE, Truth


def truth(matches0, matches1):
    return Truth(np.array(matches0, np.int64), np.array(matches1, np.int64))


def test_positives_are_the_rows_of_the_matches():
    found = truth([2, UNMATCHABLE, 0], [2, IGNORED, 0])
    assert found.positives.tolist() == [[0, 2], [2, 0]]
    assert found.swapped().positives.tolist() == [[0, 2], [2, 0]]


def test_images_without_keypoints_have_no_matches():
    assert truth([], [UNMATCHABLE]).positives.shape == (0, 2)


@pytest.mark.parametrize(
    ("matches0", "matches1", "said"),
    [
        ([1], [UNMATCHABLE], "there are 1 partners"),
        ([0, 0], [0], "not what the other side says"),
        ([UNMATCHABLE], [0], "not what the other side says"),
        ([-3], [UNMATCHABLE], "-3"),
    ],
)
def test_truth_that_contradicts_itself_is_refused(matches0, matches1, said):
    with pytest.raises(InputError, match=said):
        truth(matches0, matches1)


def test_truth_is_int64():
    with pytest.raises(InputError, match="float64"):
        Truth(np.zeros(2), np.zeros(2, np.int64))
