"""Where the parts of a map lie, and the file that remembers how it was made.

MAP/map.json        the image folder, the options of each stage, what came of it
MAP/features/       the features of each image
MAP/retrieval.npz   a descriptor of each image
MAP/pairs.txt       the pairs to match
MAP/matches.db      their matches
MAP/refined/        refined keypoints, where asked for
MAP/database.db     COLMAP's database
MAP/model/          the largest model, in COLMAP's binary format;  MAP/models/0, 1, ...: all of them
MAP/report.html, MAP/report.png
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lightglue.errors import InputError, StoreError
from lightglue.models.choice import Models
from lightglue.sfm.skipped import Skipped
from lightglue.stores.settings import as_read
from lightglue.support.files import read_json, write_json

__all__ = ["MapFolder", "MapRecord", "StageRecord"]

FORMAT = 1


@dataclass(frozen=True)
class StageRecord:
    """What came of a stage."""

    seconds: float  # of the last run that had something to do
    counts: Mapping[str, float] = field(default_factory=dict)  # figures of its own, such as "images": 11
    skipped: tuple[Skipped, ...] = ()


@dataclass(frozen=True)
class MapRecord:
    """What map.json says."""

    images: Path  # the folder of the photographs
    settings: Mapping[str, Any]  # the options of each stage, and "models"
    stages: Mapping[str, StageRecord] = field(default_factory=dict)

    @property
    def models(self) -> Models:
        """The extractor and the matcher that the map was made with. Raises StoreError."""
        try:
            return Models(**self.settings["models"])
        except (KeyError, TypeError) as error:
            raise StoreError(f"The map does not say what it was made with ({error}); make it anew.") from error


@dataclass(frozen=True)
class MapFolder:
    """The paths of a map's parts."""

    folder: Path

    @property
    def record(self) -> Path:  # noqa: D102  # each is what its name says
        return self.folder / "map.json"

    @property
    def features(self) -> Path:  # noqa: D102
        return self.folder / "features"

    @property
    def retrieval(self) -> Path:  # noqa: D102
        return self.folder / "retrieval.npz"

    @property
    def pairs(self) -> Path:  # noqa: D102
        return self.folder / "pairs.txt"

    @property
    def matches(self) -> Path:  # noqa: D102
        return self.folder / "matches.db"

    @property
    def refined(self) -> Path:  # noqa: D102
        return self.folder / "refined"

    @property
    def database(self) -> Path:  # noqa: D102
        return self.folder / "database.db"

    @property
    def model(self) -> Path:  # noqa: D102
        return self.folder / "model"

    @property
    def models(self) -> Path:  # noqa: D102
        return self.folder / "models"

    @property
    def report(self) -> Path:  # noqa: D102
        return self.folder / "report.html"

    @property
    def picture(self) -> Path:  # noqa: D102
        return self.folder / "report.png"

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
                raise StoreError(f"{self.record} has format {said['format']}, not {FORMAT}; make the map anew.")
            stages = {name: _stage(stage) for name, stage in said["stages"].items()}
            return MapRecord(Path(said["images"]), dict(said["settings"]), stages)
        except (KeyError, TypeError, AttributeError, ValueError) as error:
            raise StoreError(f"{self.record} is damaged ({error!r}); make the map anew.") from error

    def write(self, record: MapRecord) -> None:
        """Write map.json, whole or not at all. Raises StoreError."""
        stages = {
            name: {
                "seconds": round(stage.seconds, 3),
                "counts": dict(stage.counts),
                "skipped": [[each.name, each.reason] for each in stage.skipped],
            }
            for name, stage in record.stages.items()
        }
        images = os.path.abspath(record.images)
        write_json(
            self.record, {"format": FORMAT, "images": images, "settings": as_read(record.settings), "stages": stages}
        )

    def note(self, stage: str, options: Any, record: StageRecord, did_something: bool = True) -> None:
        """Remember what came of a stage, and its options. A run that had nothing to do has no time of its own."""
        known = self.read()
        if not did_something and stage in known.stages:
            record = StageRecord(known.stages[stage].seconds, record.counts, record.skipped)
        settings = {**known.settings, stage: options}
        self.write(MapRecord(known.images, settings, {**known.stages, stage: record}))


def _stage(said: Mapping[str, Any]) -> StageRecord:
    skipped = tuple(Skipped(str(name), str(reason)) for name, reason in said["skipped"])
    return StageRecord(float(said["seconds"]), dict(said["counts"]), skipped)
