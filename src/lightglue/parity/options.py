"""What a check is made with. Importing this loads neither torch nor a runtime."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from lightglue.errors import InputError
from lightglue.options import option
from lightglue.parity.limits import parse_limit
from lightglue.support.checks import check_choice, check_int
from lightglue.support.parsers import integer

__all__ = ["CheckOptions"]

_RUNTIMES = ("onnx", "openvino", "all")


@dataclass(frozen=True)
class CheckOptions:
    """Raises InputError for what makes no sense."""

    images: tuple[Path, ...] = option(
        (), "Images of your own, two a pair, beside the package's.", metavar="A B ...", group="Pairs"
    )
    max_keypoints: int = option(
        1024,
        "The N best keypoints of each image.",
        parse=integer("a number of keypoints from 1 to 1000000"),
        group="Features",
    )
    weights: Path | None = option(None, "What the file was made of, where the weights are your own.", group="Matching")
    tolerance: tuple[tuple[str, float], ...] = option(
        (),
        "Another limit, such as kept=0.9 or score_max=0.001. Repeatable.",
        metavar="NAME=X",
        parse=parse_limit,
        repeated=True,
        group="Matching",
    )
    runtime: str | None = option(
        None, "What to run it in; by default the first that is installed.", choices=_RUNTIMES, group="Machine"
    )
    threads: int | None = option(
        None,
        "To compute with; by default OMP_NUM_THREADS, or one a core.",
        parse=integer("a number of threads from 1 to 1024", 1, 1024),
        group="Machine",
    )
    rounds: int = option(
        5, "Runs in turn with torch to take the time of; 0: none.", parse=integer("a number from 0", 0), group="Machine"
    )
    memory: bool = option(True, "Measure memory, in two processes of their own.", group="Machine")

    def __post_init__(self) -> None:
        check_int("max_keypoints", self.max_keypoints, 1, "an integer of at least 1")
        check_int("rounds", self.rounds, 0, "an integer of at least 0")
        if self.runtime is not None:
            check_choice("runtime", self.runtime, _RUNTIMES)
        if len(self.images) % 2:
            raise InputError(f"images holds {len(self.images)} files; give two for each pair.")
