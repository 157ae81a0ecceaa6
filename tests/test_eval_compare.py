"""Whether one run is better than another: pair by pair, with an interval, and never by chance alone."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest

from lightglue.errors import InputError
from lightglue.evaluation.compare import Difference, compare, compare_values, to_json, to_text
from lightglue.evaluation.records import Metric
from support.runs import COUNT, ERROR, SHARE, make_run

INF = math.inf


def errors_of(seed: int, count: int = 120) -> np.ndarray:
    errors = np.random.default_rng(seed).exponential(2, count)
    errors[::12] = INF
    return errors


def verdicts(differences: tuple[Difference, ...]) -> list[str]:
    return [each.verdict for each in differences]


def test_a_real_difference_is_found_in_every_figure() -> None:
    before = errors_of(0)
    found = compare_values(before, 0.8 * before, ERROR, samples=2000)
    assert verdicts(found) == ["better"] * 3
    for each in found:
        assert each.interval[0] <= each.difference <= each.interval[1]
        assert each.difference == pytest.approx(each.b - each.a)
    assert [round(each.above) for each in found] == [1, 1, 0]  # areas grow, the median falls
    assert found[1].changed == int((before < 4 / 0.8).sum())  # all others lie beyond 4 px in both
    assert verdicts(compare_values(0.8 * before, before, ERROR, samples=2000)) == ["worse"] * 3


def test_noise_is_called_noise() -> None:
    before = errors_of(0)
    other = before * np.random.default_rng(1).uniform(0.8, 1.25, len(before))
    assert verdicts(compare_values(before, other, ERROR, samples=2000)) == ["noise"] * 3


def test_pairing_finds_what_two_standard_errors_would_hide() -> None:
    """All pairs gain 2 %, far less than the spread of the pairs."""
    shares = np.random.default_rng(0).uniform(0, 0.9, 40)
    (found,) = compare_values(shares, 1.02 * shares, SHARE)
    spread = 100 * shares.std() / math.sqrt(40)
    assert found.difference < spread / 2
    assert found.verdict == "better"


@pytest.mark.parametrize(("count", "allowed"), [(15, 0.12), (60, 0.09)])
def test_noise_is_called_a_difference_about_as_often_as_the_level_says(count: int, allowed: float) -> None:
    """Each pair goes one way or the other by the toss of a coin."""
    generator = np.random.default_rng(0)
    alarms, trials = np.zeros(3), 300
    for trial in range(trials):
        one, other = generator.exponential(2, (2, count))
        heads = generator.random(count) < 0.5
        a, b = np.where(heads, one, other), np.where(heads, other, one)
        found = compare_values(a, b, ERROR, samples=400, seed=trial)
        alarms += [verdict != "noise" for verdict in verdicts(found)]
    assert (alarms / trials < allowed).all()
    assert alarms[1] > 0


def test_few_changes_are_never_more_than_noise() -> None:
    """Five pairs that gain may be chance (1 in 16, either way); six are less than 1 in 20."""
    before, after = np.ones(100), np.ones(100)
    after[:5] = 0
    assert compare_values(before, after, ERROR)[1].verdict == "noise"
    after[:6] = 0
    assert compare_values(before, after, ERROR)[1].verdict == "better"
    (found,) = compare_values([0.2], [0.9], SHARE)
    assert (found.verdict, found.interval) == ("noise", (pytest.approx(70), pytest.approx(70)))


def test_equal_values_are_equal_and_so_are_differences_that_a_figure_does_not_see() -> None:
    before = errors_of(0)
    assert verdicts(compare_values(before, before, ERROR, samples=100)) == ["equal"] * 3
    beyond = np.where(before < 3, before, before + 1)
    found = compare_values(before, beyond, ERROR, samples=100)
    assert (found[0].verdict, found[0].interval, found[0].difference) == ("equal", (0, 0), 0)
    assert found[1].verdict != "equal"


def test_a_count_is_more_or_fewer_not_better_or_worse() -> None:
    counts = np.arange(30.0)
    assert verdicts(compare_values(counts, counts + 5, COUNT, samples=200)) == ["more"]
    assert verdicts(compare_values(counts + 5, counts, COUNT, samples=200)) == ["fewer"]


def test_medians_that_are_infinite_compare() -> None:
    failed, half = np.full(20, INF), np.where(np.arange(20) < 15, 1.0, INF)
    median = compare_values(failed, half, ERROR, samples=500)[2]
    assert (median.a, median.b, median.difference, median.verdict) == (INF, 1, -INF, "better")
    both = compare_values(failed, failed, ERROR, samples=50)[2]
    assert (both.difference, both.interval, both.verdict) == (0, (0, 0), "equal")


def test_nothing_compares_as_nothing() -> None:
    found = compare_values([], [], ERROR)
    assert all(math.isnan(each.a) and math.isnan(each.difference) and each.changed == 0 for each in found)


def test_the_same_seed_gives_the_same_result_whatever_else_is_compared(tmp_path: Path) -> None:
    a = make_run(tmp_path / "a", errors=errors_of(0))
    b = make_run(tmp_path / "b", errors=errors_of(1))
    first = compare(a, b, samples=300, seed=5)
    assert first == compare(a, b, samples=300, seed=5)
    alone = compare_values(a.values(ERROR.name), b.values(ERROR.name), ERROR, samples=300, seed=5)
    assert first.differences[:3] == alone
    assert first != compare(a, b, samples=300, seed=6)


def test_scenes_are_drawn_whole_when_asked() -> None:
    """Twelve scenes of ten pairs that all move together: the interval by scene is far wider."""
    groups = [f"scene {i // 10}" for i in range(120)]
    shift = np.repeat(np.random.default_rng(0).normal(0.01, 0.05, 12), 10)
    before = np.full(120, 0.5)
    (by_pair,) = compare_values(before, before + shift, SHARE, samples=2000)
    (by_scene,) = compare_values(before, before + shift, SHARE, samples=2000, groups=groups)
    widths = [high - low for low, high in (by_pair.interval, by_scene.interval)]
    assert widths[1] > 2 * widths[0]
    with pytest.raises(InputError, match="2 scenes, too few.*compare by pair"):
        compare_values(before, before, SHARE, groups=groups[:10] * 6 + groups[10:20] * 6)
    with pytest.raises(InputError, match="3 scenes for 120 pairs"):
        compare_values(before, before, SHARE, groups=["a", "b", "c"])


def test_a_comparison_of_runs_says_what_was_set_differently(tmp_path: Path) -> None:
    scenes = [f"scene {i % 8}" for i in range(24)]
    errors = errors_of(0, 24)
    a = make_run(tmp_path / "a", errors=errors, scenes=scenes, settings={"matcher": {"depth": 0.95}, "x": 1})
    b = make_run(tmp_path / "b", errors=errors, scenes=scenes, settings={"matcher": {"depth": -1}, "x": 1})
    found = compare(a, b, samples=200, by="scene")
    assert found.settings == ("matcher.depth: 0.95 -> -1",)
    assert (found.names, found.pairs, found.by) == (("a", "b"), 24, "scene")
    assert {each.verdict for each in found.differences} == {"equal"}
    assert "matcher.depth: 0.95 -> -1" in to_text(found)
    assert "resamplings of scenes" in to_text(found)


def test_only_metrics_of_both_are_compared(tmp_path: Path) -> None:
    a = make_run(tmp_path / "a", errors=[1, 2])
    b = make_run(tmp_path / "b", errors=[1, 2], metrics=(ERROR, SHARE))
    found = compare(a, b, samples=50)
    assert found.unshared == (COUNT.name,)
    assert {each.statistic.metric.name for each in found.differences} == {ERROR.name, SHARE.name}
    c = make_run(tmp_path / "c", errors=[1, 2], metrics=(COUNT,))
    with pytest.raises(InputError, match="share no metric"):
        compare(b, c)


def test_runs_that_cannot_be_compared_are_refused_with_the_first_difference(tmp_path: Path) -> None:
    a = make_run(tmp_path / "a", errors=[1, 2])
    with pytest.raises(InputError, match="of planes and .*of others; compare runs of one benchmark"):
        compare(a, make_run(tmp_path / "b", errors=[1, 2], benchmark="others"))
    with pytest.raises(InputError, match="'pair 1' as pair 1 and .* 'p1'; run both on the same pairs"):
        compare(a, make_run(tmp_path / "c", errors=[1, 2], names=["pair 0", "p1"]))
    with pytest.raises(InputError, match="2 pairs and .* 3"):
        compare(a, make_run(tmp_path / "d", errors=[1, 2, 3]))
    with pytest.raises(InputError, match="e is incomplete: 1 of 2 pairs are done. Run it again"):
        compare(a, make_run(tmp_path / "e", errors=[1], pairs=2))


@pytest.mark.parametrize(
    ("options", "words"),
    [({"samples": 0}, "samples is 0"), ({"level": 1.0}, "level is 1.0"), ({"seed": -1}, "seed is -1")],
)
def test_options_out_of_range_are_refused(options: dict[str, float], words: str) -> None:
    with pytest.raises(InputError, match=words):
        compare_values([1], [1], ERROR, **options)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="2 and 1 values of precision@3"):
        compare_values([1, 1], [1], SHARE)


def test_the_text_has_a_line_for_each_figure_and_the_json_null_for_infinity(tmp_path: Path) -> None:
    a = make_run(tmp_path / "a", errors=[INF] * 9)
    b = make_run(tmp_path / "b", errors=[0] * 9)
    found = compare(a, b, samples=100)
    text = to_text(found)
    line = " ".join(next(line for line in text.splitlines() if "AUC@2 px" in line).split())
    assert line == "corner error, PoseLib 1 px: AUC@2 px 0.00 % 100.00 % +100.00 +100.00 to +100.00 100 % better"
    assert "median" in text
    said = json.loads(to_json(found))
    assert said["figures"][2]["a"] is None
    assert said["figures"][0]["verdict"] == "better"
    assert said["pairs"] == 9


def test_many_pairs_take_a_bounded_amount_of_memory() -> None:
    """Counts are held for some of the resamplings at a time: never 3,000 x 20,000 of them, which were 480 MB."""
    import tracemalloc

    errors = errors_of(0, 20_000)
    tracemalloc.start()
    compare_values(errors, 0.9 * errors, Metric("e", "error", "e", "px", (3,)), samples=300)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 64 << 20
