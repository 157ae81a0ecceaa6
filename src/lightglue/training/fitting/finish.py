"""The end of a training: what is fitted to the best weights, and written into their file."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from lightglue.matching import checkpoint
from lightglue.matching.lightglue import LightGlue
from lightglue.stores.features import ImageFeatures
from lightglue.support.files import write_whole
from lightglue.support.progress import StageProgress
from lightglue.training.contract import Sample, Samples
from lightglue.training.fitting.calibration import (
    Bin,
    calibration_error,
    fit_calibration,
    reliability,
    scored_matches,
)
from lightglue.training.fitting.confidence import HeadFit, fit_heads
from lightglue.training.fitting.overlap import OverlapFit, different, evidence_of, fit_overlap
from lightglue.training.fitting.worst import WorstPair, draw_worst
from lightglue.training.judge_options import JudgeOptions
from lightglue.training.watching import finite

__all__ = ["FittingReport", "finish"]

REPORT = "fitting.json"  # beside the weights
# So many sure matches and more: "different" images show the same after all, such as two photographs of one house.
_SAME = 20


@dataclass(frozen=True)
class FittingReport:
    """What was fitted, and how much better it is."""

    pairs: int
    heads: tuple[HeadFit, ...]
    calibration: Mapping[str, float] | None  # offset, slope
    matches: int  # whose truth is known
    error_before: float  # mean gap between score and share that is right
    error_after: float
    bins_before: tuple[Bin, ...]
    bins_after: tuple[Bin, ...]
    overlap: OverlapFit
    worst: tuple[WorstPair, ...]


def finish(
    weights: Path,
    samples: Samples,
    options: JudgeOptions,
    *,
    progress: StageProgress = lambda stage, done, total: None,
    device: Any = "cpu",
) -> FittingReport:
    """Fit confidence heads, scores and overlap of a weights file, and write it again, with a report beside it.

    Everything is fitted to pairs that were trained on, but what is scored, to validation pairs where there are any: a
    network is surer of what it has seen. The file is replaced whole, or stays as it was.

    Raises WeightsError, InputError and StoreError.
    """
    description = checkpoint.read_description(weights)
    matcher = LightGlue.load(weights).eval().to(device)
    count = options.fit_pairs
    learnt = [samples.sample(k) for k in range(min(count, samples.epoch))]
    held_out = [samples.validation_sample(i) for i in range(min(count, samples.num_validation))] or learnt
    heads = fit_heads(matcher, learnt, progress=lambda done, total: progress("confidence", done, total))
    scored = scored_matches(matcher, held_out, progress=lambda done, total: progress("calibration", done, total))
    calibration = fit_calibration(scored)
    overlap = _overlap(matcher, held_out, learnt, count, samples.feature_type, progress)
    matcher.calibration, matcher.overlap = calibration, overlap.coefficients
    after = scored.scores if calibration is None else calibration.probability(scored.scores)
    report = FittingReport(
        pairs=len(learnt),
        heads=tuple(heads),
        calibration=None if calibration is None else asdict(calibration),
        matches=len(scored.scores),
        error_before=calibration_error(scored.scores, scored.correct),
        error_after=calibration_error(after, scored.correct),
        bins_before=tuple(reliability(scored.scores, scored.correct)),
        bins_after=tuple(reliability(after, scored.correct)),
        overlap=overlap,
        worst=draw_worst(matcher, samples, held_out, weights.with_name("worst")),
    )
    _write(weights, matcher, description)
    write_whole(weights.with_name(REPORT), json.dumps(finite(asdict(report)), indent=1).encode())
    return report


def _overlap(
    matcher: LightGlue,
    held_out: list[Sample],
    learnt: list[Sample],
    count: int,
    feature_type: str,
    progress: StageProgress,
) -> OverlapFit:
    """Positives are pairs with true matches, negatives views of different images: held-out ones as far as they go."""
    chosen = held_out if len({_image_of(name) for each in held_out for name in each.views}) > 1 else held_out + learnt
    positives = [(each.features0, each.features1) for each in chosen if len(each.truth.positives)]
    views: dict[str, ImageFeatures] = {}
    for each in chosen:
        views |= {each.views[0]: each.features0, each.views[1]: each.features1}
    items = [(_image_of(name), features) for name, features in views.items()]
    negatives = different(items, min(count, len(positives)), seed=0)
    total = len(positives) + len(negatives)
    good = evidence_of(matcher, positives, progress=lambda done, _: progress("overlap", done, total))
    bad = evidence_of(
        matcher, negatives, progress=lambda done, _: progress("overlap", len(positives) + done, total), most=_SAME
    )
    return fit_overlap(good, bad, feature_type)


def _image_of(view: str) -> str:
    """The image that a view shows: the samples name views IMAGE#NUMBER."""
    return view.rpartition("#")[0] or view


def _write(weights: Path, matcher: LightGlue, description: checkpoint.Description | None) -> None:
    """The file again, with what else it said."""
    config = replace(matcher.checked_conf(), weights=None)
    fitted = checkpoint.Fitted(matcher.overlap, matcher.calibration)
    record = None if description is None else description.record
    checkpoint.save(weights, matcher, config, matcher.feature_type, matcher.licence, fitted=fitted, record=record)
