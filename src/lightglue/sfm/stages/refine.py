"""One refined position for each keypoint, such that all its matches agree.

    OUT/store.json            what made it
    OUT/measured.db           what was measured of each pair (SQLite)
    OUT/3f/3f9a….npz          the keypoints of one image, named after the SHA-256 of the image's name

Each match is measured both ways, by aligning the image around it (`lightglue.geometry.refine`); then all keypoints
move at once (`lightglue.geometry.tracks`). What was measured stays on disk: a run that was killed goes on where it
stopped, and a pair is measured again only if its features or matches have changed. The result does not depend on the
order in which pairs were matched.
"""

from __future__ import annotations

import hashlib
import io
import os
import sqlite3
import zlib
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from threading import Lock
from time import perf_counter
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from lightglue.errors import ImageError, InputError, StoreError
from lightglue.geometry.intrinsics import from_colmap, to_colmap
from lightglue.geometry.options import RefineOptions
from lightglue.geometry.refine import Measured, Pair, measure_pairs
from lightglue.geometry.tracks import Measurements, solve_displacements
from lightglue.images import read_image, resize_image
from lightglue.sfm.options import TrackOptions
from lightglue.sfm.skipped import Skipped
from lightglue.stores import FeatureStore, MatchStore, PairHead, PairMatches
from lightglue.stores.arrays import read_arrays
from lightglue.stores.settings import as_read, check_settings
from lightglue.support.batches import batched
from lightglue.support.caches import BoundedCache
from lightglue.support.files import read_json, write_json, write_whole
from lightglue.support.progress import Progress
from lightglue.support.sqlite import connected

__all__ = ["RefinedKeypoints", "TrackOptions", "TracksResult", "read_refined", "refine_keypoints"]

REVISION = 3  # raised when the same options give other keypoints
_PIXELS_HELD = 200_000_000  # of gray images that are kept decoded
_PAIRS_AT_ONCE = 64  # measured in one transaction
_MATCHES_AT_ONCE = 2048  # aligned together, where each pair has fewer: some 20 MB of windows
_SCHEMA = "CREATE TABLE IF NOT EXISTS measured(pair BLOB PRIMARY KEY, key TEXT NOT NULL, rows BLOB NOT NULL)"
# Of one measurement: the row of the match, the direction, and what lightglue.geometry.tracks takes.
_ROW = np.dtype(
    [("match", "<i4"), ("back", "<i4"), ("position", "<f4", 2), ("matrix", "<f4", (2, 2)), ("sigma", "<f4")]
)


@dataclass(frozen=True, eq=False)
class RefinedKeypoints:
    """Those of one image, in the rows of its features."""

    keypoints: NDArray[np.float32]  # (N, 2) px of the original image, (0, 0) = centre of the top-left pixel
    moved: NDArray[np.bool_]  # (N,): False where the keypoint stayed, as nothing certain was measured
    digest: str  # of the features whose keypoints they are


@dataclass(frozen=True)
class TracksResult:
    """What became of the keypoints."""

    out: Path
    images: int  # whose keypoints were written
    pairs: int  # with matches
    measured: int  # of these, in this run
    keypoints: int  # that have a match
    moved: int
    seconds: float
    skipped: tuple[Skipped, ...]  # images that could not be read: their keypoints stay where they are


def refine_keypoints(
    images: str | os.PathLike[str],
    features: FeatureStore,
    matches: MatchStore,
    out: str | os.PathLike[str],
    options: TrackOptions | None = None,
    *,
    names: Iterable[str] | None = None,
    pairs: Iterable[tuple[str, str]] | None = None,
    device: str = "cpu",
    progress: Progress = lambda done, total: None,
) -> TracksResult:
    """Refine the keypoints of all images that have matches; those of the others are written as they are.

    Args:
        images: the folder of the images.
        out: a folder, made where there is none; `read_refined` reads from it.
        names: only these images. None: all that have features.
        pairs: only these, the smaller name first. None: all that have matches. Those that were matched with other
            features than are there now are passed over: `create_database` reports them.
        device: where windows are aligned.

    On a CPU several batches of pairs are measured at once, as many as torch has threads: no result depends on it.

    All keypoints and measurements (some 70 bytes each, at most two a match) are in memory while they are solved for.

    Raises InputError for a folder of other options or of other features; StoreError where it cannot be written.
    """
    begin, options, out = perf_counter(), options or TrackOptions(), Path(out)
    _claim(out, {"revision": REVISION, "options": asdict(options)})
    digests = {head.name: head.digest for head in features.heads()}
    names = sorted(digests if names is None else digests.keys() & set(names))
    known, wanted = set(names), None if pairs is None else set(pairs)
    with torch.no_grad(), _Aligner(options.align, device) as aligner, _Measured.open(out / "measured.db") as store:
        grays = _Grays(Path(images), features, options.max_edge, device)
        used_pairs = [
            (head.name0, head.name1)
            for head in matches.iter_pairs()
            if (wanted is None or (head.name0, head.name1) in wanted) and _is_current(head, known, digests)
        ]
        count = 0
        for done, chunk in enumerate(batched(used_pairs, _PAIRS_AT_ONCE)):
            count += store.fill(matches.read(chunk), grays, aligner)
            progress(done * _PAIRS_AT_ONCE + len(chunk), len(used_pairs))
        keypoints = {name: grays.keypoints(name) for name in names}
        rows = _Rows(names, keypoints)
        found = _gather(store, matches.read(used_pairs), rows, grays)
    refined = _solve(found, rows, grays, options, digests)
    for name, each in refined.items():
        _write(out, name, each)
    used = np.zeros(rows.total, bool)
    used[found.i] = used[found.j] = True
    moved = sum(int(each.moved.sum()) for each in refined.values())
    return TracksResult(
        out, len(names), len(used_pairs), count, int(used.sum()), moved, perf_counter() - begin, grays.faults()
    )


def _is_current(pair: PairHead, names: Collection[str], digests: Mapping[str, str]) -> bool:
    """Whether a pair has matches, of the features that are there."""
    if not pair.num_matches or pair.name0 not in names or pair.name1 not in names:
        return False
    return not any(pair.digests) or pair.digests == (digests[pair.name0], digests[pair.name1])


def read_refined(out: str | os.PathLike[str], name: str, digest: str | None = None) -> RefinedKeypoints:
    """The refined keypoints of an image.

    digest: of the features that they are to be of; None: of any.

    Raises InputError where there are none, or those of other features; StoreError where they are damaged.
    """
    path = _path(Path(out), name)
    try:
        arrays = read_arrays(path.read_bytes())
        refined = RefinedKeypoints(arrays["keypoints"], arrays["moved"], str(arrays["digest"]))
    except FileNotFoundError as error:
        raise InputError(f"{name!r} has no refined keypoints in {out}; refine them first.") from error
    except (OSError, ValueError, KeyError) as error:
        raise StoreError(f"{path} cannot be read ({error}); remove it and refine again.") from error
    if digest is not None and refined.digest != digest:
        raise InputError(f"{name!r} was refined with other features than it has now; refine it again.")
    return refined


def _claim(out: Path, settings: Mapping[str, object]) -> None:
    """The folder is for these settings. Raises InputError where it is for others."""
    path = out / "store.json"
    try:
        check_settings(out, read_json(path), as_read(settings))
    except FileNotFoundError:
        write_json(path, as_read(settings))


def _path(out: Path, name: str) -> Path:
    digest = hashlib.sha256(name.encode("utf-8", "surrogateescape")).hexdigest()
    return out / digest[:2] / f"{digest}.npz"


def _write(out: Path, name: str, refined: RefinedKeypoints) -> None:
    content = io.BytesIO()
    np.savez(content, keypoints=refined.keypoints, moved=refined.moved, digest=refined.digest)
    write_whole(_path(out, name), content.getvalue())


class _Grays:
    """Gray images, reduced, and keypoints on them; what was used last stays in memory. Safe under threads."""

    def __init__(self, images: Path, features: FeatureStore, max_edge: int, device: str) -> None:
        self.images, self.features, self.max_edge, self.device = images, features, max_edge, device
        self._held: BoundedCache[str, torch.Tensor | None] = BoundedCache(
            _PIXELS_HELD, lambda gray: 0 if gray is None else gray.numel(), keep=2
        )
        self._points: dict[str, tuple[NDArray[np.float32], NDArray[np.float32]]] = {}
        self._faults: dict[str, str] = {}
        self._locks: dict[str, Lock] = {}  # of each image: threads that ask for it at once wait for the first

    def faults(self) -> tuple[Skipped, ...]:
        """Images that could not be read."""
        return tuple(Skipped(name, reason) for name, reason in sorted(self._faults.items()))

    def keypoints(self, name: str) -> NDArray[np.float32]:
        """(N, 2) px of the original image."""
        return self._load(name)[0]

    def scale(self, name: str) -> NDArray[np.float32]:
        """(2,) px of the reduced image for one of the original, along x and y: each edge is rounded."""
        return self._load(name)[1]

    def reduced(self, name: str) -> NDArray[np.float32]:
        """(N, 2) keypoints in px of the reduced image."""
        points, scale = self._load(name)
        reduced: NDArray[np.float32] = from_colmap(to_colmap(points) * scale)
        return reduced

    def gray(self, name: str) -> torch.Tensor | None:
        """(H, W) in [0, 1]; None where the image cannot be used."""
        with self._locks.setdefault(name, Lock()):
            return self._held.get(name, lambda: self._decode(name))

    def _decode(self, name: str) -> torch.Tensor | None:
        if name in self._faults:
            return None
        try:
            image = read_image(self.images / name, grayscale=True, stretch=self.features.stretch)
        except ImageError as error:
            self._faults[name] = str(error)
            return None
        except MemoryError:
            self._faults[name] = "there is not enough memory to refine its keypoints; they stay where they are"
            return None
        width, height = self.features.get(name).image_size
        if image.shape[:2] != (height, width):
            was = f"{width} x {height} px"
            self._faults[name] = f"It is {image.shape[1]} x {image.shape[0]} px, and was {was}; extract it again."
            return None
        if max(image.shape) > self.max_edge:
            image, _ = resize_image(image, self.max_edge, "max", "area")
        return torch.from_numpy(np.ascontiguousarray(image)).to(self.device).float() / 255

    def _load(self, name: str) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        if name not in self._points:
            features = self.features.get(name)
            self._points[name] = features.keypoints, _scale(features.image_size, self.max_edge)
        return self._points[name]


def _scale(size: tuple[int, int], max_edge: int) -> NDArray[np.float32]:
    """(2,) along x and y: of an image of so many px that `resize_image` has brought to `max_edge`."""
    wanted = min(1.0, max_edge / max(size))
    return np.array([max(1, round(edge * wanted)) / edge for edge in size], np.float32)


class _Measured:
    """What was measured of each pair, on disk."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self.connection = connection

    @classmethod
    @contextmanager
    def open(cls, path: Path) -> Iterator[_Measured]:
        """Raises StoreError for whatever SQLite says."""
        with connected(path, mode="rwc") as connection:
            connection.execute(_SCHEMA)
            yield cls(connection)

    def fill(self, pairs: Iterator[PairMatches], grays: _Grays, aligner: _Aligner) -> int:
        """Measure the pairs that were not yet; returns how many. All are on disk then."""
        some = list(pairs)
        waiting = [self._there(pair, grays) is None for pair in some]
        new = [
            (_pair(pair), _key(pair, grays), _sealed(rows.tobytes()))
            for pair, is_waiting, rows in zip(some, waiting, _measure(some, waiting, grays, aligner), strict=True)
            if is_waiting and rows is not None
        ]
        with self.connection:
            self.connection.executemany("INSERT OR REPLACE INTO measured VALUES(?, ?, ?)", new)
        return len(new)

    def rows(self, pair: PairMatches, grays: _Grays) -> NDArray[np.void]:
        """The measurements of a pair: none where an image of it cannot be used."""
        return np.frombuffer(self._there(pair, grays) or b"", _ROW)

    def _there(self, pair: PairMatches, grays: _Grays) -> bytes | None:
        """What was measured of a pair; None where it was not, or is damaged."""
        query = "SELECT rows FROM measured WHERE pair = ? AND key = ?"
        there = self.connection.execute(query, (_pair(pair), _key(pair, grays))).fetchone()
        content = there[0] if there else None
        if not isinstance(content, bytes) or _sealed(content[:-4]) != content:
            return None
        return content[:-4]


def _sealed(content: bytes) -> bytes:
    """With a checksum at its end: SQLite does not notice what was altered on the disk."""
    return content + zlib.crc32(content).to_bytes(4, "little")


def _pair(pair: PairMatches) -> bytes:
    names = (name.encode("utf-8", "surrogateescape") for name in (pair.name0, pair.name1))
    return b"\0".join(names)


def _key(pair: PairMatches, grays: _Grays) -> str:
    """16 hexadecimal digits of what a measurement depends on, but for the pixels and the options."""
    digest = hashlib.blake2b(digest_size=8)
    for array in (grays.keypoints(pair.name0), grays.keypoints(pair.name1), pair.matches):
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()


class _Aligner:
    """Aligns batches of pairs, each in a thread: what torch does here is too little to be divided otherwise."""

    def __init__(self, options: RefineOptions, device: str) -> None:
        self.options = options
        self.threads = torch.get_num_threads()
        self.pool = None
        if self.threads > 1 and torch.device(device).type == "cpu":
            # Each thread of Python's has a number of torch's threads of its own, and new ones get what was last set.
            self.pool = ThreadPoolExecutor(self.threads, initializer=torch.set_num_threads, initargs=(1,))

    def __enter__(self) -> _Aligner:
        return self

    def __exit__(self, *_: object) -> None:
        if self.pool is not None:
            self.pool.shutdown(cancel_futures=True)
            torch.set_num_threads(self.threads)

    def measure(self, sides: Iterable[_Side], grays: _Grays) -> list[Measured | None]:
        """What is measured of each, in their order; None of an unusable image, or where nothing of a batch is wanted.

        Images are decoded by the threads, too.
        """

        def align(some: list[_Side]) -> list[Measured | None]:
            if not any(side.is_wanted for side in some):
                return [None] * len(some)
            pairs = [_aligned(side, grays) for side in some]
            measured = iter(measure_pairs([pair for pair in pairs if pair is not None], self.options))
            return [None if pair is None else next(measured) for pair in pairs]

        batches = list(_bounded(sides))
        return [found for some in (self.pool.map if self.pool else map)(align, batches) for found in some]


class _Side(NamedTuple):
    """A pair as its matches are measured, or the other way round."""

    matches: PairMatches
    is_back: bool
    is_wanted: bool


def _measure(
    pairs: Sequence[PairMatches], wanted: Sequence[bool], grays: _Grays, aligner: _Aligner
) -> list[NDArray[np.void] | None]:
    """The matches of each pair, both ways; None where an image cannot be used.

    Last bits depend on what is measured together: batches are cut from all pairs, whether they are wanted or not.
    """
    if not any(wanted):
        return [None] * len(pairs)
    sides = (
        _Side(pair, is_back, is_wanted)
        for pair, is_wanted in zip(pairs, wanted, strict=True)
        for is_back in (False, True)
    )
    measured = iter(aligner.measure(sides, grays))
    made: list[NDArray[np.void] | None] = []
    for _ in pairs:
        ways = next(measured), next(measured)
        found = [_sure(way, back) for back, way in enumerate(ways) if way is not None]
        made.append(np.concatenate(found) if found else None)
    return made


def _aligned(side: _Side, grays: _Grays) -> Pair | None:
    """The images and points of a pair; None where an image cannot be used."""
    pair, order = side.matches, slice(None, None, -1 if side.is_back else 1)
    names = (pair.name0, pair.name1)[order]
    gray0, gray1 = (grays.gray(name) for name in names)
    if gray0 is None or gray1 is None:
        return None
    points0, points1 = (
        torch.from_numpy(grays.reduced(name)[rows]).to(gray0.device)
        for name, rows in zip(names, pair.matches.T[order], strict=True)
    )
    return Pair(gray0, gray1, points0, points1)


def _bounded(sides: Iterable[_Side]) -> Iterator[list[_Side]]:
    """In turn, as many as are measured together; the two ways of a pair may be in two."""
    some: list[_Side] = []
    for side in sides:
        if some and sum(len(each.matches.matches) for each in some) + len(side.matches.matches) > _MATCHES_AT_ONCE:
            yield some
            some = []
        some.append(side)
    if some:
        yield some


def _sure(found: Measured, back: int) -> NDArray[np.void]:
    """What was measured, without the matches of which nothing was."""
    position, good, matrix, sigma = (each.cpu().numpy() for each in found)
    good = good & np.isfinite(matrix).all((1, 2)) & np.isfinite(sigma)
    rows = np.zeros(int(good.sum()), _ROW)
    rows["match"], rows["back"] = good.nonzero()[0], back
    rows["position"], rows["matrix"], rows["sigma"] = position[good], matrix[good], sigma[good]
    return rows


class _Rows:
    """All keypoints in one row of numbers, image by image."""

    def __init__(self, names: Sequence[str], keypoints: Mapping[str, NDArray[np.float32]]) -> None:
        ends = np.cumsum([0, *(len(keypoints[name]) for name in names)])
        self.start = {name: int(start) for name, start in zip(names, ends[:-1], strict=True)}
        self.names, self.total = list(names), int(ends[-1])


def _gather(store: _Measured, pairs: Iterator[PairMatches], rows: _Rows, grays: _Grays) -> Measurements:
    """The measurements of all pairs, in px of the reduced images."""
    parts = [(np.zeros(0, int), np.zeros(0, int), np.zeros((0, 2)), np.zeros((0, 2, 2)), np.zeros(0))]
    for pair in pairs:
        measured = store.rows(pair, grays)
        index = pair.matches[measured["match"]].astype(np.int64)
        back = measured["back"] == 1
        index[back] = index[back, ::-1]  # of the keypoint that is looked for, and of that in the image it is seen in
        first = np.where(back, rows.start[pair.name1], rows.start[pair.name0])
        second = np.where(back, rows.start[pair.name0], rows.start[pair.name1])
        target = np.where(
            back[:, None],
            grays.reduced(pair.name0)[pair.matches[measured["match"], 0]],
            grays.reduced(pair.name1)[pair.matches[measured["match"], 1]],
        )
        offset = measured["position"].astype(np.float64) - target
        fields = measured["matrix"].astype(np.float64), measured["sigma"].astype(np.float64)
        parts.append((first + index[:, 0], second + index[:, 1], offset, *fields))
    return Measurements(*(np.concatenate(part) for part in zip(*parts, strict=True)))


def _solve(
    found: Measurements, rows: _Rows, grays: _Grays, options: TrackOptions, digests: Mapping[str, str]
) -> dict[str, RefinedKeypoints]:
    """The keypoints of each image, refined."""
    solution = solve_displacements(found, rows.total, options.prior, options.floor, options.outlier)
    refined = {}
    for name in rows.names:
        points, scale = grays.keypoints(name), grays.scale(name)
        part = slice(rows.start[name], rows.start[name] + len(points))
        shift = solution.displacements[part]
        moved = (solution.support[part] >= options.min_support) & (np.linalg.norm(shift, axis=1) <= options.max_shift)
        position = np.where(moved[:, None], points + shift / scale, points).astype(np.float32)
        refined[name] = RefinedKeypoints(position, moved, digests[name])
    return refined
