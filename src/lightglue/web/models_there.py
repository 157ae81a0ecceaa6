"""Which features can be used at once, and which need a weight file that is not here yet: with its size and licence."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from lightglue.matching.config import PRESETS
from lightglue.models.registry import FEATURES
from lightglue.weights import FILES, WeightFile, find_cached

__all__ = ["described_features", "files_of"]

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


def files_of(features: str) -> Iterator[WeightFile]:
    """The weight files that a feature type needs: its extractor's, and LightGlue's."""
    if features in _EXTRACTORS:
        yield FILES[_EXTRACTORS[features]]
    trained = FEATURES[features].matcher
    if trained is not None:
        yield FILES[PRESETS[trained].weights]


def described_features() -> list[dict[str, Any]]:
    """The feature types and their weight files. Files are read, to see that they are whole: it takes a second."""
    found = []
    for name in FEATURES:
        files = [(file, find_cached(file) is not None) for file in files_of(name)]
        missing = [file for file, there in files if not there]
        sizes = [file.size for file in missing]
        found.append(
            {
                "name": name,
                "weights": "missing" if missing else "present",
                "bytes": None if None in sizes else sum(size for size in sizes if size is not None),
                "licence": ", ".join(dict.fromkeys(file.licence for file, _ in files)) or None,
                "commercial": all(file.commercial for file, _ in files),
                "files": [
                    {
                        "name": file.name,
                        "present": there,
                        "bytes": file.size,
                        "licence": file.licence,
                        "commercial": file.commercial,
                    }
                    for file, there in files
                ],
            }
        )
    return found
