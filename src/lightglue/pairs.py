"""From two images to matches in one call: extract, match, index."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor

from lightglue.containers import batch_to_device, rbd
from lightglue.errors import InputError
from lightglue.types import Extractor, Matcher, PairMatcher

__all__ = ["match_pair", "match_pairs"]

Result = tuple[dict[str, Any], dict[str, Any], dict[str, Any]]


def match_pair(
    extractor: Extractor,
    matcher: Matcher,
    image0: Tensor,  # (3, H, W) or (1, H, W) in [0, 1]
    image1: Tensor,
    device: str | torch.device = "cpu",
    **preprocess: Any,
) -> Result:
    """Match two images.

    device: where the results go; images must be where the models are. preprocess: options of `extractor.extract`,
    such as `resize`.

    Returns the features of both images and the matches, without batch dimension. The matches also hold `points0` and
    `points1`, (K, 2) float32: the matched keypoints in px of the original images, row by row.

    Raises InputError.
    """
    features0, features1 = (extractor.extract(image, **preprocess) for image in (image0, image1))
    return _unbatched(features0, features1, matcher({"image0": features0, "image1": features1}), device)


def match_pairs(
    extractor: Extractor,
    matcher: PairMatcher,
    pairs: Iterable[tuple[Tensor, Tensor]],
    device: str | torch.device = "cpu",
    **preprocess: Any,
) -> list[Result]:
    """Match many pairs of images in one call of the matcher; each result equals that of `match_pair`.

    An image (the same tensor object) that is in several pairs is extracted once, and its features are the same
    tensors in each of their results. Raises InputError.
    """
    pairs = list(pairs)  # it is gone through more than once
    for i, pair in enumerate(pairs):
        if not isinstance(pair, (tuple, list)) or len(pair) != 2:
            raise InputError(f"match_pairs takes pairs (image0, image1); item {i} is {type(pair).__name__}")
    images = {id(image): image for pair in pairs for image in pair}
    features = dict(zip(images, extractor.extract(list(images.values()), **preprocess), strict=True)) if images else {}
    chosen = [(features[id(image0)], features[id(image1)]) for image0, image1 in pairs]
    found = matcher.match(chosen)
    return [_unbatched(f0, f1, matches, device) for (f0, f1), matches in zip(chosen, found, strict=True)]


def _unbatched(
    features0: Mapping[str, Any], features1: Mapping[str, Any], matches: Mapping[str, Any], device: str | torch.device
) -> Result:
    """Drop the batch dimension of all three, add the matched points, move to `device`."""
    data0, data1, found = (batch_to_device(rbd(data), device) for data in (features0, features1, matches))
    if "matches" in found:  # a matcher of the user's own may do without
        found["points0"] = data0["keypoints"][found["matches"][..., 0]]
        found["points1"] = data1["keypoints"][found["matches"][..., 1]]
    return data0, data1, found
