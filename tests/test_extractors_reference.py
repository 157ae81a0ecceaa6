"""ALIKED and DISK give the features that the published implementations gave, in the published order."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import pytest
import torch
from torch import Tensor

from lightglue import ALIKED, DISK, load_image
from lightglue.extractors.base import Extractor
from support import PAIRS

# The tolerances of the reference's README.
PIXELS, SHARE, DESCRIPTORS, SCORES = 0.01, 0.995, 1e-3, 1e-3

BEST_512 = {"max_num_keypoints": 512, "detection_threshold": -1}
EXTRACTORS: dict[str, Callable[[], Extractor]] = {
    "aliked-t16": lambda: ALIKED(model_name="aliked-t16", **BEST_512),
    "aliked-n16": lambda: ALIKED(model_name="aliked-n16", **BEST_512),
    "aliked-n16rot": lambda: ALIKED(model_name="aliked-n16rot", **BEST_512),
    "aliked-n32": lambda: ALIKED(model_name="aliked-n32", **BEST_512),
    "aliked-n16-default": lambda: ALIKED(max_num_keypoints=512),
    "disk": lambda: DISK(max_num_keypoints=512),
}


@cache
def extractor(name: str) -> Extractor:
    return EXTRACTORS[name]()


def nearest(found: Tensor, published: Tensor) -> tuple[Tensor, Tensor]:
    """For each published keypoint (N, 2) the index of the nearest one found, and whether it is the same point."""
    distance, index = torch.cdist(published.double(), found.double()).min(dim=1)
    return index, distance < PIXELS


@pytest.mark.parametrize("i", [0, 1])
@pytest.mark.parametrize("pair", PAIRS)
@pytest.mark.parametrize("name", EXTRACTORS)
def test_features_equal_the_published_ones(
    name: str, pair: str, i: int, reference: Callable[..., Any], image_path: Callable[..., Any]
) -> None:
    published = {key: torch.from_numpy(array) for key, array in reference(f"{name}_{pair}_{i}").items()}
    found = extractor(name).extract(load_image(image_path(pair, i)), resize=PAIRS[pair][2])

    assert {key: (value.shape, value.dtype) for key, value in found.items()} == {
        key: (value.shape, value.dtype) for key, value in published.items()
    }
    assert torch.equal(found["image_size"], published["image_size"])

    index, same = nearest(found["keypoints"][0], published["keypoints"][0])
    assert same.float().mean() >= SHARE
    for key, tolerance in (("keypoint_scores", SCORES), ("descriptors", DESCRIPTORS)):
        difference = (found[key][0][index] - published[key][0])[same].abs().max()
        assert difference <= tolerance, key

    # The order is the published one; only neighbours whose scores tie within rounding may have changed places.
    places = torch.arange(len(index))
    assert (index == places).float().mean() >= 0.98
    assert (index - places)[same].abs().max() <= 3
