"""RaCo keypoints with ALIKED's descriptors, for the matcher `LightGlue(features="raco-aliked")`.

Options, their defaults and the order of the steps are those of github.com/cvg/RaCo.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, ClassVar, cast

import torch
import torch.nn.functional as F
from torch import Tensor

from lightglue.errors import InputError, WeightsError
from lightglue.extractors.aliked import ALIKED
from lightglue.extractors.base import Extractor, Weights, full_precision, stack_features
from lightglue.extractors.detection import clear_border, refine, sample_bilinear, strongest, xy_of
from lightglue.extractors.masks import Allowed
from lightglue.extractors.raco_network import RacoMaps, RacoNetwork
from lightglue.extractors.request import EVERYTHING, Request
from lightglue.support.checks import check_bool, check_int, check_real
from lightglue.types import Features

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from lightglue.extractors.keywords import RacoKeywords

__all__ = ["RaCo", "RacoConfig"]

SOURCE = "raco.pth of release v1.0.0 of github.com/cvg/RaCo"


@dataclass(frozen=True)
class RacoConfig:
    """Options of RaCo."""

    max_num_keypoints: int | None = 2048  # None: no limit
    nms_radius: int = 3  # px, odd; the side of the window, in spite of its published name
    subpixel_sampling: bool = True
    subpixel_temp: float = 0.5  # of the softmax over the window's logits
    detection_threshold: float = -1.0  # of the score; not positive: none
    ranker: bool = True  # give ranker_scores
    covariance_estimator: bool = True  # give covariances
    sort_by_ranker: bool = False  # best rank first, rather than best score first
    descriptor: str | None = "aliked-n16"  # the ALIKED that describes the keypoints; None: no descriptors

    def __post_init__(self) -> None:
        if self.max_num_keypoints is not None:
            check_int("max_num_keypoints", self.max_num_keypoints, 1, "a positive integer, None for no limit")
        check_int("nms_radius", self.nms_radius, 1, "the side of a window in px, an odd integer")
        if self.nms_radius % 2 == 0:
            raise InputError(f"nms_radius is {self.nms_radius!r}; give the side of a window in px, an odd integer.")
        check_real("detection_threshold", self.detection_threshold, "a number, not positive for no threshold")
        check_real("subpixel_temp", self.subpixel_temp, "a positive number")
        if self.subpixel_temp <= 0:
            raise InputError(f"subpixel_temp is {self.subpixel_temp!r}; give a positive number.")
        for name in ("subpixel_sampling", "ranker", "covariance_estimator", "sort_by_ranker"):
            check_bool(name, getattr(self, name))
        if self.sort_by_ranker and not self.ranker:
            raise InputError("sort_by_ranker is True and ranker is False; give ranker=True.")


class RaCo(Extractor):
    """RaCo (arXiv:2602.15755): `RaCo(weights="raco.pth", max_num_keypoints=2048).eval()`.

    The checkpoint is not fetched, since no record of its sha256 is known: download raco.pth (Apache-2.0) from the
    release v1.0.0 of github.com/cvg/RaCo and pass its path. Descriptors are those of ALIKED at the keypoints, with
    which the published matcher `LightGlue(features="raco-aliked")` works.

    Args:
        weights: the checkpoint's path, or a state dict.
        commercial_only: refuse weights (of ALIKED) whose licence forbids commercial use.
        conf: the options of `RacoConfig`.

    Raises:
        InputError: for an option's value.
        WeightsError: where the weights cannot be had or do not fit.
    """

    config_type = RacoConfig
    reference_name = "network.block1.conv1.weight"
    default_conf: ClassVar[dict[str, Any]] = asdict(RacoConfig())
    preprocess_conf: ClassVar[dict[str, Any]] = {"resize": 1024}

    def __init__(
        self, *, weights: Weights | None = None, commercial_only: bool = False, **conf: Unpack[RacoKeywords]
    ) -> None:
        super().__init__(**conf)
        if weights is None:
            raise WeightsError(f"RaCo needs weights: download {SOURCE} and pass its path, RaCo(weights=path).")
        options = self.options()
        self.network = RacoNetwork(options.ranker, options.covariance_estimator)
        state = _fitting(self.read_weights(weights), options)
        self.adopt(state, "RaCo")
        self.aliked: ALIKED | None = None
        if options.descriptor is not None:
            self.aliked = ALIKED(model_name=options.descriptor, commercial_only=commercial_only)

    @full_precision
    def forward(self, data: Mapping[str, Any], request: Request = EVERYTHING) -> Features:
        """See `Extractor.forward`.

        Returns:
            keypoints (B, N, 2), keypoint_scores (B, N), which add up to about 1 over all pixels of an image, and as
            the options say descriptors (B, N, D), ranker_scores (B, N), higher is better, and covariances (B, N, 2, 2)
            in px^2; all float32.
        """
        options = self.options()
        image, image_size = self.images_in(data)
        maps = self.network(image)
        logits = maps.logits.float()
        if image_size is not None:
            inside = clear_border(torch.ones_like(logits, dtype=torch.bool), 0, 0, image_size)
            logits = logits.masked_fill(~inside, -torch.inf)
        features: list[Features] = []
        for i, (one, allowed) in enumerate(zip(image, request.allowed_in(len(image)), strict=True)):
            ranks, cholesky = (None if m is None else m[i].float() for m in (maps.ranks, maps.cholesky))
            features.append(self._features(one, RacoMaps(logits[i], ranks, cholesky), options, allowed))
        return stack_features(features)

    def describe_at(self, image: Tensor, keypoints: Tensor) -> Tensor:
        """Descriptors (B, N, D), L2-normalised, at `keypoints` (B, N, 2), px of `image` (B, C, H, W): ALIKED's."""
        if self.aliked is None:
            raise InputError("This RaCo was built with descriptor=None; name an ALIKED there to describe keypoints.")
        return self.aliked.describe_at(image, keypoints)

    def _features(self, image: Tensor, maps: RacoMaps, options: RacoConfig, allowed: Allowed | None) -> Features:
        """Features of one image (3, H, W); the maps are those of it alone, (C, H, W)."""
        h, w = image.shape[-2:]
        scores = maps.logits.flatten().softmax(0).view(h, w)
        keypoints = _detect(scores, maps.logits[0], options, allowed)
        keypoint_scores = sample_bilinear(scores[None], keypoints, outside="border")[:, 0]
        if options.detection_threshold > 0:
            keep = keypoint_scores > options.detection_threshold
            keypoints, keypoint_scores = keypoints[keep], keypoint_scores[keep]
        found = {"keypoints": keypoints, "keypoint_scores": keypoint_scores}
        if options.ranker and maps.ranks is not None:
            found["ranker_scores"] = sample_bilinear(maps.ranks, keypoints, outside="border")[:, 0]
        if options.covariance_estimator and maps.cholesky is not None:
            found["covariances"] = _covariances(sample_bilinear(maps.cholesky, keypoints, outside="border"))
        if options.sort_by_ranker and "ranker_scores" in found:
            order = found["ranker_scores"].argsort(descending=True, stable=True)
            found = {name: value[order] for name, value in found.items()}
        if self.aliked is not None:
            found["descriptors"] = self.aliked.describe_at(image[None], found["keypoints"][None])[0]
        return cast(Features, found)

    def to_original(self, features: Features, ratio: Tensor) -> None:
        """Keypoints and covariances from px of the resized image to px of the original, in place."""
        super().to_original(features, ratio)
        found = cast(dict[str, Tensor], features)
        if "covariances" in found:
            found["covariances"] = found["covariances"] / (ratio[:, None] * ratio)


def _fitting(state: Mapping[str, Tensor], options: RacoConfig) -> dict[str, Tensor]:
    """`state` without the prefix that the first published code has, and without the heads that are not asked for."""
    state = {key.removeprefix("model."): value for key, value in state.items()}
    unused = {"ranker_head.": options.ranker, "covariance_estimator_head.": options.covariance_estimator}
    dropped = tuple(prefix for prefix, asked in unused.items() if not asked)
    return {key: value for key, value in state.items() if not key.startswith(dropped)}


def _detect(scores: Tensor, logits: Tensor, options: RacoConfig, allowed: Allowed | None) -> Tensor:
    """Keypoints (N, 2) x y in px, the best first, of scores and logits (H, W)."""
    window, fixed = options.nms_radius, scores.detach()
    # A window that covers the map in every direction holds no more if it is larger.
    side = min(window, 2 * max(scores.shape) - 1)
    greatest = F.max_pool2d(fixed[None], side, stride=1, padding=side // 2)[0]
    indices = ((fixed == greatest) & (fixed > 0)).flatten().nonzero()[:, 0]
    if allowed is not None:
        indices = indices[allowed(_positions(indices, logits, side // 2, options))]
    limit = len(indices) if options.max_num_keypoints is None else options.max_num_keypoints
    found = fixed.flatten()[indices]
    order = strongest(found, limit) if limit < len(indices) else found.argsort(descending=True, stable=True)
    return _positions(indices[order], logits, side // 2, options)


def _positions(indices: Tensor, logits: Tensor, radius: int, options: RacoConfig) -> Tensor:
    """Positions (N, 2) in px of the maxima with these flat indices (N,) of a map (H, W)."""
    h, w = logits.shape
    pixels = xy_of(indices, w)
    if not options.subpixel_sampling:
        return pixels.to(logits)
    refined = refine(logits, pixels, radius, options.subpixel_temp)
    # What lies outside of the map counts as a logit of 0, which may draw a keypoint on the border out of the image.
    return torch.minimum(refined.clamp_min(-0.5), refined.new_tensor([w - 0.5, h - 0.5]))


def _covariances(cholesky: Tensor) -> Tensor:
    """(N, 2, 2) L L^T of (N, 3) the entries L11, L21 and L22."""
    l11, l21, l22 = cholesky.unbind(1)
    factor = torch.stack((l11, torch.zeros_like(l11), l21, l22), 1).view(-1, 2, 2)
    return factor @ factor.mT
