"""Features and matches to and from the HDF5 files of hloc (github.com/cvg/Hierarchical-Localization).

Its layout, as its extract_features.py, match_features.py and utils/ write and read it:

    features: a group an image, named as the image, so that a '/' makes groups within groups
        keypoints (N, 2), descriptors (D, N), scores (N,), image_size (2,) width height, int64; scales, oris (N,)
    matches: a group a pair, NAME0/NAME1 (in older files NAME0_NAME1), each name with '-' for '/'
        matches0 (N0,) index of the keypoint in image 1, or -1; matching_scores0 (N0,)

Keypoints agree with ours: (0, 0) is the centre of the top-left pixel, px of the original image. (hloc scales them about
the pixels' corners, `(x + 0.5) * scale - 0.5`, and adds 0.5 when it writes COLMAP's database.) hloc's own files are
narrow: float16 has steps of one pixel from 1,024 px on, int16 no index above 32,767. We write float32 and int32, which
hloc reads as well (it takes each array in whatever type it has), and read both.

The one module that imports h5py: `pip install 'lightglue[hloc]'`.
"""

from __future__ import annotations

import errno
import importlib
import os
import shutil
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lightglue.errors import InputError, StoreError
from lightglue.stores.features import FeatureStore, Head, ImageFeatures, Source
from lightglue.stores.matches import MatchStore, PairMatches
from lightglue.support.files import whole

__all__ = ["UNKNOWN", "Exchanged", "read_features", "read_matches", "write_features", "write_matches"]

UNKNOWN = Source(0, 0, "")  # where a file does not say what image file its features are of
_SCORES = ("scores", "keypoint_scores", "score")  # hloc's name, and those of its relatives
_FEATURES = ("keypoints", "descriptors", "image_size", "scales", "oris", *_SCORES)
_MATCHES = ("matches0", "matching_scores0")
_BATCH = 100  # pairs a transaction
# What h5py and NumPy raise for one group that is damaged: the others are no worse for it.
_DAMAGED = (InputError, KeyError, TypeError, ValueError, OSError, RuntimeError, MemoryError, OverflowError)
_MARGIN = 64 << 20  # bytes to keep free: twice what HDF5 may hold back until a file is closed


@dataclass(frozen=True)
class Exchanged:
    """What an import or export did, and what it could not do."""

    count: int  # images, or pairs
    skipped: tuple[tuple[str, str], ...]  # an image, a pair or a group of the file, and why it was not taken
    notes: tuple[str, ...]  # what one side has and the other cannot hold, with how often


def read_features(
    path: str | os.PathLike[str],
    store: FeatureStore,
    feature_type: str,
    images: str | os.PathLike[str] | None = None,
) -> Exchanged:
    """Put the features of a file of hloc's into a store.

    feature_type: what they are, such as "superpoint"; the file does not say. images: the folder of the images, to note
    which files they are of. An image whose features are not whole is skipped. Raises StoreError where the file cannot
    be read or the store not written to, InputError where there is no file.
    """
    folder = None if images is None else Path(images)
    tally = _Tally()
    with _reading(path) as file:
        for name, datasets in _groups(file).items():
            try:
                features = _features(file[name], datasets, feature_type, tally)
            except _DAMAGED as error:
                tally.skip(name, _reason(error))
                continue
            store.put(name, features, _source(folder, name, tally))
            tally.count += 1
    return tally.result("images")


def write_features(store: FeatureStore, path: str | os.PathLike[str]) -> Exchanged:
    """Write the features of a store into a file as hloc's, replacing one that is there.

    An image whose name HDF5 cannot hold, or whose features are damaged, is skipped. Raises InputError where one image's
    name is the folder of another's, StoreError where the file cannot be written.
    """
    tally = _Tally()
    names = store.names()
    _refuse_nested(names)
    with _writing(path) as file:
        for name in names:
            try:
                _check_name(name)
                features = store.get(name)
            except (InputError, StoreError) as error:
                tally.skip(name, _reason(error))
                continue
            _write(file, name, _datasets(features))
            tally.count += 1
    tally.note("have a feature type, a digest and an image file's checksum, which hloc's file cannot hold", tally.count)
    return tally.result("images")


def read_matches(path: str | os.PathLike[str], features: FeatureStore, store: MatchStore) -> Exchanged:
    """Put the matches of a file of hloc's into a store.

    features: those that were matched; the file distinguishes images by them, and its indices are checked against them.
    A pair of other images or of other features is skipped. Raises InputError where a group may be of more than one pair
    of these images, or there is no file; StoreError where the file cannot be read or the store not written to.
    """
    heads = {head.name: head for head in features.heads()}
    tally = _Tally()
    with _reading(path) as file:
        groups = {key: datasets for key, datasets in _groups(file).items() if "matches0" in datasets}
        tally.skip_all(_groups(file).keys() - groups.keys(), "it has no matches0")
        batch: list[PairMatches] = []
        for key, (name0, name1) in _pairs(str(path), groups, heads, tally).items():
            try:
                batch.append(_matches(file[key], groups[key], heads[name0], heads[name1], tally))
            except _DAMAGED as error:
                tally.skip(key, _reason(error))
            if len(batch) == _BATCH:
                tally.put(store, batch)
        tally.put(store, batch)
    tally.note("do not say which features were matched; they are taken to be those of the store", tally.count)
    return tally.result("pairs")


def write_matches(store: MatchStore, features: FeatureStore, path: str | os.PathLike[str]) -> Exchanged:
    """Write the matches of a store into a file as hloc's, replacing one that is there.

    features: those that were matched; hloc's arrays are as long as these. A pair of other features, or one that gives a
    keypoint two matches, is skipped. Raises InputError where two images have one name in hloc's file, StoreError where
    the file cannot be written or the store is damaged.
    """
    heads = {head.name: head for head in features.heads()}
    tally = _Tally()
    _refuse_alike({name for head in store.iter_pairs() for name in (head.name0, head.name1)})
    with _writing(path) as file:
        for pair in store.read():
            try:
                _check_name(pair.name0)
                _check_name(pair.name1)
                datasets = _matches0(pair, heads)
            except InputError as error:
                tally.skip(f"{pair.name0} {pair.name1}", _reason(error))
                continue
            _write(file, f"{_dashed(pair.name0)}/{_dashed(pair.name1)}", datasets)
            tally.count += 1
            if pair.overlap is not None or pair.note is not None:
                tally.note("have an estimated overlap, which hloc's file cannot hold")
    return tally.result("pairs")


class _Tally:
    """What was done so far."""

    def __init__(self) -> None:
        self.count = 0
        self.skipped: list[tuple[str, str]] = []
        self.notes: Counter[str] = Counter()

    def skip(self, name: str, reason: str) -> None:
        self.skipped.append((name, reason))

    def skip_all(self, names: Iterable[str], reason: str) -> None:
        self.skipped += [(name, reason) for name in sorted(names)]

    def note(self, text: str, count: int = 1) -> None:
        self.notes[text] += count

    def put(self, store: MatchStore, batch: list[PairMatches]) -> None:
        if batch:
            store.put(batch)
        self.count += len(batch)
        batch.clear()

    def result(self, what: str) -> Exchanged:
        notes = tuple(f"{count} {what} {text}" for text, count in self.notes.items() if self.count)
        return Exchanged(self.count, tuple(self.skipped), notes)


def _features(group: Any, datasets: set[str], feature_type: str, tally: _Tally) -> ImageFeatures:
    if "keypoints" not in datasets or "image_size" not in datasets:
        raise InputError(f"it holds {', '.join(sorted(datasets))}; features need keypoints and image_size")
    keypoints = _floats(group["keypoints"])
    scores = next((_floats(group[key]) for key in _SCORES if key in datasets), None)
    if "descriptors" in datasets:
        stored = np.asarray(group["descriptors"])
        descriptors = np.ascontiguousarray((stored if stored.dtype == np.float16 else _floats(stored)).T)
    else:
        descriptors = np.zeros((len(keypoints), 0), np.float32)
    width, height = (int(edge) for edge in np.asarray(group["image_size"]))
    optional: dict[str, Any] = {key: _floats(group[key]) for key in ("scales", "oris") if key in datasets}
    features = ImageFeatures(
        keypoints,
        descriptors,
        np.ones(len(keypoints), np.float32) if scores is None else scores,
        (width, height),
        feature_type,
        **optional,
    )
    if group["keypoints"].dtype == np.float16:
        tally.note(
            "have keypoints in float16, which are off by up to half a pixel beyond 1,024 px, by one beyond 2,048"
        )
    if scores is None:
        tally.note("have no scores; 1 was taken")
    if "descriptors" not in datasets:
        tally.note("have no descriptors; they cannot be matched again")
    if "uncertainty" in group["keypoints"].attrs:
        tally.note("have an uncertainty of their keypoints, which the store cannot hold")
    for key in sorted(datasets.difference(_FEATURES)):
        tally.note(f"have {key}, which the store cannot hold")
    return features


def _datasets(features: ImageFeatures) -> dict[str, NDArray[Any]]:
    return {
        "keypoints": features.keypoints,
        "descriptors": np.ascontiguousarray(features.descriptors.T),
        "scores": features.scores,
        "image_size": np.array(features.image_size, np.int64),
        **features.optional,
    }


def _source(folder: Path | None, name: str, tally: _Tally) -> Source:
    try:
        if folder is not None:
            return Source.of(folder / name)
    except (OSError, ValueError):
        pass
    tally.note("have no image file that is known; give the folder of the images")
    return UNKNOWN


def _matches(group: Any, datasets: set[str], head0: Head, head1: Head, tally: _Tally) -> PairMatches:
    matches0 = np.asarray(group["matches0"])
    if matches0.dtype.kind != "i" or matches0.shape != (head0.num_keypoints,):
        raise InputError(
            f"matches0 is {matches0.dtype} {matches0.shape}, but {head0.name!r} has {head0.num_keypoints} keypoints"
        )
    if head1.num_keypoints - 1 > np.iinfo(matches0.dtype).max:
        raise InputError(f"{matches0.dtype} cannot hold the indices of {head1.num_keypoints} keypoints; match again")
    if matches0.size and not -1 <= matches0.min() <= matches0.max() < head1.num_keypoints:
        raise InputError(f"matches0 is not between -1 and the {head1.num_keypoints} keypoints of {head1.name!r}")
    index0 = np.flatnonzero(matches0 >= 0)
    scores = np.ones(len(matches0), np.float32)
    if "matching_scores0" in datasets:
        scores = _floats(group["matching_scores0"])
        if scores.shape != matches0.shape:
            raise InputError(f"matching_scores0 is {scores.shape} and matches0 {matches0.shape}")
    matches = np.stack([index0, matches0[index0]], axis=-1)
    pair = PairMatches(head0.name, head1.name, matches, scores[index0], digests=(head0.digest, head1.digest))
    if "matching_scores0" not in datasets:
        tally.note("have no scores; 1 was taken")
    for key in sorted(datasets.difference(_MATCHES)):
        tally.note(f"have {key}, which the store cannot hold")
    return pair


def _matches0(pair: PairMatches, heads: Mapping[str, Head]) -> dict[str, NDArray[Any]]:
    for name in (pair.name0, pair.name1):
        if name not in heads:
            raise InputError(f"there are no features of {name!r}")
    head0, head1 = heads[pair.name0], heads[pair.name1]
    if any(pair.digests) and pair.digests != (head0.digest, head1.digest):
        raise InputError("other features were matched than there are now; match again")
    index0, index1 = pair.matches.T
    if len(index0) and (index0.max() >= head0.num_keypoints or index1.max() >= head1.num_keypoints):
        raise InputError("a match is of a keypoint that there is not; match again")
    if len(np.unique(index0)) < len(index0):
        raise InputError("a keypoint has two matches, which hloc's arrays cannot hold")
    matches0 = np.full(head0.num_keypoints, -1, np.int32)
    scores0 = np.zeros(head0.num_keypoints, np.float32)
    matches0[index0], scores0[index0] = index1, pair.scores
    return {"matches0": matches0, "matching_scores0": scores0}


def _pairs(path: str, groups: Iterable[str], heads: Mapping[str, Head], tally: _Tally) -> dict[str, tuple[str, str]]:
    """The images of each group, those in today's naming first. Raises InputError where they are not certain."""
    alike: dict[str, list[str]] = {}
    for name in heads:
        alike.setdefault(_dashed(name), []).append(name)
    found: dict[str, tuple[str, str]] = {}
    taken: dict[tuple[str, str], str] = {}
    for key in sorted(groups, key=lambda key: ("/" not in key, key)):
        separator = "/" if "/" in key else "_"
        ends = [i for i, letter in enumerate(key) if letter == separator]
        halves = [(alike.get(key[:i], []), alike.get(key[i + 1 :], [])) for i in ends]
        candidates = [pair for half0, half1 in halves for pair in product(half0, half1) if pair[0] != pair[1]]
        if len(candidates) > 1:
            raise InputError(
                f"{path}: {key!r} may be of {candidates[0]} or of {candidates[1]}, which have one name in this file; "
                "rename an image, or match again."
            )
        if not candidates:
            tally.skip(key, "there are no features of its images")
            continue
        first = taken.setdefault((min(candidates[0]), max(candidates[0])), key)
        if first != key:
            tally.skip(key, f"the pair is there as {first!r} too")
            continue
        found[key] = candidates[0]
    return found


def _refuse_alike(names: Iterable[str]) -> None:
    known: dict[str, str] = {}
    for name in sorted(names):
        other = known.setdefault(_dashed(name), name)
        if other != name:
            raise InputError(f"{other!r} and {name!r} have one name in hloc's file of matches; rename one of them.")


def _refuse_nested(names: Iterable[str]) -> None:
    known = set(names)
    for name in sorted(known):
        for i, letter in enumerate(name):
            if letter == "/" and name[:i] in known:
                raise InputError(f"The image {name[:i]!r} is the folder of {name!r} too; rename one of them.")


def _check_name(name: str) -> None:
    """Raises InputError for a name that HDF5 cannot hold, or would hold as another."""
    if "\0" in name or any(part in ("", ".") for part in name.split("/")):
        raise InputError("HDF5 cannot hold this name")
    try:
        name.encode()
    except UnicodeEncodeError:
        raise InputError("HDF5 cannot hold this name, which is no Unicode") from None


def _dashed(name: str) -> str:
    return name.replace("/", "-")


def _floats(dataset: Any) -> NDArray[np.float32]:
    array = np.asarray(dataset)
    if array.dtype.kind not in "fiu":
        raise InputError(f"an array is {array.dtype}, not of numbers")
    return array.astype(np.float32)


def _reason(error: Exception) -> str:
    return str(error).rstrip(".")


def _groups(file: Any) -> dict[str, set[str]]:
    """The names of the arrays in each group that holds any, as hloc lists them."""
    groups: dict[str, set[str]] = {}
    h5py = _h5py()

    def visit(name: str, item: Any) -> None:
        if isinstance(item, h5py.Dataset):
            group, _, key = name.rpartition("/")
            groups.setdefault(group, set()).add(key)

    file.visititems(visit)
    return groups


@contextmanager
def _reading(path: str | os.PathLike[str]) -> Iterator[Any]:
    h5py = _h5py()
    try:
        with h5py.File(path, "r") as file:
            yield file
    except StoreError:
        raise
    except FileNotFoundError:
        raise InputError(f"There is no file {path}; give one that hloc wrote.") from None
    except (OSError, RuntimeError, KeyError) as error:
        raise StoreError(f"{path} cannot be read ({error}); it is damaged, or no HDF5 file.") from error


@contextmanager
def _writing(path: str | os.PathLike[str]) -> Iterator[Any]:
    h5py = _h5py()
    with whole(Path(path)) as part:
        try:
            with h5py.File(part, "w") as file:
                yield file
        except RuntimeError as error:  # HDF5 when it cannot write
            raise OSError(str(error)) from error


def _write(file: Any, name: str, arrays: Mapping[str, NDArray[Any]]) -> None:
    """Write a group. Raises OSError while there is still room: on a full disk h5py loses arrays without a word."""
    wanted = sum(array.nbytes for array in arrays.values()) + _MARGIN
    if shutil.disk_usage(Path(file.filename).parent).free < wanted:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    group = file.create_group(name)
    for key, array in arrays.items():
        # With a checksum, which HDF5 looks at when the array is read; it wants chunks, which an empty array has not.
        group.create_dataset(key, data=array, fletcher32=array.size > 0)


def _h5py() -> Any:
    try:
        return importlib.import_module("h5py")
    except ImportError as error:
        raise InputError("hloc's files need h5py: pip install 'lightglue[hloc]'.") from error
