"""Matches of several views as those of one pair."""

from __future__ import annotations

import numpy as np
import torch

from lightglue.pairs.hard.looks import Correspondences
from lightglue.pairs.hard.pool import pooled, without_duplicates


def matches(points0: list[tuple[float, float]], points1: list[tuple[float, float]], scores: list[float]):
    count = len(scores)
    return Correspondences(
        np.array(points0, float).reshape(-1, 2),
        np.array(points1, float).reshape(-1, 2),
        np.array(scores),
        torch.ones(count),
        torch.ones(count),
        torch.arange(count).float()[:, None],
        torch.arange(count).float()[:, None],
        (10, 10),
    )


def test_of_matches_at_the_same_two_places_the_better_one_stays():
    first = matches([(10, 10), (50, 50)], [(20, 20), (60, 60)], [0.5, 0.9])
    second = matches([(10.9, 10.4)], [(20.2, 19.5)], [0.8])
    found = without_duplicates(pooled([first, second]))
    assert found.scores.tolist() == [0.9, 0.8]
    assert found.points0.tolist() == [[50, 50], [10.9, 10.4]]
    assert found.descriptors0.tolist() == [[1], [0]]  # each with its own


def test_matches_that_are_near_in_one_image_only_both_stay():
    found = without_duplicates(matches([(10, 10), (10.2, 10)], [(20, 20), (40, 20)], [0.5, 0.9]))
    assert len(found) == 2


def test_neighbours_across_a_cell_are_found():
    found = without_duplicates(matches([(1.49, 1.49), (1.51, 1.51)], [(5, 5), (5, 5)], [0.5, 0.6]))
    assert found.scores.tolist() == [0.6]


def test_nothing_stays_nothing():
    assert len(without_duplicates(matches([], [], []).only(np.zeros(0, bool)))) == 0
