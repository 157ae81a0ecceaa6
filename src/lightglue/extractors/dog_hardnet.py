"""HardNet descriptors at difference-of-Gaussians keypoints."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from lightglue.extractors.base import Extractor, Weights, full_precision, stack_features
from lightglue.extractors.dog import check_backend, detect
from lightglue.extractors.grayscale import gray_images_in
from lightglue.extractors.hardnet_network import HardNetNetwork
from lightglue.extractors.request import EVERYTHING, Request
from lightglue.extractors.sift import SIFT
from lightglue.types import Features

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from lightglue.extractors.keywords import DogKeywords

__all__ = ["DoGHardNet"]

PATCH_RADIUS = 6.0  # half of a patch's side, in units of a keypoint's scale (cvg/LightGlue, dog_hardnet.py)


class DoGHardNet(SIFT):
    """SIFT's keypoints with HardNet's descriptors (arXiv:1705.10872): `DoGHardNet(max_num_keypoints=2048).eval()`.

    Args:
        weights: a file, a published name or a state dict to load instead of the published weights, which were trained
            on the dataset Liberty with augmentation.
        commercial_only: refuse weights whose licence forbids commercial use.
        conf: the options of `DogConfig`.

    Raises:
        InputError: for an option's value, or a back end that is not installed.
        WeightsError: where the weights cannot be had or do not fit.
    """

    reference_name = "network.features.0.weight"
    check_image = Extractor.check_image  # on the device of the weights, which SIFT has none of

    def __init__(
        self, *, weights: Weights | None = None, commercial_only: bool = False, **conf: Unpack[DogKeywords]
    ) -> None:
        Extractor.__init__(self, **conf)
        check_backend(self.options())
        self.network = HardNetNetwork()
        state = self.read_weights("hardnet" if weights is None else weights, commercial_only=commercial_only)
        self.adopt(state, "HardNet")

    def describe_frames(self, gray: Tensor, keypoints: Tensor, scales: Tensor, oris: Tensor) -> Tensor:
        """Descriptors (B, N, 128) of (B, 1, H, W) at `keypoints` (B, N, 2) with `scales` and `oris` (B, N)."""
        each = zip(gray, keypoints, PATCH_RADIUS * scales, oris, strict=True)
        return torch.stack([self.network.describe(*one) for one in each])

    @full_precision
    def forward(self, data: Mapping[str, Any], request: Request = EVERYTHING) -> Features:
        """Features of a batch of images as from `SIFT.forward`, but for the descriptors (B, N, 128), of unit length."""
        image, image_size = gray_images_in(self, data)
        sizes = [None] * len(image) if image_size is None else image_size.long().tolist()
        found = detect(image, image_size, self.options(), request.allowed_in(len(image)), describe=False)
        features = []
        for gray, size, detections in zip(image, sizes, found, strict=True):
            own = gray if size is None else gray[:, : size[1], : size[0]]
            one = detections.as_features(image.device)
            # The published package takes the angle for one against the clock, and its matcher was trained so.
            one["descriptors"] = self.network.describe(own, one["keypoints"], PATCH_RADIUS * one["scales"], one["oris"])
            features.append(one)
        return stack_features(features)
