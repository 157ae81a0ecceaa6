"""Local features of all images under a folder, into a store of features."""

from __future__ import annotations

import os
import platform
from collections.abc import Sequence
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from lightglue.errors import ImageError, InputError, StoreError
from lightglue.extractors.no_keypoints import likely_cause
from lightglue.images import ImageFile, narrow_range, numpy_image_to_torch, size_of
from lightglue.images.rotation import Rotation
from lightglue.sfm.options import ExtractOptions, on_one_device
from lightglue.sfm.skipped import Skipped, no_keypoints, reason_of
from lightglue.sfm.stages.images import list_images
from lightglue.sfm.stages.masks import ImageMask, Masks
from lightglue.stores import FeatureStore, ImageFeatures, Source
from lightglue.stores.features import Head
from lightglue.support.memory import is_out_of_memory
from lightglue.support.progress import Progress
from lightglue.workers.local import LocalEngine
from lightglue.workers.work import Budget, Engine

__all__ = ["NARROW", "ExtractOptions", "ExtractResult", "extract", "on_one_device"]

READERS = 2  # threads that decode ahead
NARROW = "few keypoints are found in 16 bits of which a small part is used; the largest value is"
PIXELS_AHEAD = 50_000_000  # decoded and waiting, unless one image alone has more


@dataclass(frozen=True)
class ExtractResult:
    """What became of the images."""

    images: int  # that were asked for
    extracted: int
    kept: int  # whose features were there
    keypoints: int  # of those extracted
    seconds: float
    skipped: tuple[Skipped, ...]
    gone: tuple[str, ...]  # images that have features, but are in the folder no longer; their features stay
    renewed: tuple[str, ...] = ()  # names of those extracted


def extract(
    images: str | os.PathLike[str],
    store: str | os.PathLike[str],
    options: ExtractOptions,
    *,
    names: Sequence[str] | None = None,
    masks_must_fit: bool = True,
    engine: Engine | None = None,
    progress: Progress = lambda done, total: None,
) -> ExtractResult:
    """Extract the features of images that have none yet, or have changed since.

    Args:
        images: a folder; with folders in it.
        store: the folder of a store of features, made where there is none.
        names: only these, paths under `images`; by default all.
        masks_must_fit: whether it is an error that none of these images has a mask, where there are masks.
        engine: who does the work; this process by default. The features do not depend on it.

    An image that cannot be used is in `skipped`, and the others are done; features that it had are taken away, since
    they are of another image than the one that is there. Those of an image that is no longer there stay. Images
    without keypoints count as done. They are in `skipped`, too, and so are those without a mask where there are masks:
    `is_used` tells them from the others. Features are those of an image and its mask: with another mask they are
    extracted again. Masks that lie among the images are not taken for images.

    Raises InputError for options or a folder that make no sense, masks of which none fits, or a store of other
    settings; StoreError where the store cannot be written.
    """
    begin = perf_counter()
    images, engine = Path(images), engine or LocalEngine()
    listed, skipped = list_images(images)
    if names is not None:
        listed, skipped = sorted(set(names)), ()
    masks = Masks.open(options.masks, images)
    listed = [name for name in listed if not masks.lie_at(name)]
    skipped = tuple(each for each in skipped if not masks.lie_at(each.name))
    features = FeatureStore.open(store, options.settings())
    noted = [*masks.missing(listed, masks_must_fit)]
    kept = 0
    waiting: list[str] = []
    for name in listed:
        if (done := _done(features, name, images / name, masks)) is not None:
            kept += 1
            noted += _noted(done)
            progress(kept, len(listed))
        else:
            waiting.append(name)
    keypoints = 0
    renewed: list[str] = []
    narrow: dict[str, int] = {}
    faults = []
    where = None if options.masks is None else os.path.abspath(options.masks)
    work = ExtractWork(str(images.absolute()), replace(options, models=on_one_device(options.chosen), masks=where))
    for count, result in enumerate(engine.run(work, waiting), 1):
        if result.features is None or result.source is None:
            if os.path.exists(images / result.name):
                features.remove(result.name)
            faults.append(Skipped(result.name, result.fault or "it has no features"))
        else:
            noted += _noted(features.put(result.name, result.features, result.source, result.mask, result.note))
            noted += [] if result.doubt is None else [Skipped(result.name, result.doubt, is_used=True)]
            keypoints += len(result.features)
            renewed.append(result.name)
            if result.largest is not None:
                narrow[result.name] = result.largest
        progress(kept + count, len(listed))
    gone = () if names is not None else tuple(features.besides(listed))
    told = f"{NARROW} {max(narrow.values(), default=0):,} of 65,535: --stretch spreads them"
    faults += [Skipped(name, told, is_used=True) for name in narrow]
    left_out = sorted((*skipped, *faults, *noted), key=lambda each: each.name)
    return ExtractResult(
        images=len(listed) + len(skipped),
        extracted=len(renewed),
        kept=kept,
        keypoints=keypoints,
        seconds=perf_counter() - begin,
        skipped=tuple(left_out),
        gone=gone,
        renewed=tuple(renewed),
    )


def _noted(head: Head) -> list[Skipped]:
    """That features that are there are none."""
    return [] if head.num_keypoints else [Skipped(head.name, no_keypoints(head.note), is_used=True)]


def _done(store: FeatureStore, name: str, path: Path, masks: Masks) -> Head | None:
    """The head of an image's features if they are there, whole, and of the file and the mask that are there now."""
    head = store.head(name)
    if head is None or not head.source.is_still(path) or not masks.is_still(name, head.mask):
        return None
    try:
        store.get(name)  # all of it: a damaged file may have a whole head
    except (StoreError, InputError):
        return None
    return head


@dataclass(frozen=True, eq=False)
class Extracted:
    """What became of an image: its features, or a fault."""

    name: str
    features: ImageFeatures | None = None
    source: Source | None = None
    fault: str | None = None
    mask: Source | None = None
    note: str | None = None  # why there are no keypoints
    doubt: str | None = None  # whether the mask fits
    largest: int | None = None  # value of a 16-bit image that uses a small part of its range


@dataclass(frozen=True)
class ExtractWork:
    """Extract images of a folder."""

    folder: str  # absolute
    options: ExtractOptions
    together: int = 8  # images

    @property
    def seconds(self) -> float:
        """See `Work`."""
        return self.options.chosen.seconds_an_image()

    @property
    def on_cpu(self) -> bool:
        """See `Work`."""
        return self.options.chosen.device == "cpu"

    def worker(self) -> ExtractWorker:
        """One with a model of its own. Raises InputError for options that `extract` does not take."""
        check_seen(self.folder)
        if self.options.masks is not None:
            check_seen(self.options.masks)
        return ExtractWorker(self)

    def failed(self, name: str, reason: str) -> Extracted:
        """The result for an image that nobody could do."""
        return Extracted(name, fault=reason)


def check_seen(folder: str) -> None:
    """Raises InputError where this machine does not see a folder that another one named."""
    if not os.path.isdir(folder):
        raise InputError(
            f"{platform.node()} does not see the folder {folder}; put it on a file system that all machines share, "
            "under one path."
        )


@dataclass(frozen=True, eq=False)
class Decoded:
    """An image that was read, and its mask."""

    pixels: NDArray[Any]  # (H, W, 3) uint8 or uint16
    source: Source
    mask: ImageMask | None = None
    largest: int | None = None  # value, where a small part of the range is used


class ExtractWorker:
    """An extractor; each file is read once, for its hash and its pixels."""

    threads = READERS

    def __init__(self, work: ExtractWork) -> None:
        self.folder, self.options = work.folder, work.options
        self.masks = Masks.open(work.options.masks, work.folder)
        self.extractor = work.options.chosen.load_extractor()
        self.device = work.options.chosen.found_device()
        self.dtype = np.dtype(work.options.descriptor_dtype)
        self.ahead = Budget(PIXELS_AHEAD)
        self.extractor.try_options(work.options.extract)  # no fault of the images

    def read(self, name: str) -> Decoded | str:
        """The pixels of an image, or a fault."""
        path = os.path.join(self.folder, name)
        try:
            # What it is before it is read: if it changes meanwhile, the next run notices.
            mtime_ns = os.stat(path).st_mtime_ns
            file = ImageFile.read(path)
            source = Source(len(file.data), mtime_ns, sha256(file.data).hexdigest())
            width, height = file.size
            if self.options.max_pixels is not None and width * height > self.options.max_pixels:
                file.decode(max_pixels=self.options.max_pixels)  # raises
            self.ahead.take(width * height)
            try:
                pixels = file.decode(max_pixels=self.options.max_pixels, stretch=self.options.stretch)
                narrow = None if self.options.stretch else narrow_range(pixels)
                mask = self.masks.read(name, file, size_of(pixels))
                return Decoded(pixels, source, mask, None if narrow is None else narrow[1])
            except BaseException:
                self.ahead.give_back(width * height)
                raise
        except FileNotFoundError:
            return f"there is no image at {path}; check the path"
        except (ImageError, InputError, OSError) as error:
            return reason_of(error, path)
        except (MemoryError, RuntimeError) as error:
            return _short_of_memory(error)

    def compute(self, name: str, read: Decoded | str) -> Extracted:
        """The features of an image."""
        if isinstance(read, str):
            return Extracted(name, fault=read)
        try:
            mask = read.mask
            allowed = None if mask is None else mask.allowed
            features = self.features(read.pixels, allowed)
            return Extracted(
                name,
                features,
                read.source,
                mask=None if mask is None else mask.source,
                note=None if len(features) else self._cause(read.pixels, allowed),
                doubt=None if mask is None else mask.doubt,
                largest=read.largest if len(features) else None,  # else that is the cause
            )
        except (ImageError, InputError) as error:
            return Extracted(name, fault=reason_of(error, os.path.join(self.folder, name)))
        except (MemoryError, RuntimeError) as error:
            return Extracted(name, fault=_short_of_memory(error))
        finally:
            self.let_go(read)

    def let_go(self, read: Decoded) -> None:
        """An image that was read is done with."""
        self.ahead.give_back(read.pixels.shape[0] * read.pixels.shape[1])

    @torch.inference_mode()
    def features(
        self, pixels: NDArray[Any], allowed: torch.Tensor | None, rotation: Rotation | None = None
    ) -> ImageFeatures:
        """Those of an image. rotation: by which it was rotated before, so that it is resized as it would have been."""
        options = self.options.extract
        if rotation is not None:
            usual = self.extractor.preprocess_conf
            own = {"resize": usual["resize"]} if "resize" in usual and options.get("tile") is None else {}
            options = rotation.extract_options({**own, **options})
        tiled = options.get("tile") is not None  # then it is converted tile by tile
        found = self.extractor.extract(pixels if tiled else numpy_image_to_torch(pixels), mask=allowed, **options)
        return ImageFeatures.from_torch(found, self.options.chosen.features, self.dtype)

    def _cause(self, pixels: NDArray[Any], allowed: torch.Tensor | None) -> str:
        """Why an image has no keypoints."""
        return likely_cause(pixels, allowed, self.extractor, self.options.extract.get("resize"))

    def close(self) -> None:
        """Let go of the threads that wait to decode."""
        self.ahead.close()


def _short_of_memory(error: BaseException) -> str:
    """The fault that an error stands for; raises it where it is of another kind."""
    if not is_out_of_memory(error):
        raise error
    return "there is not enough memory for this image; extract it smaller (resize) or in tiles (tile)"
