"""Which images are alike: a descriptor of each image, from its local features, and exact search among them.

    MAP/retrieval.npz   the vocabulary, and of each image its name, the digest of its features and its descriptor

The vocabulary is trained on a sample of the collection's own features: nothing is downloaded, and any kind of features
will do. Images that come later are described with the vocabulary that is there.
"""

from __future__ import annotations

import io
import json
import os
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from lightglue.errors import InputError, StoreError
from lightglue.sfm.search import cosine, most_alike, quantize
from lightglue.sfm.vlad import Vocabulary, train
from lightglue.stores import FeatureStore, ImageFeatures
from lightglue.stores.files import write_whole

__all__ = ["RetrievalIndex", "RetrievalOptions", "build_index"]

FORMAT = 2
_DAMAGED = (OSError, ValueError, KeyError, TypeError, EOFError, zipfile.BadZipFile, zlib.error)
Progress = Callable[[int, int], None]
Descriptors = NDArray[np.int16]
Search = Callable[[Descriptors, Descriptors, int], Iterator[tuple[NDArray[np.int64], NDArray[np.int64]]]]


@dataclass(frozen=True)
class RetrievalOptions:
    """How images are described. Raises InputError."""

    words: int = 32
    dimensions: int = 64  # principal components of the local descriptors that are kept
    sample: int = 100_000  # local descriptors that the vocabulary is trained on
    seed: int = 0
    search: str = "exact"  # or "faiss": nearly so, for more than 100,000 images

    def __post_init__(self) -> None:
        for name, low in (("words", 1), ("dimensions", 1), ("sample", 1), ("seed", 0)):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or not low <= value < 2**31:
                raise InputError(f"{name} is {value!r}; give an integer of at least {low}.")
        if self.search not in ("exact", "faiss"):
            raise InputError(f"search is {self.search!r}; choose exact or faiss.")


@dataclass(frozen=True, eq=False)
class RetrievalIndex:
    """The descriptors of a collection of images."""

    vocabulary: Vocabulary
    names: tuple[str, ...]  # sorted
    digests: tuple[str, ...]  # of the features that were described
    descriptors: Descriptors  # (N, W d), as `search.quantize` has them; zeros for an image without keypoints
    options: RetrievalOptions

    @classmethod
    def open(cls, path: str | os.PathLike[str]) -> RetrievalIndex:
        """Read it. Raises InputError where there is none, StoreError where it is damaged."""
        path = Path(path)
        try:
            with np.load(io.BytesIO(path.read_bytes()), allow_pickle=False) as data:
                about = json.loads(str(data["about"]))
                if about["format"] != FORMAT:
                    raise ValueError(f"it has format {about['format']}")
                vocabulary = Vocabulary(*(torch.from_numpy(data[key]) for key in ("mean", "axes", "words")))
                index = cls(
                    vocabulary,
                    tuple(about["names"]),
                    tuple(about["digests"]),
                    data["descriptors"],
                    RetrievalOptions(**about["options"]),
                )
            if index.descriptors.shape != (len(index.names), vocabulary.size) or len(index.digests) != len(index.names):
                raise ValueError("its parts do not go together")
            return index
        except FileNotFoundError:
            raise InputError(f"There is no retrieval index at {path}; run the stage `pairs` with retrieval.") from None
        except _DAMAGED as error:
            raise StoreError(f"{path} is damaged ({error}); remove it, and it is made anew.") from error

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write it, whole or not at all. Raises StoreError."""
        about = {
            "format": FORMAT,
            "names": list(self.names),
            "digests": list(self.digests),
            "options": asdict(self.options),
        }
        parts = {name: getattr(self.vocabulary, name).numpy() for name in ("mean", "axes", "words")}
        arrays = {"about": np.array(json.dumps(about)), "descriptors": self.descriptors, **parts}
        buffer = io.BytesIO()
        np.savez(buffer, **arrays)
        write_whole(Path(path), buffer.getvalue())

    def query(self, features: ImageFeatures, k: int) -> list[tuple[str, float]]:
        """The `k` images most like one with these features, best first, with the cosine of the two descriptors."""
        indices, scores = next(most_alike(self._describe(features)[None], self.descriptors, k))
        return self._named(indices[0], scores[0])

    def nearest(self, names: Sequence[str], k: int) -> Iterator[tuple[str, list[tuple[str, float]]]]:
        """For each of these images the at most `k` others most like it, best first. Raises InputError for others."""
        rows = {name: row for row, name in enumerate(self.names)}
        if unknown := next((name for name in names if name not in rows), None):
            raise InputError(f"The retrieval index knows nothing of {unknown!r}; add the image first.")
        wanted = np.array([rows[name] for name in names], np.int64)
        done = 0
        search: Search = most_alike
        if self.options.search == "faiss":
            from lightglue.sfm.with_faiss import most_alike as search
        for found, likeness in search(self.descriptors[wanted], self.descriptors, k + 1):  # one is the image itself
            for indices, scores in zip(found, likeness, strict=True):
                others = indices != wanted[done]
                yield names[done], self._named(indices[others][:k], scores[others][:k])
                done += 1

    def update(self, features: FeatureStore, names: Iterable[str] | None = None) -> RetrievalIndex:
        """With the vocabulary that is there: of the images that have features now (names: of these), no others.

        An image whose features are the same keeps its descriptor.
        """
        wanted = sorted(features.names() if names is None else set(names))
        known = {name: (digest, row) for row, (name, digest) in enumerate(zip(self.names, self.digests, strict=True))}
        rows, digests, kept = [], [], []
        for name in wanted:
            head = features.head(name)
            if head is None:
                continue
            same = name in known and known[name][0] == head.digest
            rows.append(self.descriptors[known[name][1]] if same else self._describe(features.get(name)))
            digests.append(head.digest)
            kept.append(name)
        descriptors = np.stack(rows) if rows else np.empty((0, self.vocabulary.size), np.int16)
        return replace(self, names=tuple(kept), digests=tuple(digests), descriptors=descriptors)

    def _describe(self, features: ImageFeatures) -> NDArray[np.int16]:
        width = len(self.vocabulary.mean)
        if not len(features):
            return np.zeros(self.vocabulary.size, np.int16)
        if features.descriptors.shape[1] != width:
            raise InputError(
                f"The descriptors have {features.descriptors.shape[1]} numbers, those of the index {width}; extract "
                "with the extractor that the index was made with."
            )
        return quantize(self.vocabulary.describe(_local(features)))

    def _named(self, indices: NDArray[np.int64], scores: NDArray[np.int64]) -> list[tuple[str, float]]:
        cosines = cosine(scores, self.vocabulary.size)
        return [(self.names[row], float(value)) for row, value in zip(indices, cosines, strict=True) if row >= 0]


def build_index(
    features: FeatureStore,
    path: str | os.PathLike[str],
    options: RetrievalOptions | None = None,
    *,
    progress: Progress = lambda done, total: None,
) -> RetrievalIndex:
    """Describe all images of a store, and write the index to `path`.

    It is left as it is where it was made of the same features with the same options; where they differ, all of it is
    made anew, so that it does not depend on what was there before.

    Images whose features are damaged are left out.

    Raises InputError for features that cannot be described, StoreError where the index cannot be written.
    """
    options, path = options or RetrievalOptions(), Path(path)
    heads = sorted(features.heads(), key=lambda head: head.name)
    names, digests = tuple(head.name for head in heads), tuple(head.digest for head in heads)
    try:
        known = RetrievalIndex.open(path)
        if known.names == names and known.digests == digests and known.options == options:
            return known
    except (InputError, StoreError):
        pass  # made anew
    vocabulary = _train(features, names, options)
    index = RetrievalIndex(vocabulary, (), (), np.empty((0, vocabulary.size), np.int16), options)
    rows = np.empty((len(names), vocabulary.size), np.int16)
    described: list[int] = []
    for row, name in enumerate(names):
        of_image = _whole(features, name)
        if of_image is not None:
            rows[len(described)] = index._describe(of_image)
            described.append(row)
        progress(row + 1, len(names))
    index = replace(
        index,
        names=tuple(names[row] for row in described),
        digests=tuple(digests[row] for row in described),
        descriptors=rows[: len(described)],
    )
    index.save(path)
    return index


def _train(features: FeatureStore, names: Sequence[str], options: RetrievalOptions) -> Vocabulary:
    """A vocabulary from some features of some images, chosen by the seed and the sorted names."""
    generator = np.random.default_rng(options.seed)
    most = max(1, min(len(names), options.sample // 64))  # images: from each at least 64 features
    chosen = sorted(generator.permutation(len(names))[:most].tolist())
    share = -(-options.sample // most)
    taken: list[NDArray[Any]] = []
    for row in chosen:
        of_image = _whole(features, names[row])
        if of_image is not None:
            taken.append(of_image.descriptors[np.sort(generator.permutation(len(of_image))[:share])])
    sample = np.concatenate([each for each in taken if len(each)]) if any(map(len, taken)) else None
    if sample is None:
        raise InputError("No image has keypoints, so that none can be told from another; look at the photographs.")
    local = torch.from_numpy(sample.astype(np.float32))
    return train(local, options.words, min(options.dimensions, local.shape[1]), options.seed)


def _whole(features: FeatureStore, name: str) -> ImageFeatures | None:
    """The features of an image; None where they are damaged, or were removed meanwhile."""
    try:
        return features.get(name)
    except (InputError, StoreError):
        return None


def _local(features: ImageFeatures) -> torch.Tensor:
    return torch.from_numpy(features.descriptors.astype(np.float32))
