"""Images that are rotated against the others of a map, extracted again the way up that makes them similar to these.

Learned features hold for some 45 degrees of a camera's roll, and strips of a flight are flown to and fro. So images
that nothing connects with the others are rotated by quarters; where keypoints of the rotated image are those of others,
its features in the store become those, with keypoints in px of the image as it is (`ImageFeatures.rotation`).

Features, and not only descriptors at the keypoints there were: a detector finds other places in a rotated image, some
3 px away where plain matches are within one, and six in ten match (docs/decisions/038).

MAP/rotated.json holds what was decided, by what it was decided from. It is written before any features are, so that a
kill among these changes nothing.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from lightglue.errors import ImageError, InputError, StoreError
from lightglue.images import size_of
from lightglue.images.rotation import Rotation
from lightglue.sfm.options import ExtractOptions, on_one_device
from lightglue.sfm.retrieval.mutual import compared, stored, strongest
from lightglue.sfm.stages.extract import Decoded, ExtractWork, ExtractWorker
from lightglue.sfm.stages.pairing.growth import RATIOS
from lightglue.sfm.stages.pairing.turns import TURNS, agreed_turns
from lightglue.stores import FeatureStore, ImageFeatures, Source
from lightglue.support.files import read_json, write_json
from lightglue.support.memory import is_out_of_memory
from lightglue.workers.work import Engine

__all__ = ["TurnWork", "Turner"]

_TURNABLE = ("aliked", "aliked-n32", "disk", "superpoint", "xfeat")  # learned, and not for any roll of the camera
_DEGREES = 360 // TURNS

Indices = NDArray[np.int64]
Job = tuple[str, tuple[int, ...]]  # an image, and by how many quarters it is to be turned


class Turner:
    """Rotates images of a map so that they are similar to others.

    Args:
        features: the folder of the store. record: the file of what was decided. images: the folder of the images.
        options: how they were extracted.
    """

    def __init__(self, features: Path, record: Path, images: Path, options: ExtractOptions, engine: Engine) -> None:
        self.store, self.record, self.engine = FeatureStore.open(features), record, engine
        masks = None if options.masks is None else os.path.abspath(options.masks)
        chosen = replace(options, models=on_one_device(options.chosen), masks=masks)
        self.work = TurnWork(ExtractWork(os.path.abspath(images), chosen))
        self.can = chosen.chosen.features in _TURNABLE

    def finish(self) -> bool:
        """Rotate what was decided to be rotated and is not, as a run was killed; whether there was any such image."""
        last = [[], *self._decided().values()][-1]
        left = {name: turn for name, turn, digest in last if self._digest(name) == digest}
        return self._put(left, {})

    def turn(self, names: Sequence[str], parts: Indices, some: Indices) -> bool:
        """Rotate parts of a map that are similar to others then; whether any was.

        parts: (N,) of images that are the right way up against each other. some: (M,) those that say how their parts
        are rotated.
        """
        digests = [self._digest(name) for name in names]
        about = json.dumps([*zip(names, digests, strict=True), parts.tolist(), some.tolist()])
        key, decided = sha256(about.encode()).hexdigest(), self._decided()
        if key in decided:  # and was done, or cannot be
            return False
        before = [self._turn_of(name) for name in names]
        jobs = [(names[row], tuple((before[row] + k) % TURNS for k in range(1, TURNS))) for row in some.tolist()]
        found = {done.name: done.turned for done in self.engine.run(self.work, jobs)}
        turns = agreed_turns(parts, self._counts(names, before, found)).tolist()
        decided[key] = [
            (name, (old + turn) % TURNS, digest)
            for name, old, turn, digest in zip(names, before, turns, digests, strict=True)
            if turn and digest is not None
        ]
        write_json(self.record, {"decided": decided})
        return self._put({name: turn for name, turn, _ in decided[key]}, found)

    def _counts(
        self, names: Sequence[str], before: list[int], found: Mapping[str, Mapping[int, Turned]]
    ) -> NDArray[np.int64]:
        """(4, N, N), of the images that were rotated: see `agreed_turns`."""
        counts = np.zeros((TURNS, len(names), len(names)), np.int64)
        others = [stored(self.store, name) for name in names]
        for row, name in enumerate(names):
            if not found.get(name):
                continue
            counts[0, row] = compared(others[row], others, RATIOS[:1])[0]
            for turn, turned in found[name].items():
                own = strongest(turned.features)
                counts[(turn - before[row]) % TURNS, row] = compared(own, others, RATIOS[:1])[0]
            counts[:, row, row] = 0
        return counts

    def _put(self, turns: Mapping[str, int], found: Mapping[str, Mapping[int, Turned]]) -> bool:
        """Put the features of rotated images into the store."""
        missing = [(name, (turn,)) for name, turn in turns.items() if turn not in found.get(name, {})]
        done = {name: found[name][turn] for name, turn in turns.items() if turn in found.get(name, {})}
        for each in self.engine.run(self.work, missing):
            if turns[each.name] in each.turned:
                done[each.name] = each.turned[turns[each.name]]
        for name, turned in sorted(done.items()):
            self.store.put(name, turned.features, turned.source, turned.mask)
        return bool(done)

    def _decided(self) -> dict[str, list[tuple[str, int, str]]]:
        try:
            said = read_json(self.record)
            return {key: [(str(a), int(b), str(c)) for a, b, c in some] for key, some in said["decided"].items()}
        except (FileNotFoundError, StoreError, KeyError, TypeError, ValueError, AttributeError):
            return {}

    def _digest(self, name: str) -> str | None:
        head = self.store.head(name)
        return None if head is None else head.digest

    def _turn_of(self, name: str) -> int:
        try:
            return self.store.get(name).rotation // _DEGREES
        except (InputError, StoreError):
            return 0


@dataclass(frozen=True, eq=False)
class Turned:
    """The features of a rotated image, in px of the image as it is, and what they were made of."""

    features: ImageFeatures
    source: Source
    mask: Source | None


@dataclass(frozen=True, eq=False)
class ManyTurned:
    """An image rotated in some ways; in none where it cannot be extracted any more."""

    name: str
    turned: dict[int, Turned]


@dataclass(frozen=True)
class TurnWork:
    """Extract rotated images."""

    extract: ExtractWork
    together: int = 1

    @property
    def seconds(self) -> float:
        """See `Work`."""
        return (TURNS - 1) * self.extract.seconds

    @property
    def on_cpu(self) -> bool:
        """See `Work`."""
        return self.extract.on_cpu

    def worker(self) -> TurnWorker:
        """One with an extractor of its own. Raises as `ExtractWork.worker`."""
        return TurnWorker(self)

    def failed(self, job: Job, reason: str) -> ManyTurned:
        """An image that nobody could do stays as it is."""
        return ManyTurned(job[0], {})


class TurnWorker:
    """An extractor."""

    threads = 1  # images that wait are decoded

    def __init__(self, work: TurnWork) -> None:
        self.extractor: ExtractWorker = work.extract.worker()

    def read(self, job: Job) -> Decoded | str:
        """The pixels of an image, or a fault."""
        return self.extractor.read(job[0])

    def compute(self, job: Job, read: Decoded | str) -> ManyTurned:
        """Its features, rotated by each of these quarters."""
        if isinstance(read, str):
            return ManyTurned(job[0], {})
        try:
            return ManyTurned(job[0], {turn: self._turned(read, turn) for turn in job[1]})
        except (ImageError, InputError):
            return ManyTurned(job[0], {})
        except (MemoryError, RuntimeError) as error:
            if not is_out_of_memory(error):
                raise
            return ManyTurned(job[0], {})
        finally:
            self.extractor.let_go(read)

    def _turned(self, read: Decoded, turn: int) -> Turned:
        width, height = size_of(read.pixels)
        degrees = turn * _DEGREES
        rotation = Rotation(degrees, width, height)
        mask = read.mask
        allowed = rotation.mask(None if mask is None else mask.allowed)
        found = self.extractor.features(rotation.apply(read.pixels), allowed, rotation)
        keypoints = ((found.keypoints - rotation.matrix[:, 2]) @ rotation.matrix[:, :2]).astype(np.float32)
        features = replace(found, keypoints=keypoints, image_size=(width, height), rotation=degrees)
        return Turned(features, read.source, None if mask is None else mask.source)

    def close(self) -> None:
        """Let go of the threads that wait to decode."""
        self.extractor.close()
