"""Find by how much one image is rotated against another.

Descriptors of learned features hold for some 30 degrees to both sides, then a pair has no matches at all. The right
rotation is found on small images with few keypoints, since extraction is what costs.
"""

from __future__ import annotations

import copy
from collections.abc import Hashable, Sequence
from types import SimpleNamespace
from typing import Any, cast

from numpy.typing import NDArray
from torch import Tensor

from lightglue.errors import InputError
from lightglue.images import numpy_image_to_torch, resize_image, resize_tensor
from lightglue.images.rotation import Rotation
from lightglue.pairs.record import matches_of
from lightglue.timing import span
from lightglue.types import Extractor, Features, Matcher

__all__ = ["PROBES", "Probes", "angles_of", "best_of", "find_angle", "limited"]

# px of the longer side of the small images, and how many of their keypoints are used; the larger ones where the
# smaller ones leave doubts.
PROBES = ((256, 256), (512, 512))
CERTAIN = 0.25  # sum of LightGlue's scores, as a share of the keypoints, at which no other direction is tried
CLEAR = 2.0  # how many times the sum of the scores must be that of any other direction
FEWEST = 15.0  # and how large

_PER_KEYPOINT = ("keypoints", "keypoint_scores", "descriptors", "scales", "oris")


def angles_of(auto_rotate: bool | int) -> tuple[int, ...]:
    """The angles in degrees that `auto_rotate` asks for: none, multiples of 90, or of the step that it is."""
    if isinstance(auto_rotate, bool):
        return angles_of(90) if auto_rotate else ()
    valid = hasattr(auto_rotate, "__index__") and 1 <= int(auto_rotate) <= 180 and 360 % int(auto_rotate) == 0
    if not valid:
        raise InputError(f"auto_rotate is {auto_rotate!r}; give True for steps of 90 degrees, or a step such as 45.")
    # Small angles first: images that are not upright are rotated by a little more often than by much.
    return tuple(sorted(range(0, 360, int(auto_rotate)), key=lambda angle: (min(angle, 360 - angle), angle)))


class Probes:
    """Small images with few keypoints; each image, angle and size is extracted once."""

    def __init__(self, extractor: Extractor) -> None:
        self._extractors = [limited(extractor, count) for _, count in PROBES]
        self._small: dict[tuple[Hashable, int], Tensor] = {}
        self._features: dict[tuple[Hashable, int, float], Features] = {}

    def features(self, key: Hashable, image: Tensor | NDArray[Any], angle: float, size: int = 0) -> Features:
        """The best keypoints of `image`, which `key` names, rotated by `angle` degrees. size: which of `PROBES`."""
        edge, count = PROBES[size]
        if (key, size) not in self._small:
            self._small[key, size] = _shrink(image, edge)
        if (key, size, angle) not in self._features:
            small = self._small[key, size]
            rotated = Rotation(angle, small.shape[-1], small.shape[-2]).apply(small)
            with span("extraction"):
                self._features[key, size, angle] = best_of(self._extractors[size].extract(rotated, resize=None), count)
        return self._features[key, size, angle]


def find_angle(
    probes: Probes,
    matcher: Matcher,
    image0: tuple[Hashable, Tensor | NDArray[Any]],  # its name and the image
    image1: tuple[Hashable, Tensor | NDArray[Any]],
    angles: Sequence[float],
) -> float:
    """Of `angles` the one by which the second image must be rotated to match the first best; the first one if none."""
    best = angles[0]
    for size in range(len(PROBES)):
        totals: dict[float, float] = {}
        features0 = probes.features(*image0, 0, size)
        for angle in angles:
            features1 = probes.features(*image1, angle, size)
            with span("matching"):
                found = matches_of(matcher({"image0": features0, "image1": features1}))
            totals[angle] = float(found["scores"].sum())
            fewest = min(features0["keypoints"].shape[1], features1["keypoints"].shape[1])
            # Nearest neighbours, which tell no layer to stop at, score high in wrong directions too.
            if "stop" in found and len(angles) <= 4 and totals[angle] > CERTAIN * fewest:
                return angle
        best = max(angles, key=totals.__getitem__)  # the first of equal ones
        others = [total for angle, total in totals.items() if 90 <= (angle - best) % 360 <= 270]
        if totals[best] >= max(FEWEST, CLEAR * max(others, default=0.0)):
            break
    return best


def limited(extractor: Extractor, count: int) -> Extractor:
    """`extractor` for at most `count` keypoints, as far as it can be limited; describing more is what would cost."""
    conf = getattr(extractor, "conf", None)
    if not isinstance(conf, SimpleNamespace) or not hasattr(conf, "max_num_keypoints"):
        return extractor
    own = copy.copy(extractor)  # with the same weights; the user's goes on as it is
    limit = conf.max_num_keypoints
    lower = count if limit is None or limit <= 0 else min(count, limit)
    own.conf = SimpleNamespace(**{**vars(conf), "max_num_keypoints": lower})  # type: ignore[attr-defined]
    return own


def _shrink(image: Tensor | NDArray[Any], limit: int) -> Tensor:
    """`image` as (C, H, W), its longer side at most `limit` px."""
    if isinstance(image, Tensor):
        return image if max(image.shape[-2:]) <= limit else resize_tensor(image, limit)[0]
    return numpy_image_to_torch(image if max(image.shape[:2]) <= limit else resize_image(image, limit)[0])


def best_of(features: Features, count: int) -> Features:
    """The `count` best keypoints of one image, where its extractor scores them."""
    scores = features.get("keypoint_scores")
    if scores is None or scores.shape[1] <= count:
        return features
    chosen = scores[0].topk(count).indices
    kept = {k: v[:, chosen] if k in _PER_KEYPOINT else v for k, v in cast(dict[str, Tensor], features).items()}
    return cast(Features, kept)
