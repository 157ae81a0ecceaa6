"""The features of a collection of images: one file an image.

    FOLDER/store.json            what made them
    FOLDER/3f/3f9a….npz          those of one image, named after the SHA-256 of the image's name

Any number of processes may write, each whole files; a kill loses at most the image in hand. A name of any length, with
any letters, has one file, on file systems that know no capitals too; the name itself stands in the file. What was
altered on the disk is noticed: each part of the file has a checksum, and the whole a digest.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import zipfile
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from lightglue.errors import InputError, StoreError
from lightglue.stores.arrays import array_of, mapped_arrays, read_arrays
from lightglue.stores.settings import as_read, check_settings
from lightglue.support.files import (
    part_in,
    read_json,
    remove_parts,
    write_json,
    write_whole,
    writing,
)

if TYPE_CHECKING:
    from lightglue.types import Features

__all__ = ["FeatureStore", "Head", "ImageFeatures", "Source"]

FORMAT = 1
_STORE = "store.json"
_OPTIONAL = ("scales", "oris")


@dataclass(frozen=True)
class Source:
    """The image file that features come from: enough to notice that it has changed."""

    size: int  # bytes
    mtime_ns: int
    sha256: str  # of the file

    @classmethod
    def of(cls, path: str | os.PathLike[str], content: bytes | None = None) -> Source:
        """That of a file. content: its bytes where they were read already. Raises OSError."""
        stat = os.stat(path)
        if content is None:
            with open(path, "rb") as file:
                content = file.read()
        return cls(stat.st_size, stat.st_mtime_ns, hashlib.sha256(content).hexdigest())

    @classmethod
    def from_list(cls, said: Any) -> Source:
        """As `as_list` gives it. Raises TypeError or ValueError for anything else."""
        size, mtime_ns, sha256 = said
        return cls(int(size), int(mtime_ns), str(sha256))

    def as_list(self) -> list[Any]:
        """As JSON holds it."""
        return [self.size, self.mtime_ns, self.sha256]

    def is_still(self, path: str | os.PathLike[str]) -> bool:
        """Whether a file is the one that this was made of. It is read only where it was touched since."""
        try:
            stat = os.stat(path)
            if stat.st_size != self.size:
                return False
            return stat.st_mtime_ns == self.mtime_ns or Source.of(path).sha256 == self.sha256
        except OSError:
            return False


@dataclass(frozen=True, eq=False)
class ImageFeatures:
    """The local features of one image. Raises InputError for arrays that do not go together."""

    keypoints: NDArray[np.float32]  # (N, 2), x y, px of the original image
    descriptors: NDArray[Any]  # (N, D), float16 or float32
    scores: NDArray[np.float32]  # (N,)
    image_size: tuple[int, int]  # width, height, px of the original image, rotated as its EXIF says
    feature_type: str  # such as "aliked"
    scales: NDArray[np.float32] | None = None  # (N,) px, of features like SIFT's
    oris: NDArray[np.float32] | None = None  # (N,) radians
    rotation: int = 0  # degrees clockwise by which the image was rotated before its features were extracted

    def __post_init__(self) -> None:
        count = (*self.keypoints.shape, 0)[0]
        shapes = {
            "keypoints": (count, 2),
            "descriptors": (count, (*self.descriptors.shape, 0, 0)[1]),
            "scores": (count,),
        }
        shapes |= dict.fromkeys(self.optional, (count,))
        for name, shape in shapes.items():
            array = getattr(self, name)
            wanted = ("float16", "float32") if name == "descriptors" else ("float32",)
            if array.shape != shape or array.dtype not in wanted:
                raise InputError(f"{name} is {array.dtype} {array.shape}; give {' or '.join(wanted)} {shape}.")
        if not np.isfinite(self.keypoints).all():
            raise InputError("The keypoints hold NaN or infinity; give finite ones.")
        width, height = (int(edge) for edge in self.image_size)
        if width < 1 or height < 1:
            raise InputError(f"image_size is {self.image_size}; give the width and height in pixels.")
        object.__setattr__(self, "image_size", (width, height))  # numpy's numbers would change the digest

    def __len__(self) -> int:
        return len(self.keypoints)

    @property
    def nbytes(self) -> int:
        """Of all arrays."""
        return sum(array.nbytes for array in self._arrays().values())

    @property
    def digest(self) -> str:
        """16 hexadecimal digits of what a matcher sees."""
        digest = hashlib.blake2b(digest_size=8)
        digest.update(repr((self.image_size, self.feature_type, *([self.rotation] if self.rotation else []))).encode())
        for name, array in self._arrays().items():
            digest.update(f"{name}{array.dtype}{array.shape}".encode())
            digest.update(np.ascontiguousarray(array).tobytes())
        return digest.hexdigest()

    def _arrays(self) -> dict[str, NDArray[Any]]:
        arrays = {"keypoints": self.keypoints, "descriptors": self.descriptors, "scores": self.scores}
        return arrays | self.optional

    @property
    def optional(self) -> dict[str, NDArray[np.float32]]:
        """`scales` and `oris`, those that there are."""
        return {name: value for name in _OPTIONAL if (value := getattr(self, name)) is not None}

    @classmethod
    def from_torch(
        cls, features: Mapping[str, Any], feature_type: str, descriptor_dtype: Any = np.float16
    ) -> ImageFeatures:
        """Those of the first image of what an extractor gave, (1, N, ...) or (N, ...)."""

        def array(key: str, dtype: Any = np.float32) -> NDArray[Any]:
            value = features[key].detach().cpu()
            value = value[0] if value.ndim > (2 if key in ("keypoints", "descriptors") else 1) else value
            return np.ascontiguousarray(value.float().numpy().astype(dtype))

        width, height = (round(float(edge)) for edge in array("image_size"))
        keypoints = array("keypoints")
        scores = array("keypoint_scores") if "keypoint_scores" in features else np.ones(len(keypoints), np.float32)
        optional: dict[str, Any] = {name: array(name) for name in _OPTIONAL if name in features}
        descriptors = array("descriptors", descriptor_dtype)
        return cls(keypoints, descriptors, scores, (width, height), feature_type, **optional)

    def torch(self, device: Any = "cpu", as_extracted: bool = False) -> Features:
        """A batch of one, as matchers take it, descriptors in float32.

        as_extracted: keypoints and size in px of the rotated image, which is how the descriptors go with others.
        """
        import torch

        from lightglue.images.rotation import Rotation

        keypoints: NDArray[Any] = self.keypoints
        size = self.image_size
        if as_extracted and self.rotation:
            rotation = Rotation(self.rotation, *size)
            keypoints, size = keypoints @ rotation.matrix[:, :2].T + rotation.matrix[:, 2], rotation.size

        def tensor(array: NDArray[Any]) -> torch.Tensor:
            return torch.from_numpy(np.array(array, np.float32))[None].to(device)

        features: Features = {
            "keypoints": tensor(keypoints),
            "descriptors": tensor(self.descriptors),
            "keypoint_scores": tensor(self.scores),
            "image_size": torch.tensor([size], dtype=torch.float32, device=device),
        }
        features.update({name: tensor(array) for name, array in self.optional.items()})  # type: ignore[typeddict-item]
        return features


@dataclass(frozen=True)
class Head:
    """What is known of an image's features without reading them."""

    name: str
    digest: str
    num_keypoints: int
    image_size: tuple[int, int]
    source: Source
    mask: Source | None = None  # the file that said where keypoints may lie
    note: str | None = None  # why there are no keypoints


@dataclass(frozen=True)
class FeatureStore:
    """The features of a collection of images on disk."""

    folder: Path
    settings: Mapping[str, Any] = field(default_factory=dict)  # what made them, as JSON has it
    read_only: bool = False

    @property
    def stretch(self) -> bool:
        """Whether the images' values were spread before they were extracted: whoever reads them again does so too."""
        return bool(self.settings.get("stretch", False))

    @classmethod
    def open(
        cls, folder: str | os.PathLike[str], settings: Mapping[str, Any] | None = None, read_only: bool = False
    ) -> FeatureStore:
        """The store in a folder; made where there is none and `settings` are given.

        Raises InputError where there is none, or it was made with other settings; StoreError where it is damaged or
        cannot be made.
        """
        folder = Path(folder)
        path = folder / _STORE
        try:
            there = read_json(path)
        except FileNotFoundError:
            if settings is None or read_only:
                raise InputError(f"There are no features in {folder} (no {_STORE}); extract them first.") from None
            if next(folder.glob("??/*.npz"), None) is not None and not path.exists():  # of which settings?
                raise StoreError(
                    f"{folder} holds features, but not what made them (no {_STORE}); remove it and extract again."
                ) from None
            write_json(path, {"format": FORMAT, "kind": "features", "settings": as_read(settings)}, new=True)
            there = read_json(path)  # perhaps of a process that was quicker
        made_with = there.get("settings")
        if there.get("format") != FORMAT or there.get("kind") != "features" or not isinstance(made_with, dict):
            raise StoreError(f"{path} is of another kind or version; name another folder, or extract into a new one.")
        if settings is not None:
            check_settings(folder, made_with, as_read(settings))
        if not read_only:
            remove_parts(folder)
        return cls(folder, made_with, read_only)

    def put(
        self, name: str, features: ImageFeatures, source: Source, mask: Source | None = None, note: str | None = None
    ) -> Head:
        """Write the features of an image, replacing any that were there. Raises StoreError.

        mask: of the file that said where keypoints may lie. note: why there are none.
        """
        self._check_writable()
        head = Head(name, features.digest, len(features), features.image_size, source, mask, note)
        about = {
            "name": name,
            "digest": head.digest,
            "num_keypoints": head.num_keypoints,
            "image_size": list(head.image_size),
            "feature_type": features.feature_type,
            "source": source.as_list(),
            **({"rotation": features.rotation} if features.rotation else {}),
            **({} if mask is None else {"mask": mask.as_list()}),
            **({} if note is None else {"note": note}),
        }
        buffer = io.BytesIO()
        arrays = {"about": np.array(json.dumps(about)), **features._arrays()}  # first what `head` reads
        np.savez(buffer, **arrays)  # type: ignore[arg-type]  # its allow_pickle stands in the way
        write_whole(self._path(name), buffer.getvalue(), part_in(self.folder))
        return head

    def get(self, name: str, mapped: bool = False) -> ImageFeatures:
        """The features of an image. Raises InputError where there are none, StoreError where they are damaged.

        mapped: leave the arrays in the pages of the file, which processes share. They are not to be written to.
        """
        path = self._path(name)
        try:
            content = path.read_bytes()
        except FileNotFoundError:
            raise InputError(f"There are no features of {name!r} in {self.folder}; extract them first.") from None
        except OSError as error:
            raise StoreError(f"{path} (of {name!r}) cannot be read: {error.strerror or error}.") from error
        try:
            found = _read(content, name)
            if mapped and (arrays := mapped_arrays(path, content)) is not None:
                del arrays["about"]
                mapped_ones: dict[str, Any] = arrays
                return replace(found, **mapped_ones)
            return found
        except Exception as error:  # whatever zipfile and numpy make of a damaged file
            raise StoreError(
                f"{path} (of {name!r}) is damaged ({error}); remove it and extract the image again."
            ) from error

    def head(self, name: str) -> Head | None:
        """What is known of an image's features; None where there are none, or the file is no such file."""
        head = _head(self._path(name))
        return head if head is not None and head.name == name else None

    def remove(self, name: str) -> None:
        """Forget the features of an image. Raises StoreError where they cannot be removed."""
        self._check_writable()
        path = self._path(name)
        with writing(path):
            path.unlink(missing_ok=True)

    def names(self) -> list[str]:
        """The names of all images that have features, sorted."""
        return sorted(head.name for head in self.heads())

    def heads(self, leave_out: Collection[Path] = ()) -> Iterator[Head]:
        """What is known of each image, in the order of the files; damaged files are passed over, as by `head`.

        leave_out: files that are not opened.
        """
        for path in sorted(self.folder.glob("??/*.npz")):
            head = None if path in leave_out else _head(path)
            if head is not None and self._path(head.name) == path:
                yield head

    def damaged(self, names: Iterable[str]) -> list[str]:
        """Those of these images whose file is there, but is not whole. Raises StoreError for what cannot be read."""
        found = []
        for name in names:
            try:
                self.get(name)
            except InputError:  # there is none
                continue
            except StoreError as error:
                if isinstance(error.__cause__, OSError):
                    raise
                found.append(name)
        return found

    def besides(self, names: Iterable[str]) -> list[str]:
        """The names of images that have features, but are not among these, sorted; only their files are opened."""
        known = {self._path(name) for name in names}
        return sorted(head.name for head in self.heads(known))

    def __contains__(self, name: str) -> bool:
        return self.head(name) is not None

    def _path(self, name: str) -> Path:
        digest = hashlib.sha256(name.encode("utf-8", "surrogatepass")).hexdigest()
        return self.folder / digest[:2] / f"{digest[:40]}.npz"

    def _check_writable(self) -> None:
        if self.read_only:
            raise StoreError(f"{self.folder} was opened for reading only.")


def _read(content: bytes, name: str) -> ImageFeatures:
    """The features in a file. Each member is checked before numpy sees it, and all of them against the digest."""
    arrays = read_arrays(content)
    head, about = _about(arrays.pop("about"))
    whole: dict[str, Any] = arrays
    whole |= {"feature_type": str(about["feature_type"]), "rotation": int(about.get("rotation", 0))}
    features = ImageFeatures(**whole, image_size=head.image_size)
    if head.name != name:
        raise ValueError(f"it is of the image {head.name!r}")
    if features.digest != head.digest:
        raise ValueError("the digest differs")
    return features


def _head(path: Path) -> Head | None:
    try:
        file = path.stat()
        return _head_of(path, (file.st_ino, file.st_mtime_ns, file.st_size))
    except Exception:  # no file, or whatever zipfile and numpy make of a damaged one
        return None


@lru_cache(10_000)  # every stage, and every round of matching, asks again
def _head_of(path: Path, version: tuple[int, ...]) -> Head:
    """Of this version of a file: one that is put in its place is another. What it raises is not kept."""
    with zipfile.ZipFile(path) as archive:
        return _about(array_of(archive.read("about.npy")))[0]


def _about(array: NDArray[Any]) -> tuple[Head, dict[str, Any]]:
    about = json.loads(str(array))
    width, height = about["image_size"]
    source, mask, note = Source.from_list(about["source"]), about.get("mask"), about.get("note")
    head = Head(
        str(about["name"]),
        str(about["digest"]),
        int(about["num_keypoints"]),
        (width, height),
        source,
        None if mask is None else Source.from_list(mask),
        None if note is None else str(note),
    )
    return head, about
