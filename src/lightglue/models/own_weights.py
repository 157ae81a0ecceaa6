"""A matcher's weights of the user's own: what a file is for, without torch."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from lightglue.errors import WeightsError
from lightglue.support.files import os_reason
from lightglue.weights import OWN, resolve

__all__ = ["OwnWeights", "own_weights"]

_LARGEST_HEADER = 100_000_000  # bytes, as safetensors has it


@dataclass(frozen=True)
class OwnWeights:
    """What a file of weights says of itself."""

    path: Path
    sha256: str
    is_described: bool  # whether `LightGlue.save` or a training wrote it
    features: str | None = None  # the matcher's feature type
    trained_on: str | None = None  # features of a class of the user's own
    has_overlap: bool | None = None  # whether an overlap was fitted; None: it does not say

    @property
    def name(self) -> str:
        """What names it anywhere: of a file of this package its name, of another where it lies."""
        comes_with_us = self.path.stem in OWN and self.path == resolve(self.path.stem)
        return self.path.stem if comes_with_us else str(self.path.absolute())


def own_weights(weights: str) -> OwnWeights:
    """What there is at a path, or under a name of `lightglue weights list`. Raises WeightsError."""
    path = resolve(weights)
    try:
        found = path.stat()
    except OSError as error:
        raise WeightsError(f"{path} cannot be read ({os_reason(error)}).") from error
    return _read(path, found.st_mtime_ns, found.st_size)


@lru_cache(16)
def _read(path: Path, changed: int, size: int) -> OwnWeights:
    try:
        with path.open("rb") as file:
            digest = hashlib.sha256()
            while block := file.read(1 << 20):
                digest.update(block)
        metadata = _metadata(path)
    except OSError as error:
        raise WeightsError(f"{path} cannot be read ({os_reason(error)}).") from error
    sha256 = digest.hexdigest()
    if metadata.get("format") != "lightglue-1":
        return OwnWeights(path, sha256, False)
    features, overlap = metadata.get("features"), metadata.get("overlap")
    trained_on = None if features is not None else _trained_on(metadata)
    return OwnWeights(path, sha256, True, features, trained_on, None if overlap is None else overlap != "null")


def _metadata(path: Path) -> dict[str, Any]:
    """Those of a safetensors file; none of another, and of one that is damaged, which is told where it is loaded."""
    if path.suffix != ".safetensors":
        return {}
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        header = file.read(length) if length <= _LARGEST_HEADER else b""
    try:
        found = json.loads(header).get("__metadata__", {})
    except (ValueError, AttributeError):
        return {}
    return found if isinstance(found, dict) else {}


def _trained_on(metadata: dict[str, Any]) -> str | None:
    try:
        found = json.loads(metadata["training"])["feature_type"]
    except (KeyError, TypeError, ValueError):
        return None
    return str(found)
