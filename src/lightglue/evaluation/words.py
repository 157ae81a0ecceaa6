"""The settings of a run in words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from lightglue.evaluation.bootstrap import with_unit
from lightglue.support.checks import is_real

__all__ = ["protocol_in_words", "what_ran"]

_METHODS = {"poselib": "PoseLib", "opencv": "OpenCV's USAC with MAGSAC++", "pycolmap": "pycolmap"}
_MODELS = ("extractor", "features", "matcher", "model")


def what_ran(settings: Mapping[str, Any]) -> str:
    """What matched, in a few words, such as `aliked + lightglue`; empty where the settings do not name it."""
    if isinstance(settings.get("title"), str):
        return str(settings["title"])
    models = settings.get("models")
    known = {**settings, **models} if isinstance(models, Mapping) else settings
    values = [each.get("name") if isinstance(each, Mapping) else each for each in map(known.get, _MODELS)]
    names = [each for each in values if isinstance(each, str)]
    return " + ".join(dict.fromkeys([*names, *(["refinement"] if names and settings.get("refine") else [])]))


def protocol_in_words(protocol: Any, unit: str = "") -> list[str]:
    """Sentences on how a run was judged, from the fields of `Protocol` that are there.

    `unit` is that of the thresholds.
    """
    if not isinstance(protocol, Mapping):
        return []
    sentences = []
    if is_real(protocol.get("max_keypoints")):
        sentences.append(f"Each image has at most {protocol['max_keypoints']:,} keypoints.")
    if "resize" in protocol:
        sentences.append(_resizing(protocol["resize"], protocol.get("side")))
    estimators = protocol.get("estimators")
    if isinstance(estimators, Sequence) and not isinstance(estimators, str):
        methods = [_estimator(each) for each in estimators if isinstance(each, Mapping)]
        if methods:
            sentences.append(f"A model is estimated from the matches by {'; by '.join(methods)}.")
            if len(methods) > 1:
                sentences.append("The first of these gives the headline.")
    thresholds = protocol.get("thresholds")
    if isinstance(thresholds, Sequence) and thresholds and all(is_real(each) for each in thresholds):
        listed = ", ".join(f"{each:g}" for each in thresholds[:-1])
        last = with_unit(thresholds[-1], unit)
        sentences.append(f"Errors are judged up to {listed + ' and ' if listed else ''}{last}.")
    if isinstance(protocol.get("reference"), str) and protocol["reference"]:
        sentences.append(f"The protocol is that of {protocol['reference'].rstrip('.')}.")
    return sentences


def _resizing(edge: Any, side: Any) -> str:
    if not is_real(edge):
        return "Images keep their size."
    which = "short" if side == "short" else "long"
    return f"Images are resized so that the {which} edge has {edge:,} px, and errors are in px of these."


def _estimator(options: Mapping[str, Any]) -> str:
    method = options.get("method")
    if method == "dlt":
        return "the direct linear transform, weighted by score and not robust"
    words = _METHODS.get(str(method), str(method))
    limits = []
    if is_real(options.get("threshold")):
        words += f" with inliers up to {options['threshold']:g} px"
    if is_real(options.get("max_iterations")):
        limits.append(f"{options['max_iterations']:,} iterations at most")
    if is_real(options.get("confidence")):
        limits.append(f"confidence {options['confidence']:g}")
    if is_real(options.get("seed")):
        limits.append(f"seed {options['seed']}")
    return f"{words} ({', '.join(limits)})" if limits else words
