"""An extractor in another runtime, with all that extractors of the package can: sizes, tiles, pyramids, masks."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, cast

import numpy as np
import torch
from torch import Tensor

from lightglue.errors import InputError
from lightglue.extractors.base import Extractor, stack_features
from lightglue.extractors.request import EVERYTHING, Request
from lightglue.support.checks import check_int
from lightglue.types import Features
from lightglue_runtime.extractor import Extractor as FileExtractor

__all__ = ["OnnxExtractor"]


class OnnxExtractor(Extractor):
    """The extractor of a file that `lightglue export extractor` wrote, in ONNX Runtime or OpenVINO, on the CPU.

    `extract` takes and gives what every extractor of the package does. Masks, tiles and pyramids, which need to look
    into the network, are refused.

    Args:
        path: the file.
        runtime: "onnx" or "openvino".
        threads, providers, cache: as for `OnnxMatcher`.
        conf: max_num_keypoints, None for all; min_score, which keypoints score above, None for what the file says.

    Raises ModelError for a file that does not fit, or a runtime or provider that is not installed; InputError.
    """

    default_conf: ClassVar[dict[str, Any]] = {"max_num_keypoints": 2048, "min_score": None}

    def __init__(
        self,
        path: str | os.PathLike[str],
        runtime: str = "onnx",
        *,
        threads: int | None = None,
        providers: Sequence[str] | str = (),
        cache: bool = True,
        **conf: Any,
    ) -> None:
        super().__init__(**conf)
        threads = torch.get_num_threads() if threads is None else threads
        self.file = FileExtractor.open(path, runtime, threads=threads, providers=providers, cache=cache)
        self.feature_type = self.file.features
        self.preprocess_conf = {"resize": None, **self.file.preprocess}  # type: ignore[misc]
        self.preprocess_conf.pop("min_score", None)
        self.eval()

    def forward(self, data: Mapping[str, Any], request: Request = EVERYTHING) -> Features:
        """See `Extractor.forward`. Raises InputError where a mask or tiles are asked for."""
        image, sizes = self.images_in(data)
        if request.part is not None or any(each is not None for each in request.allowed_in(len(image))):
            raise InputError("OnnxExtractor has no masks and no tiles; leave them out, or extract with torch.")
        found = []
        for i, each in enumerate(image):
            w, h = image.shape[:1:-1] if sizes is None else (int(side) for side in sizes[i])
            found.append(self._features(each[:, :h, :w]))
        return stack_features(cast(Any, found))

    def _features(self, image: Tensor) -> dict[str, Tensor]:
        most = self.conf.max_num_keypoints
        if most is not None:
            check_int("max_num_keypoints", most, 1, "a number of at least 1, or None for all")
        pixels = np.ascontiguousarray(image.permute(1, 2, 0).cpu().numpy())
        found = self.file.extract(pixels, most or 1_000_000, resize=None, min_score=self.conf.min_score)
        return {
            key: torch.from_numpy(found[key]).to(image.device)
            for key in ("keypoints", "keypoint_scores", "descriptors")
        }
