"""What a published benchmark is to this program, and what the modules of all of them share."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from lightglue.errors import InputError
from lightglue.evaluation.pair import Benchmark, Kind, Pair, Protocol, RelativePose, Truth
from lightglue.geometry.cameras import Camera
from lightglue.geometry.intrinsics import from_colmap
from lightglue.support.text import content_lines, read_text

__all__ = ["Dataset", "Download", "PairList", "add_posed_pairs", "numbers", "read_lines", "read_numbers", "read_whole"]


@dataclass(frozen=True)
class Download:
    """One file that a benchmark consists of."""

    urls: tuple[str, ...]  # the authors' first, mirrors after it
    filename: str
    size: str = ""  # for people, such as "1.3 GB"; empty where no public record gives it
    sha256: str | None = None  # None where no public record gives it
    md5: str | None = None  # as published, where there is no sha256


@dataclass(frozen=True)
class Dataset:
    """A published benchmark: where it comes from and how it is read."""

    name: str  # what the user writes, and the folder in the cache
    title: str
    kind: Kind
    licence: str
    downloads: tuple[Download, ...]
    add_pairs: Callable[[Path, PairList], None]  # from the folder of its files; raises InputError
    protocol: Protocol
    folders: tuple[str, ...] = ()  # names that the folder of its files may have
    markers: tuple[str, ...] = ("*",)  # paths or patterns, one of which is in that folder; the first is the usual one
    notes: tuple[str, ...] = ()  # what a reader of the figures must know, such as deviations

    def load(self, folder: Path) -> Benchmark:
        """The benchmark from the folder of its files, or from one that holds it. Raises InputError."""
        root = self._root(folder)
        listed = PairList(root)
        self.add_pairs(root, listed)
        return Benchmark(
            name=self.name,
            kind=self.kind,
            pairs=listed.pairs(),
            protocol=self.protocol,
            source=self.downloads[0].urls[0],
            licence=self.licence,
            notes=(*listed.notes, *self.notes),
        )

    def _root(self, folder: Path) -> Path:
        """The folder with one of the markers: `folder` itself, or one in it. Raises InputError, with the remedy."""
        candidates = [folder, *(folder / name for name in self.folders)]
        for marker in self.markers:
            for each in candidates:
                if each.is_dir() and any(each.glob(marker)):
                    return each
        lack = f"There is no {self.markers[0]} in" if folder.is_dir() else "There is no folder"
        raise InputError(
            f"{lack} {folder}, so {self.title} is not there. Download {self.downloads[0].urls[0]}, unpack it, and give "
            "the folder where it lies with --data."
        )


class PairList:
    """The pairs of a benchmark while it is read: gives each a name of its own, and keeps faults with their pair."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._pairs: dict[str, Pair] = {}
        self.notes: list[str] = []

    def add(self, image0: str, image1: str, truth: Callable[[], Truth], scene: str | None = None) -> None:
        """Add a pair of images, named relative to the folder. A truth that raises InputError is a fault of the pair."""
        try:
            known, fault = truth(), None
        except InputError as error:
            known, fault = None, str(error)
        if unusable := [path for path in (image0, image1) if not path or "\0" in path or clean(path) != path]:
            known, fault = None, fault or f"{unusable[0]!r} cannot be the path of an image; correct it."
        image0, image1 = (clean(path).replace("\0", "?") for path in (image0, image1))
        name = usual = f"{image0}|{image1}"
        number = 1
        while name in self._pairs:
            number += 1
            name = f"{usual}#{number}"
        where = first_folder(image0) if scene is None else clean(scene)
        self._pairs[name] = Pair(name, where, self._folder / image0, self._folder / image1, known, fault)

    def __len__(self) -> int:
        return len(self._pairs)

    def expect(self, wanted: int, found: int, what: str, where: Path) -> None:
        """Note where there are not as many of `what` as the benchmark has."""
        if found != wanted:
            self.notes.append(f"{found} of the {wanted:,} {what} are in {where}.")

    def pairs(self) -> tuple[Pair, ...]:
        """All of them, in the order in which they were added."""
        return tuple(self._pairs.values())


def clean(text: str) -> str:
    """`text` as it can be written in UTF-8."""
    return text.encode("utf-8", "replace").decode("utf-8")


def first_folder(path: str) -> str:
    """The first folder of a relative path: a scene in most data sets."""
    return path.split("/", 1)[0] if "/" in path else ""


def read_whole(path: Path) -> str:
    """The text in a file. Raises InputError."""
    try:
        return read_text(path, "strict")
    except InputError:
        raise
    except (OSError, ValueError) as error:
        raise InputError(
            f"{path} cannot be read ({getattr(error, 'strerror', None) or error}); fetch it again."
        ) from error


def read_lines(path: Path) -> list[str]:
    """The lines of a text file that say something, without comments. Raises InputError."""
    return [line for _, line in content_lines(read_whole(path))]


def read_numbers(path: Path, columns: int) -> NDArray[np.float64]:
    """The numbers of a text file, (N, columns), separated by blanks or commas. Raises InputError."""
    rows = [numbers(line.replace(",", " ").split(), str(path)) for line in read_lines(path)]
    wrong = next((len(row) for row in rows if len(row) != columns), None)
    if wrong is not None or not rows:
        raise InputError(f"{path} has rows of {wrong or 0} numbers, not {columns}; fetch it again.")
    return np.stack(rows)


def numbers(words: Sequence[str], where: str) -> NDArray[np.float64]:
    """`words` as numbers, (N,). Raises InputError."""
    try:
        return np.array([float(word) for word in words], dtype=np.float64)
    except ValueError as error:
        raise InputError(f"{where}: {error}; correct it or fetch it again.") from None


def add_posed_pairs(listed: PairList, path: Path, expected: int, folder: str = "", is_colmap: bool = False) -> None:
    """Add the pairs in one of SuperGlue's lists, or of those of glue-factory that derive from them.

    The scene is what stands before the first "/" or "_frame" of image 0.

    Args:
        listed: where they are added.
        path: the list.
        expected: how many the benchmark has.
        folder: what stands before the names of images.
        is_colmap: the K in it have COLMAP's origin.

    Raises:
        InputError: the list cannot be read.
    """
    for number, line in enumerate(read_lines(path), 1):
        words = line.split()
        image0, image1 = (*words, "", "")[:2]
        truth = partial(_parse_posed_pair, words, f"{path}, pair {number},", is_colmap)
        listed.add(f"{folder}{image0}", f"{folder}{image1}", truth, image0.split("/")[0].split("_frame")[0])
    listed.expect(expected, len(listed), "pairs", path)


def _parse_posed_pair(words: Sequence[str], where: str, is_colmap: bool) -> RelativePose:
    """The truth in one line. Raises InputError.

    Two names, in SuperGlue's own files two numbers of quarters that the images are rotated by, then K0 and K1 (9
    numbers each) and camera 0 to camera 1: a matrix (4, 4), or R and t (12 numbers).
    """
    quarters, rest = (words[2:4], words[4:]) if len(words) == 38 else ([], words[2:])
    if len(rest) not in (30, 34):
        raise InputError(f"{where} has {len(words)} words, not 32, 36 or 38; fetch it again.")
    if any(each.strip("0.") for each in quarters):
        raise InputError(f"{where} rotates its images by {' and '.join(quarters)} quarters, which is not supported.")
    values = numbers(rest, where)
    T = np.eye(4)
    if len(values) == 34:
        T = values[18:].reshape(4, 4)
    else:
        T[:3, :3], T[:3, 3] = values[18:27].reshape(3, 3), values[27:]
    K0, K1 = values[:9].reshape(3, 3), values[9:18].reshape(3, 3)
    for K in (K0, K1) if is_colmap else ():
        K[:2, 2] = from_colmap(K[:2, 2])
    return RelativePose(Camera(K0), Camera(K1), T)
