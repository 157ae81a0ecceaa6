"""The images that a command is given: a folder with all that is in it, or those of a list, under a folder."""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from lightglue.errors import InputError
from lightglue.geometry.intrinsics import Intrinsics
from lightglue.geometry.orientation import fitted
from lightglue.sfm.colmap.image_lists import ImageList, is_model, is_of_a_map, read_image_list, write_image_list
from lightglue.sfm.folder import MapFolder
from lightglue.sfm.skipped import Skipped
from lightglue.sfm.stages.images import list_images, looks_like_image
from lightglue_runtime.images.exif import orientation_of
from lightglue_runtime.images.sizes import size_in_file

__all__ = [
    "Given",
    "change_list",
    "given_images",
    "given_list",
    "images_beside",
    "listed_names",
    "name_under",
    "place_of",
    "relist",
]


@dataclass(frozen=True)
class Given:
    """Images under a folder."""

    folder: Path
    names: tuple[str, ...] | None = None  # paths under the folder, in the list's order; None: all that lie there
    cameras: Mapping[str, Intrinsics] = field(
        default_factory=dict
    )  # that the list has, of the images as they are shown
    skipped: tuple[Skipped, ...] = ()  # of the list, under the names that it has


def given_images(images: Path, root: Path | None = None) -> Given:
    """What `images` stands for.

    Args:
        images: a folder of images, read with its subfolders; or a list, as `read_image_list` reads it, whose names are
            paths from `root`, by default from the folder that the list lies in.
        root: with a list or a COLMAP model alone.

    Raises InputError for a list that is none, or none of whose images is there.
    """
    if images.is_dir() and root is None:
        if is_model(images):
            images_beside(images)  # if there are none, the model may be meant
        return Given(images)
    folder, listed = given_list(images, root)
    names: dict[str, str] = {}
    skipped = [Skipped(name, fault) for name, fault in listed.faults.items()]
    for name in listed.names:
        found = name_under(folder, name)
        if found is None:
            skipped.append(Skipped(name, f"it does not lie in {folder}; name the root of all images in the list"))
        elif name not in listed.faults:
            names.setdefault(found, name)
    cameras: dict[str, Intrinsics] = {}
    is_upright = is_of_a_map(images)
    for name, raw in list(names.items()):
        size = size_in_file(folder / name) if raw in listed.cameras else None
        if size is None:  # there is no camera, or no image
            continue
        orientation = 1 if is_upright else orientation_of(folder / name)
        try:
            cameras[name] = fitted("its camera", listed.cameras[raw], size, orientation)
        except InputError as error:
            skipped.append(Skipped(raw, str(error)))
            del names[name]
    return Given(folder, tuple(names), cameras, tuple(skipped))


def images_beside(folder: Path) -> tuple[list[str], tuple[Skipped, ...]]:
    """`list_images`, whose error says what to do with a COLMAP model."""
    try:
        return list_images(folder)
    except InputError as error:
        if not is_model(folder):
            raise
        raise InputError(f"{folder} is a COLMAP model; name the folder of its images as root (--root).") from error


def given_list(path: Path, root: Path | None = None) -> tuple[Path, ImageList]:
    """A list of images, and the folder that its names are relative to: `root`, by default the list's own.

    Raises InputError for a list that is none, or none of whose images is there.
    """
    if path.is_dir() and not is_model(path):
        raise InputError(f"{path} is a folder of images, which has no other root; leave root out, or name a list.")
    if not path.exists():
        raise InputError(f"The folder of images or the list {path} does not exist; check the path.")
    if not path.is_dir() and looks_like_image(path):
        raise InputError(f"{path} is a picture; name the folder that it is in, or a list of images.")
    folder = path.parent if root is None else root
    if not folder.is_dir():
        raise InputError(f"{folder}, the root of the list {path}, is no folder; name the folder of its images.")
    listed = read_image_list(path)
    if not any(os.path.exists(place_of(folder, name)) for name in listed.names):
        which = f"None of the {len(listed.names)} images in the list {path}, such as {listed.names[0]!r},"
        if len(listed.names) == 1:
            which = f"{listed.names[0]!r}, the only image in the list {path}, is not there: nothing of that name"
        raise InputError(f"{which} is in {folder}; name the folder that names are relative to as root (--root).")
    return folder, listed


def place_of(folder: Path, name: str) -> Path:
    r"""The path of an image of a list, as it stands or from `folder`; \ is / where there is no such file."""
    path = folder / name
    return folder / name.replace("\\", "/") if "\\" in name and not path.exists() else path


def name_under(folder: Path, name: str) -> str | None:
    """The name that an image of a list has under a folder, without . and ..; None where it lies elsewhere."""
    path = os.path.abspath(place_of(folder, name))
    for inside, top in ((path, os.path.abspath(folder)), (os.path.realpath(path), os.path.realpath(folder))):
        if inside.startswith(top.rstrip(os.sep) + os.sep):
            return Path(inside).relative_to(top).as_posix()
    return None


def listed_names(paths: MapFolder) -> frozenset[str] | None:
    """The images that a map is made of; None for all of its folder."""
    if not paths.listed.exists():
        return None
    return frozenset(_read(paths).names)


def change_list(paths: MapFolder, added: Collection[str] = (), removed: Collection[str] = ()) -> None:
    """Add images to those that a map is made of, or take some out. Raises StoreError."""
    if paths.listed.exists():
        listed = _read(paths)
        names = [name for name in dict.fromkeys([*listed.names, *added]) if name not in removed]
        write_image_list(paths.listed, ImageList(tuple(names), listed.cameras))


def _read(paths: MapFolder) -> ImageList:
    listed = read_image_list(paths.listed)
    cameras = {name.removeprefix("./"): camera for name, camera in listed.cameras.items()}
    return ImageList(tuple(name.removeprefix("./") for name in listed.names), cameras)


def relist(paths: MapFolder, given: Given) -> None:
    """Remember which images a map is made of, and their cameras. Raises StoreError."""
    if given.names is None:
        paths.listed.unlink(missing_ok=True)
    else:
        write_image_list(paths.listed, ImageList(given.names, given.cameras))
