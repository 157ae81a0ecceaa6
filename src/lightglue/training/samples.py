"""Pairs with truth out of a pool: sample k is a pure function of (seed, k)."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lightglue.drawing.facts import counted
from lightglue.errors import InputError
from lightglue.geometry.cameras import Camera
from lightglue.images import read_image
from lightglue.stores import ImageFeatures
from lightglue.support.caches import BoundedCache
from lightglue.support.checks import check_int, is_int
from lightglue.support.printable import escaped
from lightglue.support.progress import StageProgress
from lightglue.training.contract import Sample, Samples, Truth
from lightglue.training.data_options import DataOptions, FeatureOptions, source_keys
from lightglue.training.draws import Draws
from lightglue.training.extraction import make_view
from lightglue.training.journal import View
from lightglue.training.own_tracks import camera_of, make_tracks
from lightglue.training.pool import Facts, Pool, fill_pool, reasons
from lightglue.training.split import group_of, held_out, held_out_of_scene
from lightglue.training.streams import BinnedStream, Bins, Mixture, PlainStream, Stream
from lightglue.training.toml import canonical
from lightglue.training.truth.homography import from_homography
from lightglue.training.truth.posed import from_depth, from_tracks
from lightglue.training.views.homography import between_views, reduced

__all__ = ["PoolSamples", "open_samples", "samples_of"]

REVISION = 1  # raised when the same options and pool give other samples


def open_samples(
    data: DataOptions,
    features: FeatureOptions,
    folder: Path,
    seed: int,
    *,
    workers: int | None = None,
    progress: StageProgress = lambda stage, done, total: None,
) -> Samples:
    """The samples of sources, whose pool is made or completed first.

    Args:
        data, features: what to learn from.
        folder: of the pool, where `data.pool` names none.
        seed: of the order of the samples; views and validation samples depend on `data.seed`.
        workers: processes that extract features; None for as many as fit.
        progress: called with the stage, what is done, and how much there is.

    Raises InputError for options that make no sense, sources without images, images of which no pair can be made, and
    a pool of other settings; StoreError where the pool cannot be written: what was made is kept.
    """
    check_int("seed", seed, 0, "an integer from 0")
    where = Path(folder if data.pool is None else data.pool)
    pool = fill_pool(where, data, features, workers=workers, progress=progress)
    for key, source in zip(source_keys(data.sources), data.sources, strict=True):
        if source.kind == "model":
            make_tracks(pool, key, source, data, features, workers=workers, progress=progress)
    return samples_of(pool, data, features, seed)


def samples_of(pool: Pool, data: DataOptions, features: FeatureOptions, seed: int) -> PoolSamples:
    """The samples of a pool as it is. Raises InputError where no pair can be made."""
    names = tuple(name for name, view in pool.views.items() if _is_used(view, data, features))
    if not names:
        why = reasons(pool.left_out)
        few = sum(view.num_keypoints < features.fewest for view in pool.views.values())
        told = [f"{few:,} views have fewer than {features.fewest} keypoints"] * bool(few) + [why] * bool(why)
        raise InputError(
            f"No image can be used to learn from ({'; '.join(told) or 'there is none'}); name other images"
            + (", or set features.fewest lower." if few else ".")
        )
    plan = _Plan(pool, data, [pool.views[name] for name in names])
    return PoolSamples(pool, data, features, seed, names, *plan.split(seed))


def _is_used(view: View, data: DataOptions, features: FeatureOptions) -> bool:
    return view.num_keypoints >= features.fewest and min(view.image_size) >= data.smallest


@dataclass(eq=False)
class PoolSamples:
    """See `Samples`. It may be sent to other processes; each has its own cache."""

    pool: Pool
    data: DataOptions
    features: FeatureOptions
    seed: int
    names: tuple[str, ...]  # of the views that are used, sorted
    mixture: Mixture
    validation: NDArray[np.int32]  # (V, 2) rows of views

    def __post_init__(self) -> None:
        self._cache: BoundedCache[str, ImageFeatures] = BoundedCache(self.data.memory, lambda each: each.nbytes, keep=2)
        facts_size = self.data.memory / 8
        self._known: BoundedCache[str, Facts] = BoundedCache(
            facts_size, lambda each: sum(array.nbytes for array in each.values())
        )
        self._cameras: BoundedCache[str, Camera] = BoundedCache(10_000)
        self._first = self.read(self.names[0])
        self._fingerprint: str | None = None

    def __reduce__(self) -> Any:
        return PoolSamples, (
            self.pool,
            self.data,
            self.features,
            self.seed,
            self.names,
            self.mixture,
            self.validation,
        )

    @property
    def feature_type(self) -> str:
        """See `Samples`."""
        return self.features.type

    @property
    def descriptor_dim(self) -> int:
        """See `Samples`."""
        return int(self._first.descriptors.shape[1])

    @property
    def has_scale_ori(self) -> bool:
        """See `Samples`."""
        return self._first.scales is not None and self._first.oris is not None

    @property
    def epoch(self) -> int:
        """See `Samples`."""
        return self.mixture.epoch

    @property
    def num_validation(self) -> int:
        """See `Samples`."""
        return len(self.validation)

    @property
    def fingerprint(self) -> str:
        """See `Samples`."""
        if self._fingerprint is None:
            said = {
                "revision": REVISION,
                "seed": self.seed,
                "data": {**canonical(self.data), "pool": None, "memory": None, "sources": None},
                "weights": list(self.mixture.weights),
                "settings": dict(self.pool.store.settings),
                "fewest": self.features.fewest,
            }
            digest = sha256(json.dumps(said, sort_keys=True).encode())
            for name in self.names:
                view = self.pool.views[name]
                digest.update(f"{name}\n{view.digest}\n{view.depths}\n".encode("utf-8", "surrogatepass"))
            digest.update(json.dumps(self._tracks()).encode())
            self._fingerprint = digest.hexdigest()[:32]
        return self._fingerprint

    def _tracks(self) -> list[str]:
        """What the tracks of each scene were made of."""
        views = (self.pool.views[name] for name in self.names)
        scenes = {(view.source, view.scene) for view in views if view.posed is not None and view.posed.depth is None}
        return [str(self.pool.tracks_record(*each).get("inputs")) for each in sorted(scenes)]

    def sample(self, k: int) -> Sample:
        """See `Samples`."""
        if not is_int(k, 0):
            raise InputError(f"The number of a sample is {k!r}; give an integer from 0.")
        return self._sample(*self.mixture.pair(k))

    def validation_sample(self, i: int) -> Sample:
        """See `Samples`."""
        if not is_int(i, 0, len(self.validation) - 1):
            raise InputError(f"The number of a validation sample is {i!r}; there are {len(self.validation)}.")
        first, second = self.validation[i]
        return self._sample(int(first), int(second))

    def picture(self, view: str) -> NDArray[Any]:
        """See `Samples`. Raises InputError where there is no such view, ImageError where its image is not there."""
        if view not in self.pool.views:
            raise InputError(f"There is no view {view!r:.200} in {self.pool.folder}.")
        known = self.pool.views[view]
        pixels = read_image(self._place(known))
        if known.posed is not None:
            return reduced(pixels, self.data.posed_size)
        data, key = self.data, (self.data.seed, known.source, known.image, known.number)
        return make_view(pixels, key, data.view_size, data.homography, data.photometric)[0]

    def _place(self, view: View) -> Path:
        """Where the image of a view lies: where it was, or where its source is now."""
        path = Path(view.path)
        for key, source in zip(source_keys(self.data.sources), self.data.sources, strict=True):
            if key == view.source and not path.exists():
                path = Path(source.images or source.path) / view.image
        return path

    def read(self, name: str) -> ImageFeatures:
        """The features of a view. Raises InputError where there are none, StoreError where they are damaged."""
        return self._cache.get(name, lambda: self.pool.store.get(name))

    def _sample(self, first: int, second: int) -> Sample:
        names = self.names[first], self.names[second]
        features = self.read(names[0]), self.read(names[1])
        views = self.pool.views[names[0]], self.pool.views[names[1]]
        return Sample(names, *features, self._truth(views, features))

    def _truth(self, views: tuple[View, View], features: tuple[ImageFeatures, ImageFeatures]) -> Truth:
        points, options = (features[0].keypoints, features[1].keypoints), self.data.truth
        if views[0].posed is None or views[1].posed is None:
            return from_homography(*points, between_views(views[0].H, views[1].H), options)
        poses = views[0].posed.T, views[1].posed.T
        cameras = self._camera(views[0]), self._camera(views[1])
        facts = self._facts(views[0]), self._facts(views[1])
        if views[0].posed.depth is not None:
            T_0to1 = poses[1] @ np.linalg.inv(poses[0])
            return from_depth(*points, facts[0]["depth"], facts[1]["depth"], *cameras, T_0to1, options)
        tracks = facts[0]["tracks"], facts[1]["tracks"]
        return from_tracks(*points, *tracks, facts[0]["places"], facts[1]["places"], *cameras, *poses, options)

    def _camera(self, view: View) -> Camera:
        return self._cameras.get(view.name, lambda: camera_of(view))

    def _facts(self, view: View) -> Facts:
        return self._known.get(view.name, lambda: self.pool.facts(view.name))


class _Plan:
    """Which pairs there are, and which are held out."""

    def __init__(self, pool: Pool, data: DataOptions, views: Sequence[View]) -> None:
        self.pool, self.data, self.views = pool, data, views
        self.keys = source_keys(data.sources)
        self.rows: dict[str, list[int]] = defaultdict(list)  # of the views of each source
        for row, view in enumerate(views):
            self.rows[view.source].append(row)

    def split(self, seed: int) -> tuple[Mixture, NDArray[np.int32]]:
        """The pairs to learn from, and those to validate with. Raises InputError where there are none."""
        held = self._held()
        streams: list[Stream] = []
        weights: list[float] = []
        validation: list[NDArray[np.int32]] = []
        for key, source in zip(self.keys, self.data.sources, strict=True):
            stream, kept = self._of_source(key, seed, held)
            if stream is None:
                raise InputError(self._no_pairs(key, source.path))
            streams.append(stream)
            weights.append(source.weight)
            validation.append(kept)
        chosen = _spread(validation, weights, self.data.max_validation, self.data.seed)
        if not len(chosen) and self.data.validation and self.data.max_validation:
            raise InputError(
                f"Nothing can be held out to validate with: {self._alike()}. Give more images, or set data.validation "
                "to 0."
            )
        return Mixture((seed,), streams, weights), chosen

    def _alike(self) -> str:
        count = len({(view.source, view.image) for view in self.views})
        if count == 1:
            return "there is one image that can be used"
        return f"the {count:,} images that can be used look alike, or hardly overlap"

    def _no_pairs(self, key: str, path: str) -> str:
        views = [self.views[row] for row in self.rows[key]]
        images = len({view.image for view in views})
        left_out = tuple(each for each in self.pool.left_out if each.name.startswith(f"{key}/"))
        why = f" ({reasons(left_out)})" if left_out else ""
        return (
            f"No pair can be made of {escaped(path)}: of use {'is' if len(views) == 1 else 'are'} "
            f"{counted(len(views), 'view')} of {counted(images, 'image')}{why}, and some are held out to validate "
            "with. Give more images, or a smaller validation share."
        )

    def _held(self) -> set[str]:
        """The groups that are held out, of all sources: copies of an image may lie in several."""
        held: set[str] = set()
        for key in self.keys:
            views = [self.views[row] for row in self.rows[key]]
            scenes = {view.scene for view in views}
            groups = {view.image: group_of(view, len(scenes)) for view in views}
            pairs = None
            if views and views[0].posed is not None and len(scenes) == 1:
                pairs = self.pool.scene_pairs(key, views[0].scene)
            if pairs is not None:
                usable = pairs.between(self.data.overlaps[0], self.data.overlaps[-1])
                held |= held_out_of_scene(groups, usable, self.data.validation, self.data.seed)
            else:
                held |= held_out(groups.values(), self.data.validation, self.data.seed)
        return held

    def _of_source(self, key: str, seed: int, held: set[str]) -> tuple[Stream | None, NDArray[np.int32]]:
        """The pairs of a source to learn from, and those of what is held out."""
        rows = self.rows[key]
        scenes = len({self.views[row].scene for row in rows})
        is_held = {row: group_of(self.views[row], scenes) in held for row in rows}
        if rows and self.views[rows[0]].posed is not None:
            return self._of_scenes(key, seed, is_held)
        by_image: dict[str, list[int]] = defaultdict(list)
        for row in rows:
            by_image[self.views[row].image].append(row)
        pairs: dict[bool, list[tuple[int, int]]] = {False: [], True: []}
        for each in by_image.values():
            pairs[is_held[each[0]]] += [(a, b) for i, a in enumerate(each) for b in each[i + 1 :]]
        plain, kept = (np.array(pairs[side], np.int32).reshape(-1, 2) for side in (False, True))
        return (PlainStream((seed, key), plain) if len(plain) else None), kept

    def _of_scenes(self, key: str, seed: int, is_held: Mapping[int, bool]) -> tuple[Stream | None, NDArray[np.int32]]:
        edges = np.array(self.data.overlaps)
        bins: list[Bins] = []
        kept: list[NDArray[np.int32]] = []
        for scene in sorted({self.views[row].scene for row in is_held}):
            found = self.pool.scene_pairs(key, scene)
            if found is None:
                continue
            rows = {self.views[row].image: row for row in is_held if self.views[row].scene == scene}
            at = np.array([rows.get(name, -1) for name in found.names], np.int32)
            pairs = np.stack([at[found.first], at[found.second]], 1)
            held = np.array([is_held.get(int(row), False) for row in at], np.bool_)
            held0, held1 = held[found.first], held[found.second]
            bin_of = np.searchsorted(edges, found.overlap, side="right") - 1
            usable = (pairs >= 0).all(1) & (found.overlap >= edges[0]) & (found.overlap <= edges[-1])
            bin_of = np.minimum(bin_of, len(edges) - 2)
            learn, spare = usable & ~held0 & ~held1, usable & held0 & held1
            bins.append(Bins([pairs[learn & (bin_of == each)] for each in range(len(edges) - 1)]))
            kept.append(pairs[spare])
        stream = BinnedStream((seed, key), bins, self.data.pairs_per_scene)
        spare_pairs = np.concatenate([*kept, np.zeros((0, 2), np.int32)])
        return (stream if stream.length else None), spare_pairs


def _spread(pairs: Sequence[NDArray[np.int32]], weights: Sequence[float], most: int, seed: int) -> NDArray[np.int32]:
    """At most so many pairs, of each source as its weight says; the same ones in the same order for every run."""
    total = sum(weights)
    chosen = []
    for number, (each, weight) in enumerate(zip(pairs, weights, strict=True)):
        order = Draws(seed, "validation", number).permutation(len(each))
        chosen.append(each[order[: max(1, int(most * weight / total)) if most else 0]])
    return np.concatenate([*chosen, np.zeros((0, 2), np.int32)])
