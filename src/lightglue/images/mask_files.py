"""Files of masks: which one in a folder is of an image."""

from __future__ import annotations

import os
from collections import defaultdict
from pathlib import Path, PurePath

from lightglue.errors import InputError
from lightglue_runtime.images.headers import HEAD, format_of

__all__ = ["MaskFolder", "no_mask"]


class MaskFolder:
    """Masks in a folder that is laid out as that of the images.

    The mask of `sub/b.JPG` is `sub/b.JPG.png`, as COLMAP has it, or another image file of that name; where there is
    none, the one of the same stem: `sub/b.png`. A folder is listed once.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        """Raises InputError where there is no such folder."""
        self.path = Path(path)
        if not self.path.is_dir():
            what = "is a file; name the folder that it is in" if self.path.exists() else "does not exist"
            raise InputError(f"The folder of masks {self.path} {what}; check the path.")
        self._listed: dict[str, dict[str, list[str]]] = {}

    def of(self, name: str) -> Path | None:
        """The mask of an image, whose name is its path under the images' folder; None where there is none.

        Raises InputError where two files may be meant.
        """
        folder, _, file = name.rpartition("/")
        listed = self._in(folder)
        for key in dict.fromkeys((file, os.path.splitext(file)[0])):
            found = [path for each in listed.get(key, ()) if _is_image(path := self.path / folder / each)]
            if len(found) > 1:
                raise InputError(f"{name} has two masks, {found[0]} and {found[1].name}; keep one of them.")
            if found:
                return found[0]
        return None

    def of_file(self, image: str | os.PathLike[str]) -> Path | None:
        """The mask of an image file: of as much of its path as there are folders for. Raises as `of`."""
        parts = [part for part in PurePath(image).parts if part not in ("..", os.sep)]
        return next((mask for at in range(len(parts)) if (mask := self.of("/".join(parts[at:])))), None)

    def none_fits(self, name: str, count: int) -> InputError:
        """The error where none of `count` images has a mask; `name` is that of the first."""
        stem = os.path.splitext(name)[0]
        images = "the image" if count == 1 else f"any of the {count:,} images"
        return InputError(
            f"There is no mask for {images} in {self.path}: that of {name} would be {self.path / f'{name}.png'} or "
            f"{self.path / f'{stem}.png'}."
        )

    def _in(self, folder: str) -> dict[str, list[str]]:
        """The files of a folder, by their names without the last suffix."""
        if folder not in self._listed:
            listed = defaultdict(list)
            try:
                for file in sorted(os.listdir(self.path / folder)):
                    listed[os.path.splitext(file)[0]].append(file)
            except OSError:  # then none of its images has a mask, which is reported
                listed.clear()
            self._listed[folder] = listed
        return self._listed[folder]


def no_mask(folder: str | os.PathLike[str]) -> str:
    """What is said of an image for which there is none in a folder."""
    return f"there is no mask for it in {os.fspath(folder)}; keypoints may lie anywhere in it"


def _is_image(path: Path) -> bool:
    """Whether a file begins as an image does: the same stem may also be that of a text."""
    try:
        with path.open("rb") as file:
            return format_of(file.read(HEAD)) is not None
    except OSError:
        return False
