"""match_pair and its batched sibling."""

from __future__ import annotations

import pytest
import torch

from lightglue import match_pair, match_pairs
from lightglue.errors import InputError
from matching_support import random_features, small_matcher


class CountingExtractor:
    """Gives features that depend on the image's mean, and counts its calls."""

    def __init__(self) -> None:
        self.images = 0

    def extract(self, img, resize=None):
        if isinstance(img, list):
            return [self.extract(image, resize=resize) for image in img]
        self.images += 1
        return random_features(int(10 + 10 * img.mean()), seed=resize or 0)


def image(value: float) -> torch.Tensor:
    return torch.full((3, 8, 8), value)


def test_the_result_holds_the_matched_points():
    matcher = small_matcher(filter_threshold=0.0)
    feats0, feats1, found = match_pair(CountingExtractor(), matcher, image(1.0), image(2.0))
    assert feats0["keypoints"].shape == (20, 2)
    assert feats1["keypoints"].shape == (30, 2)
    assert len(found["matches"]) > 0
    assert torch.equal(found["points0"], feats0["keypoints"][found["matches"][:, 0]])
    assert torch.equal(found["points1"], feats1["keypoints"][found["matches"][:, 1]])


def test_preprocessing_options_reach_the_extractor():
    a, _, _ = match_pair(CountingExtractor(), small_matcher(), image(1.0), image(1.0), resize=3)
    assert torch.equal(a["keypoints"], random_features(20, seed=3)["keypoints"][0])


def test_no_keypoints_give_empty_points():
    _, _, found = match_pair(CountingExtractor(), small_matcher(), image(-1.0), image(2.0))
    assert found["points0"].shape == found["points1"].shape == (0, 2)


def test_many_pairs_give_what_each_gives_alone_and_read_an_image_once():
    matcher = small_matcher(filter_threshold=0.0)
    images = [image(v) for v in (0.5, 1.0, 3.0)]
    pairs = [(images[0], images[1]), (images[0], images[2]), (images[1], images[2])]
    extractor = CountingExtractor()
    results = match_pairs(extractor, matcher, pairs)
    assert extractor.images == 3
    for pair, (feats0, _, found) in zip(pairs, results, strict=True):
        alone0, _, alone = match_pair(CountingExtractor(), matcher, *pair)
        assert torch.equal(feats0["keypoints"], alone0["keypoints"])
        assert torch.equal(found["matches"], alone["matches"])
        assert torch.equal(found["points1"], alone["points1"])


def test_pairs_may_come_from_an_iterator():
    assert len(match_pairs(CountingExtractor(), small_matcher(), zip([image(1.0)], [image(2.0)], strict=True))) == 1


def test_a_matcher_of_the_users_own_may_return_what_it_likes():
    _, _, found = match_pair(CountingExtractor(), lambda data: {"inliers": 3}, image(1.0), image(2.0))
    assert found == {"inliers": 3}


def test_no_pairs_give_no_results():
    assert match_pairs(CountingExtractor(), small_matcher(), []) == []


@pytest.mark.parametrize("pairs", [[image(0)], [(image(0),)], ["ab"]])
def test_what_is_not_a_pair_is_refused(pairs):
    with pytest.raises(InputError, match="item 0"):
        match_pairs(CountingExtractor(), small_matcher(), pairs)
