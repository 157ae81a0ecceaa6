"""Run several implementations strictly alternately, so that the machine's noise affects all of them equally."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from time import perf_counter
from typing import Protocol

__all__ = ["Runner", "run_rounds"]

LEAST_ROUNDS, MOST_ROUNDS = 5, 100


class Runner(Protocol):
    """Something that can be timed."""

    label: str

    def warm_up(self) -> None:
        """Run it untimed."""

    def run(self) -> float:
        """Run it once; seconds."""


def run_rounds(
    runners: Sequence[Runner],
    *,
    repeat: int | None,  # rounds; None: as many as fit into `budget`, from 5 to 100
    budget: float,  # seconds
    clock: Callable[[], float] = perf_counter,
) -> dict[str, list[float]]:
    """Label -> seconds of each round. After the warm-ups A B A B ...: no runner runs twice in a row."""
    for runner in runners:
        runner.warm_up()
    times: dict[str, list[float]] = {runner.label: [] for runner in runners}
    start, rounds = clock(), 0
    while not _enough(rounds, repeat, clock() - start >= budget):
        for runner in runners:
            times[runner.label].append(runner.run())
        rounds += 1
    return times


def _enough(rounds: int, repeat: int | None, spent: bool) -> bool:
    if repeat is not None:
        return rounds >= repeat
    return rounds >= MOST_ROUNDS or (spent and rounds >= LEAST_ROUNDS)
