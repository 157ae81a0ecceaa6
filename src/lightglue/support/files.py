"""Files that are there whole or not at all."""

from __future__ import annotations

import json
import os
import re
import secrets
import time
import zlib
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

from lightglue.errors import StoreError
from lightglue.support.text import read_json_text
from lightglue_runtime.outputs import is_special

__all__ = [
    "is_part",
    "os_reason",
    "part_in",
    "read_json",
    "remove_parts",
    "whole",
    "write_files",
    "write_json",
    "write_whole",
    "writing",
]

_PART = re.compile(r"\.[0-9a-f]{16}\.part(-journal)?")
_SEAL = re.compile(rb',\n "checksum": ([0-9]+)\n}\n\Z')  # of all that stands before it
_ABANDONED_S = 3600  # nothing that we write takes as long


@contextmanager
def whole(path: Path, part: Path | None = None, new: bool = False) -> Iterator[Path]:
    """A file to write beside `path`, which takes its place once it is finished: readers see all of it or none.

    part: the file that is written; by default one of its own beside `path`, since others may write the same file.
    new: where others have put a file at `path` in the meantime theirs stays. Raises StoreError where it cannot be
    written; nothing is left behind then.
    """
    part = part or part_in(path.parent)
    with writing(path):
        if is_special(path):
            raise StoreError(f"{path} is a device or a pipe, which a file would replace; name another.")
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            yield part
            if not (new and _linked(part, path)):
                part.replace(path)
        finally:
            with suppress(OSError):
                part.unlink(missing_ok=True)


def part_in(folder: Path) -> Path:
    """A new name for a file that is being written, which `remove_parts` knows."""
    return folder / f".{secrets.token_hex(8)}.part"


def _linked(part: Path, path: Path) -> bool:
    """Whether there is a file at `path` now, this one or another's. Not where the file system has no links."""
    try:
        path.hardlink_to(part)
    except OSError:
        return path.exists()
    return True


def write_whole(path: Path, content: bytes, part: Path | None = None, new: bool = False) -> None:
    """Write a file, whole or not at all: `whole` with its content at hand."""
    with whole(path, part, new) as file:
        file.write_bytes(content)


def write_files(contents: Mapping[Path, bytes]) -> None:
    """Write several files that belong together: none takes its place before all are on the disk.

    A link at a path stays, and its target is replaced. Raises StoreError.
    """
    try:
        with ExitStack() as stack:
            parts = [stack.enter_context(whole(Path(os.path.realpath(path)))) for path in contents]
            for part, content in zip(parts, contents.values(), strict=True):
                with part.open("xb") as file:
                    file.write(content)
                    file.flush()
                    os.fsync(file.fileno())  # a full disk may say so only here
    except StoreError as error:
        raise StoreError(
            f"{', '.join(map(str, contents))} could not be written ({os_reason(error)}); nothing is left half "
            "written. Make room there or choose another folder."
        ) from error


def remove_parts(folder: Path) -> None:
    """Remove what killed processes left in a folder an hour ago or earlier; what is younger may still be written."""
    with suppress(OSError):
        for path in folder.iterdir():
            if _PART.fullmatch(path.name) and time.time() - path.stat().st_mtime > _ABANDONED_S:
                path.unlink(missing_ok=True)


def is_part(path: Path) -> bool:
    """Whether a path is one that `part_in` made up."""
    return _PART.fullmatch(path.name) is not None


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turn what the operating system says of a file that is written into an error that names it."""
    try:
        yield
    except StoreError:  # an OSError too, which has said it already
        raise
    except OSError as error:
        raise StoreError(
            f"{path} cannot be written ({os_reason(error)}); make room, or name a folder that may be written to."
        ) from error


def os_reason(error: BaseException) -> str:
    """What the operating system says of an error, in short; of a StoreError, what its cause says."""
    cause = error.__cause__ if isinstance(error, StoreError) and error.__cause__ else error
    return str(getattr(cause, "strerror", None) or cause)


def write_json(path: Path, content: Mapping[str, Any], new: bool = False) -> None:
    """Write a JSON file, whole or not at all, with a checksum. ASCII: a file name may hold what UTF-8 cannot."""
    body = json.dumps(content, indent=1, allow_nan=False).removesuffix("\n}").encode()
    write_whole(path, body + b',\n "checksum": %d\n}\n' % zlib.crc32(body), new=new)


def read_json(path: Path) -> dict[str, Any]:
    """The object in a JSON file. Raises StoreError where it is none; FileNotFoundError where there is no file.

    One that ends with a checksum as `write_json` writes it must fit it. Other programs, which write it in a form of
    their own, may change it.
    """
    try:
        text = path.read_bytes()
        content = read_json_text(path)
    except FileNotFoundError:
        raise
    except OSError as error:
        raise StoreError(f"{path} cannot be read ({os_reason(error)}); see what stands there.") from error
    except (ValueError, RecursionError) as error:
        raise StoreError(f"{path} is damaged ({error}); remove it and run the stage again.") from error
    if not isinstance(content, dict):
        raise StoreError(f"{path} holds no object; remove it and run the stage again.")
    if (seal := _SEAL.search(text)) and zlib.crc32(text[: seal.start()]) != int(seal[1]):
        raise StoreError(
            f"{path} is damaged (its checksum differs); remove it and run the stage again, or, if you have changed it "
            'yourself, take out its last line, "checksum".'
        )
    content.pop("checksum", None)
    return content
