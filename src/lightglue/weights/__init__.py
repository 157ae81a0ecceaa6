"""Published weight files: a table of them (`table`), the way from a name to a verified file on this disk (`locate`),
and the reading of it (`read`). Nothing here loads torch before tensors are read.
"""

from __future__ import annotations

from lightglue.weights.locate import LicenceNotice, cache_folder, find_altered, find_cached, lookup, resolve
from lightglue.weights.read import load_state_dict
from lightglue.weights.table import FILES, WeightFile, WheelSource

__all__ = [
    "FILES",
    "LicenceNotice",
    "WeightFile",
    "WheelSource",
    "cache_folder",
    "find_altered",
    "find_cached",
    "load_state_dict",
    "lookup",
    "resolve",
]
