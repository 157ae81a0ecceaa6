"""What a stage left out or did without, and why: one bad input never ends it."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

__all__ = ["Skipped", "by_reason", "names_of", "no_keypoints", "reason_of", "told_once"]

_NAMED = 3  # of many inputs that were left out for one reason


@dataclass(frozen=True)
class Skipped:
    """An image, or a pair of images, that a stage left out; or something of it that could not be used."""

    name: str  # of the image; of a pair "name0, name1"
    reason: str  # what is wrong and what to do about it, in one sentence
    is_used: bool = False  # the image itself is not left out


def reason_of(error: BaseException, path: str | os.PathLike[str]) -> str:
    """What an error says of a file, in one line and without the file's path: its name stands before the reason."""
    said, name = " ".join(str(error).split()), " ".join(str(path).split())
    if said.startswith(f"{name} "):
        return f"it {said.removeprefix(name).lstrip()}"
    return said.removeprefix(f"{name}: ").replace(f" at {name};", " there;")


def told_once(skipped: Sequence[Skipped]) -> tuple[Skipped, ...]:
    """Without what one stage says of an image that another left out for the same reason."""
    left_out = {(each.name, each.reason) for each in skipped if not each.is_used}
    return tuple(each for each in skipped if not each.is_used or (each.name, each.reason) not in left_out)


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


def no_keypoints(cause: str | None) -> str:
    """The reason of an image without keypoints; cause: the likely one, where it is known."""
    return f"it has no keypoints: {cause or 'there is nothing in it to hold on to'}"
