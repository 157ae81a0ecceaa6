"""Pairs that grow: matched in rounds, each of which proposes the next.

MAP/pairs.txt holds the pairs that were chosen up to now, and is written before they are matched. A run that is killed
goes on with what stands there, and ends with the same pairs.
"""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import cache, partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lightglue.errors import InputError, StoreError
from lightglue.geometry.estimation import estimate_fundamental
from lightglue.geometry.options import EstimatorOptions
from lightglue.sfm.options import ExtractOptions, MatchOptions
from lightglue.sfm.retrieval.mutual import mutual_counts
from lightglue.sfm.stages.match import MatchResult, match
from lightglue.sfm.stages.pairing.growth import CONNECTED, RATIOS, Grown, apart, first_pairs, next_pairs
from lightglue.sfm.stages.pairing.turns import some_of_each
from lightglue.sfm.stages.pairs import read_pairs, write_pairs
from lightglue.sfm.stages.turn import Turner
from lightglue.stores import FeatureStore, MatchStore, PairMatches
from lightglue.support.batches import batched
from lightglue.support.caches import BoundedCache
from lightglue.support.progress import Progress
from lightglue.workers.engine import standing
from lightglue.workers.work import Engine
from lightglue_runtime.limits import usable_cores

__all__ = ["how_alike", "match_growing"]

_ERROR = 4.0  # px at 1,024 px of the longer edge, within which matches agree: as the stage `verify` has it
_EDGE = 1024
_TRIES = 200  # samples of a pair: with six in ten of 7 a hundred are right ones, in the mean six
_KEPT = 64 << 20  # bytes of keypoints
_TOGETHER = 256  # pairs whose matches are in memory

Pair = tuple[str, str]
Matched = tuple[NDArray[np.float64], NDArray[np.float64], float]  # (K, 2) and (K, 2) px; px


def how_alike(
    features: FeatureStore, names: list[str], limit: int, progress: Progress = lambda done, total: None
) -> NDArray[np.int64]:
    """(2, N, N) how alike the images are, by each of `RATIOS`. Raises InputError for more than `limit`."""
    if len(names) > limit:
        raise InputError(
            f"{len(names):,} images are more than are worth comparing with each other; choose the pairs by retrieval, "
            f"or raise max_exhaustive ({limit:,})."
        )
    return mutual_counts(features, names, RATIOS, progress)


def match_growing(
    store: str | os.PathLike[str],
    pairs: Path,
    out: str | os.PathLike[str],
    options: MatchOptions,
    wanted: int,
    names: list[str],
    *,
    engine: Engine,
    images: Path,
    masks: str | None = None,
    rotated: tuple[Path, ExtractOptions] | None = None,
    alike: NDArray[np.int64] | None = None,
    progress: Progress = lambda done, total: None,
) -> MatchResult:
    """`match` the pairs in a file, then those that come of it, until nothing does; the file has all of them then.

    Images that nothing connects with the others are rotated where that makes them similar to these; all begins again.

    wanted: images that each of `names` is to be connected with. rotated: the file of the images that are rotated, and
    how images are extracted; None leaves them. alike: of `how_alike`; None for whoever has not asked.

    Raises as `match`.
    """
    features = FeatureStore.open(store, read_only=True)
    results: list[MatchResult] = []
    listed = read_pairs(pairs)
    with standing(engine) as same:
        turner = None if rotated is None else Turner(Path(store), rotated[0], images, rotated[1], same)
        growing = _Growing(features, names, alike, turner)
        how: dict[str, Any] = {"engine": same, "images": images, "masks": masks, "progress": progress}
        again = turner is not None and turner.finish()
        while True:
            if again:
                growing = _Growing(features, names, None, turner)
                listed = growing.first()
                write_pairs(pairs, listed)
            results.append(match(store, listed, out, options, search=False, **how))
            growing.look(MatchStore.open(out, read_only=True), listed)
            if again := growing.turned(wanted):
                continue
            more = growing.more(wanted)
            if not more:
                break
            listed = sorted({*listed, *more})
            write_pairs(pairs, listed)
        if options.chosen.effort == "hard":
            results.append(match(store, listed, out, options, **how))
    return _together(results)


def _together(results: list[MatchResult]) -> MatchResult:
    """One result of several rounds, each of which was asked for all pairs of those before."""
    skipped = tuple(dict.fromkeys(each for result in results for each in result.skipped))
    matched, without, found = (
        sum(getattr(result, name) for result in results) for name in ("matched", "without_overlap", "matches")
    )
    return replace(
        results[-1],
        matched=matched,
        kept=max(0, results[-1].kept - sum(result.matched for result in results[:-1])),
        without_overlap=without,
        matches=found,
        seconds=sum(result.seconds for result in results),
        skipped=skipped,
    )


class _Growing:
    """What the pairs that were matched say of the others."""

    def __init__(
        self, features: FeatureStore, names: list[str], alike: NDArray[np.int64] | None, turner: Turner | None = None
    ) -> None:
        self.features, self.names, self.turner = features, names, turner
        self.looked_at = np.zeros(len(names), np.bool_)  # which images may have been rotated
        self.index = {name: row for row, name in enumerate(names)}
        self.grown = Grown(len(names))
        self.edges: dict[str, int] = {}  # px of the longer one of each image whose keypoints were read
        self.digests: dict[str, str] = {}  # and of its features
        self.keypoints: BoundedCache[str, NDArray[np.float64]] = BoundedCache(_KEPT, lambda points: points.nbytes)
        self.counts = cache(lambda: mutual_counts(features, names, RATIOS) if alike is None else alike)
        method = "poselib" if find_spec("poselib") else "opencv"
        self.estimator = EstimatorOptions(method, max_iterations=_TRIES)  # type: ignore[arg-type]

    def look(self, store: MatchStore, pairs: list[Pair]) -> None:
        """See what came of pairs; those that could not be matched count as tried in vain."""
        known = (pair for pair in pairs if pair[0] in self.index and pair[1] in self.index)
        new = (pair for pair in known if not self.grown.tried[self._rows(pair)])
        threads = usable_cores() if self.estimator.method == "poselib" else 1  # which lets go of Python meanwhile
        with ThreadPoolExecutor(threads) as pool:
            for some in batched(new, _TOGETHER):
                found = [store.get(*pair) for pair in some]
                points = [None if pair is None else self._points(pair) for pair in found]
                for pair, each, agree in zip(some, found, pool.map(self._agreeing, points), strict=True):
                    shown = None if each is None or agree is None else each.matches[agree].astype(np.int64)
                    self.grown.add(*self._rows(pair), shown)

    def _rows(self, pair: Pair) -> tuple[int, int]:
        return self.index[pair[0]], self.index[pair[1]]

    def alike(self) -> NDArray[np.int64]:
        """(N, N) of the second of `RATIOS`."""
        return np.asarray(self.counts()[1])

    def first(self) -> list[Pair]:
        """The pairs to begin with."""
        found = first_pairs(self.names, self.counts()[0])
        return [(self.names[one], self.names[other]) for one, other in found.tolist()]

    def turned(self, wanted: int) -> bool:
        """Turn images that are apart from the others, when it is time; whether any was."""
        if self.turner is None or not self.turner.can:
            return False
        while (found := apart(self.grown, wanted, self.alike, self.looked_at)) is not None:
            parts, images = found
            self.looked_at[images] = True
            if self.turner.turn(self.names, parts, some_of_each(parts, images)):
                return True
        return False

    def more(self, wanted: int) -> list[Pair]:
        """The pairs to match next."""
        found = next_pairs(self.grown, wanted, self.alike)
        return [(self.names[one], self.names[other]) for one, other in found.tolist()]

    def _points(self, pair: PairMatches) -> Matched | None:
        """What is matched, and the px within which it agrees; None where it is too little, or of other keypoints."""
        if len(pair.matches) < CONNECTED[0]:
            return None
        try:
            points = [self.keypoints.get(name, partial(self._load, name)) for name in (pair.name0, pair.name1)]
        except (InputError, StoreError):  # damaged since
            return None
        if pair.digests != tuple(self.digests[name] for name in (pair.name0, pair.name1)):
            return None  # of other keypoints, as the new ones could not be matched
        first, second = (each[pair.matches[:, side]] for side, each in enumerate(points))
        unit = max(1.0, *(self.edges[name] / _EDGE for name in (pair.name0, pair.name1)))
        return first, second, _ERROR * unit

    def _agreeing(self, matched: Matched | None) -> NDArray[np.bool_] | None:
        """The matches that agree with one geometry, where they say that both images show the same."""
        if matched is None:
            return None
        first, second, threshold = matched
        agree = estimate_fundamental(first, second, replace(self.estimator, threshold=threshold)).inliers
        fewest, share = CONNECTED
        return agree if agree.sum() >= max(fewest, share * len(agree)) else None

    def _load(self, name: str) -> NDArray[np.float64]:
        features = self.features.get(name)
        self.edges[name], self.digests[name] = max(features.image_size), features.digest
        return features.keypoints.astype(np.float64)
