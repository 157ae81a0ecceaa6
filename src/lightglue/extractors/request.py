"""What `extract` asks of an extractor's pass over a batch, beside the features of its images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from lightglue.extractors.masks import Allowed

__all__ = ["EVERYTHING", "Part", "Request"]


@dataclass(frozen=True)
class Part:
    """Which part of an image a network is given, px, and what its extractor prepared for all parts."""

    x: int  # where it begins
    y: int
    width: int  # of the whole image
    height: int
    prepared: Any = None


@dataclass(frozen=True)
class Request:
    """What `Extractor.forward` takes beside the published dictionary; by default it asks for nothing."""

    allowed: Sequence[Allowed | None] = ()  # for each image which keypoints may stay, None for all; none: all of all
    part: Part | None = None  # of which the batch is the only one; None: whole images
    will_merge: bool = False  # whether to give `strength`, by which keypoints of several views are compared

    def allowed_in(self, count: int) -> Sequence[Allowed | None]:
        """For each of `count` images which keypoints may stay; None for all."""
        return self.allowed or [None] * count


EVERYTHING = Request()
