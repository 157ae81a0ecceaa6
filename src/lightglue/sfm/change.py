"""Add photographs to a map, and take some out, without making it anew.

Each step looks at what is there and does what is missing, so that a run that was killed is finished by running it
again. The model is replaced by renaming: after a kill between, the old one is put back by the next run.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import Any

from lightglue.errors import InputError, LightGlueError, StoreError
from lightglue.model_choice import Models
from lightglue.sfm.cameras import CameraOptions
from lightglue.sfm.database import create_database
from lightglue.sfm.extract import ExtractOptions, extract
from lightglue.sfm.folder import MapFolder, MapRecord
from lightglue.sfm.match import MatchOptions, match
from lightglue.sfm.pairs import read_pairs, write_pairs
from lightglue.sfm.skipped import Skipped
from lightglue.sfm.tracks import read_refined
from lightglue.sfm.verify import VerifyOptions, verify
from lightglue.stores import FeatureStore, MatchStore
from lightglue.stores.files import write_whole

__all__ = ["ChangeResult", "add_images", "remove_images"]

_PAIRED = 20  # images of the map that a new one is matched with
_WITHOUT_INDEX = 60  # images of a map up to which a new one is matched with all where there is no retrieval index


@dataclass(frozen=True)
class ChangeResult:
    """What became of the map."""

    names: tuple[str, ...]  # that were added, or taken out
    registered: tuple[str, ...]  # all that have a pose now
    seconds: float
    skipped: tuple[Skipped, ...] = ()


def add_images(
    map_folder: str | os.PathLike[str], images: Iterable[str | os.PathLike[str]], *, models: Models | None = None
) -> ChangeResult:
    """Add photographs to a map: register them in its model and adjust it.

    images: files. Those under the map's image folder keep their place; others are copied right into it, under their
    own names. One whose name another photograph has already is skipped: nothing is ever written over.

    Raises InputError where there is no map; StoreError where it is damaged or cannot be written.
    """
    begin = perf_counter()
    place = MapFolder(Path(map_folder))
    record = place.read()
    models = models or record.models
    _recover(place)
    names, skipped = _brought(record.images, [Path(image) for image in images])
    store = FeatureStore.open(place.features)
    made = store.settings
    options = ExtractOptions(models, made.get("extract", {}), made.get("descriptor_dtype", "float16"))
    done = extract(record.images, place.features, options, names=names)
    skipped += done.skipped
    names = sorted(set(names) - {each.name for each in done.skipped})
    settings = MatchStore.open(place.matches).settings
    matching = MatchOptions(models, settings.get("min_overlap"))
    pairs = _pairs(place, store, names)
    skipped += match(place.features, pairs, place.matches, matching).skipped
    _choose(place, pairs)
    _renew_database(place, record, store)
    registered = _register(place, record.images)
    missing = [Skipped(name, "it could not be registered in the model") for name in names if name not in registered]
    return ChangeResult(tuple(names), tuple(registered), perf_counter() - begin, (*skipped, *missing))


def remove_images(map_folder: str | os.PathLike[str], names: Sequence[str]) -> ChangeResult:
    """Take images out of a map's model, database, matches and features. The photographs stay where they are.

    Points that fewer than two images are left to see go too. Raises InputError, StoreError.
    """
    begin = perf_counter()
    place = MapFolder(Path(map_folder))
    record = place.read()
    _recover(place)
    store = FeatureStore.open(place.features)
    registered = _deregister(place, set(names))
    MatchStore.open(place.matches).remove_images(names)
    known = {name for name in names if name in store}
    for name in known:
        store.remove(name)
    _renew_database(place, record, store)
    skipped = tuple(Skipped(name, "it is not in the map") for name in names if name not in known)
    return ChangeResult(tuple(sorted(known)), tuple(registered), perf_counter() - begin, skipped)


def _brought(folder: Path, images: list[Path]) -> tuple[list[str], tuple[Skipped, ...]]:
    """The names of photographs, which lie under the map's folder then."""
    names, skipped = [], []
    root = folder.resolve()
    for image in images:
        try:
            names.append(image.resolve().relative_to(root).as_posix())
            continue
        except ValueError:
            pass
        try:
            content = image.read_bytes()
        except OSError as error:
            skipped.append(Skipped(str(image), f"it cannot be read ({error.strerror}); check the path"))
            continue
        target = folder / image.name
        if target.exists() and target.read_bytes() != content:
            skipped.append(Skipped(str(image), f"another image is called {image.name!r} in {folder}; rename it"))
            continue
        if not target.exists():
            write_whole(target, content)
        names.append(image.name)
    return sorted(set(names)), tuple(skipped)


def _pairs(place: MapFolder, store: FeatureStore, names: list[str]) -> list[tuple[str, str]]:
    """Each new image with those it is to be matched with."""
    from lightglue.sfm import colmap

    others = sorted({str(image.name) for image in colmap.registered(colmap.read_model(place.model))} | set(names))
    index: Any = None
    if len(others) > _WITHOUT_INDEX:
        if not place.retrieval.exists():
            raise InputError(f"The map has {len(others)} images and no retrieval index; make one.")
        from lightglue.sfm.retrieval import RetrievalIndex

        index = RetrievalIndex.open(place.retrieval)
    pairs = set()
    for name in names:
        found = others if index is None else [other for other, _ in index.query(store.get(name), _PAIRED)] + names
        pairs |= {(min(name, other), max(name, other)) for other in found if other != name}
    return sorted(pairs)


def _renew_database(place: MapFolder, record: MapRecord, store: FeatureStore) -> None:
    """As the stores have it; geometries that were verified are taken over."""
    told = dict(record.settings.get("verify") or {})
    cameras = CameraOptions(**told.pop("cameras", {}))

    def refined(name: str) -> Any:
        """(N, 2) px; those of an image that came later, or has changed, are where they were found."""
        features = store.get(name)
        try:
            return read_refined(place.refined, name, features.digest).keypoints
        except InputError:
            return features.keypoints

    create_database(
        place.database,
        store,
        MatchStore.open(place.matches),
        record.images,
        cameras=cameras,
        pairs=read_pairs(place.pairs) if place.pairs.exists() else None,
        keypoints=refined if record.settings.get("refine") else None,
    )
    verify(place.database, VerifyOptions(**told))


def _choose(place: MapFolder, pairs: Iterable[tuple[str, str]]) -> None:
    """Let these pairs be of the map too. Where no choice was written, all that are matched are."""
    if place.pairs.exists():
        write_pairs(place.pairs, sorted({*read_pairs(place.pairs), *pairs}))


def _register(place: MapFolder, images: Path) -> list[str]:
    """Register the images of the database that the model does not have; the names of all that have a pose then."""
    import pycolmap

    from lightglue.sfm import colmap

    model = colmap.read_model(place.model)
    with colmap.Database(place.database) as database:
        model.transcribe_image_ids_to_database(database._database)
    with _new_model(place) as part:
        work, start = part / "work", part / "start"
        work.mkdir(parents=True)
        start.mkdir()
        model.write(str(start))
        options = pycolmap.IncrementalPipelineOptions()
        options.multiple_models = False
        try:
            with colmap.quiet():
                pycolmap.set_random_seed(0)
                found = pycolmap.incremental_mapping(
                    str(place.database), str(images), str(work), options, input_path=str(start)
                )
        except (RuntimeError, ValueError, IndexError) as error:
            raise LightGlueError(
                f"COLMAP could not go on with {place.model} ({error}); reconstruct it anew."
            ) from error
        best = max(found.values(), key=lambda each: int(each.num_reg_images()), default=model)
        best.write(str(part))
        names = [str(image.name) for image in colmap.registered(best)]
        shutil.rmtree(work)
        shutil.rmtree(start)
    return names


def _deregister(place: MapFolder, names: set[str]) -> list[str]:
    """Take images out of the model; the names of all that have a pose then."""
    from lightglue.sfm import colmap

    model = colmap.read_model(place.model)
    going = [image for image in colmap.registered(model) if str(image.name) in names]
    if going:
        for image in going:
            if hasattr(model, "deregister_frame"):
                model.deregister_frame(image.frame_id)
            else:
                model.deregister_image(image.image_id)
        with _new_model(place) as part:
            model.write(str(part))
    return [str(image.name) for image in colmap.registered(model)]


@contextmanager
def _new_model(place: MapFolder) -> Iterator[Path]:
    """A folder that takes the model's place at the end, all of it or nothing. Raises StoreError."""
    part, old = place.folder / ".model.part", place.folder / ".model.old"
    shutil.rmtree(part, ignore_errors=True)
    try:
        part.mkdir()
        yield part
        shutil.rmtree(old, ignore_errors=True)
        place.model.replace(old)
        part.replace(place.model)
    except OSError as error:
        raise StoreError(f"{place.model} cannot be written ({error}); make room.") from error
    finally:
        shutil.rmtree(part, ignore_errors=True)
        _recover(place)


def _recover(place: MapFolder) -> None:
    """Put the old model back where a kill came between; forget it where the new one is there."""
    old = place.folder / ".model.old"
    if old.exists() and not place.model.exists():
        old.replace(place.model)
    shutil.rmtree(old, ignore_errors=True)
