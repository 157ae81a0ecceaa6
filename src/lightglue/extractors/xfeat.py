"""XFeat keypoints and descriptors: the public extractor over the network of `xfeat_network`.

Defaults and the order of the keypoints are those of the published code (github.com/verlab/accelerated_features), whose
`top_k` is called `max_num_keypoints` here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from lightglue.extractors.base import Extractor, Weights, full_precision, stack_features
from lightglue.extractors.detection import strongest, window_maxima
from lightglue.extractors.masks import Allowed
from lightglue.extractors.request import EVERYTHING, Request
from lightglue.extractors.xfeat_fast import encode, fold, heatmap, is_foldable
from lightglue.extractors.xfeat_network import EPSILON, STRIDE, XFeatNetwork, normalize
from lightglue.support.checks import check_bool, check_int, check_real
from lightglue.support.derived import Derived, tensors_of, wants_gradients
from lightglue.support.precision import product_dtype
from lightglue.types import Features

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from lightglue.extractors.keywords import XFeatKeywords

__all__ = ["XFeat", "XFeatConfig"]

ROWS = 256  # of a large image that are read at once to measure it


@dataclass(frozen=True)
class XFeatConfig:
    """Options of XFeat.

    Of the maxima whose probability exceeds `detection_threshold` the `max_num_keypoints` with the best scores, best
    first. A score is that probability times the reliability that the network expects of the descriptor there.
    """

    max_num_keypoints: int | None = 4096  # None: no limit
    detection_threshold: float = 0.05  # of the probability in [0, 1]; where not positive, every maximum
    nms_radius: int = 2  # px; a keypoint is the maximum of a window of side 2 * nms_radius + 1
    mp: bool = False  # products in reduced precision: float16 on a GPU, bfloat16 on a CPU that has instructions for it

    def __post_init__(self) -> None:
        if self.max_num_keypoints is not None:
            check_int("max_num_keypoints", self.max_num_keypoints, 0, "an integer of at least 0, None for no limit")
        check_real("detection_threshold", self.detection_threshold, "a number, not positive for no threshold")
        check_int("nms_radius", self.nms_radius, 0, "a radius in px, an integer of at least 0")
        check_bool("mp", self.mp)


class _Maps(Protocol):
    """An image's maps, which keypoints read at pixels (N, 2)."""

    def describe(self, pixels: Tensor) -> Tensor: ...

    def trust(self, pixels: Tensor) -> Tensor: ...


class GrayLevels(NamedTuple):
    """Of a whole image's gray values."""

    mean: float
    variance: float


class _Fitted(NamedTuple):
    """An image as the network takes it."""

    image: Tensor  # (1, 1, H, W), normalised, its sides multiples of STRIDE
    size: tuple[int, int]  # height, width of what the image fills, px; the rest is padding
    ratio: Tensor  # (2,) px of the original for one of this, x y


class XFeat(Extractor):
    """XFeat (arXiv:2404.19174): `XFeat(max_num_keypoints=2048).eval()`.

    `LightGlue(features="xfeat")` matches its keypoints: LighterGlue, by the same authors.

    Args:
        weights: a file, a published name or a state dict to load instead of the published weights.
        commercial_only: refuse weights whose licence forbids commercial use.
        conf: the options of `XFeatConfig`.

    Raises:
        InputError: for an option's value.
        WeightsError: where the weights cannot be had or do not fit.
    """

    config_type = XFeatConfig
    reference_name = "network.skip1.1.weight"
    default_conf: ClassVar[dict[str, Any]] = asdict(XFeatConfig())
    # With images of this size and 4,096 keypoints LighterGlue was published to be most accurate.
    preprocess_conf: ClassVar[dict[str, Any]] = {"resize": 1024}

    def __init__(
        self, *, weights: Weights | None = None, commercial_only: bool = False, **conf: Unpack[XFeatKeywords]
    ) -> None:
        super().__init__(**conf)
        self.network = XFeatNetwork()
        state = self.read_weights("xfeat" if weights is None else weights, commercial_only=commercial_only)
        self.adopt(state, "XFeat")
        # Without what no keypoint needs, since this is what is looked at for changes at each call.
        self._tensors = tuple(name for name in self.network.state_dict() if not name.startswith("fine_matcher."))
        self._folded = Derived(fold)

    @full_precision
    def forward(self, data: Mapping[str, Any], request: Request = EVERYTHING) -> Features:
        """See `Extractor.forward`.

        Returns:
            keypoints (B, N, 2), keypoint_scores (B, N) in [0, 1], descriptors (B, N, 64), all float32.
        """
        options = self.options()
        image, image_size = self.images_in(data)
        gray = _gray(data["image"].to(image))
        levels = None if request.part is None else request.part.prepared
        each = zip(_cut(gray, image_size), request.allowed_in(len(image)), strict=True)
        return stack_features([self._features(one, options, allowed, levels) for one, allowed in each])

    def size_for_tiles(self, height: int, width: int) -> tuple[int, int]:
        """The sides of a whole image as the network would see them."""
        return max(height // STRIDE, 1) * STRIDE, max(width // STRIDE, 1) * STRIDE

    def prepare_tiles(self, read: Callable[[slice, slice], Tensor], size: tuple[int, int]) -> GrayLevels:
        """Mean and deviation of the whole image, with which each of its tiles is normalised; see `Extractor`."""
        height, width = size
        count, total, squares = 0, 0.0, 0.0
        for row in range(0, height, ROWS):
            gray = _gray(read(slice(row, min(row + ROWS, height)), slice(0, width))).double()
            count, total, squares = count + gray.numel(), total + float(gray.sum()), squares + float((gray**2).sum())
        mean = total / count
        return GrayLevels(mean, max(squares / count - mean * mean, 0.0))

    def describe_at(self, image: Tensor, keypoints: Tensor) -> Tensor:
        """Descriptors (B, N, 64), L2-normalised, at `keypoints` (B, N, 2), px of `image` (B, C, H, W)."""
        gray = _gray(image)
        found = []
        for one, xy in zip(torch.split(gray, 1), keypoints, strict=True):
            fitted = _fit(one)
            _, maps = self._read(fitted.image, with_heat=False)
            found.append(maps.describe(xy.to(fitted.ratio) / fitted.ratio).float())
        return torch.stack(found)

    def _features(
        self, gray: Tensor, options: XFeatConfig, allowed: Allowed | None, levels: GrayLevels | None
    ) -> Features:
        """Features of one image (1, 1, H, W), or of a tile of one with these levels."""
        fitted = _fit(gray, levels)
        heat, maps = self._read(fitted.image)
        height, width = fitted.size
        heat = heat.float()[:height, :width]
        pixels = _detect(heat.detach(), fitted.image.shape[-2:], options)
        if allowed is not None:
            pixels = pixels[allowed(pixels.to(fitted.ratio) * fitted.ratio)]
        x, y = pixels.T
        pixels = pixels.to(fitted.ratio)
        scores = heat[y, x] * maps.trust(pixels).float()
        keypoints = pixels * fitted.ratio
        chosen = _select(scores.detach(), options.max_num_keypoints)
        return {
            "keypoints": keypoints[chosen],
            "keypoint_scores": scores[chosen],
            "descriptors": maps.describe(pixels[chosen]),
        }

    def _read(self, image: Tensor, with_heat: bool = True) -> tuple[Tensor, _Maps]:
        """The heatmap (H, W) of an image (1, 1, H, W), where it is wanted, and its other maps."""
        foldable = is_foldable(self.network)  # first: of other modules there are no such tensors
        tensors = tensors_of(self.network, self._tensors) if foldable else []
        if not foldable or wants_gradients([image], tensors):
            features, logits, reliability = self.network(image)
            return self.network.heatmap(logits)[0, 0], _PlainMaps(self.network, features[0], reliability[0])
        folded = self._folded.of(self.network, tensors, product_dtype(image.device, self.options().mp))
        return heatmap(folded, image) if with_heat else image.new_empty(0, 0), encode(folded, image)


class _PlainMaps(NamedTuple):
    """The dense maps of the network's own `forward`."""

    network: XFeatNetwork
    features: Tensor  # (64, h, w)
    reliability: Tensor  # (1, h, w)

    def describe(self, pixels: Tensor) -> Tensor:
        return self.network.describe(self.features, pixels)

    def trust(self, pixels: Tensor) -> Tensor:
        return self.network.trust(self.reliability, pixels)


def _gray(image: Tensor) -> Tensor:
    """(B, 1, H, W) the plain mean of the channels, as published; a gray image stays as it is to the last bit."""
    return image if image.shape[1] == 1 else image.mean(dim=1, keepdim=True)


def _cut(images: Tensor, image_size: Tensor | None) -> list[Tensor]:
    """Each image of (B, 1, H, W) by itself, without its padding."""
    if image_size is None:
        return list(torch.split(images, 1))
    sizes = image_size.long().tolist()
    return [one[..., :height, :width] for one, (width, height) in zip(torch.split(images, 1), sizes, strict=True)]


def _fit(gray: Tensor, levels: GrayLevels | None = None) -> _Fitted:
    """An image (1, 1, H, W), or a tile of one with these levels, its sides rounded down to multiples of STRIDE.

    This is as published; shorter sides are padded. Positions go back by the ratio of the sides, as published, though
    pixels are stretched about their outer edges: they are off by (1 - ratio) / 2, that is 0.02 px at a side of 640 px
    and never more than half a pixel.
    """
    h, w = gray.shape[-2:]
    height, width = (n // STRIDE * STRIDE or n for n in (h, w))
    if (height, width) != (h, w):
        gray = F.interpolate(gray, (height, width), mode="bilinear", align_corners=False)
    if levels is None:
        gray = normalize(gray)
    else:
        gray = (gray - levels.mean) * (levels.variance + EPSILON) ** -0.5
    image = F.pad(gray, (0, -width % STRIDE, 0, -height % STRIDE))
    ratio = torch.tensor([w / width, h / height], dtype=torch.float32, device=gray.device)
    return _Fitted(image, (height, width), ratio)


def _detect(heat: Tensor, size: Sequence[int], options: XFeatConfig) -> Tensor:
    """The maxima (N, 2) int64 x y of a heatmap (H, W), in raster order. `size` is that of the map with its padding.

    As published, the last column and the last row of the map have no keypoints, and the first pixel is none.
    """
    radius = min(options.nms_radius, max(heat.shape))  # a larger window holds no more
    maxima = window_maxima(heat[None, None], radius)[0, 0] & (heat > max(float(options.detection_threshold), 0))
    maxima = maxima[: size[0] - 1, : size[1] - 1]
    maxima[:1, :1] = False
    return maxima.nonzero().flip(-1)


def _select(scores: Tensor, limit: int | None) -> Tensor:
    """Which of the maxima with `scores` (N,) are keypoints, best first."""
    candidates = (scores > 0).nonzero()[:, 0]
    count = len(candidates) if limit is None else min(limit, len(candidates))
    return candidates[strongest(scores[candidates], count)]
