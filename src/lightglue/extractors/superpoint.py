"""SuperPoint keypoints and descriptors: the public extractor over the network of `superpoint_network`.

Options, their defaults and the order of the keypoints are those of the published package (github.com/cvg/LightGlue).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from lightglue.errors import InputError
from lightglue.extractors.base import Extractor, Weights, full_precision, stack_features
from lightglue.extractors.detection import clear_border, simple_nms, strongest, xy_of
from lightglue.extractors.grayscale import gray_images_in
from lightglue.extractors.masks import Allowed
from lightglue.extractors.request import EVERYTHING, Request
from lightglue.extractors.superpoint_network import SuperPointNetwork, is_open_layout, published_names
from lightglue.support.checks import check_int, check_real
from lightglue.types import Features

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from lightglue.extractors.keywords import SuperPointKeywords

__all__ = ["SuperPoint", "SuperPointConfig"]


@dataclass(frozen=True)
class SuperPointConfig:
    """Options of SuperPoint.

    All keypoints that score above `detection_threshold`, in raster order; where there are more than
    `max_num_keypoints`, the best of these, best first.
    """

    descriptor_dim: int = 256  # other than 256 only with weights of your own
    nms_radius: int = 4  # px
    max_num_keypoints: int | None = None  # None: no limit
    detection_threshold: float = 0.0005  # of the score in [0, 1]; where not positive, every maximum
    remove_borders: int | None = 4  # px, width of the border without keypoints
    channels: tuple[int, ...] = (64, 64, 128, 128, 256)  # likewise: blocks of the encoder, then the heads

    def __post_init__(self) -> None:
        check_int("descriptor_dim", self.descriptor_dim, 1, "a positive integer")
        check_int("nms_radius", self.nms_radius, 0, "a radius in px, an integer of at least 0")
        if self.max_num_keypoints is not None:
            check_int("max_num_keypoints", self.max_num_keypoints, 1, "a positive integer, None for no limit")
        check_real("detection_threshold", self.detection_threshold, "a number, not positive for no threshold")
        if self.remove_borders is not None:
            check_int("remove_borders", self.remove_borders, 0, "a width in px, an integer of at least 0")
        if not isinstance(self.channels, (tuple, list)) or len(self.channels) < 2:
            raise InputError(f"channels is {self.channels!r}; give those of each block, then of the heads.")
        for channels in self.channels:
            check_int("channels", channels, 1, "positive integers")


class SuperPoint(Extractor):
    """SuperPoint (arXiv:1712.07629): `SuperPoint(max_num_keypoints=2048).eval()`.

    The published weights may not be used commercially. Those of the open re-implementation
    (github.com/rpautrat/SuperPoint, MIT, superpoint_v6_from_tf.pth) may: `SuperPoint(weights=path)`; they were
    published with detection_threshold=0.005, and the published LightGlue was not trained with them.

    Args:
        weights: a file, a published name or a state dict of either layout, instead of the published weights.
        commercial_only: refuse weights whose licence forbids commercial use.
        conf: the options of `SuperPointConfig`.

    Raises:
        InputError: for an option's value.
        WeightsError: where the weights cannot be had or do not fit.
    """

    config_type = SuperPointConfig
    reference_name = "network.conv1a.weight"
    default_conf: ClassVar[dict[str, Any]] = asdict(SuperPointConfig())
    preprocess_conf: ClassVar[dict[str, Any]] = {"resize": 1024}

    def __init__(
        self, *, weights: Weights | None = None, commercial_only: bool = False, **conf: Unpack[SuperPointKeywords]
    ) -> None:
        super().__init__(**conf)
        options = self.options()
        state = self.read_weights("superpoint_v1" if weights is None else weights, commercial_only=commercial_only)
        is_open = is_open_layout(state)
        state = published_names(state) if is_open else state
        self.network = SuperPointNetwork(options.channels, options.descriptor_dim, batch_norm=is_open)
        self.adopt(state, "SuperPoint")

    @full_precision
    def forward(self, data: Mapping[str, Any], request: Request = EVERYTHING) -> Features:
        """See `Extractor.forward`.

        Returns:
            keypoints (B, N, 2), keypoint_scores (B, N) in [0, 1], descriptors (B, N, D), all float32.
        """
        options = self.options()
        image, image_size = gray_images_in(self, data)
        h, w = image.shape[-2:]
        if image_size is None:
            image_size = torch.tensor([[w, h]], device=image.device)
        logits, dense = self.network(self._padded(image))  # has no keypoints beyond its size all the same
        scores = self.network.scores(logits).float()
        features: list[Features] = []
        allowed = request.allowed_in(len(image))
        for i, indices in enumerate(_detect(scores.detach(), image_size, options, allowed)):
            pixels = xy_of(indices, scores.shape[-1])
            keypoint_scores = scores[i].flatten()[indices]
            descriptors = self.network.describe(dense[i], pixels)
            features.append(
                {"keypoints": pixels.to(scores), "keypoint_scores": keypoint_scores, "descriptors": descriptors}
            )
        return stack_features(features)

    def describe_at(self, image: Tensor, keypoints: Tensor) -> Tensor:
        """Descriptors (B, N, D), L2-normalised, at `keypoints` (B, N, 2), px of `image` (B, C, H, W)."""
        gray, _ = gray_images_in(self, {"image": image})
        _, dense = self.network(self._padded(gray))
        each = zip(dense, keypoints, strict=True)
        return torch.stack([self.network.describe(maps, positions) for maps, positions in each])

    def _padded(self, image: Tensor) -> Tensor:
        """`image`, or where it is smaller than a cell, one that is made a cell with zeros."""
        h, w = image.shape[-2:]
        return F.pad(image, (0, max(self.network.stride - w, 0), 0, max(self.network.stride - h, 0)))


def _detect(
    scores: Tensor, image_size: Tensor, options: SuperPointConfig, allowed: Sequence[Allowed | None]
) -> list[Tensor]:
    """For each score map of (B, 1, H, W) the flat indices (N,) of its keypoints, in the published order.

    The map ends with the last whole cell, and the border is that of the map.
    """
    h, w = scores.shape[-2:]
    size = torch.minimum(image_size.to(scores.device), torch.tensor([w, h], device=scores.device))
    border = options.remove_borders or 0
    inside = clear_border(scores, 0, 0, size)  # first, so that nothing outside suppresses what is inside
    kept = clear_border(simple_nms(inside, options.nms_radius), border, border, size)
    result = []
    for maxima, may_stay in zip(kept.flatten(1), allowed, strict=True):
        indices = (maxima > max(options.detection_threshold, 0)).nonzero()[:, 0]
        if may_stay is not None:
            indices = indices[may_stay(xy_of(indices, w).to(scores))]
        if options.max_num_keypoints is not None and len(indices) > options.max_num_keypoints:
            indices = indices[strongest(maxima[indices], options.max_num_keypoints)]
        result.append(indices)
    return result
