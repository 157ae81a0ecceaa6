"""Pairs that plain matching could not do, searched in the images themselves: the second part of the stage `match`."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from functools import partial

import numpy as np

from lightglue.errors import ImageError, InputError, StoreError
from lightglue.images import ImageFile, size_of
from lightglue.images.rotation import Rotation
from lightglue.sfm.hard import HARD, HardSearch, View, hopeful
from lightglue.sfm.options import MatchOptions
from lightglue.sfm.skipped import Skipped
from lightglue.sfm.stages.extract import check_seen
from lightglue.sfm.stages.masks import Masks
from lightglue.stores import FeatureStore, MatchStore
from lightglue.support.caches import BoundedCache
from lightglue.support.memory import is_out_of_memory
from lightglue.workers.work import Engine

__all__ = ["HardWork", "search_pairs"]

NOTHING = "nothing more was found"
FEWEST = 15  # matches that are worth being verified: with fewer the pair stays as it was
_PIXELS_HELD = 400_000_000  # bytes of images and features that are kept

Pair = tuple[str, str]


@dataclass(frozen=True, eq=False)
class Searched:
    """What became of a pair."""

    pair: Pair
    found: tuple[np.ndarray, np.ndarray, str] | None = None  # matches (K, 2), scores (K,), and what found them
    fault: str | None = None


def search_pairs(
    features: FeatureStore,
    store: MatchStore,
    pairs: Iterable[Pair],
    options: MatchOptions,
    images: str | os.PathLike[str],
    masks: str | None,
    engine: Engine,
) -> Iterator[Skipped | None]:
    """Search those pairs of a store that are worth it, and put what is found in the place of their matches.

    Gives for each pair what is to be told of it. A pair keeps the overlap of plain matching, and its note says what
    came of the search; one that has been searched is not searched again.
    """
    heads = [head for head in store.heads(list(pairs)) if head is not None]
    done = {(head.name0, head.name1) for head in heads if HARD in (head.note or "")}
    todo = [pair for pair in hopeful(heads, done) if pair not in done]
    where = None if masks is None else os.path.abspath(masks)
    work = HardWork(os.path.abspath(features.folder), os.path.abspath(images), where, options)
    for searched in engine.run(work, todo):
        if searched.fault is not None:
            yield Skipped(", ".join(searched.pair), searched.fault)
            continue
        pair = store.get(*searched.pair)
        if pair is None:  # somebody has taken it away meanwhile
            continue
        note = f"{HARD}{NOTHING}" if searched.found is None else f"{HARD}{searched.found[2]}"
        if searched.found is None:
            note = note if pair.note is None else f"{pair.note}; {note}"
            store.put([replace(pair, note=note)])
        else:
            matches, scores, _ = searched.found
            store.put([replace(pair, matches=matches.astype(np.int32), scores=scores.astype(np.float32), note=note)])
        yield None


@dataclass(frozen=True)
class HardWork:
    """Search pairs of images, whose features are in a store."""

    folder: str  # of the features, absolute
    images: str  # their folder, absolute
    masks: str | None
    options: MatchOptions
    together: int = 1

    @property
    def seconds(self) -> float:
        """See `Work`."""
        return 10.0

    @property
    def on_cpu(self) -> bool:
        """See `Work`."""
        return self.options.chosen.device == "cpu"

    def worker(self) -> HardWorker:
        """One with models of its own. Raises InputError where the folders cannot be seen."""
        for folder in (self.folder, self.images, self.masks):
            if folder is not None:
                check_seen(folder)
        return HardWorker(self)

    def failed(self, pair: Pair, reason: str) -> Searched:
        """The result for a pair that nobody could do."""
        return Searched(pair, fault=reason)


class HardWorker:
    """Models, and the images seen last."""

    threads = 1  # what is remembered is not shared

    def __init__(self, work: HardWork) -> None:
        self.images = work.images
        self.store = FeatureStore.open(work.folder, read_only=True)
        self.masks = Masks.open(work.masks, work.images)
        models = work.options.chosen
        self.device = models.found_device()
        extract = dict(self.store.settings.get("extract", {}))
        self.search = HardSearch(*models.load(), extract, work.options.max_seconds)
        self.seen: BoundedCache[str, View] = BoundedCache(_PIXELS_HELD, lambda view: view.pixels.nbytes, keep=2)

    def read(self, pair: Pair) -> tuple[View, View] | str:
        """Both images, or what is wrong with them."""
        try:
            first, second = (self.seen.get(name, partial(self._load, name)) for name in pair)
            return first, second
        except (ImageError, InputError, StoreError, OSError) as error:
            return " ".join(str(error).split())
        except (MemoryError, RuntimeError) as error:
            return _short_of_memory(error)

    def _load(self, name: str) -> View:
        features = self.store.get(name)
        file = ImageFile.read(os.path.join(self.images, name))
        pixels = file.decode(stretch=self.store.stretch)
        width, height = size_of(pixels)
        if (width, height) != features.image_size:
            was = "{} x {} px".format(*features.image_size)
            raise InputError(f"{name!r} is {width} x {height} px, and was {was}; extract it again.")
        mask = self.masks.read(name, file, (width, height))
        allowed = None if mask is None else mask.allowed
        if features.rotation:  # as it was extracted; what is found are rows of keypoints, whatever the image's frame
            rotation = Rotation(features.rotation, width, height)
            pixels, allowed = rotation.apply(pixels), rotation.mask(allowed)
        return View(pixels, features.torch(self.device, as_extracted=True), allowed)

    def compute(self, pair: Pair, read: tuple[View, View] | str) -> Searched:
        """What the search finds of keypoints that are there."""
        if isinstance(read, str):
            return Searched(pair, fault=read)
        try:
            found = self.search.between(*read)
        except (MemoryError, RuntimeError) as error:
            return Searched(pair, fault=_short_of_memory(error))
        if found is None:
            return Searched(pair)
        matches, scores = found.of_keypoints(*read)
        if len(matches) < FEWEST:
            return Searched(pair)
        return Searched(pair, (matches, scores, found.found_by))

    def close(self) -> None:
        """Nothing waits here."""


def _short_of_memory(error: BaseException) -> str:
    if not is_out_of_memory(error):
        raise error
    return "there is not enough memory to search this pair"
