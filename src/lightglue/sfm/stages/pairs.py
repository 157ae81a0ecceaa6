"""Which images to match with which.

Pairs come from one or several sources, and what they give is united: every pair of a small collection; those that
matching begins with where it finds the others itself; neighbours in a sequence; those whose descriptors are alike;
those taken near one another, as their files or poses say; those that see the same points of a model; a file.

All pairs are canonical, name0 < name1 in Python's order, each once, sorted.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from lightglue.errors import InputError
from lightglue.matching.effort import Effort
from lightglue.sfm.options import SOURCES, PairOptions
from lightglue.sfm.skipped import Skipped
from lightglue.sfm.stages.pairing.automatic import Choice, automatic
from lightglue.sfm.stages.pairing.covisibility import covisible
from lightglue.sfm.stages.pairing.files import Pair, pairs_among, read_pairs, write_pairs
from lightglue.sfm.stages.pairing.growth import first_pairs
from lightglue.sfm.stages.pairing.in_step import in_step
from lightglue.sfm.stages.pairing.order import exhaustive, sequences, sequential
from lightglue.sfm.stages.pairing.positions import earth_centred, near, near_and_alike, poses_of

__all__ = [
    "SOURCES",
    "Inputs",
    "Pair",
    "PairOptions",
    "PairsResult",
    "Retrieval",
    "located",
    "named_pairs",
    "read_pairs",
    "select_pairs",
    "settled",
    "write_pairs",
]

Indices = NDArray[np.int64]


class Retrieval(Protocol):
    """What retrieval must be able to do: `lightglue.sfm.retrieval.index.RetrievalIndex`."""

    @property
    def names(self) -> Sequence[str]:
        """The images that are known, sorted."""

    def nearest(self, names: Sequence[str], k: int) -> Iterator[tuple[str, list[tuple[str, float]]]]:
        """For each of these images the at most `k` others most like it, best first, with how much (1: the same)."""


@dataclass(frozen=True)
class Inputs:
    """What the sources look at; each needs its own."""

    retrieval: Retrieval | None = None  # of "retrieval", and of "sequential" where it closes loops
    images: Path | None = None  # folder of the images, of "gps"
    poses: Mapping[str, Any] | None = None  # of "poses": name -> T (4, 4) or (3, 4), world to camera
    tracks: Iterable[Sequence[str]] | None = None  # of "covisibility": the names of the images that see each point
    positions: Mapping[str, NDArray[np.float64]] | None = None  # of "gps", and for "auto": as `located` reads them
    alike: NDArray[np.int64] | None = None  # (N, N) of "growing": `mutual_counts` of the names, sorted


@dataclass(frozen=True)
class PairsResult:
    """Pairs, and where they come from."""

    pairs: list[Pair]
    counts: dict[str, int] = field(default_factory=dict)  # source -> pairs it gave; those of several count in each
    skipped: tuple[Skipped, ...] = ()


def select_pairs(names: Iterable[str], options: PairOptions | None = None, inputs: Inputs | None = None) -> PairsResult:
    """The pairs of the images `names` that the sources give together.

    An image that a source knows nothing of (no GPS, no pose) gets no pairs from it, and is in `skipped`.

    Raises:
        InputError: a source lacks what it looks at, or there are too many images for every pair.
        StoreError: the file of pairs cannot be read.
    """
    names, inputs = sorted(set(names)), inputs or Inputs()
    options = settled(options or PairOptions(), len(names), inputs.positions).options
    collection = _Collection(names, options, inputs)
    found = {source: collection.pairs_of(source) for source in options.sources}
    keys = {source: _keys(pairs, len(collection.names)) for source, pairs in found.items()}
    united = np.unique(np.concatenate([np.empty(0, np.int64), *keys.values()]))
    rows0, rows1 = np.divmod(united, max(1, len(collection.names)))
    pairs = [(collection.names[a], collection.names[b]) for a, b in zip(rows0.tolist(), rows1.tolist(), strict=True)]
    counts = {source: len(some) for source, some in keys.items()}
    return PairsResult(pairs, counts, tuple(collection.skipped))


def named_pairs(settings: Mapping[str, Any]) -> list[Pair]:
    """The pairs that somebody named beside those of other sources; none where the file is gone.

    settings: the fields of `PairOptions` that the stage ran with, as the map remembers them.
    """
    file = settings.get("file")
    if file is None or len(settings.get("sources", ())) < 2 or not Path(file).is_file():
        return []
    return read_pairs(Path(file))


def settled(
    options: PairOptions,
    count: int,
    positions: Mapping[str, NDArray[np.float64]] | None = None,
    effort: Effort = "normal",
) -> Choice:
    """The options with "auto" replaced by what it stands for with `count` images, and why.

    positions: those of `located`; None where nobody looked. effort: with which pairs are matched.
    """
    known = None if positions is None else np.array(list(positions.values()), np.float64).reshape(-1, 3)
    return automatic(options, count, known, effort)


def located(names: Collection[str], images: Path) -> dict[str, NDArray[np.float64]]:
    """Where images of a folder were taken, as their files say: (3,) m from the centre of the earth, at no altitude.

    Altitudes of phones and drones are off by tens of metres, or refer to something else: neighbours are those on the
    map.
    """
    from lightglue.sfm.stages.exif import read_location

    said = {name: location for name in names if (location := read_location(images / name))}
    latitude, longitude = (np.array([getattr(each, of) for each in said.values()]) for of in ("latitude", "longitude"))
    return dict(zip(said, earth_centred(latitude, longitude, np.zeros(len(said))), strict=True))


def _keys(pairs: Indices, count: int) -> Indices:
    """Each pair once, as one number: the lower index times `count` plus the higher."""
    pairs = pairs[pairs[:, 0] != pairs[:, 1]]
    return np.unique(pairs.min(axis=1, initial=count) * count + pairs.max(axis=1, initial=-1))


class _Collection:
    """Images, sorted by name, that pairs are looked for among: indices into `names` are in the order of names."""

    def __init__(self, names: Sequence[str], options: PairOptions, inputs: Inputs) -> None:
        self.names = names
        self.options = options
        self.inputs = inputs
        self.skipped: list[Skipped] = []
        self.index = {name: index for index, name in enumerate(names)}

    def pairs_of(self, source: str) -> Indices:
        sources: dict[str, Callable[[], Indices]] = {
            "exhaustive": self._exhaustive,
            "growing": self._growing,
            "sequential": self._sequential,
            "retrieval": self._retrieval,
            "gps": self._gps,
            "poses": self._poses,
            "covisibility": self._covisibility,
            "file": self._file,
        }
        return sources[source]()

    def _exhaustive(self) -> Indices:
        return exhaustive(len(self.names), self.options.max_exhaustive)

    def _growing(self) -> Indices:
        if self.inputs.alike is None:
            raise InputError("Pairs that grow need to know how alike the images are; give `mutual_counts` as `alike`.")
        return first_pairs(self.names, self.inputs.alike)

    def _sequential(self) -> Indices:
        o = self.options
        pairs = np.concatenate([sequential(self.names, o.overlap, o.quadratic), in_step(self.names)])
        if self.inputs.retrieval is None or o.loop_every == 0:
            return pairs
        return np.concatenate([pairs, self._loops(self.inputs.retrieval, pairs)])

    def _loops(self, retrieval: Retrieval, pairs: Indices) -> Indices:
        """Each so many images, those most like it that are not paired with it anyway."""
        o = self.options
        paired: dict[int, set[int]] = {
            int(i): set() for sequence in sequences(self.names) for i in sequence[:: o.loop_every]
        }
        for image, other in (*pairs.tolist(), *pairs[:, ::-1].tolist()):
            if image in paired:
                paired[image].add(other)
        most = max(map(len, paired.values()), default=0)
        loops = []
        for image, likely in self._retrieved(retrieval, paired, o.loop_closures + most):
            far = [other for other in likely if other not in paired[image]]
            loops += [(image, other) for other in far[: o.loop_closures]]
        return _array(loops)

    def _retrieval(self) -> Indices:
        if self.inputs.retrieval is None:
            raise InputError("Pairs by retrieval need an index of the images; build one with `build_index`.")
        every = range(len(self.names))
        found = self._retrieved(self.inputs.retrieval, every, self.options.retrieved)
        return _array([(image, other) for image, likely in found for other in likely])

    def _retrieved(self, retrieval: Retrieval, images: Iterable[int], k: int) -> Iterator[tuple[int, list[int]]]:
        known = set(retrieval.names)
        asked = [self.names[image] for image in images]
        self._skip((name for name in asked if name not in known), "It has no descriptor; extract and index it again.")
        for name, likely in retrieval.nearest([name for name in asked if name in known], k):
            yield self.index[name], [self.index[other] for other, _ in likely if other in self.index]

    def _gps(self) -> Indices:
        positions = self.inputs.positions
        if positions is None:
            if self.inputs.images is None:
                raise InputError("Pairs by GPS need the images; give their folder as `images`.")
            positions = located(self.names, Path(self.inputs.images))
        reason = "Its file does not say where it was taken; choose its pairs in another way."
        self._skip((name for name in self.names if name not in positions), reason)
        rows = np.array([row for row, name in enumerate(self.names) if name in positions], np.int64)
        if not len(rows):
            return _array([])
        places = np.stack([positions[self.names[row]] for row in rows])
        return rows[near(places, self.options.gps_neighbors, self.options.gps_radius)]

    def _poses(self) -> Indices:
        o = self.options
        if self.inputs.poses is None:
            raise InputError("Pairs from poses need `poses`: a mapping of names to T (4, 4), world to camera.")
        self._skip((name for name in self.names if name not in self.inputs.poses), "It has no pose.")
        names, poses = poses_of({name: self.inputs.poses[name] for name in self.names if name in self.inputs.poses})
        radius = np.inf if o.pose_radius is None else o.pose_radius
        found = near_and_alike(poses, o.pose_neighbors, o.pose_angle, radius)
        return np.array([self.index[name] for name in names], np.int64)[found]

    def _covisibility(self) -> Indices:
        if self.inputs.tracks is None:
            raise InputError("Pairs by covisibility need a model; give the `tracks` of its points.")
        tracks = [[self.index[name] for name in track if name in self.index] for track in self.inputs.tracks]
        seen = {index for track in tracks for index in track}
        self._skip(
            (name for index, name in enumerate(self.names) if index not in seen), "The model has no point in it."
        )
        return covisible(tracks, self.options.covisible)

    def _file(self) -> Indices:
        path: str | os.PathLike[str] = self.options.file or ""
        pairs, skipped = pairs_among(path, self.index)
        self.skipped += skipped
        return _array([(self.index[name0], self.index[name1]) for name0, name1 in pairs])

    def _skip(self, names: Iterable[str], reason: str) -> None:
        self.skipped += [Skipped(name, reason, is_used=True) for name in names]  # other sources may pair it


def _array(pairs: Sequence[tuple[int, int]]) -> Indices:
    return np.array(pairs, np.int64).reshape(-1, 2)
