"""What a file says of the weights in it."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from lightglue.export.adaptive import Thresholds
from lightglue.matching import checkpoint
from lightglue.matching.config import PRESETS
from lightglue.matching.lightglue import LightGlue
from lightglue.weights import FILES, OWN, load_state_dict, resolve
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
    return Description(
        kind="matcher",
        format=format,
        features=matcher.feature_type or UNKNOWN,
        precision=precision,
        weights=name,
        weights_sha256=digest,
        licence=matcher.licence or UNKNOWN,
        thresholds=json.dumps(numbers, sort_keys=True),
        overlap=json.dumps(None if matcher.overlap is None else asdict(matcher.overlap), sort_keys=True),
        calibration=json.dumps(None if matcher.calibration is None else asdict(matcher.calibration), sort_keys=True),
    )


def _weights(matcher: LightGlue) -> tuple[str, str]:
    """Name and sha256 of the file that the weights came from; the digest only as long as they are still those."""
    source = matcher.conf.weights
    if source is None:
        return UNKNOWN, UNKNOWN
    preset = PRESETS.get(matcher.feature_type or "")
    if preset is not None and str(source) not in {**FILES, **OWN} and not Path(source).expanduser().is_file():
        source = preset.weights  # which stood in for a file that is not there
    path = resolve(source)
    if not _still_has(matcher, source):
        return f"{path.name}, changed since", UNKNOWN
    published = FILES.get(str(source))
    if published is not None:
        return published.name, published.sha256
    return path.name, hashlib.sha256(path.read_bytes()).hexdigest()


def _still_has(matcher: LightGlue, source: Any) -> bool:
    """Whether the parameters are those of the file, and nobody has trained or replaced them."""
    read = checkpoint.adapt(load_state_dict(source), matcher.conf.n_layers)
    own = matcher.network.state_dict()
    return all(name in own and torch.equal(own[name].cpu(), value.to(own[name].dtype)) for name, value in read.items())
