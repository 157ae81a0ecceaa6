"""The extractor that is written, from what the user says of it; and what its file says of the weights."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

from lightglue.export.extractors.options import ExtractorSource
from lightglue.extractors.base import Extractor
from lightglue.weights import FILES
from lightglue_runtime.contract import Description

__all__ = ["describe", "load_extractor"]

UNKNOWN = "unknown"
# First word of the features -> module and class of the extractor.
_CLASSES: Mapping[str, tuple[str, str]] = {
    "aliked": ("aliked", "ALIKED"),
    "disk": ("disk", "DISK"),
    "xfeat": ("xfeat", "XFeat"),
    "superpoint": ("superpoint", "SuperPoint"),
    "raco": ("raco", "RaCo"),
}


def load_extractor(source: ExtractorSource) -> Extractor:
    """The extractor on the CPU. Raises WeightsError where its weights cannot be had or do not fit."""
    kind = source.features.partition("-")[0]
    module, name = _CLASSES[kind]
    options: dict[str, Any] = {"commercial_only": source.commercial_only}
    if kind == "aliked":
        options["model_name"] = source.model or ("aliked-n16" if source.features == "aliked" else source.features)
    if source.weights is not None:
        options["weights"] = source.weights
    extractor: Extractor = getattr(import_module(f"lightglue.extractors.{module}"), name)(**options).eval()
    return extractor


def describe(extractor: Extractor, format: str) -> Description:
    """The description of an extractor's file."""
    parts: list[Any] = [extractor]
    if getattr(extractor, "aliked", None) is not None:  # RaCo's descriptors are ALIKED's
        parts.append(extractor.aliked)
    names, digests, licences = zip(*(_provenance(each) for each in parts), strict=True)
    return Description(
        kind="extractor",
        format=format,
        features=features_of(extractor),
        precision="f32",
        weights=", ".join(names),
        weights_sha256=", ".join(digests),
        licence=", ".join(dict.fromkeys(licences)),
        preprocess=json.dumps(extractor.preprocess_conf, sort_keys=True),
    )


def features_of(extractor: Extractor) -> str:
    """The feature type of a matcher's table, or the network's own name where no matcher was trained on it."""
    kind = type(extractor).__name__.lower()
    if kind == "aliked":
        model = str(extractor.conf.model_name)
        return "aliked" if model == "aliked-n16" else model
    return "raco-aliked" if kind == "raco" else kind


def _provenance(extractor: Extractor) -> tuple[str, str, str]:
    """Name, sha256 and licence of the weights."""
    source = extractor.weights_source
    if source is None:
        return "tensors", _digest(extractor), UNKNOWN
    if str(source) in FILES:
        file = FILES[str(source)]
        return file.name, file.sha256, file.licence
    path = Path(source).expanduser()
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    known = next((file for file in FILES.values() if file.sha256 == digest), None)
    return path.name, digest, known.licence if known else UNKNOWN


def _digest(extractor: Extractor) -> str:
    """Of weights that never were a file: of their names and bytes."""
    digest = hashlib.sha256()
    for name, value in sorted(extractor.state_dict().items()):
        digest.update(name.encode())
        digest.update(value.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()
