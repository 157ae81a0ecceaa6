"""How near is a match, and how far is none. Importing this loads neither torch nor numpy."""

from __future__ import annotations

from dataclasses import dataclass

from lightglue.errors import InputError
from lightglue.options import option
from lightglue.support.checks import check_between, check_integers

__all__ = ["TruthOptions"]


@dataclass(frozen=True)
class TruthOptions:
    """Thresholds in px of the views; as published (cvg/glue-factory, its configurations)."""

    positive: float = option(3.0, "Nearest keypoints this near to each other match, px.")
    negative: float = option(3.0, "Homographies: one with none this near has no partner, px.")
    negative_posed: float = option(5.0, "The same where positions come from depth or tracks, px.")
    epipolar: float = option(5.0, "Without depth: no partner where none is this near to its epipolar line, px.")

    track: float = option(2.0, "Of a model: matches and tracks that fit its poses this well are believed, px.")
    # Tracks of two images, whose matches nothing but one line bears out, are 33 to 70 % right with nearest neighbours
    # of SIFT, those of three 81 to 97 %, of more 97 to 99 %; with LightGlue and ALIKED 93 to 100, 95 to 97, 98 to 99 %
    # (scripts/label_quality.py).
    track_views: int = option(3, "Of a model: tracks that fewer images see are not believed.")

    def __post_init__(self) -> None:
        pixels = ("positive", "negative", "negative_posed", "epipolar", "track")
        check_between(self, "of pixels ", **dict.fromkeys(pixels, float("inf")))
        check_integers(self, track_views=2)
        for name in ("negative", "negative_posed", "epipolar"):
            if getattr(self, name) < self.positive:
                raise InputError(
                    f"{name} is {getattr(self, name)!r}, below positive, {self.positive!r}: a keypoint would match "
                    "and have no partner; give at least as much."
                )
