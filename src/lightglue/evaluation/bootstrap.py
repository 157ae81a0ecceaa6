"""Figures of a list of values, and of many resamplings of it at once.

A resampling is a row of counts: how often each pair was drawn. Every figure here is computed from values and counts,
so that 10,000 resamplings cost a few matrix products and never a sort each.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from lightglue.errors import InputError
from lightglue.evaluation.records import Metric

__all__ = ["Statistic", "cleaned", "figure", "figures", "number", "resamplings", "statistics_of", "with_unit"]

Array = NDArray[np.float64]
_CELLS = 1 << 20  # counts held at once: 8 MB


@dataclass(frozen=True)
class Statistic:
    """One way of making a figure of a metric's values."""

    metric: Metric
    how: Literal["auc", "median", "mean"]
    threshold: float = math.nan  # of the AUC, in the metric's unit

    @property
    def name(self) -> str:
        """The only one of this name in a run, such as `corner_error/poselib@1 auc@3`."""
        return f"{self.metric.name} {self.how}" + (f"@{self.threshold:g}" if self.how == "auc" else "")

    @property
    def title(self) -> str:
        """What it is, for people, after the metric's title: `AUC@3 px`, `AUC@5°`, `median`, `mean`."""
        return f"AUC@{with_unit(self.threshold, self.metric.unit)}" if self.how == "auc" else self.how

    @property
    def full_title(self) -> str:
        """The same with the metric's title before it."""
        return f"{self.metric.title}: {self.title}"

    @property
    def unit(self) -> str:
        """`%` for areas and shares, otherwise the metric's."""
        return "%" if self.how == "auc" or self.metric.kind == "share" else self.metric.unit

    @property
    def better(self) -> Literal["higher", "lower", ""]:
        """Which way is good; a mere count has none."""
        if self.how == "median":
            return "lower"
        return "" if self.metric.kind == "count" else "higher"


def statistics_of(metric: Metric) -> tuple[Statistic, ...]:
    """The figures of a metric: of an error the AUC at each threshold and the median, otherwise the mean."""
    if metric.kind == "error":
        areas = tuple(Statistic(metric, "auc", threshold) for threshold in metric.thresholds)
        return (*areas, Statistic(metric, "median"))
    return (Statistic(metric, "mean"),)


def cleaned(metric: Metric, values: Any) -> Array:
    """(N,) float64 without NaN: what is not a number is the worst value, infinity for an error, otherwise 0.

    Raises InputError for another shape, or an error below 0.
    """
    try:
        array = np.array(values, dtype=np.float64)
    except (TypeError, ValueError):
        raise InputError(f"The values of {metric.name} are {values!r:.80}; give numbers.") from None
    if array.ndim != 1:
        raise InputError(f"The values of {metric.name} have the shape {array.shape}; give (N,).")
    if metric.kind == "error":
        if (array < 0).any():
            raise InputError(f"A value of {metric.name} is {array.min():g}; errors are at least 0.")
        return np.where(np.isnan(array), np.inf, array)
    return np.where(np.isfinite(array), array, 0.0)


def figure(statistic: Statistic, values: Array) -> float:
    """The figure of (N,) cleaned values, in `statistic.unit`; NaN where there are none."""
    return float(figures(statistic, values, np.ones((1, len(values))))[0]) if len(values) else math.nan


def figures(statistic: Statistic, values: Array, counts: Array) -> Array:
    """The figure of each resampling.

    Args:
        statistic: what to compute.
        values: (N,) cleaned.
        counts: (S, N) how often each value is drawn, at least one in each row.

    Returns:
        (S,) in `statistic.unit`.
    """
    total = counts.sum(axis=1)
    if statistic.how == "median":
        return _medians(values, counts, total)
    result: Array = counts @ contributions(statistic, values)
    if statistic.how == "auc":
        result += _largest_below(statistic.threshold, values, counts) / (2 * statistic.threshold)
    result *= (100 if statistic.unit == "%" else 1) / total
    return result


def contributions(statistic: Statistic, values: Array) -> Array:
    """(N,) what each value brings to the figure; two that bring the same are the same to it.

    The AUC is the mean of the share of [0, threshold] that lies above each error, and a little more: its trapezoids
    add half a step of recall up to the largest error below the threshold (`_largest_below`).
    """
    if statistic.how == "auc":
        shares: Array = np.clip(1 - values / statistic.threshold, 0, None)
        return shares
    return values


def resamplings(count: int, samples: int, seed: int, groups: Sequence[str] | None = None) -> Iterator[Array]:
    """`samples` drawings of `count` pairs with replacement, in blocks (s, count) of counts; the same for a seed.

    With `groups`, the group of each pair, whole groups are drawn, as many as there are.
    """
    names, member = np.unique(list(groups), return_inverse=True) if groups is not None else (range(count), None)
    units = len(names)
    generator = np.random.default_rng(seed)
    block = max(1, _CELLS // max(count, 1))
    for start in range(0, samples, block):
        rows = min(block, samples - start)
        drawn = generator.integers(units, size=(rows, units)) + units * np.arange(rows)[:, None]
        counts = np.bincount(drawn.ravel(), minlength=rows * units).reshape(rows, units).astype(np.float64)
        yield counts if member is None else counts[:, member]


def _medians(values: Array, counts: Array, total: Array) -> Array:
    """The middle value of each drawing, or the mean of both middle ones."""
    order = np.argsort(values, kind="stable")
    ranked, upto = values[order], np.cumsum(counts[:, order], axis=1)
    low, high = (ranked[(upto > rank[:, None]).argmax(axis=1)] for rank in ((total - 1) // 2, total // 2))
    middle: Array = (low + high) / 2
    return middle


def _largest_below(threshold: float, values: Array, counts: Array) -> Array:
    """(S,) the largest value below the threshold that was drawn, 0 where none was."""
    found, left = np.zeros(len(counts)), np.arange(len(counts))
    for index in np.argsort(-values, kind="stable"):
        if not len(left):
            break
        if values[index] < threshold:
            drawn = counts[left, index] > 0  # two thirds of all drawings hold it, so few rounds are needed
            found[left[drawn]] = values[index]
            left = left[~drawn]
    return found


def number(value: float, digits: int | None = None) -> str:
    """A figure for people: as many digits as its size deserves, `∞` for infinity, `–` for none."""
    if math.isnan(value):
        return "–"
    if math.isinf(value):
        return "∞" if value > 0 else "−∞"
    if digits is None:
        digits = 0 if abs(value) >= 1000 else 1 if abs(value) >= 10 else 2
    return f"{value:,.{digits}f}"


def with_unit(value: float | str, unit: str) -> str:
    """A number, or the text of one, with its unit, such as `3 px`, `5°` or `12 %`; infinity and none have no unit."""
    text = value if isinstance(value, str) else f"{value:g}"
    if text in ("∞", "–"):
        return text
    return f"{text}°" if unit == "degrees" else f"{text} {unit}".strip()
