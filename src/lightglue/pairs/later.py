"""A pair that was matched once, with fewer of its matches or another geometry: what `match_files` would give for that.

The threshold of the scores is the last thing that LightGlue looks at, and a geometry is estimated from what is left:
both can be had of the matches at a lower threshold without matching again.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from lightglue.geometry.options import CALIBRATED, EstimatorOptions
from lightglue.pairs.asked import PairRequest
from lightglue.pairs.cameras import known_camera
from lightglue.pairs.options import PairOptions
from lightglue.pairs.postprocessing import PostProcessing
from lightglue.pairs.record import MatchedPair

__all__ = ["above", "can_be_filtered", "with_geometry"]

_PER_MATCH = ("matches", "scores", "points0", "points1")


def can_be_filtered(request: PairRequest) -> bool:
    """Whether the matches at a threshold are those at a lower one without the others.

    Not where matches lead to other matches (the efforts fast and hard) or to positions (refine), nor of a matcher
    without thresholds.
    """
    models = request.models
    return models.matcher == "lightglue" and models.effort == "normal" and not request.options.refine


def above(pair: MatchedPair, threshold: float) -> MatchedPair:
    """`pair` with the matches that score more than `threshold`, as float32. It must not have a geometry."""
    found: dict[str, Any] = dict(pair.matches01)
    kept = found["scores"] > threshold
    changes = {name: found[name][kept] for name in _PER_MATCH}
    matches = changes["matches"]
    for i, name in enumerate(("matches0", "matches1")):
        partners = found[name].new_full(found[name].shape, -1)
        partners[matches[:, i]] = matches[:, 1 - i]
        changes[name] = partners
    return pair.with_matches(**changes)


def with_geometry(
    pair: MatchedPair, options: PairOptions, images: Sequence[Any], sizes: Sequence[tuple[int, int]]
) -> MatchedPair:
    """`pair` with the geometry that `options` ask for. images: as `known_camera` takes them; sizes: (width, height)."""
    if options.geometry is None:
        return pair
    cameras = None
    if options.geometry in CALIBRATED:
        given = (options.camera0, options.camera1)
        first, second = (known_camera(f"camera{i}", given[i], images[i], sizes[i]) for i in (0, 1))
        cameras = first, second
    estimator = EstimatorOptions(options.estimator, options.threshold, seed=options.seed)
    return PostProcessing(False, options.geometry, estimator).apply(pair, (), cameras)
