"""Which images are alike: a descriptor of each image, from its local features, and exact search among them.

    MAP/retrieval.npz   the vocabulary, and of each image its name, the digest of its features and its descriptor

The vocabulary is trained on a sample of the collection's own features: nothing is downloaded, and any kind of features
will do. Images that come later are described with the vocabulary that is there.
"""

from __future__ import annotations

import io
import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from lightglue.errors import ImageError, InputError, StoreError
from lightglue.sfm.options import RetrievalOptions
from lightglue.sfm.retrieval.global_descriptor import GlobalDescriptor
from lightglue.sfm.retrieval.search import cosine, most_alike, quantize
from lightglue.sfm.retrieval.vlad import Vocabulary, train
from lightglue.stores import FeatureStore, ImageFeatures
from lightglue.stores.arrays import read_arrays
from lightglue.support.files import write_whole
from lightglue.support.progress import Progress

__all__ = ["RetrievalIndex", "RetrievalOptions", "build_index"]

FORMAT = 2
_DAMAGED = (OSError, ValueError, KeyError, TypeError, AttributeError)
_VOCABULARY = ("mean", "axes", "words")
_SAVED = 500  # images that a network has described, after which they are written down
Image = str | os.PathLike[str] | torch.Tensor
Descriptors = NDArray[np.int16]
Search = Callable[[Descriptors, Descriptors, int], Iterator[tuple[NDArray[np.int64], NDArray[np.int64]]]]


@dataclass(frozen=True, eq=False)
class RetrievalIndex:
    """The descriptors of a collection of images."""

    vocabulary: Vocabulary | GlobalDescriptor
    names: tuple[str, ...]  # sorted
    digests: tuple[str, ...]  # of the features that were described
    descriptors: Descriptors  # (N, W d), as `search.quantize` has them; zeros for an image without keypoints
    options: RetrievalOptions

    @classmethod
    def open(cls, path: str | os.PathLike[str]) -> RetrievalIndex:
        """Read it. Raises InputError where there is none, StoreError where it is damaged."""
        path = Path(path)
        try:
            data = read_arrays(path.read_bytes())
            about = json.loads(str(data["about"]))
            if about["format"] != FORMAT:
                raise ValueError(f"it has format {about['format']}")
            options = RetrievalOptions(**about["options"])
            vocabulary: Vocabulary | GlobalDescriptor = GlobalDescriptor()
            if options.descriptor == "vlad":
                vocabulary = Vocabulary(*(torch.from_numpy(data[key]) for key in _VOCABULARY))
            names, digests = tuple(about["names"]), tuple(about["digests"])
            index = cls(vocabulary, names, digests, data["descriptors"], options)
            if index.descriptors.shape != (len(index.names), vocabulary.size) or len(index.digests) != len(index.names):
                raise ValueError("its parts do not go together")
            return index
        except FileNotFoundError:
            raise InputError(f"There is no retrieval index at {path}; run the stage `pairs` with retrieval.") from None
        except _DAMAGED as error:
            raise StoreError(f"{path} is damaged ({error}); remove it, and it is made again.") from error

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write it, whole or not at all. Raises StoreError."""
        about = {
            "format": FORMAT,
            "names": list(self.names),
            "digests": list(self.digests),
            "options": asdict(self.options),
        }
        learnt = _VOCABULARY if isinstance(self.vocabulary, Vocabulary) else ()
        parts = {name: getattr(self.vocabulary, name).numpy() for name in learnt}
        arrays = {"about": np.array(json.dumps(about)), "descriptors": self.descriptors, **parts}
        buffer = io.BytesIO()
        np.savez(buffer, **arrays)
        write_whole(Path(path), buffer.getvalue())

    def query(self, features: ImageFeatures, k: int, image: Image | None = None) -> list[tuple[str, float]]:
        """The `k` images most like one with these features, best first, with the cosine of the two descriptors.

        image: its file or pixels, (3, H, W) in [0, 1], which a network's index needs.
        """
        indices, scores = next(most_alike(self._describe(features, image)[None], self.descriptors, k))
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
            from lightglue.sfm.retrieval.with_faiss import most_alike as search
        for found, likeness in search(self.descriptors[wanted], self.descriptors, k + 1):  # one is the image itself
            for indices, scores in zip(found, likeness, strict=True):
                others = indices != wanted[done]
                yield names[done], self._named(indices[others][:k], scores[others][:k])
                done += 1

    def update(
        self, features: FeatureStore, names: Iterable[str] | None = None, images: Path | None = None
    ) -> RetrievalIndex:
        """With the vocabulary that is there: of the images that have features now (names: of these), no others.

        An image whose features are the same keeps its descriptor; one whose features are damaged, or whose file a
        network cannot read, is left out. images: their folder, which a network's index needs.
        """
        wanted = sorted(features.names() if names is None else set(names))
        known = {name: (digest, row) for row, (name, digest) in enumerate(zip(self.names, self.digests, strict=True))}
        rows, digests, kept = [], [], []
        for name in wanted:
            head = features.head(name)
            if head is None:
                continue
            if name in known and known[name][0] == head.digest:
                row = self.descriptors[known[name][1]]
            else:
                of_image = _whole(features, name)
                if of_image is None:
                    continue
                try:
                    row = self._describe(of_image, None if images is None else images / name, features.stretch)
                except ImageError:
                    continue
            rows.append(row)
            digests.append(head.digest)
            kept.append(name)
        descriptors = np.stack(rows) if rows else np.empty((0, self.vocabulary.size), np.int16)
        return replace(self, names=tuple(kept), digests=tuple(digests), descriptors=descriptors)

    def _describe(self, features: ImageFeatures, image: Image | None, stretch: bool = False) -> NDArray[np.int16]:
        if isinstance(self.vocabulary, GlobalDescriptor):
            if image is None:
                raise InputError("This index is of the images themselves, not of their features; give the images too.")
            return quantize(self.vocabulary.describe(image, stretch))
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
    names: Iterable[str] | None = None,
    images: Path | None = None,
    progress: Progress = lambda done, total: None,
) -> RetrievalIndex:
    """Describe all images of a store (names: only these), and write the index to `path`.

    It is left as it is where it was made of the same features with the same options; where they differ, all of it is
    made again, so that it does not depend on what was there before.

    Images whose features are damaged are left out. images: their folder, which a network's descriptor needs.

    Raises InputError for features that cannot be described, StoreError where the index cannot be written.
    """
    options, path = options or RetrievalOptions(), Path(path)
    wanted = None if names is None else set(names)
    heads = {head.name: head.digest for head in features.heads() if wanted is None or head.name in wanted}
    heads = dict(sorted(heads.items()))
    known = _known(path, options)
    if known is not None and dict(zip(known.names, known.digests, strict=True)) == heads:
        return known
    if options.descriptor == "megaloc":
        return _describe_images(features, heads, path, options, images, known, progress)
    index = _empty(_train(features, list(heads), options), options)
    rows = np.empty((len(heads), index.vocabulary.size), np.int16)
    described: list[str] = []
    for done, name in enumerate(heads, 1):
        of_image = _whole(features, name)
        if of_image is not None:
            rows[len(described)] = index._describe(of_image, None)
            described.append(name)
        progress(done, len(heads))
    index = _with(index, described, heads, rows[: len(described)])
    index.save(path)
    return index


def _describe_images(
    features: FeatureStore,
    digests: Mapping[str, str],
    path: Path,
    options: RetrievalOptions,
    images: Path | None,
    known: RetrievalIndex | None,
    progress: Progress,
) -> RetrievalIndex:
    """By a network, which takes long and describes each image alone: what is known is kept, and written as it grows."""
    if images is None:
        raise InputError("descriptor='megaloc' looks at the images; give their folder as `images`.")
    index = _empty(GlobalDescriptor(), options)
    old = (
        {} if known is None else dict(zip(zip(known.names, known.digests, strict=True), known.descriptors, strict=True))
    )
    rows: list[Descriptors] = []
    described: list[str] = []
    fresh = 0
    for done, (name, digest) in enumerate(digests.items(), 1):
        progress(done, len(digests))
        row = old.get((name, digest))
        if row is None:
            try:
                row = quantize(GlobalDescriptor().describe(images / name, features.stretch))
            except ImageError:
                continue
            fresh += 1
        rows.append(row)
        described.append(name)
        if fresh == _SAVED:
            fresh = 0
            _with(index, described, digests, np.stack(rows)).save(path)
    index = _with(index, described, digests, np.stack(rows) if rows else index.descriptors)
    index.save(path)
    return index


def _known(path: Path, options: RetrievalOptions) -> RetrievalIndex | None:
    """The index at a path, if it was made with these options."""
    try:
        index = RetrievalIndex.open(path)
    except (InputError, StoreError):
        return None  # made again
    return index if index.options == options else None


def _empty(vocabulary: Vocabulary | GlobalDescriptor, options: RetrievalOptions) -> RetrievalIndex:
    return RetrievalIndex(vocabulary, (), (), np.empty((0, vocabulary.size), np.int16), options)


def _with(
    index: RetrievalIndex, names: Sequence[str], digests: Mapping[str, str], descriptors: Descriptors
) -> RetrievalIndex:
    return replace(index, names=tuple(names), digests=tuple(digests[n] for n in names), descriptors=descriptors)


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
        raise InputError("No image has keypoints, so that they cannot be distinguished; look at the images.")
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
