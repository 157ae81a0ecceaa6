"""Which images lie under a folder, by their names: paths under it with '/' between folders."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from lightglue.errors import InputError
from lightglue.sfm.skipped import Skipped, by_reason, names_of
from lightglue_runtime.images.headers import FORMATS, HEAD, format_of, stored_size
from lightglue_runtime.images.unread import Unread, unread_kind
from lightglue_runtime.images.with_pillow import what_is_missing

__all__ = ["SUFFIXES", "list_images", "looks_like_image"]

# Names that are listed without a look at the file: what is wrong with it, the extraction says.
SUFFIXES = (
    *(".bmp", ".gif", ".j2k", ".jp2", ".jpe", ".jpeg", ".jpg", ".pbm"),
    *(".pgm", ".png", ".pnm", ".ppm", ".tif", ".tiff", ".webp"),
)
_MAP = ("map.json", "features")  # mark the folder of a map


def list_images(folder: str | os.PathLike[str]) -> tuple[list[str], tuple[Skipped, ...]]:
    """The names of the images under a folder, sorted, and what looks like one but cannot be used.

    By their first bytes, whatever their names are; files that are called .jpg and the like are not even opened.
    Videos, raw files and other pictures that are not read are in the second list. Hidden files and folders are left
    out, and maps that lie among the images. Links are followed, but no folder is entered twice, so that a link to a
    folder above it does no harm.

    Raises InputError where there is no such folder, or no image in it.
    """
    folder = Path(folder)
    if not folder.is_dir():
        what = "is a file" if folder.exists() else "does not exist"
        raise InputError(f"The folder of images {folder} {what}; name a folder with images.")
    walk = _Walk(folder)
    names = sorted(walk.names())
    if not names:
        why = "; ".join(f"{names_of(names)}: {reason}" for reason, names in by_reason(walk.skipped).items())
        what = f" that can be used: {why}" if why else f"; looked for {', '.join(FORMATS)}"
        raise InputError(f"There is no image in {folder}{what}.")
    return names, tuple(sorted(walk.skipped, key=lambda skipped: skipped.name))


def looks_like_image(path: str | os.PathLike[str]) -> bool:
    """Whether a file is an image or a video, by its name or its first bytes, even if it cannot be read as one."""
    if os.fspath(path).lower().endswith(SUFFIXES):
        return True
    try:
        return _kind(os.fspath(path)) is not None
    except OSError:
        return False


def _kind(path: str) -> str | Unread | None:
    """The format of an image that is read, or what another picture is; None for all else. Raises OSError."""
    with open(path, "rb", buffering=0) as file:
        head = file.read(HEAD)
    if (unread := unread_kind(head, path)) is not None:
        return unread
    kind = format_of(head)
    # Text may begin with "P1 " without being an image.
    return None if kind == "PNM" and stored_size(kind, head) is None else kind


@dataclass
class _Walk:
    """Folder by folder: first those that lie there, then those that are linked, each once."""

    root: Path
    skipped: list[Skipped] = field(default_factory=list)
    plain: list[str] = field(default_factory=lambda: [""])  # folders to be entered, as prefixes of names
    linked: deque[str] = field(default_factory=deque)
    entered: set[tuple[int, int]] = field(default_factory=set)  # device and inode

    def names(self) -> Iterator[str]:
        while self.plain or self.linked:
            prefix = self.plain.pop() if self.plain else self.linked.popleft()
            path = os.path.join(self.root, prefix)
            try:
                if prefix and all(os.path.exists(os.path.join(path, part)) for part in _MAP):
                    continue  # what is in there are our own pictures
                stat = os.stat(path)
                if (stat.st_dev, stat.st_ino) in self.entered:
                    self._skip(prefix, "it is a link to a folder that is listed already; nothing is lost")
                    continue
                self.entered.add((stat.st_dev, stat.st_ino))
                with os.scandir(path) as entries:
                    found = sorted(entries, key=lambda entry: entry.name)
            except OSError as error:
                self._skip(prefix, f"the folder cannot be read ({error.strerror}); change its permissions")
                continue
            yield from self._images(prefix, found)

    def _images(self, prefix: str, entries: list[os.DirEntry[str]]) -> Iterator[str]:
        """The images right in a folder; its folders are put down for later."""
        for entry in entries:
            name = prefix + entry.name
            if entry.name.startswith("."):
                continue
            try:
                is_folder, is_link = entry.is_dir(), entry.is_symlink()
            except OSError as error:  # a link that leads to itself, or to where nobody may look
                self._skip(name, f"it leads nowhere that can be read ({error.strerror}); remove it, or mend the link")
                continue
            if is_folder:
                (self.linked if is_link else self.plain).append(f"{name}/")
            elif entry.name.lower().endswith(SUFFIXES):
                if fault := _fault(name, entry):
                    self._skip(name, fault)
                else:
                    yield name
            elif entry.is_file() and (kind := self._kind(name, entry.path)) is not None:
                fault = _unread(kind) or _fault(name, entry)
                if fault:
                    self._skip(name, fault)
                else:
                    yield name

    def _kind(self, name: str, path: str) -> str | Unread | None:
        try:
            return _kind(path)
        except OSError as error:
            if unread_kind(b"", name) is not None:
                self._skip(name, f"it cannot be read ({error.strerror}); change its permissions")
            return None

    def _skip(self, name: str, reason: str) -> None:
        readable = name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
        self.skipped.append(Skipped(readable or str(self.root), reason))


def _unread(kind: str | Unread) -> str | None:
    """Why files of a kind are not used."""
    if isinstance(kind, str):
        missing = what_is_missing(kind)
        return f"{kind} is not read here: {missing}" if missing else None
    if kind.is_video:
        return f"videos are no images: {kind.remedy}"
    return f"{kind.name} files are not read: {kind.remedy}"


def _fault(name: str, entry: os.DirEntry[str]) -> str | None:
    """Why a file with an image's suffix cannot be used."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return "its name is not UTF-8, which a COLMAP database cannot hold; rename the file"
    if "\n" in name or "\r" in name:
        return "its name holds a line break, which a list of pairs cannot hold; rename the file"
    if not entry.is_file():
        return "it is no regular file, or a link that leads nowhere; put the image there"
    return None
