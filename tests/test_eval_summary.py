"""What a run comes to: recall curves and their areas, means, medians, scenes, times, and how sure they are."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from lightglue.errors import InputError
from lightglue.evaluation.bootstrap import cleaned, figure, figures, number, resamplings, statistics_of, with_unit
from lightglue.evaluation.records import Metric
from lightglue.evaluation.summary import headline_metric, summarize
from lightglue.geometry.curves import auc, recall_curve
from support.runs import COUNT, ERROR, SHARE, make_run

INF = math.inf


@pytest.mark.parametrize(
    ("errors", "threshold", "area"),
    [
        ([0.0], 1, 1),  # no error: recall is 1 from the start
        ([0.5], 1, 0.75),  # up to 1 along a slope until 0.5, then level
        ([1.0, 3.0], 2, 0.375),  # 0.25 below the slope up to 1, 0.5 from there
        ([1.0, 3.0], 4, 0.6875),  # 0.25 + (0.5 + 1) / 2 * 2 + 1 * 1 over 4
        ([2.0], 2, 0),  # an error counts once it is below the threshold
        ([1.0, 1.0], 2, 0.625),  # a slope to the first, a step at the second
        ([1.0, INF], 2, 0.375),  # a failure lowers the recall
        ([1.0, math.nan], 2, 0.375),
        ([INF, INF], 2, 0),
        ([1e-300, 5.0], 2, 0.5),
    ],
)
def test_the_area_is_that_of_trapezoids(errors: list[float], threshold: float, area: float) -> None:
    np.testing.assert_allclose(auc(errors, [threshold]), [area], atol=1e-12)
    np.testing.assert_allclose(auc(errors[::-1], [threshold]), [area], atol=1e-12)


def test_there_is_an_area_for_each_threshold_and_none_without_errors() -> None:
    found = auc([1, 3], (2, 4))
    assert (found.dtype, found.tolist()) == (np.float64, [0.375, 0.6875])
    assert np.isnan(auc([], (1, 2))).all()
    assert auc([1], ()).shape == (0,)


def test_the_curve_rises_by_one_in_n_at_each_error_and_stays_level_after_the_last() -> None:
    x, y = recall_curve([3, INF, 1, 8], 4)
    assert (x.tolist(), y.tolist()) == ([0, 1, 3, 4], [0, 0.25, 0.5, 0.5])
    x, y = recall_curve([INF], 4)
    assert (x.tolist(), y.tolist()) == ([0, 4], [0, 0])
    assert np.isnan(recall_curve([], 4)[1]).all()


@pytest.mark.parametrize(
    ("errors", "threshold", "words"),
    [
        ([-1], 1, "-1"),
        ([[1]], 1, r"\(1, 1\)"),
        (["one"], 1, "give numbers"),
        ([1], 0, "above 0"),
        ([1], INF, "finite"),
        ([1], math.nan, "finite"),
        ([1], "3", "'3'"),
    ],
)
def test_what_is_no_error_and_no_threshold_is_refused(errors: list[float], threshold: float, words: str) -> None:
    with pytest.raises(InputError, match=words):
        auc(errors, [threshold])
    with pytest.raises(InputError, match=words):
        recall_curve(errors, threshold)


@pytest.mark.parametrize("count", [1, 2, 7, 40])
def test_resampled_figures_equal_those_of_the_repeated_values(count: int) -> None:
    generator = np.random.default_rng(count)
    errors = generator.exponential(2, count).round(1)  # with ties
    errors[generator.random(count) < 0.2] = INF
    counts = np.concatenate(list(resamplings(count, 40, seed=1)))
    for statistic in statistics_of(ERROR):
        for row, found in zip(counts, figures(statistic, errors, counts), strict=True):
            drawn = np.repeat(errors, row.astype(int))
            if statistic.how == "auc":
                assert found == pytest.approx(100 * auc(drawn, [statistic.threshold])[0])
            else:
                assert found == np.median(np.sort(drawn))
    shares = generator.random(count)
    (mean,) = statistics_of(SHARE)
    expected = [100 * np.repeat(shares, row.astype(int)).mean() for row in counts]
    np.testing.assert_allclose(figures(mean, shares, counts), expected)


def test_a_resampling_draws_as_many_pairs_or_whole_scenes() -> None:
    counts = np.concatenate(list(resamplings(2000, 1100, seed=3)))
    assert counts.shape == (1100, 2000)
    assert (counts.sum(axis=1) == 2000).all()
    assert counts.mean(axis=0).max() < 1.2
    assert (counts == np.concatenate(list(resamplings(2000, 1100, seed=3)))).all()
    scenes = np.concatenate(list(resamplings(5, 200, 0, ["a", "b", "a", "c", "b"])))
    assert (scenes[:, 0] == scenes[:, 2]).all()
    assert (scenes[:, [0, 1, 3]].sum(axis=1) == 3).all()


def test_what_is_not_a_number_is_the_worst_value() -> None:
    assert cleaned(ERROR, [1, math.nan]).tolist() == [1, INF]
    assert cleaned(SHARE, [0.5, math.nan, INF]).tolist() == [0.5, 0, 0]
    with pytest.raises(InputError, match="-1"):
        cleaned(ERROR, [-1])
    with pytest.raises(InputError, match="give numbers"):
        cleaned(COUNT, [None, "many"])


def test_a_summary_has_every_figure_of_every_metric(tmp_path: Path) -> None:
    run = make_run(tmp_path, errors=[1, 3, INF, 0], shares=[1, 0.5, 0, 0.9], counts=[10, 20, 0, 30])
    summary = summarize(run)
    values = {each.name: each.value for each in summary.figures}
    assert values == {
        "corner_error/poselib@1 auc@2": pytest.approx(100 * (1 * 0.375 + 1 * 0.5) / 2),
        "corner_error/poselib@1 auc@4": pytest.approx(100 * (0.375 + 2 * 0.625 + 0.75) / 4),
        "corner_error/poselib@1 median": 2,
        "precision@3 mean": pytest.approx(60),
        "correct@3 mean": pytest.approx(15),
    }
    assert [each.name for each in summary.headline] == list(values)[:2]
    assert (summary.pairs, summary.done, summary.failures) == (4, 4, 1)


def test_failures_count_as_infinite_and_are_never_dropped(tmp_path: Path) -> None:
    with_failures = summarize(make_run(tmp_path / "a", errors=[0.0, INF, INF, INF]))
    assert with_failures.headline[0].value == 25
    median = with_failures.figures[2]
    assert (median.value, median.standard_error) == (INF, None)


def test_scenes_have_figures_of_their_own(tmp_path: Path) -> None:
    run = make_run(tmp_path, errors=[0, INF, 0, 0], scenes=["b", "a", "b", "c"])
    scenes = summarize(run).scenes
    assert [(each.scene, each.pairs, each.failures) for each in scenes] == [("b", 2, 0), ("a", 1, 1), ("c", 1, 0)]
    assert [each.figures[0].value for each in scenes] == [100, 0, 100]
    assert scenes[0].figures[0].standard_error is None


def test_seconds_are_the_means_of_each_stage(tmp_path: Path) -> None:
    run = make_run(tmp_path, errors=[0, INF], seconds=[{"extract": 1.0, "match": 3.0}, {"extract": 2.0}])
    summary = summarize(run)
    assert summary.seconds == {"extract": 1.5, "match": 3.0}
    assert summary.total_seconds == 3
    assert math.isnan(summarize(make_run(tmp_path / "b", errors=[0], seconds=[{}])).total_seconds)


def test_standard_errors_are_those_of_the_mean_where_theory_knows_them(tmp_path: Path) -> None:
    shares = np.random.default_rng(0).random(200)
    figure_of_shares = summarize(make_run(tmp_path, errors=[0] * 200, shares=shares)).figures[3]
    assert figure_of_shares.standard_error == pytest.approx(100 * shares.std() / math.sqrt(200), rel=0.05)


def test_an_empty_run_has_no_figures_and_one_pair_no_standard_error(tmp_path: Path) -> None:
    empty = summarize(make_run(tmp_path / "a", errors=[], pairs=3))
    assert (empty.pairs, empty.done) == (3, 0)
    assert all(math.isnan(each.value) and each.standard_error is None for each in empty.figures)
    single = summarize(make_run(tmp_path / "b", errors=[1.0]))
    assert single.headline[0].value == 75
    assert single.headline[0].standard_error is None


@pytest.mark.parametrize(
    ("metrics", "chosen"),
    [
        ((SHARE, ERROR), ERROR),
        ((SHARE, COUNT), SHARE),
        ((SHARE, Metric("e", "error", "e", "px")), SHARE),  # an error without thresholds has only a median
        ((), None),
    ],
)
def test_the_first_error_with_thresholds_stands_for_a_run(metrics: Sequence[Metric], chosen: Metric | None) -> None:
    assert headline_metric(metrics) == chosen


def test_a_figure_of_nothing_is_not_a_number() -> None:
    assert math.isnan(figure(statistics_of(ERROR)[0], np.zeros(0)))


@pytest.mark.parametrize(
    ("value", "unit", "shown"),
    [
        (3.14159, "px", "3.14 px"),
        (31.4159, "%", "31.4 %"),
        (3141.59, "", "3,142"),
        (5.0, "degrees", "5.00°"),
        (INF, "px", "∞"),
        (math.nan, "%", "–"),
    ],
)
def test_numbers_have_as_many_digits_as_they_deserve(value: float, unit: str, shown: str) -> None:
    assert with_unit(number(value), unit) == shown
