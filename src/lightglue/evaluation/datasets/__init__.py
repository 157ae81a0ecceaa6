"""One module a benchmark: where its files come from, how they are laid out, what protocol they are judged by."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from lightglue.evaluation.datasets import eth3d, evd, hpatches, megadepth1500, scannet1500, wxbs
from lightglue.evaluation.datasets.dataset import Dataset, Download

__all__ = ["BENCHMARKS", "Dataset", "Download"]

_TABLE = (
    hpatches.DATASET,
    megadepth1500.DATASET,
    scannet1500.DATASET,
    eth3d.DATASET,
    wxbs.DATASET,
    evd.DATASET,
)

BENCHMARKS: Mapping[str, Dataset] = MappingProxyType({dataset.name: dataset for dataset in _TABLE})
