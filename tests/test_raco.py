"""RaCo: the published keypoints, ranks and covariances, with seeded weights; and ALIKED's descriptors at them."""

from __future__ import annotations

import pytest
import torch

from lightglue import ALIKED, RaCo, load_image, match_pair
from lightglue.errors import InputError, WeightsError
from lightglue.extractors.raco_network import RacoNetwork
from support import ASSETS
from support.matching import small_matcher
from support.raco_oracle import COUNT, OPTIONS, coloured_image, seeded_state

STATE = seeded_state((key, tuple(value.shape)) for key, value in RacoNetwork().state_dict().items())


def raco(**options):
    return RaCo(weights=STATE, **{"descriptor": None, **options}).eval()


@pytest.fixture(scope="module")
def image():
    return coloured_image()[..., 20:110, 30:150]


# -- as published ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("case", OPTIONS)
def test_keypoints_scores_ranks_and_covariances_are_the_published_ones(case, reference):
    with torch.no_grad():
        found = raco(max_num_keypoints=COUNT, **OPTIONS[case])({"image": coloured_image()})
    expected = {k: torch.from_numpy(v) for k, v in reference("raco_published").items()}
    published = expected[f"{case}_keypoints"] - 0.5  # theirs are from the corner of the first pixel
    torch.testing.assert_close(found["keypoints"][0], published, rtol=0, atol=1e-3)
    torch.testing.assert_close(found["keypoint_scores"][0], expected[f"{case}_keypoint_scores"], rtol=1e-4, atol=0)
    for key in ("ranker_scores", "covariances"):  # read between pixels, from maps that seeded weights make steep
        value = expected[f"{case}_{key}"]
        torch.testing.assert_close(found[key][0], value, rtol=0, atol=3e-5 * value.abs().max().item())


def test_the_first_published_layout_loads_alike(image):
    older = RaCo(weights={f"model.{key}": value for key, value in STATE.items()}, descriptor=None)
    assert torch.equal(older.extract(image, resize=None)["keypoints"], raco().extract(image, resize=None)["keypoints"])


# -- what it gives ---------------------------------------------------------------------------------------------------


def test_keypoints_come_best_score_first_or_best_rank_first(image):
    by_score = raco(max_num_keypoints=50, subpixel_sampling=False).extract(image, resize=None)
    assert (by_score["keypoint_scores"][0].diff() <= 0).all()
    by_rank = raco(max_num_keypoints=50, subpixel_sampling=False, sort_by_ranker=True).extract(image, resize=None)
    assert (by_rank["ranker_scores"][0].diff() <= 0).all()
    assert sorted(by_rank["keypoints"][0].tolist()) == sorted(by_score["keypoints"][0].tolist())


@pytest.mark.parametrize("window", [1, 3, 9, 301])
def test_no_keypoint_has_a_higher_score_in_its_window(window, image):
    """Seen in the pixels: of any two, the one is not within half the other's window."""
    found = raco(max_num_keypoints=None, nms_radius=window, subpixel_sampling=False).extract(
        image[..., :60], resize=None
    )
    keypoints = found["keypoints"][0]
    apart = (keypoints[:, None] - keypoints).abs().amax(-1) + 1e9 * torch.eye(len(keypoints))
    assert apart.min() > window // 2
    assert (len(keypoints) == 1) == (window == 301)


def test_a_threshold_leaves_the_keypoints_above_it(image):
    everything = raco().extract(image, resize=None)["keypoint_scores"][0]
    threshold = everything.median().item()
    found = raco(detection_threshold=threshold).extract(image, resize=None)["keypoint_scores"][0]
    assert len(found) == (everything > threshold).sum() > 0


def test_covariances_are_symmetric_positive_and_in_px_of_the_original(image):
    extractor = raco(max_num_keypoints=50)
    resized, scales = extractor.resize(image, {"resize": (60, 100)})
    with torch.no_grad():
        there = extractor({"image": resized})
    found = extractor.extract(image, resize=(60, 100))
    torch.testing.assert_close(found["keypoints"], (there["keypoints"] + 0.5) / scales - 0.5)
    to_original = torch.diag(1 / scales)
    torch.testing.assert_close(found["covariances"], to_original @ there["covariances"] @ to_original)
    torch.testing.assert_close(found["covariances"], found["covariances"].mT)
    assert (torch.linalg.eigvalsh(found["covariances"]) > 0).all()


def test_heads_that_are_not_asked_for_are_neither_loaded_nor_needed(image):
    bare = {k: v for k, v in STATE.items() if not k.startswith(("ranker_head", "covariance"))}
    found = RaCo(weights=bare, ranker=False, covariance_estimator=False, descriptor=None).extract(image, resize=None)
    assert found.keys() == {"keypoints", "keypoint_scores", "image_size"}
    assert torch.equal(raco(ranker=False).extract(image, resize=None)["keypoints"], found["keypoints"])
    with pytest.raises(WeightsError, match=r"missing: ranker_head\.0"):
        RaCo(weights=bare, covariance_estimator=False, descriptor=None)


def test_descriptors_are_those_of_aliked_at_the_keypoints():
    photo = load_image(ASSETS / "montmartre_close.jpg", resize=160)
    extractor = raco(max_num_keypoints=60, descriptor="aliked-n16")
    found = extractor.extract(photo, resize=None)
    expected = ALIKED().eval().describe(found["keypoints"], photo, resize=None)
    torch.testing.assert_close(found["descriptors"], expected, rtol=0, atol=1e-4)
    matches = match_pair(extractor, small_matcher(input_dim=128), photo, photo, resize=None)[2]
    assert matches["matches0"].shape == (60,)


def test_a_batch_and_a_list_give_what_each_image_gives_alone(image):
    extractor = raco(max_num_keypoints=40)
    other = image.flip(-1)
    batch = extractor.extract(torch.cat((image, other)), resize=None)
    for i, (one, listed) in enumerate(zip((image, other), extractor.extract([image, other], resize=None), strict=True)):
        alone = extractor.extract(one, resize=None)
        assert torch.equal(listed["keypoints"], alone["keypoints"])
        torch.testing.assert_close(batch["keypoints"][i], alone["keypoints"][0], rtol=0, atol=1e-3)


def test_no_keypoint_lies_in_the_padding(image):
    padded = torch.nn.functional.pad(image, (0, 40, 0, 30))
    size = torch.tensor([[image.shape[-1], image.shape[-2]]])
    with torch.no_grad():
        found = raco(max_num_keypoints=None)({"image": padded, "image_size": size})
    assert (found["keypoints"][0] <= size - 0.5).all()
    assert found["keypoint_scores"].isfinite().all()


@pytest.mark.parametrize(("h", "w"), [(1, 1), (1, 40), (33, 2), (32, 64)])
def test_tiny_images_give_keypoints_inside_them(h, w):
    found = raco().extract(coloured_image()[..., :h, :w], resize=None)
    keypoints = found["keypoints"][0]
    assert len(keypoints) >= 1
    assert ((keypoints >= -0.5) & (keypoints <= torch.tensor([w, h]) - 0.5)).all()
    assert all(value.isfinite().all() for value in found.values())


def test_gray_images_are_taken(image):
    assert raco(max_num_keypoints=9).extract(image[:, :1], resize=None)["keypoints"].shape == (1, 9, 2)


# -- what is refused -------------------------------------------------------------------------------------------------


def test_without_weights_it_says_where_they_are():
    with pytest.raises(WeightsError, match=r"download raco\.pth of release v1\.0\.0 of github\.com/cvg/RaCo"):
        RaCo()


def test_weights_that_do_not_fit_are_refused():
    with pytest.raises(WeightsError, match=r"unexpected: other"):
        RaCo(weights={**STATE, "other": torch.zeros(1)}, descriptor=None)


WRONG = {
    "max_num_keypoints": [0, -1, 2.5], "nms_radius": [0, 2, 4, "3"], "subpixel_temp": [0, -1.0, float("nan")],
    "detection_threshold": ["high"], "ranker": [1], "descriptor": ["alikd"],
}  # fmt: skip


@pytest.mark.parametrize(("name", "value"), [(name, value) for name, values in WRONG.items() for value in values])
def test_an_option_that_makes_no_sense_is_refused(name, value):
    with pytest.raises(InputError, match=str(value)):
        raco(**{name: value})


def test_ranking_needs_the_ranker():
    with pytest.raises(InputError, match="sort_by_ranker"):
        raco(ranker=False, sort_by_ranker=True)
