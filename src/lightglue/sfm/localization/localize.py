"""The poses of many images in a map, into files.

OUT/queries.jsonl    what came of each query, an object a line, behind one that says what they were made with
OUT/poses.txt        name qw qx qy qz tx ty tz: from the world to the camera; those that were found
OUT/failures.txt     name TAB reason
"""

from __future__ import annotations

import hashlib
import json
import os
import zlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lightglue.errors import ImageError, InputError
from lightglue.geometry.intrinsics import Intrinsics
from lightglue.matching.effort import Effort
from lightglue.models.choice import Models
from lightglue.pairs.hard.options import check_max_seconds
from lightglue.sfm.colmap.cameras import check_cameras, read_table
from lightglue.sfm.folder import MapFolder
from lightglue.sfm.localization.localizer import Localization, LocalizeOptions, Localizer
from lightglue.sfm.options import CameraOptions
from lightglue.sfm.skipped import Skipped, reason_of
from lightglue.sfm.stages.given import given_list, images_beside, place_of
from lightglue.sfm.stages.images import looks_like_image
from lightglue.stores.settings import as_read, differences
from lightglue.support.files import write_whole, writing
from lightglue.support.memory import is_out_of_memory
from lightglue.support.printable import printable
from lightglue.support.progress import Progress
from lightglue_runtime.images.sizes import size_in_file

__all__ = ["LocalizeResult", "localize"]

FORMAT = 1


@dataclass(frozen=True)
class LocalizeResult:
    """What became of the queries."""

    queries: int
    localized: int
    kept: int  # that were done by an earlier run
    seconds: float
    failures: tuple[Skipped, ...]  # and the reason of each
    faults: tuple[Skipped, ...] = ()  # queries whose EXIF is not believed
    skipped: tuple[Skipped, ...] = ()  # files in a folder of queries that look like images and are not read
    remarks: tuple[str, ...] = ()  # what is to be known of the model, in sentences; empty where no query was done


def localize(
    map_folder: str | os.PathLike[str],
    queries: str | os.PathLike[str],
    out: str | os.PathLike[str],
    options: LocalizeOptions | None = None,
    *,
    models: Models | None = None,
    cameras: Any = None,
    root: str | os.PathLike[str] | None = None,
    progress: Progress = lambda done, total: None,
) -> LocalizeResult:
    """Find the poses of images in a map.

    Args:
        queries: a folder of images, an image, or a list: a text file with a name a line as COLMAP has it, or NAME MODEL
            WIDTH HEIGHT PARAMS... as hloc has it, or a COLMAP model. Results have the names that stand there.
        out: a folder. A run that was killed goes on where it stopped, and ends with the same files.
        cameras: one for all, or a mapping from names, each as `Localizer.localize` takes it; or the path of a table as
            `lightglue.sfm.colmap.cameras.read_table` reads it; None: those of the list, or not known.
        root: the folder that the names of a list are relative to; by default the one that the list lies in.

    A query that cannot be read, or localized, is in `failures`, and the others are done.

    Raises InputError for queries, options or an `out` that make no sense; StoreError for files that are damaged or
    cannot be written.
    """
    begin = perf_counter()
    options, out = options or LocalizeOptions(), Path(out)
    if models is not None:  # before the queries are read; a map's own models are known after
        check_max_seconds(options.max_seconds, models.effort)
    asked = _queries(Path(queries), None if root is None else Path(root)).with_cameras(cameras)
    names = asked.names
    journal = _Journal(out / "queries.jsonl", as_read(_header(MapFolder(Path(map_folder)), options, models)))
    done = {name: found for name, found in journal.read().items() if name in names}
    journal.begin(done)
    kept, localizer = 0, None
    for count, name in enumerate(names, 1):
        path, camera = place_of(asked.folder, name), asked.cameras.get(name)
        made_of = _made_of(path, camera)
        if name in done and done[name]["made_of"] == made_of and name not in asked.faults:
            kept += 1
        else:
            found = _failed(asked.faults[name]) if name in asked.faults else None
            if found is None:
                localizer = localizer or Localizer.open(map_folder, models, options)
                found = _localized(localizer, path, camera)
            done[name] = {"name": name, "made_of": made_of, **found}
            journal.add(done[name])
        progress(count, len(names))
    journal.begin({name: done[name] for name in names})  # in the order of the queries, whatever a kill left
    failures = tuple(Skipped(name, done[name]["failure"]) for name in names if not done[name]["success"])
    faults = tuple(Skipped(name, fault, is_used=True) for name in names if (fault := done[name].get("fault")))
    _write(out, [done[name] for name in names])
    counts = len(names), len(names) - len(failures), kept
    remarks = localizer.remarks if localizer is not None else ()
    return LocalizeResult(*counts, perf_counter() - begin, failures, faults, asked.skipped, remarks)


def _header(folder: MapFolder, options: LocalizeOptions, models: Models | None) -> dict[str, Any]:
    """Of the journal: the model, and what decides poses in it. models: None for the map's own."""
    chosen = models or folder.read().models
    check_max_seconds(options.max_seconds, chosen.effort)
    weights = {} if chosen.own is None else {"weights": chosen.own.sha256}
    return {"format": FORMAT, "model": _digest(folder.model), **_decisive(options, chosen.effort), **weights}


def _decisive(options: LocalizeOptions, effort: Effort = "normal") -> dict[str, Any]:
    """What decides the poses, for the journal: without what is as usual, of which earlier versions do not say."""
    fields = asdict(options)
    if options.refine is None:
        del fields["refine"]
    if effort != "hard":
        del fields["max_seconds"]
    return {"options": fields, **({} if effort == "normal" else {"effort": effort})}


def _localized(localizer: Localizer, path: Path, camera: Any) -> dict[str, Any]:
    try:
        found = localizer.localize(path, camera)
        return _as_json(found) | ({} if localizer.options.refine is None else {"num_refined": found.num_refined})
    except (ImageError, InputError) as error:  # StoreError is the map's fault, not the query's
        return _failed(reason_of(error, path))
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        return _failed("there is not enough memory for this image; shrink it")


def _failed(reason: str) -> dict[str, Any]:
    return {"success": False, "failure": printable(reason)}


def _as_json(found: Localization) -> dict[str, Any]:
    pose, camera = found.cam_from_world, found.camera
    return {
        "success": found.success,
        "failure": found.failure,
        "cam_from_world": None if pose is None else pose.tolist(),
        "K": None if camera is None else camera.K.tolist(),
        "num_matches": found.num_matches,
        "num_inliers": found.num_inliers,
        "images": list(found.images),
        "fault": found.fault,
    }


@dataclass(frozen=True)
class _Queries:
    """The images whose poses are asked for."""

    folder: Path  # that the names are relative to
    names: list[str]
    cameras: Mapping[str, Any] = field(default_factory=dict)  # by name, of those that have one
    faults: Mapping[str, str] = field(default_factory=dict)  # why a query's camera is none, by name
    skipped: tuple[Skipped, ...] = ()  # files in a folder that look like images and are not read

    def with_cameras(self, given: Any) -> _Queries:
        """With cameras that were given besides. Raises InputError where they cannot fit, before anything is done."""
        if given is None:
            return self
        if self.cameras or self.faults:
            raise InputError("The list of queries has cameras, and others are given besides; give one of the two.")
        if isinstance(given, Mapping):
            return replace(self, cameras=given)
        if not isinstance(given, (str, os.PathLike)):
            self._check_size(given)
            return replace(self, cameras=dict.fromkeys(self.names, given))
        options, sizes = CameraOptions(table=os.fspath(given)), self._sizes()
        check_cameras(sizes, options, self.folder)
        return replace(self, cameras=read_table(Path(given), sizes, self.folder))

    def _check_size(self, camera: Any) -> None:
        """Raises InputError where no query has the size of the camera's images."""
        size = camera.size if isinstance(camera, Intrinsics) else None
        sizes = self._sizes() if size is not None else {}
        if size is not None and sizes and not {size, size[::-1]} & set(sizes.values()):  # EXIF may turn the camera
            name, own = min(sizes.items())
            raise InputError(
                f"The camera is of images of {camera.width} x {camera.height} px and no query has that size: {name!r} "
                f"has {own[0]} x {own[1]} px. Give the camera of these very images."
            )

    def _sizes(self) -> dict[str, tuple[int, int]]:
        """Width and height in px of those whose files say it, by their headers."""
        found = {name: size_in_file(place_of(self.folder, name)) for name in self.names}
        return {name: size for name, size in found.items() if size is not None}


def _queries(queries: Path, root: Path | None = None) -> _Queries:
    """The queries that a user names. Raises InputError."""
    if queries.is_dir() and root is None:
        names, skipped = images_beside(queries)
        return _Queries(queries, names, skipped=skipped)
    if not queries.is_dir() and looks_like_image(queries):
        return _Queries(queries.parent, [queries.name])
    folder, listed = given_list(queries, root)
    return _Queries(folder, list(listed.names), listed.cameras, listed.faults)


def _digest(model: Path) -> str:
    """Of a model: poses in another one mean something else."""
    digest = hashlib.blake2b(digest_size=8)
    for path in sorted(model.glob("*.bin")) if model.is_dir() else []:
        digest.update(path.name.encode() + path.read_bytes())
    return digest.hexdigest()


def _made_of(path: Path, camera: Any) -> str:
    try:
        stat = os.stat(path)
        file: list[Any] = [stat.st_size, stat.st_mtime_ns]
    except OSError:
        file = []
    if camera is not None:
        from lightglue.geometry.cameras import as_camera

        known = as_camera(camera)
        file.append(hashlib.blake2b(known.K.tobytes() + repr(known.colmap).encode(), digest_size=8).hexdigest())
    return json.dumps(file)


@dataclass(frozen=True)
class _Journal:
    """The file that each result is added to once it is there."""

    path: Path
    header: dict[str, Any]

    def read(self) -> dict[str, dict[str, Any]]:
        """What is there by name; a line that a kill cut off is not. Raises InputError for that of another map."""
        try:
            lines = self.path.read_text(encoding="utf-8").split("\n")
        except (FileNotFoundError, ValueError):
            return {}
        objects = [found for line in lines if (found := _object(line)) is not None]
        if objects and objects[0].get("model") != self.header.get("model"):
            raise InputError(f"{self.path} is of another model than the map has now. Name another folder.")
        if objects and (differing := differences(objects[0], self.header)):
            raise InputError(f"{self.path} was made with others: {'; '.join(differing)[:500]}. Name another folder.")
        return {str(found["name"]): found for found in objects[1:] if "name" in found and "made_of" in found}

    def begin(self, done: Mapping[str, Any]) -> None:
        """Write the file again: the header and these."""
        lines = [_line(each) for each in (self.header, *done.values())]
        write_whole(self.path, "".join(lines).encode())

    def add(self, found: Mapping[str, Any]) -> None:
        """Add a result."""
        with writing(self.path), self.path.open("a", encoding="utf-8") as file:
            file.write(_line(found))


def _line(found: Mapping[str, Any]) -> str:
    """A line of the journal, with a checksum of the rest at its end."""
    line = json.dumps(found)
    return f'{line[:-1]}, "checksum": {zlib.crc32(line.encode())}}}\n'


def _object(line: str) -> dict[str, Any] | None:
    """What a line says; None for one that a kill cut off, or that is damaged."""
    try:
        found = json.loads(line)
    except ValueError:
        return None
    if not isinstance(found, dict):
        return None
    checksum = found.pop("checksum", None)  # earlier versions wrote none
    return found if checksum in (None, zlib.crc32(json.dumps(found).encode())) else None


def _write(out: Path, found: list[dict[str, Any]]) -> None:
    poses, failures = [], []
    for each in found:
        if each["success"]:
            T = np.array(each["cam_from_world"])
            numbers = " ".join(repr(float(value)) for value in (*quaternion(T[:3, :3]), *T[:3, 3]))
            poses.append(f"{each['name']} {numbers}\n")
        else:
            failures.append(f"{each['name']}\t{each['failure']}\n")
    write_whole(out / "poses.txt", "".join(poses).encode("utf-8", "surrogateescape"))
    write_whole(out / "failures.txt", "".join(failures).encode("utf-8", "surrogateescape"))


def quaternion(R: NDArray[np.float64]) -> NDArray[np.float64]:
    """(4,), w x y z with w >= 0, of a rotation (3, 3): the eigenvector of Bar-Itzhack's matrix (JGCD 2000)."""
    K = np.empty((4, 4))
    K[0, 0] = np.trace(R)
    K[0, 1:] = K[1:, 0] = R[2, 1] - R[1, 2], R[0, 2] - R[2, 0], R[1, 0] - R[0, 1]
    K[1:, 1:] = R + R.T - np.trace(R) * np.eye(3)
    q = np.linalg.eigh(K)[1][:, -1]
    return np.asarray(-q if q[0] < 0 else q)
