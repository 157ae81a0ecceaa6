"""The poses of many images in a map, into files.

OUT/queries.jsonl    what came of each query, an object a line, behind one that says what they were made with
OUT/poses.txt        name qw qx qy qz tx ty tz: from the world to the camera; those that were found
OUT/failures.txt     name TAB reason
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lightglue.errors import ImageError, InputError
from lightglue.models.choice import Models
from lightglue.sfm.folder import MapFolder
from lightglue.sfm.localization.localizer import Localization, LocalizeOptions, Localizer
from lightglue.sfm.skipped import Skipped
from lightglue.sfm.stages.images import list_images, looks_like_image
from lightglue.stores.settings import as_read, differences
from lightglue.support.files import write_whole, writing
from lightglue.support.memory import is_out_of_memory
from lightglue.support.progress import Progress

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


def localize(
    map_folder: str | os.PathLike[str],
    queries: str | os.PathLike[str],
    out: str | os.PathLike[str],
    options: LocalizeOptions | None = None,
    *,
    models: Models | None = None,
    cameras: Any = None,
    progress: Progress = lambda done, total: None,
) -> LocalizeResult:
    """Find the poses of images in a map.

    Args:
        queries: a folder of images, an image, or a text file with the path of an image a line, from its own folder.
        out: a folder. A run that was killed goes on where it stopped, and ends with the same files.
        cameras: one for all, or a mapping from names, each as `Localizer.localize` takes it; None: not known.

    A query that cannot be read, or localized, is in `failures`, and the others are done.

    Raises InputError for queries, options or an `out` that make no sense; StoreError for files that are damaged or
    cannot be written.
    """
    begin = perf_counter()
    options, out = options or LocalizeOptions(), Path(out)
    root, names, skipped = _queries(Path(queries))
    header = {"format": FORMAT, "model": _digest(MapFolder(Path(map_folder)).model), "options": asdict(options)}
    journal = _Journal(out / "queries.jsonl", as_read(header))
    done = {name: found for name, found in journal.read().items() if name in names}
    journal.begin(done)
    kept, localizer = 0, None
    for count, name in enumerate(names, 1):
        camera = cameras.get(name) if isinstance(cameras, Mapping) else cameras
        made_of = _made_of(root / name, camera)
        if name in done and done[name]["made_of"] == made_of:
            kept += 1
        else:
            localizer = localizer or Localizer.open(map_folder, models, options)
            done[name] = {"name": name, "made_of": made_of, **_localized(localizer, root / name, camera)}
            journal.add(done[name])
        progress(count, len(names))
    journal.begin({name: done[name] for name in names})  # in the order of the queries, whatever a kill left
    failures = tuple(Skipped(name, done[name]["failure"]) for name in names if not done[name]["success"])
    faults = tuple(Skipped(name, fault, is_used=True) for name in names if (fault := done[name].get("fault")))
    _write(out, [done[name] for name in names])
    counts = len(names), len(names) - len(failures), kept
    return LocalizeResult(*counts, perf_counter() - begin, failures, faults, skipped)


def _localized(localizer: Localizer, path: Path, camera: Any) -> dict[str, Any]:
    try:
        return _as_json(localizer.localize(path, camera))
    except (ImageError, InputError) as error:  # StoreError is the map's fault, not the query's
        return {"success": False, "failure": " ".join(str(error).split())}
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        return {"success": False, "failure": "there is not enough memory for this image; shrink it"}


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


def _queries(queries: Path) -> tuple[Path, list[str], tuple[Skipped, ...]]:
    """The folder of the queries, their names in it, and what was left out."""
    if queries.is_dir():
        return queries, *list_images(queries)
    if looks_like_image(queries):
        return queries.parent, [queries.name], ()
    try:
        lines = queries.read_text(encoding="utf-8").splitlines()
    except (OSError, ValueError) as error:
        raise InputError(
            f"The queries {queries} cannot be read ({error}); name a folder, an image or a list."
        ) from None
    names = list(dict.fromkeys(line.strip() for line in lines if line.strip() and not line.startswith("#")))
    if not names:
        raise InputError(f"There is no query in {queries}; give the path of an image a line.")
    return queries.parent, names, ()


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
        lines = [json.dumps(each) + "\n" for each in (self.header, *done.values())]
        write_whole(self.path, "".join(lines).encode())

    def add(self, found: Mapping[str, Any]) -> None:
        """Add a result."""
        with writing(self.path), self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(found) + "\n")


def _object(line: str) -> dict[str, Any] | None:
    try:
        found = json.loads(line)
    except ValueError:
        return None
    return found if isinstance(found, dict) else None


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
