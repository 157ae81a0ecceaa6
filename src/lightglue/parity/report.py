"""What a check found, as a typed record, and how it is shown."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from lightglue.parity.compare import FeatureDifference, MatchDifference
from lightglue.parity.limits import Limits

__all__ = ["Cost", "Report", "RuntimeReport"]


@dataclass(frozen=True)
class Cost:
    """Time and memory of the file and of torch for the same work."""

    keypoints: tuple[int, ...]  # of the pair, or of the image
    milliseconds: float  # median of runs in turn with torch's
    torch_milliseconds: float
    rounds: int
    megabytes: float | None  # most of a process that does nothing else; None: not asked for
    torch_megabytes: float | None

    @property
    def speedup(self) -> float:
        """How many times as fast as torch."""
        return self.torch_milliseconds / self.milliseconds


@dataclass(frozen=True)
class RuntimeReport:
    """A file in one runtime."""

    runtime: str  # its name and version
    precision: str  # f32, f16, bf16 or int8: the coarser of the file's and the runtime's; it decides the limits
    limits: Limits
    differences: tuple[MatchDifference | FeatureDifference, ...]  # one a case
    failures: tuple[str, ...]  # cases that the runtime could not do, and why
    cost: Cost | None

    @property
    def faults(self) -> tuple[str, ...]:
        """What is beyond the limits, case by case."""
        found = [f"{each.case}: {fault}" for each in self.differences for fault in each.faults(self.limits)]
        return (*self.failures, *found)


@dataclass(frozen=True)
class Report:
    """A file against the network that it was made of."""

    file: str
    bytes: int  # of a folder: of all its models
    description: Mapping[str, str]  # what the file says of itself
    reference: str  # what it was compared with
    threads: int
    structure: tuple[str, ...]  # what its readers will not like
    runtimes: tuple[RuntimeReport, ...]
    parts: tuple[Report, ...] = ()  # of a folder with several models

    @property
    def faults(self) -> tuple[str, ...]:
        """All that is wrong."""
        found = [f"structure: {fault}" for fault in self.structure]
        found += [f"{each.runtime}: {fault}" for each in self.runtimes for fault in each.faults]
        found += [f"{Path(part.file).name}: {fault}" for part in self.parts for fault in part.faults]
        return tuple(found)

    @property
    def passed(self) -> bool:
        """Whether everything is within the limits."""
        return not self.faults

    def to_json(self) -> dict[str, Any]:
        """For `--json`; None stands for what is no finite number."""
        content = {
            **asdict(self),
            "runtimes": [{**asdict(each), "faults": list(each.faults)} for each in self.runtimes],
            "parts": [part.to_json() for part in self.parts],
            "faults": list(self.faults),
            "passed": self.passed,
        }
        return {name: _plain(value) for name, value in content.items()}


def _plain(value: Any) -> Any:
    """What JSON holds: None for what is no finite number."""
    if isinstance(value, Mapping):
        return {name: _plain(each) for name, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(each) for each in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
