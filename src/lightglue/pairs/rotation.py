"""Turn images in their plane, and find by how much one is turned against another.

Descriptors of learned features hold for some 30 degrees to both sides, then a pair has no matches at all. Which turn is
right is decided on small images with few keypoints, since extraction is what costs.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from types import SimpleNamespace
from typing import Any, TypeVar, cast

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lightglue.errors import InputError
from lightglue.images import numpy_image_to_torch, resize_image
from lightglue.images.resampling import resize_tensor
from lightglue.types import Extractor, Features, Matcher

__all__ = ["PROBES", "Probes", "Turn", "angles_of", "find_angle"]

# px of the longer side of the small images, and how many of their keypoints are used; the larger ones where the
# smaller ones leave doubts.
PROBES = ((256, 256), (512, 512))
CERTAIN = 0.25  # sum of LightGlue's scores, as a share of the keypoints, at which no other direction is tried
CLEAR = 2.0  # how many times the sum of the scores must be that of any other direction
FEWEST = 15.0  # and how large
LARGEST_EDGE = 32_766  # px that OpenCV turns by other angles than multiples of 90
RIM = 2  # px along the sides of a turned image that are half outside of it

_PER_KEYPOINT = ("keypoints", "keypoint_scores", "descriptors", "scales", "oris")
_Image = TypeVar("_Image", Tensor, NDArray[Any])


def angles_of(auto_rotate: bool | int) -> tuple[int, ...]:
    """The angles in degrees that `auto_rotate` asks for: none, multiples of 90, or of the step that it is."""
    if isinstance(auto_rotate, bool):
        return angles_of(90) if auto_rotate else ()
    valid = hasattr(auto_rotate, "__index__") and 1 <= int(auto_rotate) <= 180 and 360 % int(auto_rotate) == 0
    if not valid:
        raise InputError(f"auto_rotate is {auto_rotate!r}; give True for steps of 90 degrees, or a step such as 45.")
    # Small turns first: photographs that are not upright are turned by a little more often than by much.
    return tuple(sorted(range(0, 360, int(auto_rotate)), key=lambda angle: (min(angle, 360 - angle), angle)))


def _edge(side: Any, size: tuple[int, int]) -> int:
    """The edge of a width and height that `side` names."""
    return {"short": min(size), "vert": size[1], "horz": size[0]}.get(side, max(size))


@dataclass(frozen=True)
class Turn:
    """A turn of an image in its plane."""

    angle: float  # degrees, clockwise as one sees it
    width: int  # px, of the image before
    height: int

    @cached_property
    def size(self) -> tuple[int, int]:
        """Width and height of the turned image, which holds all of the image, px."""
        radians = math.radians(self.angle)
        cos, sin = abs(math.cos(radians)), abs(math.sin(radians))
        edges = self.width * cos + self.height * sin, self.width * sin + self.height * cos
        return max(1, math.ceil(edges[0] - 1e-6)), max(1, math.ceil(edges[1] - 1e-6))

    @cached_property
    def matrix(self) -> NDArray[np.float64]:
        """(2, 3), from positions x y in the image to those in the turned image, about both centres."""
        radians = math.radians(self.angle)
        cos, sin = math.cos(radians), math.sin(radians)
        linear = np.array([[cos, -sin], [sin, cos]])
        before, after = ((np.array(size, float) - 1) / 2 for size in ((self.width, self.height), self.size))
        return np.hstack((linear, (after - linear @ before)[:, None]))

    @property
    def is_exact(self) -> bool:
        """Whether pixels only change places."""
        return self.angle % 90 == 0

    def image(self, image: _Image) -> _Image:
        """`image`, (..., H, W) tensor or (H, W, ...) array, turned; what is around it is 0.

        By multiples of 90 degrees pixels only change places, by other angles they are interpolated linearly.
        """
        axes = (image.ndim - 2, image.ndim - 1) if isinstance(image, Tensor) else (0, 1)
        if self.is_exact:
            steps = -round(self.angle / 90)  # rot90 turns against the clock
            if isinstance(image, Tensor):
                return torch.rot90(image, steps, axes).contiguous()
            return np.ascontiguousarray(np.rot90(image, steps, axes))
        if max(self.width, self.height, *self.size) > LARGEST_EDGE:
            raise InputError(
                f"An image of more than {LARGEST_EDGE:,} px can be turned by multiples of 90 degrees only."
            )
        if isinstance(image, Tensor):
            planes = image.detach().float().cpu().reshape(-1, self.height, self.width)
            turned = torch.from_numpy(np.stack([self._warp(plane.numpy()) for plane in planes]))
            return turned.reshape(*image.shape[:-2], *turned.shape[-2:]).to(image)
        return self._warp(image)

    def _warp(self, array: NDArray[Any]) -> NDArray[Any]:
        return cv2.warpAffine(array, self.matrix, self.size, flags=cv2.INTER_LINEAR)

    def mask(self, mask: Tensor | None) -> Tensor | None:
        """`mask` (H, W) bool turned, and False beside the image; None where all of the turned image is image."""
        if self.is_exact:
            return None if mask is None else self.image(mask)
        whole = torch.ones(self.height, self.width) if mask is None else mask.float()
        whole[:RIM], whole[-RIM:], whole[:, :RIM], whole[:, -RIM:] = 0, 0, 0, 0
        return self.image(whole) > 0.99

    def preprocess(self, options: Mapping[str, Any]) -> dict[str, Any]:
        """Options of `extract` for the turned image with which it shows things as large as the image would have been.

        options: those for the image, with its `resize` where the extractor's own is not None.
        """
        if "resize" not in options:
            return dict(options)
        size, side = options["resize"], options.get("side", "long")
        swapped = self.angle % 180 == 90
        if swapped and side in ("vert", "horz"):
            side = {"vert": "horz", "horz": "vert"}[side]
        if isinstance(size, (tuple, list)) and len(size) == 2:
            size = tuple(size[::-1] if swapped else size)
        elif not self.is_exact and isinstance(size, int):
            size = max(1, round(size * _edge(side, self.size) / _edge(side, (self.width, self.height))))
        return {**options, "resize": size, **({"side": side} if "side" in options else {})}

    def back(self, keypoints: Tensor) -> Tensor:
        """Positions (..., 2) in the turned image as positions in the image, px."""
        matrix = torch.from_numpy(self.matrix)  # some devices have no float64
        return ((keypoints.cpu().double() - matrix[:, 2]) @ matrix[:, :2]).to(keypoints)  # the inverse: transposed


class Probes:
    """Small images with few keypoints; each image, angle and size is extracted once."""

    def __init__(self, extractor: Extractor) -> None:
        self._extractors = [_limited(extractor, count) for _, count in PROBES]
        self._small: dict[tuple[Hashable, int], Tensor] = {}
        self._features: dict[tuple[Hashable, int, float], Features] = {}

    def features(self, key: Hashable, image: Tensor | NDArray[Any], angle: float, size: int = 0) -> Features:
        """The best keypoints of `image`, which `key` names, turned by `angle` degrees. size: which of `PROBES`."""
        edge, count = PROBES[size]
        if (key, size) not in self._small:
            self._small[key, size] = _shrink(image, edge)
        if (key, size, angle) not in self._features:
            small = self._small[key, size]
            turned = Turn(angle, small.shape[-1], small.shape[-2]).image(small)
            self._features[key, size, angle] = _best(self._extractors[size].extract(turned, resize=None), count)
        return self._features[key, size, angle]


def find_angle(
    probes: Probes,
    matcher: Matcher,
    image0: tuple[Hashable, Tensor | NDArray[Any]],  # its name and the image
    image1: tuple[Hashable, Tensor | NDArray[Any]],
    angles: Sequence[float],
) -> float:
    """Of `angles` the one by which the second image must be turned to match the first best; the first one if none."""
    best = angles[0]
    for size in range(len(PROBES)):
        totals: dict[float, float] = {}
        features0 = probes.features(*image0, 0, size)
        for angle in angles:
            features1 = probes.features(*image1, angle, size)
            found = matcher({"image0": features0, "image1": features1})
            totals[angle] = float(found["scores"][0].sum())
            fewest = min(features0["keypoints"].shape[1], features1["keypoints"].shape[1])
            # Nearest neighbours, which tell no layer to stop at, score high in wrong directions too.
            if "stop" in found and len(angles) <= 4 and totals[angle] > CERTAIN * fewest:
                return angle
        best = max(angles, key=totals.__getitem__)  # the first of equal ones
        others = [total for angle, total in totals.items() if 90 <= (angle - best) % 360 <= 270]
        if totals[best] >= max(FEWEST, CLEAR * max(others, default=0.0)):
            break
    return best


def _limited(extractor: Extractor, count: int) -> Extractor:
    """`extractor` for at most `count` keypoints, as far as it can be told; describing more is what would cost."""
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


def _best(features: Features, count: int) -> Features:
    """The `count` best keypoints of one image, as far as its extractor tells which these are."""
    scores = features.get("keypoint_scores")
    if scores is None or scores.shape[1] <= count:
        return features
    chosen = scores[0].topk(count).indices
    kept = {k: v[:, chosen] if k in _PER_KEYPOINT else v for k, v in cast(dict[str, Tensor], features).items()}
    return cast(Features, kept)
