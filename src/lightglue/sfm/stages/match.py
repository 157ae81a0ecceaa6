"""Matches of pairs of images, from a store of features into a store of matches."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from lightglue.errors import InputError, StoreError
from lightglue.matching.coarse_to_fine import CoarseToFine, CoarseToFineOptions
from lightglue.matching.effort import Effort
from lightglue.models.choice import Models
from lightglue.pairs.record import matches_of
from lightglue.sfm.options import MatchOptions, on_one_device
from lightglue.sfm.skipped import Skipped
from lightglue.sfm.stages.extract import check_seen
from lightglue.sfm.stages.hard import search_pairs
from lightglue.stores import FeatureStore, ImageFeatures, MatchStore, PairMatches
from lightglue.support.batches import batched
from lightglue.support.caches import BoundedCache
from lightglue.support.memory import is_out_of_memory
from lightglue.support.progress import Progress
from lightglue.types import Features
from lightglue.workers.local import LocalEngine
from lightglue.workers.work import Engine

__all__ = ["NO_OVERLAP", "MatchOptions", "MatchResult", "as_in_maps", "match"]

NO_OVERLAP = "no overlap"  # the note of pairs below `min_overlap`
BATCH_CPU, BATCH_GPU = 4, 64  # pairs that a worker takes at once; a core gains nothing from more
BATCH_FAST = 1  # on a CPU at effort fast: rounds of growing pairs are small, and wait for the last
# With bfloat16 on a CPU every number of keypoints that pruning leaves has code generated for it, which stays: with it
# memory grew by a megabyte a pair. Up to so many keypoints matching is about as fast without: docs/scale.md.
UNPRUNED = 2048
# Of the matches that are to be expected, with which effort "fast" is content, as images of a map have other pairs: one
# pair in ten of a flight over fields was matched again as a whole for the sake of more, which took half of all time.
LEAST_YIELD = 0.5
# Of maps, too: the part of the compared keypoints that agree without a network, of which 40 are enough, and of the
# longer edge over which they spread. Of 65 pairs of two training scenes that pairs alone would not be trusted with,
# guidance by these found 0.9 of the matches that seeds lead to (median; 0.7 or more of 63).
DISTINCT_PART, DISTINCT_EXTENT = 0.02, 0.05
# The half of them will do where it is so many: guidance finds as many by these (median of 386 pairs of five training
# scenes; 0.8 at least), for half of the time.
MOST = 1024  # keypoints of each image that doubtful pairs are matched with
TILE = 128  # images; pairs are gone through in squares of so many by so many
SECONDS = 1.0  # of work that are written at once, and lost by a kill
LOOKED_UP = 1024  # pairs that are looked up in the store at once

Pair = tuple[str, str]


@dataclass(frozen=True)
class MatchResult:
    """What became of the pairs."""

    pairs: int  # that were asked for, each once
    matched: int
    kept: int  # that were there
    without_overlap: int  # of those matched
    matches: int  # of those matched
    seconds: float
    skipped: tuple[Skipped, ...]


def match(
    store: str | os.PathLike[str],
    pairs: str | os.PathLike[str] | Iterable[Pair],
    out: str | os.PathLike[str],
    options: MatchOptions,
    *,
    engine: Engine | None = None,
    effort: Effort | None = None,
    images: str | os.PathLike[str] | None = None,
    masks: str | None = None,
    search: bool = True,
    progress: Progress = lambda done, total: None,
) -> MatchResult:
    """Match pairs of images that have no matches yet, or whose features have changed since.

    Args:
        store: the folder of the features.
        pairs: names of images, in any order, also (b, a) for (a, b) and some twice; or a file of them.
        out: the file of the store of matches, made where there is none.
        engine: who does the work; this process by default.
        effort: for these pairs only, where it is not that of the store; each says so in its note.
        images, masks: the folders that the features are of, which effort "hard" looks at again.
        search: whether it does so already; False where more pairs follow, which it should know of.

    With effort "hard" the pairs that plain matching could not do, of images that it connects with few others, are
    searched then (`lightglue.sfm.hard`); each that was says so in its note.

    A pair that cannot be matched is in `skipped`, and the others are done. A damaged file of features is removed, so
    that `extract` makes it again. What is killed goes on where it stopped, and ends with the same matches to the last
    bit: pairs go through the matcher in the same batches then.

    Raises InputError for options or files that make no sense, or a store of other settings; StoreError where the store
    cannot be written.
    """
    begin = perf_counter()
    features = FeatureStore.open(store, read_only=True)
    made_of = features.settings.get("features", options.chosen.features)
    if made_of != options.chosen.features:
        raise InputError(f"{store} holds features of {made_of}; match them as such, not as {options.chosen.features}.")
    table = PairTable.of(pairs)
    matches = MatchStore.open(out, options.settings(), features=features)
    matches.mend()
    models = on_one_device(options.chosen.settled())
    own = None if effort in (None, models.effort) else f"effort {effort}"
    if effort is not None:
        models = replace(models, effort=effort)
        if effort != "hard":  # the store's limit is for its own effort
            options = replace(options, max_seconds=MatchOptions.max_seconds)
    if models.effort == "hard" and images is None:
        raise InputError("effort is 'hard', which looks at the images again; give their folder as `images`.")
    todo = _Todo(features, matches, table, _batch(models))
    options, engine = replace(options, models=models), engine or LocalEngine()
    work = MatchWork(str(features.folder.absolute()), options)
    skipped = [Skipped(f"{name}, {name}", "an image is not matched with itself") for name in table.selfs]
    matched = without_overlap = found = missed = 0
    with _Writer(matches) as writer:
        for batch in engine.run(work, todo.batches()):
            _remove(store, batch.damaged)
            writer.put(batch.pairs if own is None else [replace(pair, note=pair.note or own) for pair in batch.pairs])
            skipped += batch.skipped
            missed += len(batch.skipped)
            matched += len(batch.pairs)
            without_overlap += sum(pair.note == NO_OVERLAP for pair in batch.pairs)
            found += sum(len(pair.matches) for pair in batch.pairs)
            progress(matched + missed + todo.kept + len(todo.skipped), len(table))
    skipped += todo.skipped
    if models.effort == "hard" and images is not None and search:
        told = search_pairs(features, matches, table, options, images, masks, engine)
        skipped += [each for each in told if each is not None]
    progress(len(table), len(table))
    seconds = perf_counter() - begin
    return MatchResult(len(table), matched, todo.kept, without_overlap, found, seconds, tuple(skipped))


def _batch(models: Models) -> int:
    """Pairs that a worker takes at once."""
    if models.device != "cpu":
        return BATCH_GPU
    return BATCH_FAST if models.effort == "fast" else BATCH_CPU


def _remove(store: str | os.PathLike[str], damaged: Sequence[str]) -> None:
    """Take damaged features away, if that is allowed here."""
    with suppress(StoreError):
        for name in damaged:
            FeatureStore.open(store).remove(name)


@dataclass(frozen=True, eq=False)
class PairTable:
    """Pairs of images, each once, in the order in which they are matched; eight bytes a pair."""

    names: list[str]  # sorted
    index: NDArray[np.int32]  # (P, 2) into `names`, the smaller first
    selfs: tuple[str, ...] = ()  # images that were paired with themselves

    @classmethod
    def of(cls, pairs: str | os.PathLike[str] | Iterable[Pair]) -> PairTable:
        """Those of a file or a sequence. Raises InputError for what are no pairs of names."""
        if isinstance(pairs, (str, os.PathLike)):
            from lightglue.sfm.stages.pairing.files import read_pairs

            listed: Iterable[Pair] = read_pairs(Path(pairs))
        else:
            listed = pairs
        known: dict[str, int] = {}
        index = np.fromiter(
            (known.setdefault(name, len(known)) for pair in listed for name in _checked(pair)), np.int32
        ).reshape(-1, 2)
        names = sorted(known)
        rank = np.empty(len(names), np.int32)
        rank[[known[name] for name in names]] = np.arange(len(names), dtype=np.int32)
        index = np.sort(rank[index], axis=1)
        same = index[:, 0] == index[:, 1]
        selfs = tuple(names[i] for i in np.unique(index[same, 0]))
        index = np.unique(index[~same], axis=0)
        tile = index // TILE
        order = np.lexsort((index[:, 1], index[:, 0], tile[:, 1], tile[:, 0]))
        return cls(names, index[order], selfs)

    def __len__(self) -> int:
        return len(self.index)

    def __iter__(self) -> Iterator[Pair]:
        for i, j in self.index:
            yield self.names[i], self.names[j]


def _checked(pair: Any) -> Pair:
    if isinstance(pair, (tuple, list)) and len(pair) == 2 and all(isinstance(name, str) and name for name in pair):
        return pair[0], pair[1]
    raise InputError(f"{pair!r:.100} is no pair; give two names of images.")


class _Todo:
    """What is left to do of a table of pairs, in batches.

    Batches are cut from all that is left, in a fixed order. Since they are written whole, what a killed run leaves
    is cut in the same places again: with reduced precision the last bits of a score depend on the batch.
    """

    def __init__(self, features: FeatureStore, matches: MatchStore, table: PairTable, size: int) -> None:
        self.features, self.matches, self.table, self.size = features, matches, table, size
        self.kept = 0
        self.skipped: list[Skipped] = []
        self.digests: dict[str, str | None] = {}  # of the features of each image

    def batches(self) -> Iterator[tuple[Pair, ...]]:
        """Batches of `size` pairs; the last may be smaller."""
        return map(tuple, batched(self._waiting(), self.size))

    def _waiting(self) -> Iterator[Pair]:
        for some in batched(self.table, LOOKED_UP):
            for pair, head in zip(some, self.matches.heads(some), strict=True):
                digests = self._digest(pair[0]), self._digest(pair[1])
                absent = [name for name, digest in zip(pair, digests, strict=True) if digest is None]
                if absent:
                    reason = f"there are no features of {' and '.join(map(repr, absent))}; extract them first"
                    self.skipped.append(Skipped(", ".join(pair), reason))
                elif head is not None and head.digests == digests:
                    self.kept += 1
                else:
                    yield pair

    def _digest(self, name: str) -> str | None:
        if name not in self.digests:
            head = self.features.head(name)
            self.digests[name] = None if head is None else head.digest
        return self.digests[name]


class _Writer:
    """Puts pairs into a store in transactions of about a second's work."""

    def __init__(self, store: MatchStore) -> None:
        self.store = store
        self.waiting: list[PairMatches] = []
        self.since = perf_counter()

    def put(self, pairs: Iterable[PairMatches]) -> None:
        self.waiting += pairs
        if perf_counter() - self.since > SECONDS:
            self.flush()

    def flush(self) -> None:
        if self.waiting:
            self.store.put(self.waiting)
        self.waiting, self.since = [], perf_counter()

    def __enter__(self) -> _Writer:
        return self

    def __exit__(self, *error: Any) -> None:
        self.flush()  # also what was done before an error


@dataclass(frozen=True, eq=False)
class Matched:
    """What became of a batch of pairs."""

    pairs: tuple[PairMatches, ...]
    skipped: tuple[Skipped, ...] = ()
    damaged: tuple[str, ...] = ()  # images whose features are no use


@dataclass(frozen=True)
class MatchWork:
    """Match pairs of images whose features are in a store."""

    folder: str  # of the features, absolute
    options: MatchOptions
    together: int = 1  # batch

    @property
    def seconds(self) -> float:
        """See `Work`."""
        return _batch(self.options.chosen) * self.options.chosen.seconds_a_pair()

    @property
    def on_cpu(self) -> bool:
        """See `Work`."""
        return self.options.chosen.device == "cpu"

    def worker(self) -> MatchWorker:
        """One with a matcher of its own. Raises InputError where the store cannot be seen."""
        check_seen(self.folder)
        return MatchWorker(self)

    def failed(self, batch: tuple[Pair, ...], reason: str) -> Matched:
        """The result for pairs that nobody could do."""
        return Matched((), tuple(Skipped(", ".join(pair), reason) for pair in batch))


def as_in_maps(options: CoarseToFineOptions) -> CoarseToFineOptions:
    """Those of effort "fast" for pairs of which others see the same."""
    return replace(
        options,
        half_will_do=True,
        least_yield=LEAST_YIELD,
        plane_yield=LEAST_YIELD,
        distinct_part=DISTINCT_PART,
        distinct_extent=DISTINCT_EXTENT,
        most=MOST,
    )


@dataclass(frozen=True, eq=False)
class _Image:
    found: ImageFeatures  # on a CPU mapped, so that workers share them
    features: Features | None  # on another device
    digest: str
    bytes: int

    def torch(self) -> Features:
        """As the matcher takes them."""
        return self.found.torch(as_extracted=True) if self.features is None else self.features


class MatchWorker:
    """A matcher, and the features read last."""

    threads = 1  # what is remembered is not shared

    def __init__(self, work: MatchWork) -> None:
        self.options = work.options
        self.store = FeatureStore.open(work.folder, read_only=True)
        models = work.options.chosen
        self.matcher, self.device = models.load_matcher(), models.found_device()
        if self.device.type == "cpu" and models.mp and (models.matcher, models.backend) == ("lightglue", "torch"):
            self.matcher.pruning_keypoint_thresholds["cpu"] = UNPRUNED
        if isinstance(self.matcher, CoarseToFine):
            self.matcher.options = as_in_maps(self.matcher.options)
        self.seen: BoundedCache[str, _Image] = BoundedCache(work.options.memory, lambda image: image.bytes, keep=0)

    def read(self, batch: tuple[Pair, ...]) -> dict[str, _Image | StoreError | InputError]:
        """The features of the images of a batch, or what is wrong with them."""
        return {name: self._look(name) for name in dict.fromkeys(name for pair in batch for name in pair)}

    def _look(self, name: str) -> _Image | StoreError | InputError:
        try:
            return self.seen.get(name, lambda: self._load(name))
        except (StoreError, InputError) as error:
            return error

    def _load(self, name: str) -> _Image:
        on_cpu = self.device.type == "cpu"
        found = self.store.get(name, mapped=on_cpu)
        if on_cpu:
            return _Image(found, None, found.digest, found.nbytes)
        features = found.torch(self.device, as_extracted=True)
        size = sum(value.nbytes for value in features.values() if isinstance(value, torch.Tensor))
        return _Image(found, features, found.digest, found.nbytes + size)

    def compute(self, batch: tuple[Pair, ...], read: dict[str, _Image | StoreError | InputError]) -> Matched:
        """The matches of the pairs of a batch."""
        images = {name: image for name, image in read.items() if isinstance(image, _Image)}
        faults = {name: fault for name, fault in read.items() if not isinstance(fault, _Image)}
        skipped = [
            Skipped(", ".join(pair), next(_reason(faults[name]) for name in pair if name in faults))
            for pair in batch
            if faults.keys() & set(pair)
        ]
        usable = [pair for pair in batch if not faults.keys() & set(pair)]
        done, failed = self._match(usable, images)
        damaged = tuple(name for name, fault in faults.items() if _is_damaged(fault))
        return Matched(tuple(done), (*skipped, *failed), damaged)

    def _match(self, pairs: list[Pair], images: dict[str, _Image]) -> tuple[list[PairMatches], list[Skipped]]:
        """The matches of pairs; where memory is short, of one after another."""
        if not pairs:
            return [], []
        try:
            return self._match_all(pairs, images), []
        except InputError as error:
            reason = " ".join(str(error).split())
        except (MemoryError, RuntimeError) as error:
            if not is_out_of_memory(error):
                raise
            reason = "there is not enough memory for this pair; extract fewer keypoints"
        if len(pairs) == 1:
            return [], [Skipped(", ".join(pairs[0]), reason)]
        one_by_one = [self._match([pair], images) for pair in pairs]
        return [pair for done, _ in one_by_one for pair in done], [
            fault for _, failed in one_by_one for fault in failed
        ]

    @torch.inference_mode()
    def _match_all(self, pairs: list[Pair], images: dict[str, _Image]) -> list[PairMatches]:
        both = [(images[name0], images[name1]) for name0, name1 in pairs]
        features = {name: images[name].torch() for name in dict.fromkeys(name for pair in pairs for name in pair)}
        found = self.matcher.match([(features[name0], features[name1]) for name0, name1 in pairs])
        results = []
        for (name0, name1), (image0, image1), result in zip(pairs, both, found, strict=True):
            unpacked = matches_of(result)
            overlap = float(unpacked["overlap"]) if "overlap" in unpacked else None
            matches, scores = unpacked["matches"], unpacked["scores"]
            note = None
            if self.options.min_overlap is not None and overlap is not None and overlap < self.options.min_overlap:
                matches, scores, note = matches[:0], scores[:0], NO_OVERLAP
            arrays = matches.numpy().astype(np.int32), scores.float().numpy()
            digests = image0.digest, image1.digest
            results.append(PairMatches(name0, name1, *arrays, overlap, note, digests))
        return results

    def close(self) -> None:
        """Nothing waits here."""


def _reason(fault: StoreError | InputError) -> str:
    again = " The file is removed where that is allowed; extract again." if _is_damaged(fault) else ""
    return " ".join(str(fault).split()) + again


def _is_damaged(fault: StoreError | InputError) -> bool:
    """Whether the file is at fault, not the disk or the way to it: that may be better next time."""
    return isinstance(fault, StoreError) and not isinstance(fault.__cause__, OSError)
