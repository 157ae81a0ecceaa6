"""How good matches are: benchmarks, records of each pair, reports, comparisons.

    from lightglue.evaluation import Job, Models, evaluate, load_manifest, summarize

Names are resolved when first used, so that reading a manifest or a run does not load torch (PEP 562). Two runs are
compared by `lightglue.evaluation.compare.compare`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from lightglue.support.lazy import lazy_names

# Public name -> the module that owns it. A closed table: tests/test_public_surface.py holds it.
_OWNERS = {
    "Benchmark": "lightglue.evaluation.pair",
    "Correspondences": "lightglue.evaluation.pair",
    "Homography": "lightglue.evaluation.pair",
    "Job": "lightglue.evaluation.run",
    "Models": "lightglue.models.choice",
    "Pair": "lightglue.evaluation.pair",
    "Protocol": "lightglue.evaluation.pair",
    "RelativePose": "lightglue.evaluation.pair",
    "Run": "lightglue.evaluation.records",
    "evaluate": "lightglue.evaluation.run",
    "load_manifest": "lightglue.evaluation.datasets.manifest",
    "read_run": "lightglue.evaluation.records",
    "summarize": "lightglue.evaluation.summary",
    "write_manifest": "lightglue.evaluation.datasets.manifest",
    "write_report": "lightglue.evaluation.report",
}

if TYPE_CHECKING:
    from lightglue.evaluation.datasets.manifest import load_manifest, write_manifest
    from lightglue.evaluation.pair import Benchmark, Correspondences, Homography, Pair, Protocol, RelativePose
    from lightglue.evaluation.records import Run, read_run
    from lightglue.evaluation.report import write_report
    from lightglue.evaluation.run import Job, evaluate
    from lightglue.evaluation.summary import summarize
    from lightglue.models.choice import Models

__all__ = [
    "Benchmark",
    "Correspondences",
    "Homography",
    "Job",
    "Models",
    "Pair",
    "Protocol",
    "RelativePose",
    "Run",
    "evaluate",
    "load_manifest",
    "read_run",
    "summarize",
    "write_manifest",
    "write_report",
]


__getattr__ = lazy_names(__name__, _OWNERS)
