"""What a stage left out or did without, and why: one bad input never ends it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

__all__ = ["NO_KEYPOINTS", "Skipped", "by_reason", "names_of"]

NO_KEYPOINTS = "it has no keypoints: there is nothing in it to hold on to"
_NAMED = 3  # of many inputs that were left out for one reason


@dataclass(frozen=True)
class Skipped:
    """An image, or a pair of images, that a stage left out; or something of it that could not be used."""

    name: str  # of the image; of a pair "name0, name1"
    reason: str  # what is wrong and what to do about it, in one sentence
    is_used: bool = False  # the image itself is not left out


def by_reason(skipped: Iterable[Skipped]) -> dict[str, list[str]]:
    """The names that were left out for each reason, in the order of their coming."""
    found: dict[str, list[str]] = {}
    for each in skipped:
        found.setdefault(each.reason, []).append(each.name)
    return found


def names_of(names: Sequence[str]) -> str:
    """A few names in words: "a.mp4", or "9 of them: a.heic, b.heic, c.heic, ..."."""
    if len(names) == 1:
        return names[0]
    return f"{len(names):,} files ({', '.join(names[:_NAMED])}{', ...' if len(names) > _NAMED else ''})"
