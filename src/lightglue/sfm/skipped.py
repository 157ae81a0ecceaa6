"""What a stage left out or did without, and why: one bad input never ends it."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Skipped", "no_keypoints"]


@dataclass(frozen=True)
class Skipped:
    """An image, or a pair of images, that a stage left out; or something of it that could not be used."""

    name: str  # of the image; of a pair "name0, name1"
    reason: str  # what is wrong and what to do about it, in one sentence
    is_used: bool = False  # the image itself is not left out


def no_keypoints(cause: str | None) -> str:
    """The reason of an image without keypoints; cause: the likely one, where it is known."""
    return f"it has no keypoints: {cause or 'there is nothing in it to hold on to'}"
