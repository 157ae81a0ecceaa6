"""Weight files: a table of the published ones and of those in this package (`table`), the way from a name to a verified
file on this disk (`locate`), what is taken where a published one cannot be had (`stand_in`), and the reading of it
(`read`). Nothing here loads torch before tensors are read.
"""

from __future__ import annotations

from lightglue.weights.locate import (
    LicenceNotice,
    cache_folder,
    find_altered,
    find_cached,
    lookup,
    resolve,
)
from lightglue.weights.read import load_state_dict
from lightglue.weights.stand_in import OwnWeightsNotice, resolve_or_own
from lightglue.weights.table import FILES, OWN, OwnFile, WeightFile, WheelSource

__all__ = [
    "FILES",
    "OWN",
    "LicenceNotice",
    "OwnFile",
    "OwnWeightsNotice",
    "WeightFile",
    "WheelSource",
    "cache_folder",
    "find_altered",
    "find_cached",
    "load_state_dict",
    "lookup",
    "resolve",
    "resolve_or_own",
]
