"""Which camera took which image: from EXIF, from what the user knows, or guessed.

Intrinsics here are those of the image as it is read, its EXIF orientation applied.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from lightglue.errors import InputError
from lightglue.geometry.cameras import Camera
from lightglue.geometry.colmap_cameras import camera_from_colmap, camera_to_colmap
from lightglue.geometry.exif_focal import focal_from_exif
from lightglue.geometry.intrinsics import GUESSED_FOCAL, MODELS, Intrinsics
from lightglue.geometry.orientation import fitted
from lightglue.images.focal import StatedFocal
from lightglue.sfm.colmap.image_lists import is_of_a_map, read_image_list, single_camera
from lightglue.sfm.colmap.with_pycolmap import pycolmap, quiet
from lightglue.sfm.options import CameraMode, CameraOptions
from lightglue.sfm.skipped import Skipped
from lightglue.support.progress import Progress
from lightglue.support.text import read_json_text, read_text
from lightglue_runtime.images.exif import orientation_of

__all__ = [
    "Assignment",
    "CameraOptions",
    "assign_cameras",
    "check_cameras",
    "exif_focal",
    "guessed_camera",
    "read_table",
]

MODEL = "SIMPLE_RADIAL"


@dataclass(frozen=True)
class Assignment:
    """The cameras of some images."""

    cameras: tuple[Intrinsics, ...]
    of_image: Mapping[str, int]  # which of them, by name
    faults: tuple[Skipped, ...] = ()  # images whose EXIF is not believed


def assign_cameras(
    sizes: Mapping[str, tuple[int, int]],
    images: Path | None,
    options: CameraOptions | None = None,
    progress: Progress = lambda done, total: None,
    focals: Mapping[str, StatedFocal] | None = None,
) -> Assignment:
    """Give each image its camera.

    Args:
        sizes: width and height in px of each image, EXIF orientation applied, by its name.
        images: the folder that the names are relative to, whose files' EXIF is read. None: it is not.
        options: None for the defaults.
        progress: called with how many images are done, of how many.
        focals: what the EXIF of images says that are in no folder, by name.

    Raises InputError for options that do not fit the images: a camera of another size, images of different sizes that
    are to share one, a table that cannot be read.
    """
    options = options or CameraOptions()
    known = read_table(Path(options.table), sizes, images) if options.table is not None else {}
    if options.known is not None and options.size is not None and images is not None:
        known |= _turned(options.known, sizes, images)
    keys: dict[tuple[Any, ...], list[str]] = {}
    stated: dict[str, float | None] = {}
    faults: list[Skipped] = []
    for count, name in enumerate(sorted(sizes), 1):
        if name in known:
            key: tuple[Any, ...] = ("known", known[name])
            if options.mode == "per_image":
                key += (name,)
        else:
            said = (focals or {}).get(name, StatedFocal())
            if options.params is None and images is not None:
                said = exif_focal(images / name, sizes[name])
            stated[name], fault = said
            faults += [] if fault is None else [Skipped(name, fault, is_used=True)]
            key = _key(options.mode, name, sizes[name], stated[name])
        keys.setdefault(key, []).append(name)
        progress(count, len(sizes))
    cameras: list[Intrinsics] = []
    of_image: dict[str, int] = {}
    for key, names in keys.items():
        made = key[1] if key[0] == "known" else _camera(names, sizes, stated, options)
        of_image |= dict.fromkeys(names, len(cameras))
        cameras.append(made)
    return Assignment(tuple(cameras), of_image, tuple(faults))


def check_cameras(sizes: Mapping[str, tuple[int, int]], options: CameraOptions, images: Path) -> None:
    """Raises InputError for options that cannot fit images of these sizes, as for `assign_cameras`."""
    if not sizes:
        return
    known: Mapping[str, Intrinsics] = {}
    if options.table is not None:
        known = read_table(Path(options.table), sizes, images)
        if missing := sorted(set(sizes) - set(known)):
            raise InputError(
                f"{options.table} has no camera of {len(missing)} of the {len(sizes)} images, such as {missing[0]!r}; "
                "add them, or give a list of the images that it has."
            )
    if options.known is not None and options.size is not None:
        known = _turned(options.known, sizes, images)
    if options.params is not None or options.mode in ("single", "per_folder"):
        mode = options.mode if options.params is None else "single"
        groups: dict[tuple[Any, ...], list[str]] = {}
        for name in sorted(set(sizes) - set(known)):
            groups.setdefault(_key(mode, name, sizes[name], None), []).append(name)
        for names in groups.values():
            _shared_size(names, sizes, options)


def _turned(camera: Intrinsics, sizes: Mapping[str, tuple[int, int]], images: Path) -> dict[str, Intrinsics]:
    """A camera with a size, as it is of those images that their EXIF turns."""
    found = {name: orientation for name in sizes if (orientation := orientation_of(images / name)) != 1}
    return {
        name: fitted(f"The camera of {name!r}", camera, sizes[name], orientation) for name, orientation in found.items()
    }


def _key(mode: CameraMode, name: str, size: tuple[int, int], focal: float | None) -> tuple[Any, ...]:
    """What images that share a camera have in common."""
    folder = name.rpartition("/")[0]
    keys: dict[str, tuple[Any, ...]] = {
        "single": ("single",),
        "per_folder": ("per_folder", folder),
        "per_image": ("per_image", name),
        "auto": ("auto", folder, size, None if focal is None else round(focal, 2)),
    }
    return keys[mode]


def _camera(
    names: list[str],
    sizes: Mapping[str, tuple[int, int]],
    focals: Mapping[str, float | None],
    options: CameraOptions,
) -> Intrinsics:
    """The camera of images that share one."""
    size = _shared_size(names, sizes, options)
    model = options.model or MODEL
    if options.known is not None:
        return replace(options.known, size=size).check()
    focal = next((focal for name in names if (focal := focals[name]) is not None), None)
    return guessed_camera(model, focal or GUESSED_FOCAL * max(size), size, focal is not None)


def _shared_size(names: list[str], sizes: Mapping[str, tuple[int, int]], options: CameraOptions) -> tuple[int, int]:
    """Of images that share a camera. Raises InputError where they cannot."""
    size = sizes[names[0]]
    if options.params is not None and options.size is not None and options.size != size:
        raise InputError(
            f"The camera is of images of {options.size[0]} x {options.size[1]} px, and {names[0]!r} has "
            f"{size[0]} x {size[1]} px; give the camera of these very images."
        )
    other = next((name for name in names if sizes[name] != size), None)
    if other is not None:
        remedy = f"choose another mode than {options.mode}"
        if options.params is not None:
            remedy = "give the cameras of each in a table"
        raise InputError(
            f"{names[0]!r} has {size[0]} x {size[1]} px and {other!r} {sizes[other][0]} x {sizes[other][1]} px: they "
            f"cannot share a camera; {remedy}."
        )
    return size


def guessed_camera(model: str, focal: float, size: tuple[int, int], has_prior_focal: bool) -> Intrinsics:
    """A camera without distortion whose principal point is the centre of the image. focal, size: px."""
    camera_to_colmap(Intrinsics(model, size, (1.0,) * len(MODELS.get(model, ()))))  # which checks the model
    make = getattr(pycolmap.Camera, "create_from_model_name", None)
    if make is not None:
        camera = make(1, model, focal, *size)
    else:
        camera = pycolmap.Camera.create(1, getattr(pycolmap.CameraModelId, model), focal, *size)
    camera.has_prior_focal_length = has_prior_focal
    return camera_from_colmap(camera, is_fixed=False)


def exif_focal(source: str | os.PathLike[str] | bytes | bytearray | memoryview, size: tuple[int, int]) -> StatedFocal:
    """The focal length in px that the EXIF of a file, its path or content, states of an image of `size`, px.

    None where it states none, or there is no such file: features are there without it.
    """
    with quiet():
        return focal_from_exif(source, size)


def read_table(path: Path, sizes: Mapping[str, tuple[int, int]], images: Path | None = None) -> dict[str, Intrinsics]:
    """The cameras of those images of `sizes` that a table names, as they are of the images as they are shown.

    images: the folder of the images, whose EXIF says how they are turned. Cameras of COLMAP's and hloc's lists and of
    COLMAP's models are turned with them, unless they are those of one of our maps.

    Raises InputError for a table that cannot be read or does not fit.
    """
    if not path.exists():
        raise InputError(f"There is no table of cameras at {path}; check the path.")
    is_json = not path.is_dir() and _is_json(path)
    cameras = _from_json(path, sizes) if is_json else _listed(path, sizes)
    if sizes and not cameras:
        raise InputError(f"{path} names none of the images, such as {min(sizes)!r}; use their names in it.")
    is_upright = images is None or is_json or is_of_a_map(path)
    for name, camera in cameras.items():
        orientation = 1 if images is None or is_upright else orientation_of(images / name)
        cameras[name] = fitted(f"The camera of {name!r} in {path}", camera, sizes[name], orientation)
    return cameras


def _listed(path: Path, sizes: Mapping[str, tuple[int, int]]) -> dict[str, Intrinsics]:
    """The cameras of a list or a model, or the only one of a cameras.txt for all."""
    if not path.is_dir() and path.name != "images.txt" and (camera := single_camera(path)) is not None:
        return dict.fromkeys(sizes, camera)
    listed = read_image_list(path)
    for name, fault in listed.faults.items():
        if name in sizes or not sizes:
            raise InputError(f"{path}, {name}: {fault}")
    if not listed.cameras:
        raise InputError(f"{path} has no cameras; give NAME MODEL WIDTH HEIGHT PARAMS a line, or a COLMAP model.")
    cameras = {name.removeprefix("./"): camera for name, camera in listed.cameras.items()}
    return {name: camera for name, camera in cameras.items() if name in sizes}


def _is_json(path: Path) -> bool:
    """Whether a table is JSON, by its name or how it begins."""
    try:
        return path.suffix.lower() == ".json" or read_text(path).lstrip().startswith(("{", "["))
    except OSError:
        return True  # whose reader says it


def _from_json(path: Path, sizes: Mapping[str, tuple[int, int]]) -> dict[str, Intrinsics]:
    try:
        table = read_json_text(path)
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"{path} cannot be read ({error}); give JSON: {{image name: K}}.") from error
    if not isinstance(table, dict):
        raise InputError(f"{path} holds a {type(table).__name__}; give an object: {{image name: K}}.")
    return {name: _from_matrix(f"{path}: {name!r}", table[name], sizes[name]) for name in table if name in sizes}


def _from_matrix(what: str, matrix: Any, size: tuple[int, int]) -> Intrinsics:
    try:
        K = Camera(matrix).K
    except InputError as error:
        raise InputError(f"{what}: {error}") from error
    if abs(K[0, 1]) > 1e-9:
        raise InputError(f"{what} has a skew of {K[0, 1]}, which COLMAP's cameras have not; undistort the image.")
    return Intrinsics("PINHOLE", size, (K[0, 0].item(), K[1, 1].item(), K[0, 2].item(), K[1, 2].item()))
