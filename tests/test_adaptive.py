"""The rules of stopping, pruning and assigning, one by one."""

from __future__ import annotations

import math

import pytest
import torch

from lightglue.matching import assignment
from lightglue.matching.adaptive import confidence_threshold, keep_mask, should_stop
from lightglue.matching.assignment import blocked_matches, log_assignment, mutual_matches


def test_early_layers_must_be_surer():
    thresholds = [confidence_threshold(i, 9) for i in range(9)]
    assert thresholds[0] == pytest.approx(0.9)
    assert thresholds == sorted(thresholds, reverse=True)
    assert thresholds[-1] == pytest.approx(0.8 + 0.1 * math.exp(-32 / 9))


@pytest.mark.parametrize(("unsure", "stops"), [(0, True), (4, True), (5, False), (100, False)])
def test_a_pair_stops_once_more_than_the_share_is_sure(unsure, stops):
    assert should_stop(unsure, 100, 0.95) is stops


def test_a_keypoint_goes_only_if_it_is_both_sure_and_unmatchable():
    matchability = torch.tensor([0.001, 0.001, 0.5, 0.5])
    confidence = torch.tensor([0.99, 0.10, 0.99, 0.10])
    threshold = torch.tensor(0.8)
    assert keep_mask(matchability, confidence, threshold, 0.99).tolist() == [False, True, True, True]
    assert keep_mask(matchability, None, threshold, 0.99).tolist() == [False, False, True, True]


def test_the_assignment_is_both_softmaxes_times_both_matchabilities():
    g = torch.Generator().manual_seed(0)
    similarity = torch.randn(3, 4, generator=g)
    z0, z1 = torch.randn(3, generator=g), torch.randn(4, generator=g)
    scores = log_assignment(similarity, z0[:, None], z1[:, None]).exp()
    assert scores.shape == (4, 5)
    for i in range(3):
        for j in range(4):
            row = similarity[i].exp()[j] / similarity[i].exp().sum()
            column = similarity[:, j].exp()[i] / similarity[:, j].exp().sum()
            expected = row * column * z0[i].sigmoid() * z1[j].sigmoid()
            assert scores[i, j] == pytest.approx(float(expected), rel=1e-5)
    torch.testing.assert_close(scores[:-1, -1], 1 - z0.sigmoid())
    torch.testing.assert_close(scores[-1, :-1], 1 - z1.sigmoid())


def test_only_mutual_best_above_the_threshold_match():
    scores = torch.tensor([[0.9, 0.2, 0.0], [0.8, 0.1, 0.0], [0.0, 0.0, 0.05]]).log()
    found = mutual_matches(scores, 0.1)
    assert found.matches0.tolist() == [0, -1, -1]
    assert found.matches1.tolist() == [0, -1, -1]
    # A mutual pair under the threshold keeps its score, as published; a one-sided one has none.
    assert found.scores0.tolist() == pytest.approx([0.9, 0.0, 0.05])
    assert found.scores1.tolist() == pytest.approx([0.9, 0.0, 0.05])


def test_a_score_at_the_threshold_is_no_match():
    found = mutual_matches(torch.tensor([[0.0]]), 1.0)
    assert found.matches0.tolist() == [-1]


def test_equal_scores_match_by_position():
    assert mutual_matches(torch.zeros(2, 2), 0.1).matches0.tolist() == [0, -1]


def cut_into_rows(monkeypatch, rows):
    monkeypatch.setattr(assignment, "CPU_ROWS", rows)
    monkeypatch.setattr(assignment, "CPU_BLOCK", 0)


@pytest.mark.parametrize("keep_limit", [0, 10_000])
@pytest.mark.parametrize("rows", [1, 2, 7, 10_000])
@pytest.mark.parametrize(("m", "n"), [(1, 1), (1, 40), (40, 1), (33, 57)])
def test_blocks_give_the_dense_matches(m, n, rows, keep_limit, monkeypatch):
    g = torch.Generator().manual_seed(m * n)
    a, b = torch.randn(m, 8, generator=g), torch.randn(n, 8, generator=g)
    z0, z1 = torch.randn(m, generator=g), torch.randn(n, generator=g)
    dense = mutual_matches(log_assignment(a @ b.T, z0[:, None], z1[:, None])[:-1, :-1], 0.01)
    cut_into_rows(monkeypatch, rows)
    monkeypatch.setattr(assignment, "KEEP_LIMIT", keep_limit)
    blocked = blocked_matches(a, b, z0, z1, 0.01)
    assert torch.equal(blocked.matches0, dense.matches0)
    assert torch.equal(blocked.matches1, dense.matches1)
    torch.testing.assert_close(blocked.scores0, dense.scores0, atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(blocked.scores1, dense.scores1, atol=1e-6, rtol=1e-5)


def test_blocks_too_take_the_first_of_equal_scores(monkeypatch):
    cut_into_rows(monkeypatch, 1)
    found = blocked_matches(torch.ones(4, 3), torch.ones(2, 3), torch.zeros(4), torch.zeros(2), 0.0)
    assert found.matches0.tolist() == [0, -1, -1, -1]
    assert found.matches1.tolist() == [0, -1]
