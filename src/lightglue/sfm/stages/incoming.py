"""Images that are to be added to a map: copied beside its own, and taken back where they turn out to be of no use."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from lightglue.errors import ImageError, InputError
from lightglue.images import ImageFile
from lightglue.images.mask_files import MaskFolder
from lightglue.sfm.colmap.cameras import CameraOptions, assign_cameras
from lightglue.sfm.skipped import Skipped, reason_of
from lightglue.sfm.stages.images import list_images
from lightglue.support.files import write_whole

__all__ = ["Incoming", "misfits"]


@dataclass
class Incoming:
    """Images under the folder of a map, of which some were put there just now."""

    folder: Path
    part: Path | None = None  # that a copy is written to before it has its name
    names: set[str] = field(default_factory=set)  # paths under the folder
    copied: set[str] = field(default_factory=set)  # of these, those that were not there before
    masks: dict[str, Path] = field(default_factory=dict)  # that were copied, too
    skipped: list[Skipped] = field(default_factory=list)

    @classmethod
    def bring(cls, folder: Path, images: Iterable[Path], part: Path | None = None) -> Incoming:
        """Copy images, or folders of them, into a folder unless they lie under it already.

        What cannot be read, or has the name of another image there, is in `skipped`. Raises InputError where there is
        no such folder; StoreError where it cannot be written, and then nothing was copied.
        """
        if not folder.is_dir():
            raise InputError(f"The map's folder of images {folder} does not exist; put it back where it was.")
        found = cls(folder, part)
        try:
            for image in images:
                for each in found._listed(image):
                    name = _inside(folder, each) or found._copied(each)
                    if name is not None:
                        found.names.add(name)
        except BaseException:
            found.take_back(found.copied)
            raise
        return found

    def take_back(self, names: Iterable[str]) -> None:
        """Forget images, and remove their copies: others' files stay."""
        for name in set(names):
            self.names.discard(name)
            copies = [self.folder / name] if name in self.copied else []
            if name in self.masks:
                copies.append(self.masks.pop(name))
            for copy in copies:
                with suppress(OSError):
                    copy.unlink()

    def bring_masks(self, given: Path, folder: Path, part: Path | None = None) -> None:
        """Copy the masks of the images from one folder into that of the map's masks, unless they are there already.

        Raises InputError where there is no such folder, or none of its masks fits; StoreError where they cannot be
        written.
        """
        masks, there = MaskFolder(given), MaskFolder(folder)
        found = {name: mask for name in sorted(self.names) if (mask := masks.of(name)) is not None}
        if self.names and not found:
            raise masks.none_fits(min(self.names), len(self.names))
        for name, mask in found.items():
            known = there.of(name)
            if known is None:
                target = folder / f"{name}{mask.suffix}"
                self.masks[name] = target
                write_whole(target, mask.read_bytes(), part)
            elif known.read_bytes() != mask.read_bytes():
                reason = f"it has another mask already, {known}, which is used; {mask} is not"
                self.skipped.append(Skipped(name, reason, is_used=True))

    def _listed(self, image: Path) -> list[Path]:
        """An image, or those in a folder."""
        if not os.path.isdir(image):  # also False where nobody may look
            return [image]
        try:
            inside, left_out = list_images(image)
        except InputError as error:  # there is none in it
            self.skipped.append(Skipped(str(image), reason_of(error, image)))
            return []
        self.skipped += left_out
        return [image / name for name in inside]

    def _copied(self, image: Path) -> str | None:
        """The name of an image that was copied into the folder; None where it cannot be."""
        fault = self._copy(image)
        if fault is None:
            return image.name
        self.skipped.append(Skipped(str(image), " ".join(fault.split())))
        return None

    def _copy(self, image: Path) -> str | None:
        """Why an image is not in the folder under its own name now; None where it is."""
        target = self.folder / image.name
        try:
            file = ImageFile.read(image)
            file.decode(stretch=True)  # first: a file that is no image does not belong in the folder
            content = file.data
            if target.exists():
                same = target.is_file() and target.read_bytes() == content
                return None if same else f"another image is called {image.name!r} in {self.folder}; rename it"
        except ImageError as error:
            return reason_of(error, image)
        except OSError as error:
            return f"it cannot be read ({error.strerror or error}); check the path"
        except MemoryError:
            return "there is not enough memory for it; shrink the image"
        write_whole(target, content, self.part)
        self.copied.add(image.name)
        return None


def _inside(folder: Path, image: Path) -> str | None:
    """The name of an image that lies under the folder; None for one that does not."""
    real, real_folder = (Path(os.path.realpath(path)) for path in (image, folder))  # also of a link to itself
    for path, root in ((image.absolute(), folder.absolute()), (real, real_folder)):
        if ".." not in path.parts and path.is_relative_to(root):
            return path.relative_to(root).as_posix()
    return None


def misfits(sizes: Mapping[str, tuple[int, int]], names: Iterable[str], cameras: CameraOptions) -> tuple[Skipped, ...]:
    """Those images whose camera cannot be as the options say beside all others: of another size, as a rule.

    sizes: width and height in px of all images, by their names.
    """
    new = sorted(names)
    others = {name: size for name, size in sizes.items() if name not in set(new)}

    def fault(some: list[str]) -> str | None:
        try:
            assign_cameras({**others, **{name: sizes[name] for name in some}}, None, cameras)
        except InputError as error:
            return str(error)
        return None

    if fault(new) is None:
        return ()
    found = []
    for name in new:
        if (reason := fault([name])) is not None:
            found.append(Skipped(name, reason))
        else:
            others[name] = sizes[name]
    return tuple(found)
