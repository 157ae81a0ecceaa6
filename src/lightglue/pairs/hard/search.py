"""In which order views are tried: the cheapest and most likely first, on small images with few keypoints."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from lightglue.pairs.hard.views import PLAIN, View

__all__ = [
    "COUNT",
    "EDGE",
    "SMALLER",
    "TURNS",
    "Trial",
    "likely_trials",
    "other_turns",
    "trials",
    "turned_trials",
]

EDGE, COUNT = 512, 512  # px of the longer side of the small images, and how many keypoints of each are matched
SMALLER = 256  # and both of those that only tell by how much an image is turned

TURNS = (0.0, 90.0, 270.0, 180.0)
_MILD = tuple(View(2, direction) for direction in (0, 90, 45, 135))
_STRONG = tuple(View(4, direction) for direction in (0, 90, 30, 60, 120, 150))


@dataclass(frozen=True)
class Trial:
    """How both images are looked at."""

    view0: View
    view1: View
    edge: int = EDGE
    count: int = COUNT

    def __str__(self) -> str:
        return f"{self.view0} - {self.view1}"


def turned_trials() -> Iterator[Trial]:
    """Image 1 turned in steps of 90 degrees, as with `auto_rotate`: on very small images, and upright on small ones."""
    yield Trial(PLAIN, PLAIN)
    for turn in TURNS:
        yield Trial(PLAIN, View(turn=turn), SMALLER, SMALLER)


def trials(turn: float) -> Iterator[Trial]:
    """All others with image 1 turned by `turn`, which is what it most probably is: the likely ones first."""
    yield from likely_trials(turn)
    yield from _either(_STRONG, turn)
    yield from _either((View(scale=0.5), View(scale=0.25)), turn)


def likely_trials(turn: float) -> Iterator[Trial]:
    """Those that are most probable: tilts of one image, then of both across each other.

    A camera to the left and another one below are together as much as one tilt of four, and both views are there.
    """
    if turn:
        yield Trial(PLAIN, View(turn=turn))
    yield from _either(_MILD, turn)
    for view in _MILD:
        across = next(v for v in _MILD if (v.direction - view.direction) % 180 == 90)
        yield Trial(view, replace(across, turn=turn))


def other_turns(turn: float) -> Iterator[Trial]:
    """Image 1 turned by what it is less probable to be."""
    for other in TURNS:
        if other != turn:
            if other:
                yield Trial(PLAIN, View(turn=other))
            for view in _MILD:
                yield Trial(view, View(turn=other))


def _either(views: tuple[View, ...], turn: float) -> Iterator[Trial]:
    for view in views:
        yield Trial(view, View(turn=turn))
        yield Trial(PLAIN, replace(view, turn=turn))
