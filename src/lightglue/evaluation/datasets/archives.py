"""Unpack an archive that came from outside."""

from __future__ import annotations

import gzip
import lzma
import re
import shutil
import stat
import tarfile
import zipfile
import zlib
from pathlib import Path, PurePosixPath
from typing import IO

__all__ = ["ArchiveError", "check_room", "unpack"]

BLOCK = 1 << 20  # bytes

# RuntimeError: it wants a password, or is compressed in a way that Python does not know.
_DAMAGES = (
    zipfile.BadZipFile,
    tarfile.TarError,
    gzip.BadGzipFile,
    lzma.LZMAError,
    zlib.error,
    EOFError,
    RuntimeError,
)


class ArchiveError(Exception):
    """The archive is not one that can be unpacked safely."""


def unpack(path: Path, folder: Path) -> None:
    """Unpack a zip or tar into `folder`, which is made where it is missing. Raises ArchiveError; OSError is the disk's.

    Only files and folders are written, each in `folder`: an archive with anything else is refused.
    """
    try:
        folder.mkdir(exist_ok=True)
        if zipfile.is_zipfile(path):
            _unpack_zip(path, folder)
        elif tarfile.is_tarfile(path):
            _unpack_tar(path, folder)
        else:
            raise ArchiveError("it is neither a zip nor a tar")
    except _DAMAGES as error:
        raise ArchiveError(f"it is damaged ({error})") from error


def _unpack_zip(path: Path, folder: Path) -> None:
    with zipfile.ZipFile(path) as archive:
        members = archive.infolist()
        check_room(folder, sum(member.file_size for member in members))
        for member in members:
            mode = member.external_attr >> 16
            if stat.S_IFMT(mode) not in (0, stat.S_IFREG, stat.S_IFDIR):
                raise ArchiveError(f"{member.filename!r:.200} in it is a link or a device")
            target = _target(folder, member.filename)
            if member.is_dir():
                target.mkdir(parents=True, exist_ok=True)
            else:
                with archive.open(member) as source:
                    _write(source, target)


def _unpack_tar(path: Path, folder: Path) -> None:
    with tarfile.open(path) as archive:
        for member in archive:
            target = _target(folder, member.name)
            if member.isdir():
                target.mkdir(parents=True, exist_ok=True)
            elif member.isreg():
                check_room(folder, member.size)
                source = archive.extractfile(member)
                assert source is not None  # it is for regular files
                with source:
                    _write(source, target)
            else:
                raise ArchiveError(f"{member.name!r:.200} in it is a link or a device")
        while archive.fileobj and archive.fileobj.read(BLOCK):  # the checksum of a compressed tar is at its end
            pass


def _target(folder: Path, name: str) -> Path:
    """Where the member `name` goes. Raises ArchiveError where that is outside of `folder`."""
    parts = PurePosixPath(name.replace("\\", "/")).parts
    has_root = any(part.startswith("/") for part in parts) or re.match("[A-Za-z]:", "".join(parts[:1]))
    if has_root or ".." in parts or "\0" in name:
        raise ArchiveError(f"{name!r:.200} in it leads out of its folder")
    return folder.joinpath(*parts)


def _write(source: IO[bytes], target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    with target.open("wb") as out:
        shutil.copyfileobj(source, out, BLOCK)


def check_room(folder: Path, needed: int) -> None:
    """Raise OSError where the disk of `folder` has less than `needed` bytes free."""
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise OSError(None, f"{needed:,} bytes are needed and {free:,} are free")
