"""How many processes: those that were asked for, or as many as fit and are worth their start."""

from __future__ import annotations

import sys

from lightglue.errors import InputError
from lightglue.support.parsers import integer
from lightglue_runtime.limits import usable_cores, usable_memory

__all__ = ["MOST_WORKERS", "WORTH", "check_workers", "fitting", "is_short", "parse_workers", "worthwhile"]

MOST_WORKERS = 1024
# A process that has matched 16 pairs of 2,048 keypoints holds about half of this for itself: docs/scale.md.
MEMORY = 1_000_000_000  # bytes that a process is counted with
SPARED = 0.2  # of the memory is left to others
WORTH = 5.0  # s of work for each process: one takes about 2.5 s until it begins

parse_workers = integer(f"a number of processes from 1 to {MOST_WORKERS}", 1, MOST_WORKERS)


def check_workers(workers: object) -> None:
    """InputError for what is no number of workers."""
    if workers is not None and (
        not isinstance(workers, int) or isinstance(workers, bool) or not 1 <= workers <= MOST_WORKERS
    ):
        raise InputError(
            f"workers is {workers!r}; give a number of processes from 1 to {MOST_WORKERS:,}, or leave it out for as "
            "many as fit."
        )


def fitting() -> int:
    """Processes for which there are cores and memory."""
    if getattr(sys, "frozen", False) or not sys.executable:  # this program is no interpreter to start
        return 1
    free = usable_memory()
    room = MOST_WORKERS if free is None else int((1 - SPARED) * free / MEMORY)
    return max(1, min(usable_cores(), room, MOST_WORKERS))


def worthwhile(most: int, jobs: int, seconds: float) -> int:
    """Of at most so many processes those that are worth their start, for jobs of so many seconds each."""
    return max(1, min(most, jobs, int(jobs * seconds / WORTH)))


def is_short() -> bool:
    """Whether the memory has no room for one more process."""
    free = usable_memory()
    return free is not None and free < MEMORY
