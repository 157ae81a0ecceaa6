"""The focal length that an image's file states, and whether it can be believed."""

from __future__ import annotations

import math
from typing import NamedTuple

__all__ = ["PLAUSIBLE", "StatedFocal", "stated_focal"]

# Of the longer edge: a fisheye of 180 degrees has about 0.3, a lens of 600 mm on a sensor of 36 mm has 17.
PLAUSIBLE = 0.1, 20.0


class StatedFocal(NamedTuple):
    """The focal length that a file states."""

    px: float | None = None  # None where the file states none, or one that cannot be
    fault: str | None = None  # why it is not believed, in a sentence


def stated_focal(focal: float, size: tuple[int, int]) -> StatedFocal:
    """What to make of a focal length, px, that comes from the EXIF of an image of `size` (width, height), px.

    EXIF is a rumour: fractions over zero, zeros, and 65535 for what was not known all occur, and editors that shrink
    an image leave what was true of the large one.
    """
    low, high = (times * max(size) for times in PLAUSIBLE)
    if low <= focal <= high:
        return StatedFocal(float(focal))
    number = f"{focal:.6g} px" if math.isfinite(focal) else "that is no number"
    return StatedFocal(
        None,
        f"its EXIF states a focal length {'of ' if math.isfinite(focal) else ''}{number}, which no image of "
        f"{size[0]} x {size[1]} px has ({low:.6g} to {high:.6g}); it is guessed, as if there were none",
    )
