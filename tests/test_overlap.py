"""The probability that two images overlap: what raises it, who has it, and that it is what was fitted."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import pytest
import torch
from torch import Tensor

from lightglue import ALIKED, LightGlue, load_image, match_pair, match_pairs
from lightglue.matching.overlap import COEFFICIENTS, overlap_probability
from support import ASSETS
from support.matching import random_features, small_matcher

RESULT = Path(__file__).parents[1] / "scripts" / "fit_overlap" / "result.json"
A, B = ASSETS / "montmartre_close.jpg", ASSETS / "montmartre_far.jpg"


@pytest.fixture(scope="module")
def images() -> tuple[Tensor, Tensor]:
    return load_image(A, resize=480), load_image(B, resize=480)


@pytest.fixture(scope="module")
def aliked() -> ALIKED:
    return ALIKED(max_num_keypoints=512, detection_threshold=-1)


@pytest.fixture(scope="module")
def matcher() -> LightGlue:
    return LightGlue(features="aliked").eval()


def probability(scores: list[float], count: int = 1000, features: str = "aliked") -> float:
    return float(overlap_probability(torch.tensor(scores), count, count, COEFFICIENTS[features]))


@pytest.mark.parametrize("features", COEFFICIENTS)
def test_more_and_surer_matches_raise_it_and_more_keypoints_without_lower_it(features: str) -> None:
    rising = [probability([0.9] * k, features=features) for k in (0, 2, 10, 40, 160, 640)]
    assert rising == sorted(rising)
    assert rising[0] < 0.1
    assert rising[-1] > 0.99
    assert probability([0.2] * 40, features=features) < probability([0.9] * 40, features=features)
    assert probability([0.9] * 20, 4000, features) < probability([0.9] * 20, 400, features)


@pytest.mark.parametrize("features", COEFFICIENTS)
def test_no_keypoints_give_no_probability(features: str) -> None:
    assert probability([], 0, features) == 0
    found = overlap_probability(torch.zeros(5), 5, 0, COEFFICIENTS[features])
    assert (found.shape, found.dtype, found.item()) == ((), torch.float32, 0)


def test_photographs_of_one_place_overlap_and_others_do_not(
    aliked: ALIKED, matcher: LightGlue, images: tuple[Tensor, Tensor]
) -> None:
    _, _, same = match_pair(aliked, matcher, *images, resize=None)
    assert same["overlap"] > 0.99
    upper, lower = images[0][:, :150], images[0][:, 170:]
    _, _, other = match_pair(aliked, matcher, upper, lower, resize=None)
    assert other["overlap"] < 0.5
    noise = torch.rand(images[0].shape, generator=torch.Generator().manual_seed(0))
    _, _, nothing = match_pair(aliked, matcher, images[0], noise, resize=None)
    assert nothing["overlap"] < 0.1


def test_a_pair_has_the_same_verdict_alone_in_a_batch_and_the_other_way_round(
    aliked: ALIKED, matcher: LightGlue, images: tuple[Tensor, Tensor]
) -> None:
    one, other = (aliked.extract(image, resize=None) for image in images)
    alone = matcher({"image0": one, "image1": other})["overlap"]
    assert (alone.shape, alone.dtype) == ((1,), torch.float32)
    both = {key: torch.cat((one[key], other[key])) for key in one}
    swapped = {key: value.flip(0) for key, value in both.items()}
    batch = matcher({"image0": both, "image1": swapped})["overlap"]
    assert batch.shape == (2,)
    torch.testing.assert_close(batch, alone.expand(2), atol=1e-4, rtol=0)
    listed = matcher.match([(one, other), (other, one), (one, one)])
    torch.testing.assert_close(torch.cat([found["overlap"] for found in listed[:2]]), batch, atol=1e-4, rtol=0)
    assert listed[2]["overlap"] > 0.999
    _, _, found = match_pairs(aliked, matcher, [images], resize=None)[0]
    assert found["overlap"].shape == ()


def test_the_threshold_of_matches_does_not_change_it(
    aliked: ALIKED, images: tuple[Tensor, Tensor], matcher: LightGlue
) -> None:
    features = [aliked.extract(image, resize=None) for image in images]
    pair = dict(zip(("image0", "image1"), features, strict=True))
    strict = LightGlue(features="aliked", filter_threshold=0.95).eval()
    assert torch.equal(strict(pair)["overlap"], matcher(pair)["overlap"])
    assert len(strict(pair)["matches"][0]) < len(matcher(pair)["matches"][0])


def test_a_matcher_for_other_features_gives_no_verdict() -> None:
    found = small_matcher()({"image0": random_features(20), "image1": random_features(30)})
    assert "overlap" not in found


def test_images_without_keypoints_have_a_verdict_too(matcher: LightGlue) -> None:
    empty, some = random_features(0, dim=128), random_features(9, dim=128)
    for pair in ((empty, some), (some, empty), (empty, empty)):
        assert matcher({"image0": pair[0], "image1": pair[1]})["overlap"] == 0


def test_the_coefficients_are_those_that_were_fitted_and_were_good_enough() -> None:
    fitted = json.loads(RESULT.read_text())
    assert fitted.keys() == COEFFICIENTS.keys()
    for features, coefficients in COEFFICIENTS.items():
        assert asdict(coefficients) == fitted[features]["coefficients"]
        assert fitted[features]["auc"] > 0.9
