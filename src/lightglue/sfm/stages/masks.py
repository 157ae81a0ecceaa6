"""The masks of a folder of images: where in them keypoints may lie."""

from __future__ import annotations

import os
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

from torch import Tensor

from lightglue.errors import InputError
from lightglue.extractors.masks import read_mask
from lightglue.images import ImageFile
from lightglue.images.mask_files import MaskFolder, no_mask
from lightglue.sfm.skipped import Skipped
from lightglue.stores import Source
from lightglue_runtime.images.exif import read_exif

__all__ = ["ImageMask", "Masks"]

_KEPT_SIZE = (2, 3, 4)  # EXIF orientations that turn an image and leave its width and height


@dataclass(frozen=True, eq=False)
class ImageMask:
    """The mask of one image."""

    allowed: Tensor  # (H, W) bool, of the image as it is decoded
    source: Source
    doubt: str | None = None  # that the mask may be of the unturned image


@dataclass(frozen=True, eq=False)
class Masks:
    """The masks of the images of a folder, none of them where none were given."""

    folder: MaskFolder | None = None
    among: str = ""  # where they lie among the images: the beginning of their names there

    @classmethod
    def open(cls, folder: str | None, images: str | os.PathLike[str]) -> Masks:
        """Those in a folder. Raises InputError where there is none, or where it is that of the images."""
        if folder is None:
            return cls()
        masks, own = MaskFolder(folder), Path(images)
        inside = masks.path.resolve()
        if inside == own.resolve():
            raise InputError(f"{folder} would hold both images and masks; put the masks into a folder of their own.")
        among = f"{inside.relative_to(own.resolve()).as_posix()}/" if inside.is_relative_to(own.resolve()) else ""
        return cls(masks, among)

    def lie_at(self, name: str) -> bool:
        """Whether a file among the images is a mask."""
        return bool(self.among) and name.startswith(self.among)

    def missing(self, names: list[str], must_fit: bool) -> tuple[Skipped, ...]:
        """The images without a mask. must_fit: Raises InputError where all of them are."""
        if self.folder is None:
            return ()
        without = [name for name in names if not self._has(name)]
        if must_fit and names and len(without) == len(names):
            raise self.folder.none_fits(names[0], len(names))
        return tuple(Skipped(name, no_mask(self.folder.path), is_used=True) for name in without)

    def is_still(self, name: str, made_with: Source | None) -> bool:
        """Whether the mask of an image is the one that its features were made with."""
        try:
            path = self.path(name)
        except InputError:  # `read` says why
            return False
        return made_with is None if path is None else made_with is not None and made_with.is_still(path)

    def read(self, name: str, image: ImageFile, size: tuple[int, int]) -> ImageMask | None:
        """The mask of an image, of which `size` is the width and height as it is decoded; None where it has none.

        Raises InputError for one that does not fit, ImageError for one that cannot be read.
        """
        path = self.path(name)
        if path is None:
            return None
        mtime_ns = os.stat(path).st_mtime_ns
        file = ImageFile.read(path)
        source = Source(len(file.data), mtime_ns, sha256(file.data).hexdigest())
        return ImageMask(read_mask(file, size[1], size[0], image.name), source, _doubt(image, file, size))

    def path(self, name: str) -> Path | None:
        """The mask's file; None where there is none. Raises InputError where two files may be meant."""
        return None if self.folder is None else self.folder.of(name)

    def _has(self, name: str) -> bool:
        try:
            return self.path(name) is not None
        except InputError:
            return True


def _doubt(image: ImageFile, mask: ImageFile, size: tuple[int, int]) -> str | None:
    """What is to be looked at where the sizes cannot tell whether a mask was made of the image as it is shown."""
    orientation = read_exif(image.data).orientation
    if orientation == 1 or read_exif(mask.data).orientation == orientation:
        return None
    if orientation in _KEPT_SIZE or size[0] == size[1]:
        return f"its EXIF orientation ({orientation}) turns it, and {mask.name} is taken for a mask of the turned image"
    return None
