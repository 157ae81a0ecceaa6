"""Which features can be used at once, and which need a weight file that is not here yet: with its size and licence."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from typing import Any

from lightglue.matching.config import PRESETS
from lightglue.models.registry import FEATURES
from lightglue.weights import FILES, WeightFile, cache_folder, find_cached
from lightglue.weights.stand_in import in_place_of

__all__ = ["described_features", "files_of", "is_there", "missing_weights"]

# Feature type -> the file of its extractor; those that are not named have none.
_EXTRACTORS = {
    "aliked": "aliked-n16",
    "aliked-n16rot": "aliked-n16rot",
    "aliked-n32": "aliked-n32",
    "disk": "disk-depth",
    "xfeat": "xfeat",
    "superpoint": "superpoint_v1",
    "doghardnet": "hardnet",
}


def files_of(features: str, matcher: str | None = "lightglue") -> Iterator[WeightFile]:
    """The weight files that a feature type needs: its extractor's, and where it is the matcher LightGlue's."""
    if features in _EXTRACTORS:
        yield FILES[_EXTRACTORS[features]]
    trained = FEATURES[features].matcher
    if trained is not None and matcher == "lightglue":
        yield FILES[PRESETS[trained].weights]


def described_features() -> list[dict[str, Any]]:
    """The feature types and their weight files. Files are read, to see that they are whole: it takes a second."""
    there = {name: is_there(file) for name, file in FILES.items()}
    return [_described(name, there) for name in FEATURES]


def missing_weights(features: str, matcher: str | None = "lightglue") -> dict[str, Any] | None:
    """What must be fetched before these features can be matched; None where nothing must.

    matcher: None where features are extracted alone.
    """
    files = list(files_of(features, matcher))
    if all(is_there(file) for file in files):
        return None
    return _described(features, {file.name: is_there(file) for file in files_of(features)})


def is_there(file: WeightFile) -> bool:
    """Whether the file is in the cache folder, or one that comes with this package stands in for it."""
    return _found(file, cache_folder()) or in_place_of(file.name) is not None


def _found(file: WeightFile, folder: Path) -> bool:
    """Read again only where the files of its names have changed."""
    state = []
    for name in (file.filename, *file.also_known_as):
        with suppress(OSError):
            about = (folder / name).stat()
            state.append((name, about.st_size, about.st_mtime_ns, about.st_ino))
    return bool(state) and _verified(file.name, tuple(state), folder)


@lru_cache(maxsize=256)
def _verified(name: str, state: tuple[Any, ...], folder: Path) -> bool:
    return find_cached(FILES[name]) is not None


def _described(name: str, there: Mapping[str, bool]) -> dict[str, Any]:
    files = list(files_of(name))
    missing = [file for file in files if not there[file.name]]
    sizes = [file.size for file in missing]
    return {
        "name": name,
        "weights": "missing" if missing else "present",
        "bytes": None if None in sizes else sum(size for size in sizes if size is not None),
        "licence": ", ".join(dict.fromkeys(file.licence for file in files)) or None,
        "commercial": all(file.commercial for file in files),
        "files": [
            {
                "name": file.name,
                "present": there[file.name],
                **_stand_in(file),
                "bytes": file.size,
                "licence": file.licence,
                "commercial": file.commercial,
            }
            for file in files
        ],
    }


def _stand_in(file: WeightFile) -> dict[str, str]:
    """What of this package is used as long as a published file is not there: its name, what it is, its licence."""
    own = in_place_of(file.name)
    if own is None or _found(file, cache_folder()):
        return {}
    return {"stand_in": own.name, "about": own.about, "stand_in_licence": own.licence}
