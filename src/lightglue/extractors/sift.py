"""SIFT keypoints and descriptors."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any, ClassVar

import torch
from torch import Tensor

from lightglue.extractors.base import Extractor, full_precision, stack_features
from lightglue.extractors.dog import DogConfig, check_backend, detect, root_sift
from lightglue.extractors.exact_resize import shrink_exactly
from lightglue.extractors.grayscale import gray_images_in
from lightglue.resampling import target_size
from lightglue.types import Features

__all__ = ["SIFT"]


class SIFT(Extractor):
    """SIFT (Lowe 2004) of OpenCV or COLMAP: `SIFT(max_num_keypoints=4096).eval()`.

    It has no weights, computes on the CPU (COLMAP's on a GPU if asked to) and answers on the image's device.

    Args:
        conf: the options of `DogConfig`.

    Raises:
        InputError: for an option's value, or a back end that is not installed.
    """

    config_type = DogConfig
    default_conf: ClassVar[dict[str, Any]] = asdict(DogConfig())
    preprocess_conf: ClassVar[dict[str, Any]] = {"resize": 1024}

    def __init__(self, **conf: Any) -> None:
        super().__init__(**conf)
        check_backend(self.options())

    def check_image(self, image: Any) -> Tensor:
        """`image` as (B, C, H, W) float32; InputError where it is no such thing."""
        return super().check_image(image).to(image.device)  # the base would leave it on the device of the weights

    def resample(self, image: Tensor, resize: int | tuple[int, int] | None, **options: Any) -> tuple[Tensor, Tensor]:
        """`image` (B, C, H, W) resized with every option of `resize_tensor`, and its scales (2,) float32.

        What the published package shrinks is shrunk to its last bit.
        """
        h, w = image.shape[-2:]
        new_h, new_w = (h, w) if resize is None else target_size(h, w, resize, options["side"])
        as_published = options["interpolation"] == "bilinear" and options["antialias"] and not options["align_corners"]
        if not as_published or not (new_h < h or new_w < w):
            return super().resample(image, resize, **options)
        shrunk = shrink_exactly(image.float().cpu(), (new_h, new_w))  # a GPU may convolve with fewer bits
        return shrunk.to(image), torch.tensor([new_w / w, new_h / h], device=image.device)

    @full_precision
    def forward(self, data: Mapping[str, Any]) -> Features:
        """Features of a batch of images, in the pixels of the tensor; see `extract` for whole images.

        Args:
            data: "image" (B, C, H, W) in [0, 1], C = 1 or 3. Where the images are padded at the right and bottom,
                "image_size" (B, 2), the width and height in px without: the padding is then cut off.

        Returns:
            keypoints (B, N, 2), scales (B, N), oris (B, N) in radians, descriptors (B, N, 128), and but for COLMAP
            keypoint_scores (B, N), all float32. `extract` leaves the scales in pixels of the resized image, as the
            published package does: its matcher was trained so, with images of 1,024 px.

        Raises:
            InputError: also where the images yield unequal numbers of keypoints.
        """
        options = self.options()
        image, image_size = gray_images_in(self, data)
        found = detect(image, image_size, options)
        features = stack_features([detections.as_features(image.device) for detections in found])
        if options.rootsift:
            features["descriptors"] = root_sift(features["descriptors"])
        return features
