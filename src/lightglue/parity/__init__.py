"""How close an exported model comes to the network that it was made from, and how fast it is.

    from lightglue.parity import check

    report = check("aliked.onnx")
    report.passed, report.faults

Names are resolved when first used, so that a process that runs a file alone does not load torch (PEP 562).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from lightglue.support.lazy import lazy_names

# Public name -> the module that owns it. A closed table: tests/test_public_surface.py holds it.
_OWNERS = {
    "CheckOptions": "lightglue.parity.options",
    "Cost": "lightglue.parity.report",
    "FeatureDifference": "lightglue.parity.compare",
    "LIMITS": "lightglue.parity.limits",
    "Limits": "lightglue.parity.limits",
    "MatchDifference": "lightglue.parity.compare",
    "Report": "lightglue.parity.report",
    "RuntimeReport": "lightglue.parity.report",
    "check": "lightglue.parity.checking",
}

if TYPE_CHECKING:
    from lightglue.parity.checking import check
    from lightglue.parity.compare import FeatureDifference, MatchDifference
    from lightglue.parity.limits import LIMITS, Limits
    from lightglue.parity.options import CheckOptions
    from lightglue.parity.report import Cost, Report, RuntimeReport

__all__ = [
    "LIMITS",
    "CheckOptions",
    "Cost",
    "FeatureDifference",
    "Limits",
    "MatchDifference",
    "Report",
    "RuntimeReport",
    "check",
]


__getattr__ = lazy_names(__name__, _OWNERS)
