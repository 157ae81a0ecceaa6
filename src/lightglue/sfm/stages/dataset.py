"""A map for other programs: its largest model beside images that fit it.

    MAP/dataset/images/       each image of the model as it is shown: a link to its file, or an upright copy as PNG
    MAP/dataset/sparse/0/     the model, with the names of these files
    MAP/dataset/dataset.json  what was made of which file

The world of a map is that of the images as they are shown, with EXIF's orientation. COLMAP's tools, gsplat and
nerfstudio take files as they are stored, and do not know every format: to them these are other images.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Collection, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lightglue.errors import ImageError, InputError, StoreError
from lightglue.images.copies import PlainFile, plain_file, upright_png
from lightglue.sfm.colmap.models import deregister, open_model, registered, write_model
from lightglue.sfm.colmap.undistort import undistort_images
from lightglue.sfm.folder import DATASET_RECORD, MapFolder, check_dataset, remove_tree
from lightglue.sfm.options import DatasetMode
from lightglue.sfm.skipped import Skipped, names_of
from lightglue.stores import FeatureStore
from lightglue.support.files import read_json, write_json, write_whole, writing

__all__ = ["DatasetResult", "dataset_summary", "undistort", "write_dataset"]


@dataclass(frozen=True)
class DatasetResult:
    """What came of it."""

    folder: Path | None  # of `images` and `sparse/0`; None where none was written
    linked: int = 0  # images whose files are taken as they are
    turned: int = 0  # copies of images that EXIF turns
    converted: int = 0  # copies of images in formats that others do not read
    skipped: tuple[Skipped, ...] = ()

    def __str__(self) -> str:
        """In words."""
        parts = {"turned upright, as PNG": self.turned, "converted to PNG": self.converted, "linked": self.linked}
        said = ", ".join(f"{count:,} {what}" for what, count in parts.items() if count)
        return f"the model and its images for COLMAP's tools, gsplat and nerfstudio ({said})"


def write_dataset(
    paths: MapFolder, images: Path, mode: DatasetMode = "always", leave_out: Collection[str] = ()
) -> DatasetResult:
    """Write the dataset of a map, or bring the one that is there up to date.

    images: the folder of the images. mode: "auto" writes one where EXIF turns an image of the model, and says so once
    where other programs do not know a format; "never" and an "auto" without need remove what is there. leave_out: names
    of images that are known to be of no use.

    Images whose files are gone or have another size than the model's cameras are left out, and reported.

    Without a model none is written. Raises InputError where the folder holds something else; StoreError where something
    cannot be written.
    """
    check_dataset(paths, images)
    plan = _Plan({}, []) if mode == "never" or not paths.largest.is_dir() else _plan(paths, images, leave_out)
    if mode != "always" and not (mode == "auto" and any(file.orientation != 1 for file in plan.files.values())):
        with writing(paths.dataset):
            remove_tree(paths.dataset)
        return DatasetResult(None, skipped=_unknown_formats(plan.files))
    if not plan.files:
        return DatasetResult(None, skipped=tuple(plan.skipped))
    with writing(paths.dataset):
        return _written(paths, images, plan)


@dataclass(frozen=True)
class _Plan:
    """What is there."""

    files: dict[str, PlainFile]  # of the images of the model, by name
    skipped: list[Skipped]
    stretch: bool = False  # values of more than 8 bits were spread when the images were read


def _plan(paths: MapFolder, images: Path, leave_out: Collection[str]) -> _Plan:
    stretch = paths.features.is_dir() and FeatureStore.open(paths.features, read_only=True).stretch
    plan = _Plan({}, [], stretch)
    model = open_model(paths.largest)
    for image in registered(model):
        name, camera = str(image.name), model.camera(image.camera_id)
        try:
            file = plain_file(images / name, stretch)
        except ImageError as error:
            plan.skipped.append(Skipped(name, f"the dataset is without it: {' '.join(str(error).split())}"))
            continue
        size = (int(camera.width), int(camera.height))
        if name in leave_out:
            plan.skipped.append(Skipped(name, "the dataset is without it: COLMAP cannot read its file"))
        elif file.size != size:
            plan.skipped.append(Skipped(name, _other_size(file.size, size)))
        else:
            plan.files[name] = file
    return plan


def _other_size(found: tuple[int, int], size: tuple[int, int]) -> str:
    return (
        f"the dataset is without it: its file has {found[0]} x {found[1]} px now and had {size[0]} x {size[1]}; "
        "run `lightglue sfm` again"
    )


def _unknown_formats(files: Mapping[str, PlainFile]) -> tuple[Skipped, ...]:
    """One warning of the images that other programs do not read."""
    names = [name for name, file in files.items() if not file.is_common]
    if not names:
        return ()
    kinds = ", ".join(sorted({files[name].kind for name in names}))
    reason = f"COLMAP's tools do not read {kinds}; `lightglue map dataset MAP` writes the images as PNG for them"
    return (Skipped(names_of(names), reason, is_used=True),)


def _written(paths: MapFolder, images: Path, plan: _Plan) -> DatasetResult:
    folder, skipped = paths.dataset / "images", list(plan.skipped)
    before = _record(paths)
    write_json(paths.dataset / DATASET_RECORD, {"images": before})  # says whose the folder is from the beginning
    targets = _targets(plan.files)
    _remove_others(folder, set(targets.values()))
    made: dict[str, Any] = {}
    for name, file in plan.files.items():
        source, target = images / name, folder / targets[name]
        if file.suffix is not None:
            _link(source, target)
            made[name] = [targets[name]]
            continue
        if target.is_symlink() or [targets[name], *_stat(source), *_stat(target)] != before.get(name):
            try:
                content = upright_png(source, plan.stretch)
            except ImageError as error:
                skipped.append(Skipped(name, f"the dataset is without it: {' '.join(str(error).split())}"))
                continue
            _clear(target)
            write_whole(target, content)
        made[name] = [targets[name], *_stat(source), *_stat(target)]
    _write_model(paths, {name: targets[name] for name in made})
    copies = [plan.files[name] for name in made if plan.files[name].suffix is None]
    turned = sum(file.orientation != 1 for file in copies)
    result = DatasetResult(paths.dataset, len(made) - len(copies), turned, len(copies) - turned, tuple(skipped))
    write_json(paths.dataset / DATASET_RECORD, {"images": made, "summary": str(result)})
    return result


def dataset_summary(paths: MapFolder) -> str:
    """What the dataset of a map holds, in words; empty where there is none."""
    with suppress(OSError, StoreError):
        return str(read_json(paths.dataset / DATASET_RECORD).get("summary", ""))
    return ""


def _stat(path: Path) -> tuple[int, int]:
    """The size of a file and when it was changed, ns; zeros where there is none."""
    try:
        stat = path.stat()
    except OSError:
        return 0, 0
    return stat.st_size, stat.st_mtime_ns


def _record(paths: MapFolder) -> dict[str, Any]:
    """What was made of which file; nothing where the record is damaged."""
    with suppress(OSError, StoreError):
        found = read_json(paths.dataset / DATASET_RECORD).get("images")
        return found if isinstance(found, dict) else {}
    return {}


def _targets(files: Mapping[str, PlainFile]) -> dict[str, str]:
    """How the file of each image is called there: as in the map, but for the suffix of what is not what it says."""
    targets = {name: name for name, file in files.items() if file.suffix == ""}
    taken = {name.casefold() for name in files}
    for name, file in files.items():
        if name not in targets:
            suffix = ".png" if file.suffix is None else file.suffix
            target = name + suffix
            if file.suffix is None and name.lower().endswith(".png"):
                target = name  # a copy of a PNG is one
            while target != name and target.casefold() in taken:
                target = f"{target.removesuffix(suffix)}_{suffix}"
            taken.add(target.casefold())
            targets[name] = target
    return targets


def _remove_others(folder: Path, wanted: set[str]) -> None:
    """Remove the files of images that are in the model no longer."""
    for path in sorted(folder.rglob("*"), reverse=True):
        if path.is_dir() and not path.is_symlink():
            with suppress(OSError):
                path.rmdir()  # where it is empty
        elif path.relative_to(folder).as_posix() not in wanted:
            path.unlink()


def _clear(target: Path) -> None:
    """Make room for a file: without following a link, and with the folder that it is in."""
    target.parent.mkdir(parents=True, exist_ok=True)
    target.unlink(missing_ok=True)


def _link(source: Path, target: Path) -> None:
    """A link to an image's file, relative so that map and images can be moved together; a copy where none can be."""
    _clear(target)
    source = source.resolve()
    try:
        target.symlink_to(os.path.relpath(source, target.parent.resolve()))
    except (OSError, NotImplementedError, ValueError):  # ValueError: on another drive
        try:
            os.link(source, target)
        except OSError:
            shutil.copyfile(source, target)


def _write_model(paths: MapFolder, targets: Mapping[str, str]) -> None:
    """The largest model with these images only, under the names of their files."""
    model = open_model(paths.largest)
    deregister(model, [str(image.name) for image in registered(model) if str(image.name) not in targets])
    for image in registered(model):
        image.name = targets[str(image.name)]
    part, place = paths.dataset / ".sparse.part", paths.dataset / "sparse"
    remove_tree(part)
    write_model(model, part / "0")
    remove_tree(place)
    part.replace(place)


def undistort(
    map_folder: str | os.PathLike[str], out: str | os.PathLike[str], max_size: int | None = None
) -> DatasetResult:
    """Undistort the images of a map's largest model, and the model, for dense reconstruction.

    Args:
        map_folder: of the map, whose dataset is brought up to date first.
        out: a new or empty folder, which becomes COLMAP's workspace: `images`, `sparse`, `stereo`.
        max_size: px of the longer edge; larger images are shrunk. None: none is.

    Raises InputError for folders that will not do, StoreError for what cannot be written, LightGlueError for what fails
    in COLMAP.
    """
    paths, out = MapFolder(Path(map_folder)), Path(out)
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise InputError(f"{out} exists and is not empty; name a new folder.")
    images = paths.read().images
    part, broken = out.parent / f".{out.name}.part", set[str]()
    with writing(out):
        try:
            while True:
                done = write_dataset(paths, images, leave_out=broken)
                if done.folder is None:
                    raise InputError(f"There is no model in {paths.folder} with images in {images}; make it first.")
                remove_tree(part)
                part.mkdir(parents=True)
                undistort_images(done.folder / "sparse/0", done.folder / "images", part, max_size)
                missing = _missing(paths, part)
                if not missing - broken:
                    break
                broken |= missing
            if out.exists():
                out.rmdir()
            part.replace(out)
        finally:
            remove_tree(part)
    return done


def _missing(paths: MapFolder, dense: Path) -> set[str]:
    """The images, by their names in the map, of which COLMAP wrote none."""
    names = {about[0]: name for name, about in _record(paths).items()}
    model = open_model(dense / "sparse")
    there = {str(image.name) for image in registered(model)}
    return {name for target, name in names.items() if target not in there or not (dense / "images" / target).is_file()}
