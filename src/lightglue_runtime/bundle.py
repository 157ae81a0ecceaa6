"""A folder of models as one object: images in, matches out."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from time import perf_counter
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from lightglue_runtime.errors import ModelError
from lightglue_runtime.extractor import Extractor
from lightglue_runtime.images.sources import as_float
from lightglue_runtime.manifest import Manifest
from lightglue_runtime.matcher import Matcher
from lightglue_runtime.pair import MatchedPair

__all__ = ["Bundle", "load"]


def load(
    folder: str | os.PathLike[str],
    runtime: str | None = None,
    *,
    threads: int | None = None,
    providers: Sequence[str] | str = (),
    precision: str = "f32",
    cache: str | os.PathLike[str] | bool = True,
) -> Bundle:
    """The models in a folder that `lightglue export bundle` wrote.

    Args:
        folder: with `bundle.json` and the files that it names.
        runtime, threads, providers, precision, cache: as for `Matcher.open`: by default the first of ONNX Runtime and
            OpenVINO that is installed, and all cores.

    Raises ModelError where the folder, a file in it or the runtime is missing or does not fit, or a file has been
    altered; InputError.
    """
    folder = Path(folder)
    manifest = Manifest.read(folder)
    manifest.verify(folder)  # a tenth of a second, and a damaged weight shows in nothing but the matches
    paths = [manifest.path(folder, part) for part in ("extractor", "matcher")]
    options: dict[str, Any] = {"threads": threads, "providers": providers, "precision": precision, "cache": cache}
    extractor = Extractor.open(paths[0], runtime, **options)
    matcher = Matcher.open(paths[1], runtime, **options)
    if extractor.features != matcher.features:
        raise ModelError(
            f"{paths[0]} extracts {extractor.features} and {paths[1]} matches {matcher.features}; write the folder "
            "again."
        )
    return Bundle(manifest, extractor, matcher)


class Bundle:
    """An extractor and a matcher that belong together. Threads may share it."""

    def __init__(self, manifest: Manifest, extractor: Extractor, matcher: Matcher) -> None:
        self.manifest, self.extractor, self.matcher = manifest, extractor, matcher

    @property
    def features(self) -> str:
        """The type of the features, such as "aliked"."""
        return self.manifest.features

    @property
    def runtime(self) -> str:
        """What computes, such as "ONNX Runtime 1.32.0"."""
        return self.extractor.session.runtime

    def prepare(self) -> None:
        """Open the matcher's file too, which else happens when something is first matched. Raises ModelError."""
        self.matcher.session()

    def extract(
        self,
        image: Any,
        max_keypoints: int | None = None,
        *,
        resize: int | Literal["auto"] | None = "auto",
        stretch: bool = False,
    ) -> dict[str, NDArray[Any]]:
        """Features of an image.

        Args:
            image: an image file, as its path, its content or open; an array (H, W, 3) RGB or (H, W) of 8 or 16 bits;
                or one of Pillow's images.
            max_keypoints: the best so many; by default as the folder says.
            resize: px of the edge that the folder names, mostly the longer one; None for the image's own size;
                "auto" as the folder says.
            stretch: spread the range that the values of the image use, as images of 12 bits in 16 need.

        Returns what `Extractor.extract` does. Raises ImageError for a file that cannot be read; InputError, ModelError.
        """
        return self._extract(as_float(image, stretch), max_keypoints, resize)

    def match(
        self,
        image0: Any,
        image1: Any,
        max_keypoints: int | None = None,
        *,
        resize: int | Literal["auto"] | None = "auto",
        stretch: bool = False,
        filter_threshold: float | None = None,
    ) -> MatchedPair:
        """Match two images: arguments as for `extract`, and filter_threshold, below which matches are dropped."""
        start = perf_counter()
        pixels = [as_float(image, stretch) for image in (image0, image1)]
        read = perf_counter()
        features0, features1 = (self._extract(each, max_keypoints, resize) for each in pixels)
        extracted = perf_counter()
        matches = self.matcher.match(features0, features1, filter_threshold)
        times = {"load": read - start, "extraction": extracted - read, "matching": perf_counter() - extracted}
        return MatchedPair(features0, features1, matches, times)

    def _extract(
        self, pixels: NDArray[np.float32], max_keypoints: int | None, resize: int | Literal["auto"] | None
    ) -> dict[str, NDArray[Any]]:
        asked = self.manifest.resize if resize == "auto" else resize
        count = self.manifest.max_keypoints if max_keypoints is None else max_keypoints
        return self.extractor.extract(pixels, count, resize=asked, side=self.manifest.side)
