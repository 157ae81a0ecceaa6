"""Keypoints of the user's own, described by an extractor as if it had found them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch

from lightglue.errors import InputError
from lightglue.images import size_of
from lightglue.models.loaded import LoadedModels
from lightglue.pairs.asked import PairRequest

__all__ = ["with_keypoints"]

Points = Sequence[Sequence[float]]


def with_keypoints(models: LoadedModels, keypoints: Mapping[str, Points], request: PairRequest) -> LoadedModels:
    """`models` whose extractor gives these keypoints for the first and the second image that it is given.

    keypoints: x y in px of the image "0" or "1"; those of an image that is not named are extracted.

    Raises InputError for options with which an image is looked at more than once.
    """
    for name, value in (("auto_rotate", request.options.auto_rotate), ("tile", request.views.tile),
                        ("pyramid", request.views.pyramid)):  # fmt: skip
        if value:
            raise InputError(f"keypoints: they cannot be described with {name}; leave it out.")
    if request.models.effort == "hard":
        raise InputError("keypoints: the effort hard finds its own; leave one of them out.")
    return replace(models, extractor=_Describing(models.extractor, keypoints))


class _Describing:
    """An extractor of one pair."""

    def __init__(self, extractor: Any, keypoints: Mapping[str, Points]) -> None:
        self._extractor, self._keypoints, self._seen = extractor, keypoints, 0

    def extract(self, image: Any, **options: Any) -> Any:
        """The features of the next image."""
        which, self._seen = str(self._seen), self._seen + 1
        if which not in self._keypoints:
            return self._extractor.extract(image, **options)
        options.pop("mask", None)
        points = torch.tensor(self._keypoints[which], dtype=torch.float32).reshape(-1, 2)
        device = next((each.device for each in getattr(self._extractor, "parameters", list)()), torch.device("cpu"))
        try:
            descriptors = self._extractor.describe(points, image, **options)
        except InputError as error:
            raise InputError(f"keypoints: {error}") from None
        return {
            "keypoints": points[None].to(device),
            "descriptors": descriptors,
            "keypoint_scores": torch.ones(1, len(points), device=device),
            "image_size": torch.tensor([size_of(image)], dtype=torch.float32, device=device),
        }
