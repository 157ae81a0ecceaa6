"""A set of images whose pairs are all matched: what came of it so far, and the work, a few seconds at a time."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from threading import Event
from typing import Any

from lightglue.pairs.asked import PairRequest
from lightglue.web.failures import FailureError, StoppedError
from lightglue.web.worker import Budget, Worker

__all__ = ["ImageSet", "SetImage", "SetWork", "is_apart", "unique_names"]

TURN_S = 2.0  # of work, after which others get theirs
# Options that need the pixels of both images, or what their files say.
_OF_BOTH_IMAGES = ("auto_rotate", "refine", "camera0", "camera1")


@dataclass(frozen=True)
class SetImage:
    """An image of a set."""

    id: str
    name: str  # in the set, where no other has it
    data: bytes  # the file
    width: int  # px, upright
    height: int


@dataclass(eq=False)
class ImageSet:
    """What is known of a set. For the thread of the service."""

    images: tuple[SetImage, ...]
    options: Mapping[str, Any]  # as they were asked for
    asked: Mapping[str, Any]  # the same as the package takes them
    apart: bool = False  # see `is_apart`
    id: str = ""
    job: str = ""
    features: dict[int, Mapping[str, Any]] = field(default_factory=dict)  # what `extract` gave, by image
    faults: dict[int, str] = field(default_factory=dict)  # why an image is left out
    pairs: dict[tuple[int, int], dict[str, Any]] = field(default_factory=dict)  # numbers, or the reason of a failure
    rows: dict[tuple[int, int], bytes] = field(default_factory=dict)  # the matches, (K, 2) uint16
    opened: dict[tuple[int, int], str] = field(default_factory=dict)  # results of pairs that were looked at
    size: int = 10_000  # bytes that it takes up, besides the images, about

    @property
    def total(self) -> int:
        """Pairs in all."""
        return len(self.images) * (len(self.images) - 1) // 2

    def hear(self, name: str, content: dict[str, Any]) -> None:
        """Keep what the work has found."""
        if name == "features":
            before = self.features.get(content["number"], {"keypoints": b""})  # of a process that has ended
            self.features[content["number"]] = content
            self.size += len(content["keypoints"]) - len(before["keypoints"])
        elif name == "image":
            self.faults[content["number"]] = content["error"]
        elif name == "pair":
            key = content["i"], content["j"]
            self.pairs[key] = {k: v for k, v in content.items() if k != "rows"}
            if "rows" in content:
                self.rows[key] = content["rows"]
            self.size += len(content.get("rows", b"")) + 300

    def described(self) -> dict[str, Any]:
        """As JSON holds it."""
        return {
            "id": self.id,
            "job": self.job,
            "images": [
                {
                    "id": image.id,
                    "name": image.name,
                    "width": image.width,
                    "height": image.height,
                    "keypoints": len(self.features[n]["keypoints"]) // 8 if n in self.features else None,
                    "error": self.faults.get(n),
                    "warning": self.features[n]["warning"] if n in self.features else None,
                }
                for n, image in enumerate(self.images)
            ],
            "options": dict(self.options),
            "apart": self.apart,
            "pairs": list(self.pairs.values()),
            "total": self.total,
        }


def _nobody(name: str, content: Any) -> None:
    """Takes what is found, where nobody waits for it."""


class SetWork:
    """The work of a set, in the thread of the jobs: one pair after the other, neighbours first.

    hear: gets what was found, in any thread.
    """

    def __init__(
        self, images: ImageSet, worker: Worker, budget: Budget, hear: Callable[[str, Any], None] = _nobody
    ) -> None:
        self._set, self._worker, self._budget, self._hear = images, worker, budget, hear
        self._left = _by_distance(len(images.images))
        self._extracted: set[int] = set()
        self._faults: set[int] = set()  # images that are left out
        self._done = 0

    def __call__(self, stop: Event) -> bool:
        """Work for a few seconds; whether that was all. Raises StoppedError."""
        begin = time.monotonic()
        while True:
            if stop.is_set():
                raise StoppedError
            pair = next(self._left, None)
            if pair is None:
                return True
            self._hear("pair", {"i": pair[0], "j": pair[1], **self._matched(pair, stop)})
            self._done += 1
            total = self._set.total
            self._hear("progress", {"stage": "matching", "done": self._done, "total": total, "text": ""})
            if time.monotonic() - begin >= TURN_S:
                return False

    def open(self, pair: tuple[int, int], stop: Event) -> Any:
        """All of a pair, as `match` gives it. Raises FailureError, StoppedError."""
        if self._set.apart:
            return self._alone(pair, stop)
        return self._pair(pair, stop, **self._images(pair))

    def _images(self, pair: tuple[int, int]) -> dict[str, Any]:
        images = [self._set.images[n] for n in pair]
        named = [{"id": image.id, "name": image.name, "data": image.data} for image in images]
        return {"images": named, "options": dict(self._set.options)}

    def _alone(self, pair: tuple[int, int], stop: Event) -> Any:
        return self._do("match", {**self._images(pair), "asked": self._set.asked}, stop)

    def _matched(self, pair: tuple[int, int], stop: Event) -> dict[str, Any]:
        for number in () if self._set.apart else pair:
            if number not in self._faults and not self._has_features(number, stop):
                self._faults.add(number)
        if left_out := [number for number in pair if number in self._faults]:
            return {"error": f"{self._set.images[left_out[0]].name} is left out"}
        try:
            found = self._alone(pair, stop) if self._set.apart else self._pair(pair, stop)
            return {name: value for name, value in found.items() if name not in ("json", "kept")}
        except FailureError as failed:
            return {"error": failed.failure.message}

    def _has_features(self, number: int, stop: Event) -> bool:
        """Extract an image the first time that it is needed; whether that went well."""
        if number in self._extracted:
            return True
        try:
            self._extract(number, stop)
        except FailureError as failed:
            if failed.failure.status == 503:  # weights are missing: so are those of all others
                raise
            self._hear("image", {"number": number, "error": failed.failure.message})
            return False
        return True

    def _extract(self, number: int, stop: Event) -> None:
        image = self._set.images[number]
        given = {"set": self._set.id, "number": number, "name": image.name, "data": image.data}
        given |= {"asked": self._set.asked, "memory": self._budget.memory}
        found = self._do("extract-of-set", given, stop)
        self._extracted.add(number)
        self._hear("features", {"number": number, **found})

    def _pair(self, pair: tuple[int, int], stop: Event, **more: Any) -> Any:
        """Match, after features that the worker does not have any more were extracted again."""
        names = tuple(self._set.images[n].name for n in pair)
        given = {"set": self._set.id, "numbers": pair, "names": names, "asked": self._set.asked, **more}
        for _ in range(3):  # a worker that was restarted, or has no room for both, has them after that
            found = self._do("pair-of-set", given, stop)
            if "missing" not in found:
                return found
            for number in found["missing"]:
                self._extract(number, stop)
        raise FailureError.of(507, "memory", "There is not enough memory for this pair; ask for fewer keypoints.")

    def _do(self, task: str, given: Any, stop: Event) -> Any:
        """A task, once more where its process ended: something else may have ended that."""
        try:
            return self._worker.do(task, given, self._budget, cancelled=stop)
        except FailureError as failed:
            if failed.failure.code != "crashed":
                raise
        return self._worker.do(task, given, self._budget, cancelled=stop)


def _by_distance(count: int) -> Iterator[tuple[int, int]]:
    """All pairs of numbers; those of neighbours first, since photographs were taken one after the other."""
    for apart in range(1, count):
        for i in range(count - apart):
            yield i, i + apart


def is_apart(request: PairRequest, asked: Mapping[str, Any]) -> bool:
    """Whether each pair must be matched from its two images, so that pairs share no features."""
    return request.models.effort == "hard" or any(asked.get(name) not in (None, False) for name in _OF_BOTH_IMAGES)


def unique_names(names: Sequence[str]) -> list[str]:
    """Names for images of a set, those that occur again with a number."""
    found: list[str] = []
    taken: set[str] = set()
    for name in names:
        stem, dot, ending = name.rpartition(".")
        chosen, number = name, 2
        while chosen in taken:
            chosen = f"{stem}-{number}{dot}{ending}" if stem else f"{name}-{number}"
            number += 1
        taken.add(chosen)
        found.append(chosen)
    return found
