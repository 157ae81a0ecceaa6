"""Model files that are written when they are first needed, and kept in the cache folder."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from copy import copy
from dataclasses import asdict
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from lightglue.errors import ModelError
from lightglue.matching.lightglue import LightGlue
from lightglue.support.files import remove_parts, write_whole, writing
from lightglue_runtime.cache import cache_folder
from lightglue_runtime.contract import FORMAT_VERSION
from lightglue_runtime.model_file import ModelFile

__all__ = ["digest_of", "matcher_file"]


def digest_of(matcher: LightGlue) -> str:
    """The sha256 of a matcher's parameters."""
    digest = hashlib.sha256()
    for name, value in sorted(matcher.network.state_dict().items()):
        digest.update(f"{name} {tuple(value.shape)}".encode())
        digest.update(memoryview(value.detach().float().cpu().contiguous().numpy()).cast("B"))
    return digest.hexdigest()


def matcher_file(matcher: LightGlue, digest: str, precision: str = "f32") -> ModelFile:
    """The adaptive model of a matcher with its thresholds as they stand in `conf`, written where it is not there yet.

    digest: see `digest_of`. Its filter keeps every mutual partner, so that whoever reads its results can filter them.
    Processes wait for one that is writing. A damaged file is written again.

    Raises ModelError where `onnx`, which writes it, is not installed; StoreError where the folder cannot be written.
    """
    from filelock import FileLock

    from lightglue.export import write_matcher

    conf = matcher.conf
    made_of = {
        "weights": digest,
        "features": matcher.feature_type,
        "overlap": None if matcher.overlap is None else asdict(matcher.overlap),
        "calibration": None if matcher.calibration is None else asdict(matcher.calibration),
        "depth_confidence": conf.depth_confidence,
        "width_confidence": conf.width_confidence,
        "pruning_min_keypoints": matcher.pruning_keypoint_thresholds["cpu"],
        "precision": precision,
        "format": FORMAT_VERSION,
        "writer": _writer(),
    }
    folder = cache_folder() / "exported"
    path = folder / f"{matcher.feature_type or 'own'}-{precision}-{_key(made_of)}.onnx"
    if (found := _read(path)) is not None:
        return found
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(folder / ".lightglue.lock").acquire()
    with lock:
        if (found := _read(path)) is None:
            remove_parts(folder)
            unfiltered = copy(matcher)
            unfiltered.conf = SimpleNamespace(**{**vars(conf), "filter_threshold": 0.0})
            write_matcher(unfiltered, path, format="adaptive", precision=precision)
            found = ModelFile.read(path)
            write_whole(_sum_of(path), found.sha256().encode())
    return found


def _read(path: Path) -> ModelFile | None:
    """The file, if it is there and as it was written: a damaged weight shows in nothing but the matches."""
    try:
        found = ModelFile.read(path)
        return found if _sum_of(path).read_text() == found.sha256() else None
    except (ModelError, OSError, UnicodeError):  # not there, or damaged
        return None


def _sum_of(path: Path) -> Path:
    """The file that holds the SHA-256 of another."""
    return path.with_suffix(".sha256")


def _key(made_of: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(made_of, sort_keys=True).encode()).hexdigest()[:20]


@cache
def _writer() -> str:
    """What the code that writes models is known by: what an earlier state of it wrote is not taken."""
    from lightglue import export
    from lightglue.matching import adaptive, folding
    from lightglue_runtime import contract, overlap

    modules = (adaptive, folding, contract, overlap)
    files = [*(Path(str(each.__file__)) for each in modules), *sorted(Path(export.__path__[0]).glob("*.py"))]
    return hashlib.sha256(b"\0".join(file.read_bytes() for file in files)).hexdigest()
