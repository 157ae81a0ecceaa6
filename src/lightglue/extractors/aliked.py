"""ALIKED keypoints and descriptors: the public extractor over the network of `aliked_network`.

Options, their defaults and the order of the keypoints are those of the published package (github.com/cvg/LightGlue).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import Any, ClassVar

import torch
from torch import Tensor

from lightglue.extractors.aliked_fast import coarsest_level, encode, score_map
from lightglue.extractors.aliked_folding import FoldedAliked, fold, is_foldable
from lightglue.extractors.aliked_network import ARCHITECTURES, AlikedNetwork
from lightglue.extractors.aliked_sparse import describe
from lightglue.extractors.base import Extractor, Weights, full_precision, read_weights, stack_features
from lightglue.extractors.detection import clear_border, nms_maxima, refine, sample_bilinear, strongest, xy_of
from lightglue.extractors.masks import Allowed
from lightglue.extractors.views import Part
from lightglue.support.checks import check_bool, check_choice, check_int, check_real
from lightglue.support.derived import Derived, tensors_of, wants_gradients
from lightglue.support.precision import product_dtype
from lightglue.types import Features
from lightglue.weights.state_dicts import load_strictly, publish_keys

__all__ = ["ALIKED", "AlikedConfig"]

MOST_KEYPOINTS = 20_000  # in threshold mode where `max_num_keypoints` sets no limit


@dataclass(frozen=True)
class AlikedConfig:
    """Options of ALIKED.

    With a positive `detection_threshold`, all keypoints that score above it, in raster order; where there are more
    than `max_num_keypoints`, the best of these, best first; where there is none, those above the image's mean score.
    With any other threshold the `max_num_keypoints` best, best first, and without such a number all above the mean.
    """

    model_name: str = "aliked-n16"
    max_num_keypoints: int | None = -1  # not positive, or None: no limit (20,000 where there is a threshold)
    detection_threshold: float = 0.2  # of the score in [0, 1]
    nms_radius: int = 2  # px; also the radius of the window for sub-pixel positions and the width of the border
    mp: bool = False  # products in reduced precision: float16 on a GPU, bfloat16 on a CPU that has instructions for it

    def __post_init__(self) -> None:
        check_choice("model_name", self.model_name, ARCHITECTURES)
        if self.max_num_keypoints is not None:
            check_int("max_num_keypoints", self.max_num_keypoints, -(2**63), "an integer, -1 for no limit")
        check_real(
            "detection_threshold", self.detection_threshold, "a number, not positive for the best keypoints only"
        )
        check_int("nms_radius", self.nms_radius, 0, "a radius in px, an integer of at least 0")
        check_bool("mp", self.mp)


class ALIKED(Extractor):
    """ALIKED (arXiv:2304.03608): `ALIKED(max_num_keypoints=2048, detection_threshold=0.2).eval()`.

    Args:
        weights: a file, a published name or a state dict to load instead of the published weights of `model_name`.
        commercial_only: refuse weights whose licence forbids commercial use.
        conf: the options of `AlikedConfig`.

    Raises:
        InputError: for an option's value.
        WeightsError: where the weights cannot be had or do not fit.
    """

    config_type = AlikedConfig
    default_conf: ClassVar[dict[str, Any]] = asdict(AlikedConfig())
    preprocess_conf: ClassVar[dict[str, Any]] = {"resize": 1024}

    def __init__(self, *, weights: Weights | None = None, commercial_only: bool = False, **conf: Any) -> None:
        super().__init__(**conf)
        name = self.conf.model_name
        self.network = AlikedNetwork(ARCHITECTURES[name])
        state = read_weights(name if weights is None else weights, commercial_only=commercial_only)
        load_strictly(self.network, state, name)
        self._tensors = tuple(self.network.state_dict())
        self._folded = Derived(fold)
        publish_keys(self)
        self.eval()  # batch statistics in place of the learned ones would silently spoil the result

    @property
    def reference(self) -> Tensor:
        """A weight, whose device and dtype images get."""
        return self.network.conv1.weight

    @full_precision
    def extract_dense_map(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """Features (B, D, H, W), L2-normalised, and scores (B, 1, H, W) of an image (B, 3, H, W) in [0, 1]."""
        return self.network(image)  # type: ignore[no-any-return]

    @full_precision
    def forward(self, data: Mapping[str, Any]) -> Features:
        """Features of a batch of images, in the pixels of the tensor; see `extract` for whole images.

        Args:
            data: "image" (B, C, H, W) in [0, 1], C = 1 or 3. Where the images are padded at the right and bottom,
                "image_size" (B, 2), the width and height in px without: no keypoint then lies in the padding.

        Returns:
            keypoints (B, N, 2), keypoint_scores (B, N), descriptors (B, N, D), all float32.

        Raises:
            InputError: also where the images yield unequal numbers of keypoints.
        """
        options = self.options()
        image, image_size = self.images_in(data)
        sizes = [None] * len(image) if image_size is None else torch.split(image_size, 1)
        features: list[Features] = []
        part = data.get("part")
        read = self._read(image, part)
        for size, allowed in zip(sizes, self.allowed_in(data, len(image)), strict=True):
            scores_of, describe_at = next(read)
            scores = scores_of().float()
            radius = min(options.nms_radius, max(scores.shape))  # a larger window holds no more
            indices = _detect(scores.detach(), size, replace(options, nms_radius=radius), allowed, part is not None)
            keypoints = refine(scores, xy_of(indices, scores.shape[-1]), radius)
            keypoint_scores = sample_bilinear(scores[None], keypoints)[:, 0]
            descriptors = describe_at(keypoints)
            found: Any = {"keypoints": keypoints, "keypoint_scores": keypoint_scores, "descriptors": descriptors}
            if data.get("will_merge"):  # the best are those that score best before their positions are refined
                found["strength"] = scores.detach().flatten()[indices]
            features.append(found)
            del scores_of, describe_at  # with this image's maps, before those of the next are made
        return stack_features(features)

    def describe_at(self, image: Tensor, keypoints: Tensor) -> Tensor:
        """Descriptors (B, N, D), L2-normalised, at `keypoints` (B, N, 2), px of `image` (B, C, H, W)."""
        read = self._read(image.expand(-1, 3, -1, -1))
        return torch.stack([describe_at(xy) for (_, describe_at), xy in zip(read, keypoints, strict=True)])

    def prepare_tiles(self, read: Callable[[slice, slice], Tensor], size: tuple[int, int]) -> Tensor | None:
        """The coarsest level of the feature pyramid (h, w, d), in which each position depends on far ones."""
        if not is_foldable(self.network):
            return None
        return coarsest_level(self._folded_network(), lambda *window: read(*window)[0].expand(3, -1, -1), size)

    def _read(
        self, image: Tensor, part: Part | None = None
    ) -> Iterator[tuple[Callable[[], Tensor], Callable[[Tensor], Tensor]]]:
        """For each image of (B, 3, H, W) the functions that give its scores (H, W) and the descriptors (N, D) at
        keypoints (N, 2). `part` is heeded by the folded layers only."""
        wanted = wants_gradients([image], tensors_of(self.network, self._tensors))
        if wanted or not is_foldable(self.network):
            features, scores = self.network(image)
            for one, score in zip(features, scores[:, 0], strict=True):
                yield partial(Tensor.clone, score), partial(self.network.describe, one)
            return
        folded = self._folded_network()
        for one in image:
            encoded = encode(folded, one, part)
            yield partial(score_map, folded, encoded), partial(describe, folded, encoded)
            del encoded

    def _folded_network(self) -> FoldedAliked:
        """The network for inference; option `mp` has an effect on it only."""
        dtype = product_dtype(self.reference.device, self.options().mp)
        return self._folded.of(self.network, tensors_of(self.network, self._tensors), dtype)


def _detect(
    scores: Tensor, image_size: Tensor | None, options: AlikedConfig, allowed: Allowed | None, is_part: bool
) -> Tensor:
    """Flat indices (N,) of the keypoints in a score map (H, W), in the published order."""
    radius = options.nms_radius
    maxima = clear_border(nms_maxima(scores[None, None], radius), radius, radius, image_size)
    indices = maxima.flatten().nonzero()[:, 0]
    if allowed is not None:
        indices = indices[allowed(refine(scores, xy_of(indices, scores.shape[-1]), radius))]
    found = scores.flatten()[indices]
    if image_size is not None:
        width, height = image_size[0].long().tolist()
        scores = scores[:height, :width]
    return indices[_select(found, scores.mean(), options, is_part)]


def _select(scores: Tensor, mean: Tensor, options: AlikedConfig, is_part: bool) -> Tensor:
    """Which of the maxima with `scores` (N,) are keypoints; `mean` is that of the image's whole score map."""
    limit, threshold = options.max_num_keypoints or 0, float(options.detection_threshold)
    if threshold <= 0 < limit:
        positive = (scores > 0).nonzero()[:, 0]
        return positive[strongest(scores[positive], limit)]
    above = (scores > (threshold if threshold > 0 else mean)).nonzero()[:, 0]
    if len(above) == 0 and not is_part:  # a part without keypoints, such as the sky, is nothing unusual
        above = (scores > mean).nonzero()[:, 0]
    limit = limit if limit > 0 else MOST_KEYPOINTS
    return above[strongest(scores[above], limit)] if len(above) > limit else above
