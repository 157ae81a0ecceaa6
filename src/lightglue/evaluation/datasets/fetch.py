"""Fetch the files of a benchmark: download, check, unpack.

    FOLDER/NAME/                 the unpacked files; it appears whole, with a file .fetched that says from where
    FOLDER/.NAME.lock            held while one process fetches
    FOLDER/.NAME.download/       archives, and .part files that the next call goes on with
    FOLDER/.NAME.unpacking/      what is being unpacked

Nothing that is killed leaves half a data set: the folder NAME gets its name at the end.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.client import HTTPException
from pathlib import Path
from typing import IO, Any
from urllib.error import HTTPError

from lightglue.errors import LightGlueError
from lightglue.evaluation.datasets.archives import ArchiveError, check_room, unpack
from lightglue.evaluation.datasets.dataset import Dataset, Download
from lightglue.support.progress import progress_display
from lightglue.weights import cache_folder
from lightglue.weights import fetch as _fetch

__all__ = ["data_folder", "fetch", "find_fetched"]

RETRIES = 5  # of a download that broke off after some of it had come
_MARKER = ".fetched"


def data_folder() -> Path:
    """Where benchmarks are kept: the folder `data` in that of the weights."""
    return cache_folder() / "data"


def find_fetched(dataset: Dataset, folder: Path | None = None) -> Path | None:
    """Where `fetch` has put the benchmark, if it has."""
    target = (data_folder() if folder is None else Path(folder)) / dataset.name
    return target if (target / _MARKER).is_file() else None


def fetch(dataset: Dataset, folder: Path | None = None) -> Path:
    """The folder with the files of a benchmark, in `folder` (by default `data_folder()`); fetched where missing.

    Downloads go on where an earlier call was interrupted. Raises LightGlueError.
    """
    from filelock import FileLock

    root = data_folder() if folder is None else Path(folder)
    if found := find_fetched(dataset, root):
        return found
    if os.environ.get("LIGHTGLUE_OFFLINE", "").strip().lower() not in ("", "0", "false", "no", "off"):
        raise LightGlueError(f"{dataset.title} is not in {root} and LIGHTGLUE_OFFLINE is set. {_remedy(dataset)}")
    try:
        root.mkdir(parents=True, exist_ok=True)
        with FileLock(root / f".{dataset.name}.lock"):
            return find_fetched(dataset, root) or _fetch_locked(dataset, root)
    except (OSError, NotImplementedError) as error:  # NotImplementedError: a disk without file locks
        reason = getattr(error, "strerror", None) or error
        raise LightGlueError(
            f"{dataset.title} cannot be kept in {root}: {reason}. Make room there, or set LIGHTGLUE_CACHE to a folder "
            "with room that you can write to."
        ) from error


def _fetch_locked(dataset: Dataset, root: Path) -> Path:
    target, scratch = root / dataset.name, root / f".{dataset.name}.unpacking"
    if target.exists():
        raise LightGlueError(
            f"{target} is there but was not fetched by this program; pass --data {target} to use it, or remove it."
        )
    archives = root / f".{dataset.name}.download"
    archives.mkdir(exist_ok=True)
    shutil.rmtree(scratch, ignore_errors=True)
    for download in dataset.downloads:
        path = _have(download, archives, dataset)
        try:
            unpack(path, scratch)
        except ArchiveError as error:
            path.unlink()  # so that the next call does not stumble over it
            shutil.rmtree(scratch, ignore_errors=True)
            raise LightGlueError(f"{path.name} of {dataset.title} is of no use: {error}. {_remedy(dataset)}") from error
    (scratch / _MARKER).write_text(json.dumps({each.filename: each.urls[0] for each in dataset.downloads}) + "\n")
    os.replace(scratch, target)
    shutil.rmtree(archives, ignore_errors=True)
    return target


def _remedy(dataset: Dataset) -> str:
    urls = " and ".join(download.urls[0] for download in dataset.downloads)
    return f"Download {urls} on any machine, unpack it, and pass --data FOLDER."


def _have(download: Download, folder: Path, dataset: Dataset) -> Path:
    """The downloaded file, checked. Raises LightGlueError where no source has it."""
    path = folder / download.filename
    if path.is_file() and _fault(path, download) is None:
        return path
    failures = []
    for url in download.urls:
        try:
            _download(url, download, path)
            return path
        except _fetch.FetchError as error:
            failures.append(f"{url}: {error}")
    raise LightGlueError(f"{dataset.title} could not be fetched ({'; '.join(failures)}). {_remedy(dataset)}")


def _download(url: str, download: Download, path: Path) -> None:
    """Download `url` to `path`, going on with what is in its .part file. Raises FetchError."""
    part = path.with_name(f"{path.name}.part")
    for attempt in range(RETRIES + 1):
        before = part.stat().st_size if part.exists() else 0
        try:
            _append(url, part, download.filename)
            break
        except _Broken as error:
            if attempt == RETRIES or part.stat().st_size <= before:
                raise _fetch.FetchError(str(error)) from error
    fault = _fault(part, download)
    _note(part).unlink(missing_ok=True)
    if fault is not None:
        part.unlink()
        raise _fetch.FetchError(fault)
    os.replace(part, path)


class _Broken(_fetch.FetchError):
    """The connection broke off; what came is in the .part file."""


def _append(url: str, part: Path, label: str) -> None:
    """Add to `part` what it lacks of `url`, or write it again where the server cannot go on with it."""
    have = part.stat().st_size if part.exists() else 0
    validator = _read_note(part, url) if have else None
    if have and validator is None:  # of another URL, or the server does not say which version it is
        have = 0
    with _open(url, have, validator) as response:
        if response is None:  # nothing is left to send
            return
        goes_on = response.status == 206
        if goes_on and not str(response.headers.get("Content-Range", "")).startswith(f"bytes {have}-"):
            raise _fetch.FetchError(f"the server sent another part than the one from byte {have:,}")
        if not goes_on:
            have = 0
        length = response.headers.get("Content-Length", "")
        left = int(length) if length.isdigit() else None
        check_room(part.parent, left or 0)
        _write_note(part, url, response.headers)
        with part.open("ab" if goes_on else "wb") as out, progress_display(in_bytes=True) as show:
            received = _copy(response, out, lambda count: show(f"fetching {label}", count, left))
    if left is not None and received < left:
        raise _Broken(f"the connection closed after {have + received:,} of {have + left:,} bytes")


def _copy(response: Any, out: IO[bytes], show: Callable[[int], None]) -> int:
    """Write what the server sends; return the number of bytes. Raises _Broken; OSError is the disk's."""
    received = 0
    while True:
        show(received)
        try:
            block = response.read1(_fetch.BLOCK)  # what is there: a slow line that breaks loses nothing
        except (OSError, HTTPException) as error:
            raise _Broken(f"the connection broke ({error or type(error).__name__})") from error
        if not block:
            return received
        out.write(block)
        received += len(block)


@contextmanager
def _open(url: str, start: int, validator: str | None) -> Iterator[Any]:
    """The server's answer, from byte `start` on if it can; None where there is nothing after it. Raises FetchError."""
    headers = {"Range": f"bytes={start}-", "If-Range": validator} if start and validator else {}
    try:
        response = _fetch.open_url(url, headers)
    except _fetch.FetchError as error:
        answer = error.__cause__
        if not isinstance(answer, HTTPError) or answer.code != 416:
            raise
        if str(answer.headers.get("Content-Range", "")) == f"bytes */{start}":
            yield None
            return
        response = _fetch.open_url(url)
    with response:
        yield response


def _note(part: Path) -> Path:
    return part.with_name(f"{part.name}.json")


def _write_note(part: Path, url: str, headers: Any) -> None:
    """Keep the version, by which the rest that a server sends later is known to belong to what is here."""
    etag = headers.get("ETag", "")
    validator = etag if etag and not etag.startswith("W/") else headers.get("Last-Modified", "")
    _note(part).write_text(json.dumps({"url": url, "validator": validator}))


def _read_note(part: Path, url: str) -> str | None:
    """The version of `url` that `part` is the beginning of, in the server's words."""
    try:
        note = json.loads(_note(part).read_text())
        return str(note["validator"]) or None if note["url"] == url else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _fault(path: Path, download: Download) -> str | None:
    """What is wrong with a downloaded file; None where nothing is, or no checksum is published."""
    for name, published in (("sha256", download.sha256), ("md5", download.md5)):
        if published is None:
            continue
        digest = hashlib.new(name, usedforsecurity=False)
        with path.open("rb") as source:
            while block := source.read(_fetch.BLOCK):
                digest.update(block)
        if digest.hexdigest() != published:
            return f"altered: its {name} is {digest.hexdigest()}, published is {published}"
    return None
