"""The features of all views, extracted once.

    POOL/features/       a store of features, one file a view
    POOL/views.jsonl     what each view is: its image, its homography or its camera and pose
    POOL/facts/          of views with a pose: depths, or tracks, of their keypoints
    POOL/pairs/          which images of a scene see the same
    POOL/tracks/         of a model: matches of the teacher, and what tracks were made of

What a kill leaves is taken up by the next run. A whole pool can be used where its images are not, such as on another
machine.
"""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lightglue.errors import InputError, StoreError
from lightglue.stores import FeatureStore
from lightglue.stores.arrays import read_arrays
from lightglue.support.files import part_in, read_json, write_json, write_whole
from lightglue.support.printable import escaped
from lightglue.support.progress import StageProgress
from lightglue.training.data_options import DataOptions, FeatureOptions, source_keys
from lightglue.training.extraction import ImageJob, Made, ViewWork, settings_of, view_name
from lightglue.training.journal import LeftOut, View, append, read_journal
from lightglue.training.sources.images import list_folder
from lightglue.training.sources.options import SourceOptions
from lightglue.training.sources.record import Listed, ScenePairs, SourceImage
from lightglue.training.sources.scene_info import list_scene_info
from lightglue.workers.engine import ProcessEngine

__all__ = ["Pool", "fill_pool", "list_source", "open_pool"]

JOURNAL = "views.jsonl"
_WHOLE = "whole.json"
_TOLD = 5  # reasons in an error
Facts = Mapping[str, NDArray[Any]]


@dataclass(frozen=True, eq=False)
class Pool:
    """Features on disk, and what they are of."""

    folder: Path
    store: FeatureStore
    views: Mapping[str, View]  # by name, in the order of their names
    left_out: tuple[LeftOut, ...]

    def facts(self, name: str) -> Facts:
        """What is known of the keypoints of a view with a pose. Raises StoreError."""
        return _read_arrays(_facts_path(self.folder, name))

    def put_facts(self, name: str, facts: Facts) -> None:
        """Write them. Raises StoreError."""
        _write_arrays(_facts_path(self.folder, name), facts, self.folder)

    def scene_pairs(self, source: str, scene: str) -> ScenePairs | None:
        """Which images of a scene see the same; None where it was not written. Raises StoreError."""
        path = _pairs_path(self.folder, source, scene)
        if not path.exists():
            return None
        arrays = _read_arrays(path)
        names = [str(name) for name in arrays["names"]]
        return ScenePairs(names, arrays["first"], arrays["second"], arrays["overlap"])

    def tracks_path(self, source: str, scene: str) -> Path:
        """Of the record of the tracks of a scene; the matches that they are of lie beside it."""
        return self.folder / "tracks" / f"{_digest_of(f'{source}/{scene}')}.json"

    def tracks_record(self, source: str, scene: str) -> dict[str, Any]:
        """What the tracks of a scene were made of; nothing where they were not made, or it is damaged."""
        try:
            return read_json(self.tracks_path(source, scene))
        except OSError:
            return {}

    def put_scene_pairs(self, source: str, scene: str, pairs: ScenePairs) -> None:
        """Write them. Raises StoreError."""
        arrays = {"names": np.array(pairs.names), "first": pairs.first, "second": pairs.second}
        _write_arrays(_pairs_path(self.folder, source, scene), {**arrays, "overlap": pairs.overlap}, self.folder)


def open_pool(folder: Path, data: DataOptions, features: FeatureOptions) -> Pool:
    """The pool in a folder as it is, made where there is none.

    Raises InputError where it was made with other settings; StoreError where it is damaged or cannot be made.
    """
    store = FeatureStore.open(folder / "features", settings_of(data, features))
    views, left_out = read_journal(folder / JOURNAL)
    return Pool(folder, store, {name: views[name] for name in sorted(views)}, tuple(left_out.values()))


def fill_pool(
    folder: Path,
    data: DataOptions,
    features: FeatureOptions,
    *,
    workers: int | None = None,
    progress: StageProgress = lambda stage, done, total: None,
) -> Pool:
    """The pool with all views of all sources; what is missing is made, in several processes.

    Images that cannot be used are in `left_out`, and the others are done. A source that is not there is no fault where
    its views are. One process at a time may fill a pool; any number may read it.

    Raises InputError for options that make no sense, a source without images, a pool of other settings; StoreError
    where it cannot be written: what was made is kept, and the next call goes on from there.
    """
    if not data.sources:
        raise InputError("There are no sources of images; name at least one ([[data.sources]] with a kind and a path).")
    pool = open_pool(folder, data, features)
    is_checked = _is_as_it_was(folder)
    jobs: list[ImageJob] = []
    kept: dict[str, View] = {}
    before = {each.name: each for each in pool.left_out}
    left_out: dict[str, LeftOut] = {}
    for key, source in zip(source_keys(data.sources), data.sources, strict=True):
        if not Path(source.path).exists() and any(view.source == key for view in pool.views.values()):
            kept |= {view.name: view for view in pool.views.values() if view.source == key and view.number < data.views}
            left_out |= {name: each for name, each in before.items() if name.startswith(f"{key}/")}
            continue
        listed = list_source(key, source)
        for skipped in listed.skipped:
            left_out[f"{key}/{skipped.name}"] = LeftOut(f"{key}/{skipped.name}", skipped.reason)
        for scene, pairs in listed.scenes.items():
            pool.put_scene_pairs(key, scene, pairs)
        for image in listed.images:
            if (fault := before.get(f"{key}/{image.name}")) is not None and _still_stands(fault, image, data):
                left_out[fault.name] = fault
                continue
            there, missing = _there(pool, image, data, is_checked)
            kept |= {view.name: view for view in there}
            if missing:
                jobs.append(ImageJob(image, missing))
    done = len(kept)
    total = done + sum(len(job.numbers) for job in jobs)
    progress("features", done, total)
    for made in ProcessEngine(workers).run(ViewWork(data, features), jobs):
        new = _put(pool, made)
        append(folder / JOURNAL, new)
        for each in new:
            if isinstance(each, View):
                kept[each.name] = each
            else:
                left_out[each.name] = each
        done += len(made.job.numbers)
        progress("features", done, total)
    if not is_checked or jobs:
        write_json(folder / _WHOLE, _what_there_is(folder))
    return replace(pool, views={name: kept[name] for name in sorted(kept)}, left_out=tuple(left_out.values()))


def list_source(key: str, source: SourceOptions) -> Listed:
    """The images of a source. Raises InputError where there are none."""
    if source.kind == "model":
        from lightglue.training.sources.model import list_model  # which needs pycolmap

        return list_model(key, source)
    if source.kind == "depth":
        return list_scene_info(key, source)
    return list_folder(key, source)


def _still_stands(fault: LeftOut, image: SourceImage, data: DataOptions) -> bool:
    """Whether an image is left out for the same reason as before."""
    is_too_small = fault.edge is None or fault.edge < data.smallest
    return is_too_small and fault.file is not None and fault.file.is_still(image.path)


def _there(pool: Pool, image: SourceImage, data: DataOptions, is_checked: bool) -> tuple[list[View], tuple[int, ...]]:
    """The views of an image that are there, whole, and of the file as it is; and the numbers of those missing."""
    numbers = range(data.views) if image.posed is None else range(1)
    there: list[View] = []
    missing: list[int] = []
    for number in numbers:
        name = view_name(image, number)
        view = pool.views.get(name)
        is_same = view is not None and _is_of(view, image) and view.file.is_still(image.path)
        if view is not None and is_same and (is_checked or _is_whole(pool, view)):
            there.append(view)
        else:
            missing.append(number)
    return there, tuple(missing)


def _is_of(view: View, image: SourceImage) -> bool:
    """Whether a view has the camera and the pose that its image has now; where the files lie does not matter."""
    if view.posed is None or image.posed is None:
        return view.posed is image.posed
    return replace(view.posed, depth=None) == replace(image.posed, depth=None) and (view.depths is None) == (
        image.posed.depth is None
    )


def _is_as_it_was(folder: Path) -> bool:
    """Whether nothing was added or taken since all was looked at: 100,000 files take a minute to look at."""
    try:
        there = read_json(folder / _WHOLE)
    except OSError:  # there is none, or it is damaged
        return False
    return there == _what_there_is(folder)


def _what_there_is(folder: Path) -> dict[str, Any]:
    """What tells whether a pool has changed: its journal, and how many files of features it has."""
    try:
        journal = sha256((folder / JOURNAL).read_bytes()).hexdigest()
    except OSError:
        journal = ""
    return {"journal": journal, "files": sum(1 for _ in (folder / "features").glob("??/*.npz"))}


def _is_whole(pool: Pool, view: View) -> bool:
    head = pool.store.head(view.name)
    return head is not None and head.digest == view.digest


def _put(pool: Pool, made: Made) -> list[View | LeftOut]:
    """Write the features of an image's views; what to write of them into the journal."""
    image = made.job.image
    if made.fault is not None or made.source is None:
        return [LeftOut(f"{image.source}/{image.name}", made.fault or "it could not be read", made.source, made.edge)]
    found: list[View | LeftOut] = []
    for each in made.views:
        name, count = view_name(image, each.number), len(each.features)
        depths = None
        if each.depth is not None:
            pool.put_facts(name, {"depth": each.depth})
            depths = sha256(each.depth.tobytes()).hexdigest()[:16]
        head = pool.store.put(name, each.features, made.source)
        found.append(
            View(
                name,
                image.source,
                image.scene,
                image.name,
                image.path,
                each.number,
                made.source,
                made.look,
                made.image_size,
                each.features.image_size,
                head.digest,
                count,
                None if each.homography is None else tuple(each.homography.reshape(-1).tolist()),
                image.posed,
                depths,
            )
        )
    return found


def reasons(left_out: Iterator[LeftOut] | tuple[LeftOut, ...]) -> str:
    """Why images were left out, the most frequent reasons first, in words."""
    counts = Counter(each.reason for each in left_out)
    return "; ".join(f"{count:,} x {escaped(reason)}" for reason, count in counts.most_common(_TOLD))


def _facts_path(folder: Path, name: str) -> Path:
    digest = _digest_of(name)
    return folder / "facts" / digest[:2] / f"{digest}.npz"


def _pairs_path(folder: Path, source: str, scene: str) -> Path:
    return folder / "pairs" / f"{_digest_of(f'{source}/{scene}')}.npz"


def _digest_of(name: str) -> str:
    return sha256(name.encode("utf-8", "surrogatepass")).hexdigest()[:40]


def _write_arrays(path: Path, arrays: Facts, folder: Path) -> None:
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)  # type: ignore[arg-type]  # its allow_pickle stands in the way
    write_whole(path, buffer.getvalue(), part_in(folder))


def _read_arrays(path: Path) -> dict[str, NDArray[Any]]:
    try:
        return read_arrays(path.read_bytes())
    except Exception as error:  # whatever zipfile and numpy make of a damaged file
        raise StoreError(f"{path} is damaged or missing ({error}); remove the pool and make it again.") from error
