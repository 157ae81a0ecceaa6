"""ALIKED keypoints and descriptors: the public extractor over the network of `aliked_network`.

Options, their defaults and the order of the keypoints are those of the published package (github.com/cvg/LightGlue).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, replace
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor

from lightglue.errors import InputError
from lightglue.extractors.aliked_detection import DKD, AlikedConfig, detect
from lightglue.extractors.aliked_fast import coarsest_level, encode, score_map
from lightglue.extractors.aliked_folding import FoldedAliked, fold, is_foldable
from lightglue.extractors.aliked_network import ARCHITECTURES, SDDH, AlikedNetwork
from lightglue.extractors.aliked_sparse import describe
from lightglue.extractors.base import Extractor, Weights, full_precision, stack_features
from lightglue.extractors.detection import refine, sample_bilinear, xy_of
from lightglue.extractors.request import EVERYTHING, Part, Request
from lightglue.support.derived import Derived, is_plain, tensors_of, wants_gradients
from lightglue.support.precision import product_dtype
from lightglue.types import Features

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from lightglue.extractors.keywords import AlikedKeywords

__all__ = ["ALIKED", "AlikedConfig"]


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
    reference_name = "network.conv1.weight"
    default_conf: ClassVar[dict[str, Any]] = asdict(AlikedConfig())
    preprocess_conf: ClassVar[dict[str, Any]] = {"resize": 1024}
    # Published name -> channels of the four blocks, descriptor length, side of a patch in px, sample positions.
    cfgs: ClassVar[dict[str, list[int]]] = {
        name: [*kind.channels, kind.descriptor_dim, 3, kind.positions] for name, kind in ARCHITECTURES.items()
    }
    # A published module that someone put in the place of the network's own; see `forward`.
    desc_head: Any

    def __init__(
        self, *, weights: Weights | None = None, commercial_only: bool = False, **conf: Unpack[AlikedKeywords]
    ) -> None:
        super().__init__(**conf)
        name = self.conf.model_name
        self.network = AlikedNetwork(ARCHITECTURES[name])
        state = self.read_weights(name if weights is None else weights, commercial_only=commercial_only)
        self._tensors = tuple(self.network.state_dict())
        self._folded = Derived(fold)
        self.dkd = DKD.of(self.options())
        self._built_dkd = self.dkd.settings()
        self.adopt(state, name)

    def __getattr__(self, name: str) -> Any:
        if name == "desc_head" and name not in self._modules:
            return SDDH.of(self.network.desc_head)
        return super().__getattr__(name)

    @full_precision
    def extract_dense_map(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """Features (B, D, H, W), L2-normalised, and scores (B, 1, H, W) of an image (B, 3, H, W) in [0, 1]."""
        return self.network(image)  # type: ignore[no-any-return]

    @full_precision
    def forward(self, data: Mapping[str, Any], request: Request = EVERYTHING) -> Features:
        """See `Extractor.forward`.

        What is put in the place of `dkd` or `desc_head`, and what is changed of `dkd`, has the effect that it has in
        the published code; masks and tiles do not go with it.

        Returns:
            keypoints (B, N, 2), keypoint_scores (B, N), descriptors (B, N, D), all float32.
        """
        options, is_part = self.options(), request.part is not None
        image, image_size = self.images_in(data)
        if self._is_rebuilt():
            return self._forward_published(image, image_size, request)
        sizes = [None] * len(image) if image_size is None else torch.split(image_size, 1)
        features: list[Features] = []
        read = self._read(image, request.part)
        for size, allowed in zip(sizes, request.allowed_in(len(image)), strict=True):
            scores_of, describe_at = next(read)
            scores = scores_of().float()
            radius = min(options.nms_radius, max(scores.shape))  # a larger window holds no more
            indices = detect(scores.detach(), size, replace(options, nms_radius=radius), allowed, is_part)
            keypoints = refine(scores, xy_of(indices, scores.shape[-1]), radius)
            keypoint_scores = sample_bilinear(scores[None], keypoints)[:, 0]
            descriptors = describe_at(keypoints)
            found: Any = {"keypoints": keypoints, "keypoint_scores": keypoint_scores, "descriptors": descriptors}
            if request.will_merge:  # the best are those that score best before their positions are refined
                found["strength"] = scores.detach().flatten()[indices]
            features.append(found)
            del scores_of, describe_at  # with this image's maps, before those of the next are made
        return stack_features(features)

    def _is_rebuilt(self) -> bool:
        """Whether the user put another detector or descriptor head in, or changed the detector."""
        is_own = is_plain(self.dkd, (DKD,)) and self.dkd.settings() == self._built_dkd
        return not is_own or "desc_head" in self._modules or "desc_head" in vars(self)

    def _forward_published(self, image: Tensor, image_size: Tensor | None, request: Request) -> Features:
        if request.part is not None or any(allowed is not None for allowed in request.allowed):
            raise InputError("Masks and tiles need the `dkd` and `desc_head` that ALIKED was built with.")
        maps, scores = self.extract_dense_map(image)
        keypoints, keypoint_scores, _ = self.dkd(scores, image_size=image_size)
        descriptors, _ = self.desc_head(maps, keypoints)
        last = image.new_tensor([image.shape[-1] - 1, image.shape[-2] - 1])
        each = zip(keypoints, keypoint_scores, descriptors, strict=True)
        return stack_features(
            [{"keypoints": (xy + 1) / 2 * last, "keypoint_scores": s, "descriptors": d} for xy, s, d in each]
        )

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
        foldable = is_foldable(self.network)  # first: of other modules there are no such tensors
        if not foldable or wants_gradients([image], tensors_of(self.network, self._tensors)):
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
