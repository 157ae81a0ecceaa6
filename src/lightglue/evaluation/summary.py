"""A run in figures: over all pairs, and scene by scene."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lightglue.evaluation.bootstrap import Statistic, cleaned, figure, figures, resamplings, statistics_of
from lightglue.evaluation.records import Metric, Record, Run

__all__ = ["Figure", "SceneSummary", "Summary", "headline_metric", "summarize"]

_SAMPLES, _SEED = 2000, 0


@dataclass(frozen=True)
class Figure:
    """One number and how sure it is."""

    statistic: Statistic
    value: float  # in statistic.unit; NaN without pairs, infinite for a median when half of the pairs failed
    standard_error: float | None  # by bootstrap over pairs; None for fewer than 2 pairs, or where it is not finite

    @property
    def name(self) -> str:
        """The only one of this name in its run."""
        return self.statistic.name


@dataclass(frozen=True)
class SceneSummary:
    """The pairs of one scene. They are few, so that no standard error is given."""

    scene: str
    pairs: int
    failures: int
    figures: tuple[Figure, ...]  # in the order of Summary.figures


@dataclass(frozen=True)
class Summary:
    """What a run comes to."""

    pairs: int  # of the benchmark
    done: int  # of these; all figures are over them
    failures: int  # of those done; they count with their worst values
    figures: tuple[Figure, ...]
    headline: tuple[Figure, ...]  # some of them
    scenes: tuple[SceneSummary, ...]  # in the benchmark's order
    seconds: Mapping[str, float]  # mean of each stage, over the pairs that went through it
    total_seconds: float  # mean of all stages together, over the pairs done; NaN where no time is known


def summarize(run: Run) -> Summary:
    """The figures of a run; of an incomplete one, of the pairs that are done."""
    everything = _figures(run.metrics, run.records, errors=True)
    chosen = headline_metric(run.metrics)
    kept = [each for each in everything if chosen is not None and each.statistic.metric == chosen]
    areas = [each for each in kept if each.statistic.how == "auc"]
    totals = [math.fsum(record.seconds.values()) for record in run.records if record.seconds]
    scenes: dict[str, list[Record]] = {}
    for record in run.records:
        scenes.setdefault(record.scene, []).append(record)
    return Summary(
        pairs=len(run.pairs),
        done=len(run.records),
        failures=len(run.failures),
        figures=everything,
        headline=tuple(areas or kept),
        scenes=tuple(
            SceneSummary(name, len(its), sum(bool(each.failure) for each in its), _figures(run.metrics, its, False))
            for name, its in scenes.items()
        ),
        seconds=_mean_seconds(run.records),
        total_seconds=math.fsum(totals) / len(totals) if totals else math.nan,
    )


def headline_metric(metrics: Sequence[Metric]) -> Metric | None:
    """The metric that stands for a run: the first error with thresholds, otherwise the first of all."""
    errors = (metric for metric in metrics if metric.kind == "error" and metric.thresholds)
    return next(errors, metrics[0] if metrics else None)


def _mean_seconds(records: Sequence[Record]) -> dict[str, float]:
    """Mean seconds of each stage, over the pairs that went through it."""
    stages: dict[str, list[float]] = {}
    for record in records:
        for stage, seconds in record.seconds.items():
            stages.setdefault(stage, []).append(seconds)
    return {stage: math.fsum(seconds) / len(seconds) for stage, seconds in stages.items()}


def _figures(metrics: Sequence[Metric], records: Sequence[Record], errors: bool) -> tuple[Figure, ...]:
    """Every figure of every metric, with its standard error if asked for."""
    values = {metric: cleaned(metric, [record.values[metric.name] for record in records]) for metric in metrics}
    found = [statistic for metric in metrics for statistic in statistics_of(metric)]
    spread: list[float | None] = [None] * len(found)
    if errors and len(records) > 1:
        blocks: list[list[NDArray[np.float64]]] = [[] for _ in found]
        for counts in resamplings(len(records), _SAMPLES, _SEED):
            for block, statistic in zip(blocks, found, strict=True):
                block.append(figures(statistic, values[statistic.metric], counts))
        drawn = [np.concatenate(block) for block in blocks]
        spread = [float(each.std(ddof=1)) if np.isfinite(each).all() else None for each in drawn]
    return tuple(
        Figure(statistic, figure(statistic, values[statistic.metric]), error)
        for statistic, error in zip(found, spread, strict=True)
    )
