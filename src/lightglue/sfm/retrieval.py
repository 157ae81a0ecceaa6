"""Which images look alike: a descriptor for each image, and the search among them.

The descriptors are made of the local features that are there anyway (`lightglue.sfm.vlad`), with a vocabulary learnt
from the collection itself: nothing is downloaded. The same features and options give the same file, byte for byte,
with the same number of threads.
"""

from __future__ import annotations

import io
import json
import os
import random
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from lightglue.errors import InputError, LightGlueError, StoreError
from lightglue.sfm.search import cosine, most_alike, quantize
from lightglue.sfm.vlad import Vocabulary, train
from lightglue.stores import FeatureStore, ImageFeatures
from lightglue.stores.files import as_read, write_whole

__all__ = ["RetrievalIndex", "RetrievalOptions", "build_index"]

FORMAT = 1
_TRAINING_IMAGES = 2000  # at the most that the vocabulary is learnt from

Progress = Callable[[int, int], None]  # images done, images in all


@dataclass(frozen=True)
class RetrievalOptions:
    """How an image is described by its local features: docs/decisions/018-retrieval.md has the measurements."""

    words: int = 64
    dimensions: int = 64  # principal components of the local descriptors that are kept
    sample: int = 100_000  # local descriptors that the vocabulary is learnt from
    seed: int = 0

    def __post_init__(self) -> None:
        for name, value in asdict(self).items():
            least = 0 if name == "seed" else 1
            if isinstance(value, bool) or not isinstance(value, int) or value < least:
                raise InputError(f"{name} is {value!r}; give a whole number from {least}.")


class Describer(Protocol):
    """What turns an image, or its features, into a descriptor."""

    def describe(self, item: Any) -> torch.Tensor:
        """(E,) of length 1, or zeros where there is nothing to describe; float32."""

    def arrays(self) -> Mapping[str, NDArray[Any]]:
        """What it was learnt to be, for the file."""


@dataclass(frozen=True, eq=False)
class LocalDescriber:
    """Describes an image by its local features. Raises InputError for those of another kind."""

    vocabulary: Vocabulary
    feature_type: str

    def describe(self, item: ImageFeatures) -> torch.Tensor:
        """(E,) of the features of an image."""
        width = len(self.vocabulary.mean)
        if item.feature_type != self.feature_type or (len(item) and item.descriptors.shape[1] != width):
            raise InputError(
                f"The features are {item.feature_type!r}, {item.descriptors.shape}; the index was made of "
                f"{self.feature_type!r} with {width} numbers a descriptor. Extract with the same options."
            )
        if not len(item):
            return torch.zeros(self.vocabulary.size)
        return self.vocabulary.describe(_descriptors(item))

    def arrays(self) -> Mapping[str, NDArray[Any]]:
        """The vocabulary."""
        v = self.vocabulary
        return {"mean": v.mean.numpy(), "axes": v.axes.numpy(), "words": v.words.numpy()}


@dataclass(frozen=True, eq=False)
class RetrievalIndex:
    """The descriptors of a collection of images."""

    names: tuple[str, ...]  # sorted
    digests: tuple[str, ...]  # of the features, or images, that were described
    descriptors: NDArray[np.int16]  # (N, E)
    describer: Describer
    settings: Mapping[str, Any] = field(default_factory=dict)
    path: Path | None = None  # where it lies

    @classmethod
    def open(cls, path: str | os.PathLike[str]) -> RetrievalIndex:
        """The index in a file. Raises InputError where there is none, StoreError where it is damaged."""
        path = Path(path)
        try:
            with np.load(io.BytesIO(path.read_bytes()), allow_pickle=False) as data:
                arrays = {key: data[key] for key in data.files}
            about = json.loads(arrays["about"].tobytes())
            if about["format"] != FORMAT or len(about["names"]) != len(arrays["descriptors"]):
                raise ValueError("it is of another version, or not whole")
            describer = _describer(about["settings"], arrays)
            names, digests = tuple(about["names"]), tuple(about["digests"])
            return cls(names, digests, arrays["descriptors"], describer, about["settings"], path)
        except FileNotFoundError:
            raise InputError(f"There is no index of images at {path}; build it first.") from None
        except LightGlueError:
            raise
        except Exception as error:  # a damaged archive raises what it likes
            raise StoreError(f"{path} is damaged ({error}); remove it and build the index anew.") from error

    def save(self, path: str | os.PathLike[str]) -> RetrievalIndex:
        """Write it to a file, whole or not at all. Raises StoreError."""
        about = {"format": FORMAT, "settings": self.settings, "names": self.names, "digests": self.digests}
        content = np.frombuffer(json.dumps(about).encode(), np.uint8)
        buffer = io.BytesIO()
        arrays = {"about": content, "descriptors": self.descriptors, **self.describer.arrays()}
        np.savez(buffer, **arrays)  # type: ignore[arg-type]  # its allow_pickle stands in the way
        write_whole(Path(path), buffer.getvalue())
        return replace(self, path=Path(path))

    def query(self, item: Any, k: int, device: str | torch.device = "cpu") -> list[tuple[str, float]]:
        """The at most `k` images most like an image, best first, with the cosines of the descriptors.

        item: its features, or, of an index of a global descriptor, the image.
        """
        descriptor = quantize(self.describer.describe(item))
        indices, scores = next(most_alike(descriptor[None], self.descriptors, _count(k), device))
        return self._named(indices[0], scores[0])

    def nearest(
        self, names: Sequence[str], k: int, device: str | torch.device = "cpu"
    ) -> Iterator[tuple[str, list[tuple[str, float]]]]:
        """For each of these images the at most `k` others most like it, best first, with the cosines.

        Raises InputError for an image that is not in the index.
        """
        at = {name: index for index, name in enumerate(self.names)}
        absent = next((name for name in names if name not in at), None)
        if absent is not None:
            raise InputError(f"The index has no image {absent!r}; add it first.")
        rows = np.array([at[name] for name in names], np.int64)
        done = 0
        for block, block_scores in most_alike(self.descriptors[rows], self.descriptors, _count(k) + 1, device):
            for indices, scores in zip(block, block_scores, strict=True):
                other = indices != rows[done]
                yield names[done], self._named(indices[other][:k], scores[other][:k])
                done += 1

    def pairs(self, k: int, device: str | torch.device = "cpu") -> list[tuple[str, str]]:
        """Each image with the at most `k` most like it: canonical, each once, sorted."""
        found = self.nearest(self.names, k, device)
        return sorted({(min(name, other), max(name, other)) for name, likely in found for other, _ in likely})

    def add(self, items: Mapping[str, tuple[str, Any]]) -> RetrievalIndex:
        """With more images, or others in place of those of the same names, described as the rest were.

        items: name -> the digest and the features (or the image). The file, if there is one, is written anew.
        """
        kept = self._without(items)
        names = (*kept.names, *items)
        digests = (*kept.digests, *(digest for digest, _ in items.values()))
        more = [quantize(self.describer.describe(item)) for _, item in items.values()]
        descriptors = np.concatenate([kept.descriptors, np.array(more, np.int16).reshape(-1, self.descriptors.shape[1])])
        order = sorted(range(len(names)), key=names.__getitem__)
        sorted_names, sorted_digests = tuple(names[i] for i in order), tuple(digests[i] for i in order)
        return replace(self, names=sorted_names, digests=sorted_digests, descriptors=descriptors[order])._saved()

    def remove(self, names: Iterable[str]) -> RetrievalIndex:
        """Without some images; names that are not there are passed over. The file is written anew."""
        return self._without(names)._saved()

    def _without(self, names: Iterable[str]) -> RetrievalIndex:
        gone = set(names)
        keep = [index for index, name in enumerate(self.names) if name not in gone]
        kept, digests = tuple(self.names[i] for i in keep), tuple(self.digests[i] for i in keep)
        return replace(self, names=kept, digests=digests, descriptors=self.descriptors[keep])

    def _saved(self) -> RetrievalIndex:
        return self if self.path is None else self.save(self.path)

    def _named(self, indices: NDArray[np.int64], scores: NDArray[np.int64]) -> list[tuple[str, float]]:
        cosines = cosine(scores, self.descriptors.shape[1])
        return [(self.names[i], float(c)) for i, c in zip(indices, cosines, strict=True) if i >= 0]


def build_index(
    features: FeatureStore,
    path: str | os.PathLike[str] | None = None,
    options: RetrievalOptions | None = None,
    progress: Progress | None = None,
) -> RetrievalIndex:
    """Describe all images that have features, with a vocabulary of their own.

    An index at `path` that was made with the same options of the same features is left as it is. Damaged features are
    passed over: their images are not in the index.

    Raises:
        InputError: there are no features.
        StoreError: the file cannot be written.
    """
    options = options or RetrievalOptions()
    settings = as_read({"kind": "vlad", "options": asdict(options), "features": dict(features.settings)})
    heads = sorted(features.heads(), key=lambda head: head.name)
    if path is not None and (there := _unchanged(path, settings, {head.name: head.digest for head in heads})):
        return there
    describer = LocalDescriber(*_learn(features, [head.name for head in heads if head.num_keypoints], options))
    names, digests = [], []
    descriptors = np.empty((len(heads), describer.vocabulary.size), np.int16)
    for done, head in enumerate(heads):
        item = _read(features, head.name)
        if item is not None:
            descriptors[len(names)] = quantize(describer.describe(item))
            names.append(head.name)
            digests.append(head.digest)
        if progress is not None:
            progress(done + 1, len(heads))
    settings["feature_type"] = describer.feature_type
    index = RetrievalIndex(tuple(names), tuple(digests), descriptors[: len(names)], describer, settings)
    return index if path is None else index.save(path)


def _unchanged(
    path: str | os.PathLike[str], settings: Mapping[str, Any], digests: Mapping[str, str]
) -> RetrievalIndex | None:
    """The index at a path, if it is of these features."""
    try:
        index = RetrievalIndex.open(path)
    except LightGlueError:
        return None
    same = index.settings == settings and dict(zip(index.names, index.digests, strict=True)) == digests
    return index if same else None


def _learn(features: FeatureStore, names: Sequence[str], options: RetrievalOptions) -> tuple[Vocabulary, str]:
    """A vocabulary from as many descriptors of each of some images; memory does not grow with the collection."""
    chosen = random.Random(options.seed).sample(names, min(len(names), _TRAINING_IMAGES, options.sample))
    share = -(-options.sample // max(1, len(chosen)))
    samples, kinds = [], set()
    for name in chosen:
        item = _read(features, name)
        if item is None:
            continue
        generator = torch.Generator().manual_seed(options.seed)
        some = torch.randperm(len(item), generator=generator)[:share]
        samples.append(_descriptors(item)[some])
        kinds.add((item.feature_type, item.descriptors.shape[1]))
    if len(kinds) != 1:
        raise InputError(
            f"There are no features of one kind in {features.folder} ({len(samples)} images, {len(kinds)} kinds); "
            "extract them first."
        )
    return train(torch.cat(samples), options.words, options.dimensions, options.seed), kinds.pop()[0]


def _read(features: FeatureStore, name: str) -> ImageFeatures | None:
    try:
        return features.get(name)
    except (InputError, StoreError):
        return None


def _descriptors(item: ImageFeatures) -> torch.Tensor:
    return torch.nan_to_num(torch.from_numpy(item.descriptors.astype(np.float32)), posinf=0, neginf=0)


def _describer(settings: Mapping[str, Any], arrays: Mapping[str, NDArray[Any]]) -> Describer:
    tensors = [torch.from_numpy(arrays[key]) for key in ("mean", "axes", "words")]
    return LocalDescriber(Vocabulary(*tensors), settings["feature_type"])


def _count(k: int) -> int:
    if isinstance(k, bool) or not isinstance(k, int) or k < 1:
        raise InputError(f"k is {k!r}; give a whole number from 1.")
    return k
