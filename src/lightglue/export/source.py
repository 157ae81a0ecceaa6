"""The matcher that is written, from what the user says of it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

from lightglue.errors import WeightsError
from lightglue.export.options import DEFAULT, MatcherSource
from lightglue.matching import checkpoint
from lightglue.matching.lightglue import LightGlue
from lightglue.weights import load_state_dict, resolve

__all__ = ["load_matcher"]

_ALL_LAYERS = 1_000


def load_matcher(source: MatcherSource, thresholds: Mapping[str, float] | None = None) -> LightGlue:
    """The matcher on the CPU, pruned from the tuned numbers of keypoints on.

    thresholds: those of LightGlue's options that are not as the feature type has them.

    Where own weights are given without features the file says what it is, by its description or by its shapes. Raises
    WeightsError where they are missing or do not fit.
    """
    options: dict[str, Any] = {"pruning": "tuned", **(thresholds or {})}
    if source.layers is not None:
        options["n_layers"] = source.layers
    matcher = _published(source, options) if source.weights is None else _own(source, options)
    if source.pruning_min_keypoints is not None:
        matcher.pruning_keypoint_thresholds["cpu"] = source.pruning_min_keypoints
    return matcher.eval()


def _published(source: MatcherSource, options: dict[str, Any]) -> LightGlue:
    return LightGlue(cast(Any, source.features or DEFAULT), commercial_only=source.commercial_only, **options)


def _own(source: MatcherSource, options: dict[str, Any]) -> LightGlue:
    assert source.weights is not None
    path = resolve(source.weights)  # the published ones are not taken instead of a file that is not there
    description = checkpoint.read_description(path)
    if description is not None and source.features in (None, description.features):
        return LightGlue.load(path, **options)
    if source.features is not None:
        return LightGlue(cast(Any, source.features), weights=path, **options)
    shapes = checkpoint.infer_architecture(checkpoint.adapt(load_state_dict(path), _ALL_LAYERS))
    if not shapes:
        raise WeightsError(f"{path} holds no LightGlue: it lacks the tensors that say how wide and how deep it is.")
    return LightGlue(None, weights=path, **{**shapes, **options})
