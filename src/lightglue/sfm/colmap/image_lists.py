"""Which images, and which cameras took them: from lists as hloc and COLMAP write them, and from COLMAP's models."""

from __future__ import annotations

import os
import re
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from lightglue.errors import InputError, StoreError
from lightglue.geometry.colmap_text import (
    camera_from_words,
    camera_lines,
    camera_words,
    image_lines,
    is_cameras,
    is_images,
    listed_image,
)
from lightglue.geometry.intrinsics import Intrinsics
from lightglue.sfm.options import CameraOptions
from lightglue.support.files import os_reason, write_whole
from lightglue.support.text import content_lines, read_text

__all__ = [
    "ImageList",
    "is_model",
    "is_of_a_map",
    "read_image_list",
    "single_camera",
    "with_listed",
    "write_image_list",
]


@dataclass(frozen=True)
class ImageList:
    """Images, and the cameras of those of which they are known."""

    names: tuple[str, ...]  # as they stand there, each once, in this order
    cameras: Mapping[str, Intrinsics] = field(default_factory=dict)  # by name
    faults: Mapping[str, str] = field(default_factory=dict)  # why the camera of an image is none, by name


def is_model(folder: Path) -> bool:
    """Whether cameras and images of a COLMAP model lie in a folder, as .bin or .txt."""
    return any((folder / f"cameras{end}").is_file() and (folder / f"images{end}").is_file() for end in (".bin", ".txt"))


def is_of_a_map(path: Path) -> bool:
    """Whether a list or a model is that of one of our maps, whose images are as they are shown."""
    path = path.absolute()
    return (path / "map.json").is_file() or any(
        path.relative_to(each).parts[0] in ("listed.txt", "model", "models") and (each / "map.json").is_file()
        for each in path.parents[:3]
    )


def read_image_list(path: str | os.PathLike[str]) -> ImageList:
    """The images of a list, or of a model.

    Args:
        path: a text file with a name a line; or NAME MODEL WIDTH HEIGHT PARAMS... a line, as hloc has its queries, with
            COLMAP's origin; or images.txt, with cameras.txt beside it or without; or a COLMAP model's folder.

    A camera that is none is in `faults`, and the others are read. Raises InputError for what is no such list,
    StoreError for a model that is damaged.
    """
    path = Path(path)
    if path.is_dir():
        return _from_folder(path)
    text = _text(path)
    _check_seal(path)
    if is_images(text):
        cameras = path.with_name("cameras.txt")
        return _from_model_text(path, text, _text(cameras) if cameras.is_file() else "")
    if is_cameras(text):
        raise InputError(f"{path} has cameras and no images; give the folder of the model, which has both.")
    listed = [listed_image(line) for _, line in content_lines(text)]
    if not listed:
        raise InputError(f"There is no image in the list {path}; give a name a line.")
    return _assigned(listed)


def single_camera(path: Path) -> Intrinsics | None:
    """The camera of a cameras.txt that has only one; None for any other file. Raises InputError."""
    if not is_cameras(text := _text(path)):
        return None
    cameras = list(camera_lines(text).values())
    if len(cameras) == 1:
        return camera_from_words(cameras[0])
    raise InputError(
        f"{path} has {len(cameras)} cameras and does not say which took which image; give the folder of the model, "
        "with images.txt."
    )


def write_image_list(path: Path, listed: ImageList) -> None:
    """Write a list that `read_image_list` reads. Raises StoreError."""
    lines = []
    for name in listed.names:
        safe = f"./{name}" if name.startswith("#") else name
        camera = listed.cameras.get(name)
        lines.append(" ".join([safe, *([] if camera is None else camera_words(camera))]) + "\n")
    content = "".join(lines).encode("utf-8", "surrogateescape")
    write_whole(path, content + b"# checksum %d\n" % zlib.crc32(content))


def _check_seal(path: Path) -> None:
    """Raises StoreError for a list that `write_image_list` wrote, and that has changed since."""
    content = path.read_bytes()
    seal = re.search(rb"^# checksum ([0-9]+)\n\Z", content, re.MULTILINE)
    if seal and zlib.crc32(content[: seal.start()]) != int(seal[1]):
        raise StoreError(
            f"{path} is damaged (its checksum differs); `lightglue sfm` with the list writes it again. If you have "
            "changed it yourself, take out its last line."
        )


def with_listed(options: CameraOptions, listed: Path) -> CameraOptions:
    """The options with the cameras of a map's list, where it has some and the options say nothing else."""
    if options.params is not None or options.table is not None or not listed.exists():
        return options
    return replace(options, table=str(listed)) if read_image_list(listed).cameras else options


def _text(path: Path) -> str:
    try:
        return read_text(path)
    except OSError as error:
        raise InputError(f"{path} cannot be read ({os_reason(error)}); name a list of images, or a folder.") from error


def _from_folder(folder: Path) -> ImageList:
    if not is_model(folder) and is_model(folder / "model"):  # a map
        folder = folder / "model"
    if (folder / "cameras.bin").is_file() and (folder / "images.bin").is_file():
        from lightglue.sfm.colmap.models import image_camera, open_model  # which need pycolmap

        model = open_model(folder)
        known = {str(image.name): image_camera(model, image) for image in model.images.values()}
        found = {name: replace(camera, has_prior_focal=True) for name, camera in known.items()}  # no file says so
        return ImageList(tuple(sorted(found)), found)
    if not is_model(folder):
        raise InputError(f"There is no COLMAP model in {folder} (cameras and images as .bin or .txt); name its folder.")
    images = folder / "images.txt"
    return _from_model_text(images, _text(images), _text(folder / "cameras.txt"))


def _from_model_text(path: Path, images: str, cameras: str) -> ImageList:
    words = camera_lines(cameras)
    try:
        posed = image_lines(images)
    except InputError as error:
        raise InputError(f"{path}: {error} Write it again.") from error
    return _assigned([(image.name, words.get(image.camera, ("?",) if words else ())) for image in posed])


def _assigned(listed: list[tuple[str, tuple[str, ...]]]) -> ImageList:
    """A list of names and the words of their cameras."""
    names: dict[str, tuple[str, ...]] = {}
    cameras, faults = {}, {}
    known: dict[tuple[str, ...], Intrinsics] = {}
    for name, words in listed:
        if names.setdefault(name, words) != words:
            faults[name] = "it is listed with two cameras; leave one of the lines out"
    for name, words in names.items():
        try:
            if words and name not in faults:
                known[words] = cameras[name] = known.get(words) or camera_from_words(words)
        except InputError as error:
            faults[name] = str(error) if words != ("?",) else "its camera is not in cameras.txt; write it again"
    return ImageList(tuple(names), cameras, faults)
