"""What a file says of the weights in it."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict
from pathlib import Path

from lightglue.export.adaptive import Thresholds
from lightglue.matching.lightglue import LightGlue
from lightglue.matching.overlap import COEFFICIENTS
from lightglue.weights import FILES
from lightglue_runtime.contract import Description

__all__ = ["UNKNOWN", "describe"]

UNKNOWN = "unknown"


def describe(matcher: LightGlue, format: str, precision: str, thresholds: Thresholds) -> Description:
    """The description of a matcher's file."""
    name, digest = _weights(matcher)
    numbers = {
        "n_layers": matcher.conf.n_layers,
        "input_dim": matcher.conf.input_dim,
        "add_scale_ori": matcher.conf.add_scale_ori,
        **asdict(thresholds),
    }
    fitted = COEFFICIENTS.get(matcher.feature_type or "")
    return Description(
        kind="matcher",
        format=format,
        features=matcher.feature_type or UNKNOWN,
        precision=precision,
        weights=name,
        weights_sha256=digest,
        licence=matcher.licence or UNKNOWN,
        thresholds=json.dumps(numbers, sort_keys=True),
        overlap=json.dumps(None if fitted is None else asdict(fitted), sort_keys=True),
    )


def _weights(matcher: LightGlue) -> tuple[str, str]:
    """Name and sha256 of the file that the weights came from."""
    source = matcher.conf.weights
    if source is None:
        return UNKNOWN, UNKNOWN
    if str(source) in FILES:
        return str(source), FILES[str(source)].sha256
    path = Path(source).expanduser()
    return path.name, hashlib.sha256(path.read_bytes()).hexdigest()
