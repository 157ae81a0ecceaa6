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
from lightglue.sfm.vlad import Vocabulary, train
from lightglue.stores import FeatureStore, ImageFeatures
from lightglue.stores.files import write_whole

__all__ = ["RetrievalIndex", "RetrievalOptions", "build_index"]

FORMAT = 1
_DAMAGED = (OSError, ValueError, KeyError, TypeError, EOFError, zipfile.BadZipFile, zlib.error)
_BLOCK = 1024  # images that are compared with all others at once
Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class RetrievalOptions:
    """How images are described. Raises InputError."""

    words: int = 64
    dimensions: int = 64  # principal components of the local descriptors that are kept
    sample: int = 100_000  # local descriptors that the vocabulary is trained on
    seed: int = 0

    def __post_init__(self) -> None:
        for name, low in (("words", 1), ("dimensions", 1), ("sample", 1), ("seed", 0)):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or not low <= value < 2**31:
                raise InputError(f"{name} is {value!r}; give an integer of at least {low}.")


@dataclass(frozen=True, eq=False)
class RetrievalIndex:
    """The descriptors of a collection of images."""

    vocabulary: Vocabulary
    names: tuple[str, ...]  # sorted
    digests: tuple[str, ...]  # of the features that were described
    descriptors: NDArray[np.float16]  # (N, W d), of length 1, or 0 for an image without keypoints
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
        if not self.names or k < 1:
            return []
        wanted = self._describe(features)[None]
        return self._best(wanted, k, None)[0]

    def nearest(self, names: Sequence[str], k: int) -> Iterator[tuple[str, list[tuple[str, float]]]]:
        """For each of these images the at most `k` others most like it, best first. Raises InputError for others."""
        rows = {name: row for row, name in enumerate(self.names)}
        if unknown := next((name for name in names if name not in rows), None):
            raise InputError(f"The retrieval index knows nothing of {unknown!r}; add the image first.")
        for start in range(0, len(names), _BLOCK):
            some = [rows[name] for name in names[start : start + _BLOCK]]
            found = self._best(self.descriptors[some], k, some)
            yield from ((self.names[row], best) for row, best in zip(some, found, strict=True))

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
        descriptors = np.stack(rows) if rows else np.empty((0, self.vocabulary.size), np.float16)
        return replace(self, names=tuple(kept), digests=tuple(digests), descriptors=descriptors)

    def _describe(self, features: ImageFeatures) -> NDArray[np.float16]:
        return np.asarray(self.vocabulary.describe(_local(features)).numpy(), np.float16)

    def _best(self, wanted: NDArray[np.float16], k: int, own: list[int] | None) -> list[list[tuple[str, float]]]:
        """The best images of each row of `wanted`, but itself; blocks of the others bound the memory."""
        left = torch.from_numpy(wanted.astype(np.float32))
        likeness = torch.empty(len(left), len(self.names))
        for start in range(0, len(self.names), _BLOCK):
            block = torch.from_numpy(self.descriptors[start : start + _BLOCK].astype(np.float32))
            likeness[:, start : start + _BLOCK] = left @ block.T
        if own is not None:
            likeness[torch.arange(len(left)), torch.tensor(own)] = -torch.inf
        count = min(k, len(self.names) - (own is not None))
        values, rows = likeness.sort(dim=1, descending=True, stable=True)  # equal ones in the order of their names
        return [
            [(self.names[int(row)], float(value)) for value, row in zip(some[:count], those[:count], strict=True)]
            for some, those in zip(values, rows, strict=True)
        ]


def build_index(
    features: FeatureStore,
    path: str | os.PathLike[str],
    options: RetrievalOptions | None = None,
    *,
    names: Iterable[str] | None = None,
    progress: Progress = lambda done, total: None,
) -> RetrievalIndex:
    """Describe all images of a store (names: only these), and write the index to `path`.

    It is left as it is where it was made of the same features with the same options; where they differ, all of it is
    made anew, so that it does not depend on what was there before.

    Raises InputError for features that cannot be described, StoreError for files that are damaged or not written.
    """
    options, path = options or RetrievalOptions(), Path(path)
    wanted = None if names is None else set(names)
    heads = sorted(features.heads(), key=lambda head: head.name)
    heads = [head for head in heads if wanted is None or head.name in wanted]
    names, digests = tuple(head.name for head in heads), tuple(head.digest for head in heads)
    try:
        known = RetrievalIndex.open(path)
        if known.names == names and known.digests == digests and known.options == options:
            return known
    except (InputError, StoreError):
        pass  # made anew
    vocabulary = _train(features, names, options)
    index = RetrievalIndex(vocabulary, (), (), np.empty((0, vocabulary.size), np.float16), options)
    rows = np.empty((len(names), vocabulary.size), np.float16)
    for row, name in enumerate(names):
        rows[row] = index._describe(features.get(name))
        progress(row + 1, len(names))
    index = replace(index, names=names, digests=digests, descriptors=rows)
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
        of_image = features.get(names[row]).descriptors
        taken.append(of_image[np.sort(generator.permutation(len(of_image))[:share])])
    sample = np.concatenate([each for each in taken if len(each)]) if any(map(len, taken)) else None
    if sample is None:
        raise InputError("No image has keypoints, so that none can be told from another; look at the photographs.")
    local = torch.from_numpy(sample.astype(np.float32))
    return train(local, options.words, min(options.dimensions, local.shape[1]), options.seed)


def _local(features: ImageFeatures) -> torch.Tensor:
    return torch.from_numpy(features.descriptors.astype(np.float32))
