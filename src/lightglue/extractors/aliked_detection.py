"""ALIKED's keypoints from its score map, and its options; also as the module of the published code, `DKD`."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn

from lightglue.extractors.aliked_network import ARCHITECTURES
from lightglue.extractors.detection import (
    clear_border,
    nms_maxima,
    refine,
    refine_with_spread,
    sample_bilinear,
    strongest,
    xy_of,
)
from lightglue.extractors.masks import Allowed
from lightglue.support.checks import check_bool, check_choice, check_int, check_real

__all__ = ["DKD", "MOST_KEYPOINTS", "AlikedConfig", "detect"]

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


def detect(
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


class DKD(nn.Module):
    """The detector as a module of its own, for those who put their own step between score map and keypoints.

    What `ALIKED().dkd` is. Where its attributes are changed, or another module is put in its place, `ALIKED` uses it.

    Args:
        radius: as `nms_radius` of `AlikedConfig`.
        top_k: the number of keypoints, the best; where not positive, all above the threshold.
        scores_th: that threshold; where not positive, the image's mean score.
        n_limit: the greatest number of keypoints above the threshold.
    """

    def __init__(self, radius: int = 2, top_k: int = 0, scores_th: float = 0.2, n_limit: int = MOST_KEYPOINTS) -> None:
        super().__init__()
        self.radius, self.top_k, self.scores_th, self.n_limit = radius, top_k, scores_th, n_limit

    @classmethod
    def of(cls, options: AlikedConfig) -> DKD:
        """The one that detects as these options say."""
        limit, threshold = options.max_num_keypoints or -1, options.detection_threshold
        top_k = -1 if threshold > 0 else limit
        return cls(options.nms_radius, top_k, threshold, limit if limit > 0 else MOST_KEYPOINTS)

    def settings(self) -> tuple[float, ...]:
        """All that it detects by."""
        return self.radius, self.top_k, self.scores_th, self.n_limit

    def forward(
        self, scores_map: Tensor, sub_pixel: bool = True, image_size: Tensor | None = None
    ) -> tuple[list[Tensor], list[Tensor], list[Tensor]]:
        """Keypoints of score maps (B, 1, H, W).

        Args:
            sub_pixel: whether positions are refined.
            image_size: (B, 2) width height of each image in the map's top-left corner, px; None: the whole map.

        Returns:
            for each image keypoints (N, 2) x y from -1 to 1, between the centres of the outermost pixels; scores (N,);
            and how widely the scores around each spread (N,).
        """
        threshold = -1.0 if self.top_k > 0 else self.scores_th
        limit = self.top_k if self.top_k > 0 else self.n_limit if threshold > 0 else None
        options = AlikedConfig(max_num_keypoints=limit, detection_threshold=threshold, nms_radius=self.radius)
        h, w = scores_map.shape[-2:]
        last = scores_map.new_tensor([w - 1, h - 1])
        keypoints, scores, spreads = [], [], []
        for i, one in enumerate(scores_map[:, 0]):
            size = None if image_size is None else image_size[i : i + 1]
            seen = one.clamp(min=0)  # masks are put in as minus infinity
            xy = xy_of(detect(seen.detach(), size, options, None, False), w)
            positions, spread = refine_with_spread(one, xy, self.radius)
            positions = positions if sub_pixel else xy.to(one)
            keypoints.append(positions / last * 2 - 1)
            scores.append(sample_bilinear(seen[None], positions)[:, 0])
            spreads.append(spread)
        return keypoints, scores, spreads
