"""Where the parts of a map lie, and the file that remembers how it was made.

MAP/map.json        the image folder, the options of each stage, what came of it
MAP/listed.txt      the images, and their cameras as far as they are known, where they were given as a list
MAP/frames/         the images, where the map is of a video
MAP/features/       the features of each image
MAP/retrieval.npz   a descriptor of each image
MAP/pairs.txt       the pairs to match
MAP/matches.db      their matches
MAP/rotated.json    which images were extracted again, rotated as others are
MAP/refined/        refined keypoints, where asked for
MAP/database.db     COLMAP's database
MAP/models/0, 1...  all models in COLMAP's binary format, the largest first;  MAP/model: a link to models/0
MAP/dataset/        the largest model beside images that fit it, for other programs, where they differ from the files
MAP/report.html, MAP/report.png
"""

from __future__ import annotations

import os
import shutil
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from lightglue.errors import InputError, StoreError
from lightglue.models.choice import Models
from lightglue.sfm.skipped import Skipped
from lightglue.stores.settings import as_read
from lightglue.support.files import is_part, part_in, read_json, write_json

__all__ = ["DATASET_RECORD", "MapFolder", "MapRecord", "StageRecord", "check_dataset", "remove_tree"]

FORMAT = 1
DATASET_RECORD = "dataset.json"  # marks a dataset of ours
_BRINGING = ".bringing.json"


@dataclass(frozen=True)
class StageRecord:
    """What came of a stage."""

    seconds: float  # of the last run that had something to do
    counts: Mapping[str, float] = field(default_factory=dict)  # figures of its own, such as "images": 11
    skipped: tuple[Skipped, ...] = ()


@dataclass(frozen=True)
class MapRecord:
    """What map.json says."""

    images: Path  # the folder of the images
    settings: Mapping[str, Any]  # the options of each stage, and "models"
    stages: Mapping[str, StageRecord] = field(default_factory=dict)
    pairs: int | None = None  # checksum of pairs.txt as it was chosen or matched last; None: it may be any

    @property
    def models(self) -> Models:
        """The extractor and the matcher that the map was made with. Raises StoreError."""
        try:
            return Models(**self.settings["models"])
        except (KeyError, TypeError) as error:
            raise StoreError(f"The map does not say what it was made with ({error}); make it again.") from error


@dataclass(frozen=True)
class _Part:
    """The path of a part of a map."""

    name: str

    def __get__(self, owner: MapFolder, kind: type[MapFolder]) -> Path:
        return owner.folder / self.name


@dataclass(frozen=True)
class MapFolder:
    """The paths of a map's parts."""

    folder: Path

    record = _Part("map.json")
    listed = _Part("listed.txt")
    frames = _Part("frames")
    features = _Part("features")
    retrieval = _Part("retrieval.npz")
    pairs = _Part("pairs.txt")
    matches = _Part("matches.db")
    rotated = _Part("rotated.json")
    refined = _Part("refined")
    database = _Part("database.db")
    models = _Part("models")
    largest = _Part("models/0")  # of the models
    model = _Part("model")  # a link to it
    dataset = _Part("dataset")
    report = _Part("report.html")
    picture = _Part("report.png")

    def other_models(self) -> list[Path]:
        """The folders of the models that are not the largest, the larger ones first."""
        found = [path for path in self.models.glob("*") if path.name.isdecimal() and path != self.largest]
        return sorted(found, key=lambda path: int(path.name))

    def link_model(self) -> None:
        """Make `model` a link to the largest model, or a copy of it where the file system has no links.

        A folder that was there is replaced. Nothing is there where there is no model.
        """
        target = self.largest.relative_to(self.folder)  # relative, so that a map can be moved
        if self.model.is_symlink() and self.model.readlink() == target and self.largest.is_dir():
            return
        part = self.folder / ".model.part"
        remove_tree(part)
        remove_tree(self.model)
        if self.largest.is_dir():
            try:
                part.symlink_to(target, target_is_directory=True)
            except (OSError, NotImplementedError):
                shutil.copytree(self.largest, part)
            part.replace(self.model)

    @contextmanager
    def bringing(self, images: Path) -> Iterator[Path]:
        """A file to write copies to in the folder of images. It is remembered, for a kill may leave it there."""
        part = part_in(images)
        write_json(self.folder / _BRINGING, {"part": os.path.abspath(part)})
        try:
            yield part
        finally:
            self.remove_part()

    def remove_part(self) -> None:
        """Remove what a killed `bringing` left among the images: that very file, and no other."""
        note = self.folder / _BRINGING
        with suppress(OSError, StoreError, KeyError, TypeError):
            part = Path(read_json(note)["part"])
            if is_part(part):
                part.unlink(missing_ok=True)
        with suppress(OSError):
            note.unlink(missing_ok=True)

    def read(self) -> MapRecord:
        """What map.json says. Raises InputError where there is none, StoreError where it is damaged."""
        try:
            said = read_json(self.record)
        except FileNotFoundError:
            raise InputError(
                f"There is no map in {self.folder} (no {self.record.name}); name the folder that `lightglue sfm` wrote."
            ) from None
        try:
            if said["format"] != FORMAT:
                raise StoreError(f"{self.record} has format {said['format']}, not {FORMAT}; make the map again.")
            stages = {name: _stage(stage) for name, stage in said["stages"].items()}
            images = (self.folder / said["images"]).absolute()
            return MapRecord(images, dict(said["settings"]), stages, said.get("pairs"))
        except (KeyError, TypeError, AttributeError, ValueError) as error:
            raise StoreError(f"{self.record} is damaged ({error!r}); make the map again.") from error

    def write(self, record: MapRecord) -> None:
        """Write map.json, whole or not at all. Raises StoreError."""
        stages = {
            name: {
                "seconds": round(stage.seconds, 3),
                "counts": dict(stage.counts),
                "skipped": [[each.name, each.reason] for each in stage.skipped if not each.is_used],
                "noted": [[each.name, each.reason] for each in stage.skipped if each.is_used],
            }
            for name, stage in record.stages.items()
        }
        images = os.path.abspath(record.images)
        if images == os.path.abspath(self.frames):
            images = self.frames.name  # so that a map can be moved
        content: dict[str, Any] = {"format": FORMAT, "images": images, "settings": as_read(record.settings)}
        content |= {"stages": stages, "pairs": record.pairs}
        write_json(self.record, content)

    def expect_pairs(self, as_they_are: bool = True) -> None:
        """Remember pairs.txt as it is, to notice later that it has changed; or that it may be any."""
        known = self.read()
        checksum = zlib.crc32(self.pairs.read_bytes()) if as_they_are and self.pairs.exists() else None
        if known.pairs != checksum:
            self.write(replace(known, pairs=checksum))

    def check_pairs(self) -> None:
        """Raises StoreError where pairs.txt is not as it was when it was chosen or matched."""
        try:
            expected = self.read().pairs
        except InputError:  # no map, but parts of one
            return
        if expected is not None and self.pairs.exists() and zlib.crc32(self.pairs.read_bytes()) != expected:
            raise StoreError(
                f"{self.pairs} changed after its pairs were chosen: damaged, or written by another program. "
                f"`lightglue map match {self.folder}` takes it as it is, `lightglue sfm` chooses again."
            )

    def note(self, stage: str, options: Any, record: StageRecord, did_something: bool = True) -> None:
        """Remember what came of a stage, and its options. A run that had nothing to do has no time of its own."""
        known = self.read()
        if not did_something and stage in known.stages:
            record = StageRecord(known.stages[stage].seconds, record.counts, record.skipped)
        settings = {**known.settings, stage: options}
        self.write(replace(known, settings=settings, stages={**known.stages, stage: record}))


def check_dataset(paths: MapFolder, images: Path) -> None:
    """Raises InputError where the folder of the dataset holds something else, or the images of the map."""
    folder = paths.dataset
    if images.resolve().is_relative_to(folder.resolve()):
        raise InputError(f"{images} is where the map's own copies of images go; name another folder for the map.")
    if folder.exists() and not (folder / DATASET_RECORD).exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise InputError(f"{folder} is not of this map, which needs the place; rename it, or name another folder.")


def remove_tree(path: Path) -> None:
    """Remove a folder with all that is in it, or a link to one; nothing where there is none."""
    if path.is_symlink():
        path.unlink()
    else:
        shutil.rmtree(path, ignore_errors=True)


def _stage(said: Mapping[str, Any]) -> StageRecord:
    skipped = tuple(
        Skipped(str(name), str(reason), is_used)
        for key, is_used in (("skipped", False), ("noted", True))
        for name, reason in said.get(key, ())
    )
    return StageRecord(float(said["seconds"]), dict(said["counts"]), skipped)
