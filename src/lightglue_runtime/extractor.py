"""The extractor of a model file: an image to features."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lightglue_runtime.checks import check_int
from lightglue_runtime.contract import EXTRACTOR_INPUTS, EXTRACTOR_OUTPUTS
from lightglue_runtime.errors import InputError
from lightglue_runtime.images.arrays import to_float
from lightglue_runtime.model_file import ModelFile
from lightglue_runtime.resize import resize as resize_pixels
from lightglue_runtime.runtimes import find_runtime, open_session, session_options
from lightglue_runtime.session import Session, SessionOptions

__all__ = ["Extractor"]

_TOLERANCE = 0.5  # a resampled image overshoots a little


class Extractor:
    """Extracts features with a file of `lightglue export extractor`. Threads may share it.

    >>> extractor = Extractor.open("aliked-extractor.onnx")  # doctest: +SKIP
    >>> features = extractor.extract(image, max_keypoints=2048)  # doctest: +SKIP
    """

    def __init__(self, file: ModelFile, runtime: str, options: SessionOptions) -> None:
        file.check("extractor", EXTRACTOR_INPUTS, EXTRACTOR_OUTPUTS)
        self.file = file
        self.features = file.description.features
        self.preprocess: dict[str, Any] = json.loads(file.description.preprocess)
        self.session: Session = open_session(file, runtime, options)

    @classmethod
    def open(
        cls,
        path: str | os.PathLike[str],
        runtime: str | None = None,
        *,
        threads: int | None = None,
        providers: Sequence[str] | str = (),
        precision: str = "f32",
        cache: str | os.PathLike[str] | bool = True,
    ) -> Extractor:
        """The extractor of a file; arguments and errors as for `Matcher.open`."""
        options = session_options(threads, 1, providers, precision, cache)
        return cls(ModelFile.read(path), find_runtime(runtime), options)

    def extract(
        self,
        image: NDArray[Any],
        max_keypoints: int = 2048,
        *,
        resize: int | tuple[int, int] | str | None = "default",
        side: str = "long",
        min_score: float | None = None,
    ) -> dict[str, Any]:
        """Features of an image.

        Args:
            image: (H, W, 3) RGB or (H, W): uint8, uint16, or floating point in [0, 1].
            max_keypoints: the best so many.
            resize, side: px of the edge that `side` names ("long", "short", "vert", "horz"), (height, width), or None
                for the image's own size; by default as the file says, which is what the package does.
            min_score: keypoints score above it; by default as the file says.

        Returns:
            keypoints (K, 2) float32 px of `image`, the centre of the top-left pixel being (0, 0); descriptors (K, D)
            float32, L2-normalised; keypoint_scores (K,) float32; image_size (2,) float32, width height.

        Raises InputError, ModelError, MemoryError.
        """
        check_int("max_keypoints", max_keypoints, 1, "a number of at least 1")
        pixels = as_pixels(image)
        height, width = pixels.shape[:2]
        if resize == "default":
            resize, side = self.preprocess.get("resize"), self.preprocess.get("side", side)
        if isinstance(resize, str):
            raise InputError(f"resize is {resize!r}; give a number of px, (height, width), or None.")
        small, scales = resize_pixels(pixels, tuple(resize) if isinstance(resize, list) else resize, side)
        least = self.preprocess.get("min_score", 0.0) if min_score is None else min_score
        found = self.session.run(
            {
                "image": np.ascontiguousarray(small.transpose(2, 0, 1))[None],
                "max_keypoints": np.array(max_keypoints, np.int64),
                "min_score": np.array(least, np.float32),
            }
        )
        keypoints = (found["keypoints"][0] + np.float32(0.5)) / np.array(scales, np.float32) - np.float32(0.5)
        return {
            "keypoints": keypoints,
            "descriptors": found["descriptors"][0],
            "keypoint_scores": found["keypoint_scores"][0],
            "image_size": np.array([width, height], np.float32),
        }


def as_pixels(image: Any) -> NDArray[np.float32]:
    """(H, W, 3) float32 in [0, 1]. Raises InputError for what is no image."""
    if not isinstance(image, np.ndarray) or image.dtype not in (np.uint8, np.uint16, np.float32, np.float64):
        kind = image.dtype if isinstance(image, np.ndarray) else type(image).__name__
        raise InputError(f"The image is {kind}; give an array of uint8, uint16, or floating point in [0, 1].")
    if image.dtype.kind == "f" and image.size:
        if not (np.isfinite(image).all() and image.min() >= -_TOLERANCE and image.max() <= 1 + _TOLERANCE):
            values = f"values from {image.min():g} to {image.max():g}"
            raise InputError(f"The image has {values}; give floating point in [0, 1], or uint8.")
        pixels = image.astype(np.float32)
        pixels = pixels[..., None] if pixels.ndim == 2 else pixels
    else:
        pixels = to_float(image)
    if pixels.ndim != 3 or pixels.shape[2] not in (1, 3):
        raise InputError(f"Not an image: shape {image.shape}; give (H, W), (H, W, 1) or (H, W, 3), not empty.")
    return np.repeat(pixels, 3, axis=2) if pixels.shape[2] == 1 else pixels
