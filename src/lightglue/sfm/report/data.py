"""What a report says of a map, gathered from its folder, whatever of it is there."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from lightglue.errors import InputError, LightGlueError
from lightglue.sfm.colmap.model import Model, read_model
from lightglue.sfm.colmap.model_files import SUMMARY
from lightglue.sfm.colmap.pair_ids import pair_of
from lightglue.sfm.folder import MapFolder, MapRecord, StageRecord
from lightglue.sfm.report.dropped import PICTURES, PairPicture, dropped_pictures
from lightglue.sfm.stages.dataset import dataset_summary
from lightglue.sfm.stages.given import listed_names
from lightglue.sfm.stages.pairing.files import read_pairs
from lightglue.stores import FeatureStore, MatchStore
from lightglue.support.files import read_json

Judged = Literal["dropped", "doubtful", "contradicting"]

__all__ = ["ImageRow", "Judged", "PairRow", "ReportData", "report_data"]


@dataclass(frozen=True)
class ImageRow:
    """An image of the map. Its pose, if any, is in the model."""

    name: str
    num_keypoints: int | None


@dataclass(frozen=True)
class PairRow:
    """Two images that were matched. None where it is not known."""

    name0: str
    name1: str
    matches: int | None  # before verification
    verified: int | None  # that fit one geometry
    overlap: float | None = None  # the matcher's probability that both show the same thing
    note: str | None = None
    judged: Judged | None = None  # what verified pairs are taken for, where it is not simply true
    reason: str | None = None  # why it was dropped
    inliers: int | None = None  # verified matches of a pair that was dropped


@dataclass(frozen=True, eq=False)
class ReportData:
    """All that a report is written from."""

    title: str
    image_folder: str  # the folder of the images, if it is known
    settings: Mapping[str, Any]
    stages: Mapping[str, StageRecord]  # in the order in which they ran
    images: tuple[ImageRow, ...]  # by name
    pairs: tuple[PairRow, ...]  # by names
    model: Model | None
    num_models: int = 0  # that were reconstructed, of which `model` is the largest
    problems: tuple[str, ...] = ()  # what could not be read, in sentences
    dataset: str = ""  # what there is for other programs, in words
    dropped: tuple[PairPicture, ...] = ()  # the strongest of the pairs that were dropped
    doubt: str | None = None  # why the model may be wrong


def report_data(folder: str | os.PathLike[str]) -> ReportData:
    """Gather what is known of a map. What is missing or damaged is left out, and named in `problems`.

    Raises:
        InputError: there is no such folder, or nothing of a map in it.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise InputError(f"There is no folder {folder}; give the folder of a map, which `lightglue sfm` makes.")
    it = _Gathered(folder)
    record = it.record()
    it.from_features(record.images if record else None)
    it.from_matches()
    it.from_database()
    doubt = it.from_summary()
    model = it.model()
    if not (record or it.keypoints or it.pairs or model):
        problems = f" {' '.join(it.problems)}" if it.problems else ""
        raise InputError(f"{folder} holds nothing of a map; give a folder that `lightglue sfm` made.{problems}")
    names = sorted({*it.keypoints, *(image.name for image in model.images)} if model else it.keypoints)
    return ReportData(
        folder.resolve().name,
        str(record.images) if record else "",
        record.settings if record else {},
        record.stages if record else {},
        tuple(ImageRow(name, it.keypoints.get(name)) for name in names),
        tuple(it.pairs[key] for key in sorted(it.pairs)),
        model,
        sum(each.is_dir() for each in folder.glob("models/*")),
        tuple(dict.fromkeys(it.problems)),  # the same file may be looked at twice
        dataset_summary(MapFolder(folder)),
        tuple(it.dropped(record.images if record else None)),
        doubt,
    )


@dataclass(frozen=True)
class _Gathered:
    """What was found so far."""

    folder: Path
    keypoints: dict[str, int | None] = field(default_factory=dict)
    pairs: dict[tuple[str, str], PairRow] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)

    @contextmanager
    def noting(self) -> Iterator[None]:
        """What is damaged is left out, and named in the report."""
        try:
            yield
        except LightGlueError as error:
            self.problems.append(str(error))

    def record(self) -> MapRecord | None:
        with self.noting(), suppress(InputError):  # for those who made the parts one by one
            return MapFolder(self.folder).read()
        return None

    def from_features(self, images: Path | None) -> None:
        """Of the images that are there: others have features still, but are not in the map."""
        if not (self.folder / "features").is_dir():
            return
        known = images is not None and images.is_dir()  # else the images are elsewhere
        with self.noting():
            listed = listed_names(MapFolder(self.folder))
            for head in FeatureStore.open(self.folder / "features", read_only=True).heads():
                if listed is not None and head.name not in listed:
                    continue
                if images is None or not known or os.path.exists(images / head.name):
                    self.keypoints[head.name] = head.num_keypoints

    def from_matches(self) -> None:
        chosen, path = self.folder / "pairs.txt", self.folder / "matches.db"
        if not path.exists():
            return
        with self.noting():
            MapFolder(self.folder).check_pairs()
        with self.noting():
            wanted = set(read_pairs(chosen)) if chosen.exists() else None
            for head in MatchStore.open(path, read_only=True).iter_pairs():
                key = (head.name0, head.name1)
                if wanted is None or key in wanted:  # others are of an earlier choice
                    self.pairs[key] = PairRow(*key, head.num_matches, None, head.overlap, head.note)

    def from_database(self) -> None:
        """Keypoints and matches of COLMAP's database, with what was verified."""
        path = self.folder / "database.db"
        if not path.exists():
            return
        try:
            found = list(_database_pairs(path, self.keypoints))
        except (sqlite3.Error, ValueError, OSError) as error:
            self.problems.append(f"{path} cannot be read ({error}); remove it and verify the matches again.")
            return
        for row in found:
            key = (row.name0, row.name1)
            known = self.pairs.get(key)
            judged = {"judged": row.judged, "reason": row.reason, "inliers": row.inliers}
            self.pairs[key] = row if known is None else replace(known, verified=row.verified, **judged)  # type: ignore[arg-type]

    def from_summary(self) -> str | None:
        """Why the largest model may be wrong, and which strong pairs contradict it."""
        with suppress(OSError, LightGlueError, LookupError, TypeError, ValueError):  # as of an earlier version
            largest = read_json(self.folder / "models" / SUMMARY)["models"][0]
            for name0, name1, _ in largest["contradicting"]:
                key = (min(name0, name1), max(name0, name1))
                self.pairs[key] = replace(self.pairs[key], judged="contradicting")
            return None if largest["doubt"] is None else str(largest["doubt"])
        return None

    def dropped(self, images: Path | None) -> Iterator[PairPicture]:
        """Pictures of the strongest pairs that were dropped."""
        rows = [row for row in self.pairs.values() if row.reason is not None]
        rows.sort(key=lambda row: (-(row.inliers or 0), row.name0, row.name1))
        some = [(row.name0, row.name1, row.reason or "") for row in rows[:PICTURES]]
        return dropped_pictures(self.folder, images, some)

    def model(self) -> Model | None:
        with self.noting(), suppress(InputError):  # then the report says why, as far as it can
            return read_model(self.folder)
        return None


def _database_pairs(path: Path, keypoints: dict[str, int | None]) -> Iterator[PairRow]:
    """Pairs of a COLMAP database, smaller name first; and into `keypoints` how many each image has."""
    log = path.with_name(path.name + "-wal")
    # Without a log to be read too, nothing is written beside the database, whose folder may be read-only.
    mode = "mode=ro" if log.exists() and log.stat().st_size else "mode=ro&immutable=1"
    with closing(sqlite3.connect(f"{path.absolute().as_uri()}?{mode}", uri=True, timeout=30)) as connection:
        connection.text_factory = lambda text: text.decode("utf-8", "surrogateescape")
        names = dict(connection.execute("SELECT image_id, name FROM images"))
        rows = dict(connection.execute("SELECT image_id, rows FROM keypoints"))
        keypoints.update((name, rows.get(key, keypoints.get(name))) for key, name in names.items())
        matches = dict(connection.execute("SELECT pair_id, rows FROM matches"))
        verified = dict(connection.execute("SELECT pair_id, rows FROM two_view_geometries"))
        judged = _judged(connection)
    for pair in sorted({*matches, *verified}):
        ends = sorted(names[each] for each in pair_of(pair) if each in names)
        if len(ends) == 2:
            name0, name1 = ends
            yield PairRow(name0, name1, matches.get(pair), verified.get(pair), **judged.get(pair, {}))


def _judged(connection: sqlite3.Connection) -> dict[int, dict[str, Any]]:
    """What is said of the pairs that were dropped or are doubtful, as fields of `PairRow`."""
    if not connection.execute("SELECT name FROM sqlite_master WHERE name = 'lightglue_judged'").fetchall():
        return {}
    rows = connection.execute("SELECT pair_id, inliers, reason, doubtful FROM lightglue_judged")
    return {
        pair: {"judged": "doubtful" if reason is None else "dropped", "reason": reason, "inliers": inliers}
        for pair, inliers, reason, doubtful in rows
        if reason is not None or doubtful
    }
