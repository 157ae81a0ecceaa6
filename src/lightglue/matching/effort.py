"""How much is done for a pair, and what was done: words and records, read without torch or NumPy."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, get_args

from lightglue.support.checks import check_choice

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["EFFORTS", "Effort", "EffortRecord", "EffortStage", "check_effort"]

Effort = Literal["fast", "normal", "hard"]
EFFORTS: tuple[Effort, ...] = get_args(Effort)


def check_effort(effort: Any) -> None:
    """InputError unless `effort` is one of `EFFORTS`."""
    check_choice("effort", effort, EFFORTS)


@dataclass(frozen=True)
class EffortStage:
    """One step of the work on a pair."""

    name: str
    seconds: float  # of the clock; of pairs that were done together, the pair's share
    matches: int  # what the pair had after it


@dataclass(frozen=True, eq=False)
class EffortRecord:
    """What was done for a pair."""

    effort: Effort  # that was asked for
    stages: tuple[EffortStage, ...]
    escalated: str | None = None  # why more was done than the effort says
    rejected: str | None = None  # why no more was done: the images show no common thing
    geometry: Literal["fundamental", "homography"] | None = None  # of `model`
    model: NDArray[np.float64] | None = None  # (3, 3) px, x1' F x0 = 0 or x1 = H x0, that the matches were found with
    inliers: NDArray[np.bool_] | None = None  # (K,) the matches that agree with `model`
    found_by: str | None = None  # with "hard": the views that led to the matches

    @property
    def seconds(self) -> float:
        """Of all stages."""
        return sum(stage.seconds for stage in self.stages)

    def numbers(self) -> dict[str, Any]:
        """What is printed or written: all but the arrays."""
        shown: dict[str, Any] = {
            "effort": self.effort,
            "stages": [{"name": s.name, "seconds": s.seconds, "matches": s.matches} for s in self.stages],
        }
        reasons = {"escalated": self.escalated, "rejected": self.rejected, "found_by": self.found_by}
        return shown | {name: value for name, value in reasons.items() if value is not None}

    def __str__(self) -> str:
        steps = ", ".join(f"{stage.name} {stage.seconds:.2f} s" for stage in self.stages)
        reason = self.escalated or self.rejected or (self.found_by and f"found by {self.found_by}")
        return f"{self.effort}: {steps}" + (f"; {reason}" if reason else "")
