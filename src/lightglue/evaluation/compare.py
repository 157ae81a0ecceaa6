"""Whether one run is better than another, or only looks so.

Both runs see the same pairs, so that they are compared pair by pair: the same pairs are drawn for both, again and
again (paired bootstrap, percentile interval; Efron and Tibshirani 1993), and the interval of the difference says what
is noise. Small sets make such intervals a little narrow: with 15 pairs, a level of 0.95 holds in about 0.92 of cases.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from lightglue.errors import InputError
from lightglue.evaluation.bootstrap import (
    Statistic,
    cleaned,
    contributions,
    figure,
    figures,
    number,
    resamplings,
    statistics_of,
    with_unit,
)
from lightglue.evaluation.records import Metric, Run
from lightglue.stores.settings import changes
from lightglue.support.checks import check_int, check_real

__all__ = ["Comparison", "Difference", "Verdict", "compare", "compare_values", "to_json", "to_text"]

# A count has no good and no bad: its mean is `more` or `fewer`. `equal`: no pair differs in what the figure sees.
Verdict = Literal["better", "worse", "more", "fewer", "noise", "equal"]
By = Literal["pair", "scene"]
Array = NDArray[np.float64]


@dataclass(frozen=True)
class Difference:
    """One figure of both runs."""

    statistic: Statistic
    a: float  # in statistic.unit; NaN without pairs
    b: float
    difference: float  # b - a; 0 where both are infinite
    interval: tuple[float, float]  # of the difference
    above: float  # share of the resamplings in which the difference is above 0
    verdict: Verdict  # on b
    changed: int  # pairs that differ in what the figure sees


@dataclass(frozen=True)
class Comparison:
    """Every figure that both runs have, in the order of a."""

    benchmark: str
    names: tuple[str, str]
    pairs: int
    differences: tuple[Difference, ...]
    samples: int
    seed: int
    level: float
    by: By
    unshared: tuple[str, ...] = ()  # metrics that only one of them has
    settings: tuple[str, ...] = ()  # what was set differently, in words


def compare(
    a: Run, b: Run, *, samples: int = 10_000, seed: int = 0, level: float = 0.95, by: By = "pair"
) -> Comparison:
    """How run b differs from run a.

    Args:
        a: the run to compare with.
        b: the run that the verdicts are about.
        samples: how many resamplings.
        seed: of the resamplings; the same seed gives the same result.
        level: of the intervals.
        by: what is drawn. `pair` asks what other pairs of these scenes would show. `scene` asks what other scenes
            would show, which is wider and what a general claim needs; it takes at least 6 scenes, better 20.

    Raises:
        InputError: runs of different benchmarks or pairs, incomplete runs, or options out of range.
    """
    _check_comparable(a, b)
    theirs = {metric.name: metric for metric in b.metrics}
    shared = [metric for metric in a.metrics if theirs.get(metric.name) == metric]
    if not shared:
        raise InputError(f"{a.folder} and {b.folder} share no metric; run both with the same estimators.")
    differences = _compare_all(
        [(metric, a.values(metric.name), b.values(metric.name)) for metric in shared],
        samples=samples,
        seed=seed,
        level=level,
        groups=[record.scene for record in a.records] if by == "scene" else None,
    )
    alone = dict.fromkeys(metric.name for metric in (*a.metrics, *b.metrics) if metric not in shared)
    return Comparison(
        a.benchmark,
        _labels(a, b),
        len(a.pairs),
        differences,
        samples,
        seed,
        level,
        by,
        unshared=tuple(alone),
        settings=tuple(
            f"{name}: {json.dumps(before, default=str)} -> {json.dumps(after, default=str)}"
            for name, before, after in changes(a.settings, b.settings)
        ),
    )


def compare_values(
    values_a: Any,
    values_b: Any,
    metric: Metric,
    *,
    samples: int = 10_000,
    seed: int = 0,
    level: float = 0.95,
    groups: Sequence[str] | None = None,
) -> tuple[Difference, ...]:
    """The same for one metric, from plain numbers.

    Args:
        values_a: (N,) one for each pair; errors may be infinite, shares are 0 to 1.
        values_b: (N,) of the same pairs in the same order.
        metric: what they are.
        samples: how many resamplings.
        seed: of the resamplings.
        level: of the intervals.
        groups: (N,) the scene of each pair, to draw whole scenes.

    Returns:
        For each figure of the metric its difference.

    Raises:
        InputError: lists of different lengths, numbers that the metric cannot have, or options out of range.
    """
    return _compare_all([(metric, values_a, values_b)], samples=samples, seed=seed, level=level, groups=groups)


def _compare_all(
    columns: Sequence[tuple[Metric, Any, Any]], *, samples: int, seed: int, level: float, groups: Sequence[str] | None
) -> tuple[Difference, ...]:
    """The differences of all metrics, from the same resamplings."""
    check_int("samples", samples, 1, "an integer of at least 1, such as 10000")
    check_int("seed", seed, 0, "an integer of at least 0")
    check_real("level", level, "a number between 0 and 1, such as 0.95", math.ulp(0), 1 - math.ulp(0.5))
    checked = [(metric, cleaned(metric, a), cleaned(metric, b)) for metric, a, b in columns]
    for metric, a, b in checked:
        if len(a) != len(b) or len(a) != len(checked[0][1]):
            raise InputError(f"There are {len(a)} and {len(b)} values of {metric.name}; give one for each pair.")
    count = len(checked[0][1])
    if groups is not None:
        _check_groups(groups, count, level)
    tasks = [(statistic, a, b) for metric, a, b in checked for statistic in statistics_of(metric)]
    drawn: list[list[Array]] = [[] for _ in tasks]
    for counts in resamplings(count, samples, seed, groups) if count else ():
        for blocks, (statistic, a, b) in zip(drawn, tasks, strict=True):
            blocks.append(_minus(figures(statistic, b, counts), figures(statistic, a, counts)))
    return tuple(
        _difference(statistic, a, b, np.concatenate(blocks) if blocks else np.zeros(0), level, groups)
        for blocks, (statistic, a, b) in zip(drawn, tasks, strict=True)
    )


def _difference(
    statistic: Statistic, a: Array, b: Array, drawn: Array, level: float, groups: Sequence[str] | None
) -> Difference:
    before, after = figure(statistic, a), figure(statistic, b)
    if not len(drawn):
        return Difference(statistic, before, after, math.nan, (math.nan, math.nan), math.nan, "equal", 0)
    drawn = np.sort(drawn)
    tail = (1 - level) / 2
    low, high = (float(drawn[round(q * (len(drawn) - 1))]) for q in (tail, 1 - tail))  # never between infinities
    differs = contributions(statistic, a) != contributions(statistic, b)
    indices = np.flatnonzero(differs).tolist()
    changed = len(indices if groups is None else {groups[i] for i in indices})
    return Difference(
        statistic,
        before,
        after,
        float(_minus(np.array(after), np.array(before))),
        (low, high),
        float((drawn > 0).mean()),
        _verdict(statistic, low, high, changed, level),
        len(indices),
    )


def _verdict(statistic: Statistic, low: float, high: float, changed: int, level: float) -> Verdict:
    """What the interval says of b.

    However few units changed, a bootstrap of them may look certain. So a sign test must be able to reject as well:
    if all that changed went one way by chance, that has the probability 2 ** (1 - changed).
    """
    if not changed:
        return "equal"
    if low <= 0 <= high or 2.0 ** (1 - changed) > 1 - level:
        return "noise"
    if not statistic.better:
        return "more" if low > 0 else "fewer"
    return "better" if (low > 0) == (statistic.better == "higher") else "worse"


def _minus(b: Array, a: Array) -> Array:
    """b - a; 0 where both are infinite."""
    same = a == b
    return np.subtract(b, a, out=np.zeros_like(b), where=~same)


def _check_groups(groups: Sequence[str], count: int, level: float) -> None:
    if len(groups) != count:
        raise InputError(f"There are {len(groups)} scenes for {count} pairs; give one for each pair.")
    needed = math.ceil(1 - math.log2(1 - level))
    if len(set(groups)) < needed:
        raise InputError(
            f"There are {len(set(groups))} scenes, too few to draw from at level {level:g} (at least {needed}); "
            "compare by pair."
        )


def _check_comparable(a: Run, b: Run) -> None:
    """Raise InputError for the first thing that keeps two runs from being compared."""
    if a.benchmark != b.benchmark:
        raise InputError(
            f"{a.folder} is a run of {a.benchmark} and {b.folder} of {b.benchmark}; compare runs of one benchmark."
        )
    if a.pairs != b.pairs:
        index = next((i for i, (x, y) in enumerate(zip(a.pairs, b.pairs, strict=False)) if x != y), None)
        if index is None:
            has = f"has {len(a.pairs)} pairs and {b.folder} {len(b.pairs)}"
        else:
            has = f"has {a.pairs[index]!r} as pair {index} and {b.folder} {b.pairs[index]!r}"
        raise InputError(f"{a.folder} {has}; run both on the same pairs.")
    truths = {run.settings.get("truth") for run in (a, b)} - {None}
    if len(truths) > 1:
        raise InputError(f"{a.folder} and {b.folder} hold pairs with the same names and another truth; run one again.")
    for run in (a, b):
        if not run.is_complete:
            raise InputError(
                f"{run.folder} is incomplete: {len(run.records)} of {len(run.pairs)} pairs are done. "
                "Run it again to go on with it."
            )


def _labels(a: Run, b: Run) -> tuple[str, str]:
    """The names of both folders, with as much of the path as tells them apart."""
    short = (a.folder.name or str(a.folder), b.folder.name or str(b.folder))
    return short if short[0] != short[1] else (str(a.folder), str(b.folder))


def to_text(comparison: Comparison) -> str:
    """The comparison for people: a line for each figure, in columns, with what the verdict rests on."""
    a, b = comparison.names
    unit = "pairs" if comparison.by == "pair" else "scenes"
    lines = [
        f"{comparison.benchmark}, {comparison.pairs} pairs: a is {a}, b is {b}.",
        f"Intervals hold {100 * comparison.level:g} % of {comparison.samples:,} resamplings of {unit}, "
        f"the same for both; noise is an interval with 0 in it, or too few pairs that changed.",
        "",
    ]
    rows: list[tuple[str, ...]] = [("figure", "a", "b", "b - a", "interval", "above 0", "b is")]
    rows += [_row(each) for each in comparison.differences]
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    for row in rows:
        cells = [row[0].ljust(widths[0]), *(c.rjust(w) for c, w in zip(row[1:-1], widths[1:-1], strict=True)), row[-1]]
        lines.append("  ".join(cells).rstrip())
    if comparison.settings:
        lines += ["", "Set differently:", *(f"  {change}" for change in comparison.settings)]
    if comparison.unshared:
        lines += ["", f"Only in one of them: {', '.join(comparison.unshared)}."]
    return "\n".join(lines) + "\n"


def _row(each: Difference) -> tuple[str, ...]:
    statistic = each.statistic
    low, high = each.interval
    return (
        statistic.full_title,
        with_unit(number(each.a, 2), statistic.unit),
        with_unit(number(each.b, 2), statistic.unit),
        _signed(each.difference),
        f"{_signed(low)} to {_signed(high)}",
        "-" if math.isnan(each.above) else f"{100 * each.above:.0f} %",
        each.verdict,
    )


def to_json(comparison: Comparison) -> bytes:
    """The comparison for machines. What is not finite is null."""
    content = {
        "benchmark": comparison.benchmark,
        "a": comparison.names[0],
        "b": comparison.names[1],
        "pairs": comparison.pairs,
        "samples": comparison.samples,
        "seed": comparison.seed,
        "level": comparison.level,
        "by": comparison.by,
        "figures": [_as_json(each) for each in comparison.differences],
        "unshared": list(comparison.unshared),
        "settings": list(comparison.settings),
    }
    return json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False).encode() + b"\n"


def _as_json(each: Difference) -> dict[str, Any]:
    return {
        "figure": each.statistic.name,
        "title": each.statistic.full_title,
        "unit": each.statistic.unit,
        "a": _finite(each.a),
        "b": _finite(each.b),
        "difference": _finite(each.difference),
        "interval": [_finite(end) for end in each.interval],
        "above": _finite(each.above),
        "verdict": each.verdict,
        "changed": each.changed,
    }


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _signed(value: float) -> str:
    return "-" if math.isnan(value) else f"{value:+.2f}"
