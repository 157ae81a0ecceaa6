"""What the matcher is given: every shape, dtype and value is matched, or refused with a sentence that helps."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lightglue.errors import InputError, LightGlueError
from support.matching import random_features, small_matcher


@pytest.fixture(scope="module")
def matcher():
    return small_matcher(filter_threshold=0.0)


def changed(**changes: Any) -> dict[str, Any]:
    features = {**random_features(20, seed=1), **changes}
    return {k: v for k, v in features.items() if v is not None}


GOOD = random_features(20, seed=1)
NAN = GOOD["keypoints"].clone()
NAN[0, 3, 1] = float("nan")

REFUSED = {
    "no keypoints key": (changed(keypoints=None), "image0 lacks 'keypoints'"),
    "no descriptors key": (changed(descriptors=None), "image0 lacks 'descriptors'"),
    "a list for the image": ([1, 2], "must be a dictionary"),
    "numpy keypoints": (changed(keypoints=np.zeros((1, 20, 2), np.float32)), "torch.as_tensor"),
    "no batch dimension": (changed(keypoints=GOOD["keypoints"][0]), r"keypoints\[None\]"),
    "three coordinates": (changed(keypoints=torch.zeros(1, 20, 3)), r"\(B, N, 2\)"),
    "boolean keypoints": (changed(keypoints=torch.zeros(1, 20, 2, dtype=torch.bool)), "real numbers"),
    "complex descriptors": (changed(descriptors=torch.zeros(1, 20, 16, dtype=torch.complex64)), "real numbers"),
    "descriptors of another extractor": (changed(descriptors=torch.zeros(1, 20, 128)), "is `features` right"),
    "transposed descriptors": (changed(descriptors=torch.zeros(1, 16, 20)), r"transpose\(-1, -2\)"),
    "fewer descriptors than keypoints": (changed(descriptors=torch.zeros(1, 19, 16)), "one descriptor a keypoint"),
    "another batch size": (changed(descriptors=torch.zeros(2, 20, 16)), "one descriptor a keypoint"),
    "NaN keypoints": (changed(keypoints=NAN), "for 1 keypoints"),
    "infinite descriptors": (changed(descriptors=torch.full((1, 20, 16), torch.inf)), "for 20 keypoints"),
    "keypoints too large for float32": (
        changed(keypoints=torch.full((1, 20, 2), 1e300, dtype=torch.float64)),
        "infinity",
    ),
    "sparse descriptors": (changed(descriptors=GOOD["descriptors"].to_sparse()), "to_dense"),
    "descriptors whose products overflow": (changed(descriptors=GOOD["descriptors"] * 1e30), "overflow"),
    "text for the size": (changed(image_size="large"), "must be numbers"),
    "three numbers for the size": (changed(image_size=[640, 480, 3]), r"shape \(B, 2\)"),
    "two sizes for one image": (changed(image_size=[[640, 480], [640, 480]]), r"shape \(B, 2\)"),
    "zero size": (changed(image_size=[0, 480]), "must be positive"),
    "negative size": (changed(image_size=[-640, 480]), "must be positive"),
    "NaN size": (changed(image_size=[float("nan"), 480]), "must be positive"),
    "image without shape": (changed(image_size=None, image="photo.jpg"), "image must have shape"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_bad_features_are_refused_with_a_remedy(case, matcher):
    features, message = REFUSED[case]
    with pytest.raises(InputError, match=message):
        matcher({"image0": features, "image1": random_features(25, seed=2)})


def test_the_other_image_is_named_in_the_error(matcher):
    with pytest.raises(InputError, match="image1: keypoints hold NaN"):
        matcher({"image0": GOOD, "image1": changed(keypoints=NAN)})


@pytest.mark.parametrize("data", [None, [], "pair", {"image0": GOOD}, {"image1": GOOD}, {}])
def test_input_without_two_images_is_refused(data, matcher):
    with pytest.raises(InputError, match=r"image0|image1"):
        matcher(data)


def test_match_takes_any_iterable_but_nothing_else(matcher):
    assert len(matcher.match(zip([GOOD], [GOOD], strict=True))) == 1
    with pytest.raises(InputError, match="list of pairs"):
        matcher.match(None)


@pytest.mark.parametrize("pairs", [[GOOD], [(GOOD,)], [(GOOD, GOOD, GOOD)], [GOOD["keypoints"]]])
def test_match_refuses_what_is_not_a_pair(pairs, matcher):
    with pytest.raises(InputError, match="item 0"):
        matcher.match(pairs)


def test_match_refuses_a_batch_in_a_pair(matcher):
    with pytest.raises(InputError, match=r"pairs\[0\]\[1\] holds a batch of 2"):
        matcher.match([(GOOD, random_features(20, batch=2))])


def test_unequal_batches_are_refused(matcher):
    with pytest.raises(InputError, match="batch of 1 and image1 of 2"):
        matcher({"image0": GOOD, "image1": random_features(20, batch=2)})


def test_features_on_another_device_are_refused_with_both_names(matcher):
    with pytest.raises(InputError, match=r"keypoints is on meta and the matcher on cpu.*batch_to_device"):
        matcher({"image0": GOOD, "image1": changed(keypoints=GOOD["keypoints"].to("meta"))})


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64, torch.int32, torch.int64])
def test_any_real_dtype_is_read_as_float32(dtype, matcher):
    keypoints = GOOD["keypoints"].round().to(dtype)
    other = random_features(25, seed=2)
    found = matcher({"image0": {**GOOD, "keypoints": keypoints}, "image1": other})
    same = matcher({"image0": {**GOOD, "keypoints": keypoints.float()}, "image1": other})
    assert found["matching_scores0"].dtype == torch.float32
    assert torch.equal(found["matches0"], same["matches0"])


SIZE = torch.tensor([[640.0, 480.0]])


@pytest.mark.parametrize("given_size", [[640, 480], (640, 480), np.array([[640, 480]]), SIZE[0], SIZE, SIZE.double()])
def test_image_size_may_be_any_pair_of_numbers(given_size, matcher):
    other = random_features(25, seed=2)
    expected = matcher({"image0": GOOD, "image1": other})
    found = matcher({"image0": {**GOOD, "image_size": given_size}, "image1": other})
    assert torch.equal(found["matching_scores0"], expected["matching_scores0"])


def test_an_image_stands_in_for_its_size(matcher):
    other = random_features(25, seed=2)
    expected = matcher({"image0": GOOD, "image1": other})
    found = matcher({"image0": changed(image_size=None, image=torch.empty(1, 3, 480, 640)), "image1": other})
    assert torch.equal(found["matching_scores0"], expected["matching_scores0"])


def test_without_any_size_the_extent_of_the_keypoints_counts(matcher):
    other = random_features(25, seed=2)
    extent = 1 + GOOD["keypoints"].amax(1) - GOOD["keypoints"].amin(1)
    found = matcher({"image0": changed(image_size=None), "image1": other})
    expected = matcher({"image0": changed(image_size=extent), "image1": other})
    assert torch.equal(found["matching_scores0"], expected["matching_scores0"])


@pytest.mark.parametrize(("m", "n"), [(0, 0), (0, 20), (20, 0)])
@pytest.mark.parametrize("options", [{}, {"width_confidence": -1}], ids=str)
def test_no_keypoints_give_no_matches(m, n, options):
    matcher = small_matcher(**options)
    a, b = random_features(m, seed=1), random_features(n, seed=2)
    del a["image_size"], b["image_size"]
    found = matcher({"image0": a, "image1": b})
    assert found["stop"] == 1
    assert found["matches0"].tolist() == [[-1] * m]
    assert found["matching_scores1"].tolist() == [[0.0] * n]
    assert found["matches"][0].shape == (0, 2)
    assert found["scores"][0].shape == (0,)
    # Published: ones where pruning is on, the number of layers where it is off.
    assert found["prune0"].tolist() == [[3.0 if options else 1] * m]


@pytest.mark.parametrize("n", [1, 2])
def test_one_keypoint_is_enough(n, matcher):
    found = matcher({"image0": random_features(1, seed=1), "image1": random_features(n, seed=2)})
    assert found["matches0"].shape == (1, 1)
    assert found["matching_scores0"].isfinite().all()


def test_an_image_of_which_all_keypoints_are_pruned_gives_no_matches():
    """Every keypoint is sure and unmatchable; published: the next layer notices, so `stop` counts it."""
    matcher = small_matcher(depth_confidence=2.0, width_confidence=0.5)
    with torch.no_grad():
        matcher.token_confidence[0].token[0].bias.fill_(100.0)
        matcher.log_assignment[0].matchability.bias.fill_(-100.0)
    found = matcher({"image0": GOOD, "image1": random_features(30, seed=2)})
    assert found["stop"] == 2
    assert (found["matches0"] == -1).all()
    assert (found["prune0"] == 1).all()


def test_coinciding_keypoints_are_matched_without_trouble(matcher):
    same = {**GOOD, "keypoints": torch.full((1, 20, 2), 5.0)}
    del same["image_size"]
    assert matcher({"image0": same, "image1": GOOD})["matching_scores0"].isfinite().all()


def test_scale_and_orientation_are_read_where_the_features_have_them():
    matcher = small_matcher(add_scale_ori=True, filter_threshold=0.0)
    extra = {"scales": torch.ones(1, 20), "oris": torch.zeros(1, 20)}
    other = random_features(25, seed=2, scales=torch.ones(1, 25), oris=torch.zeros(1, 25))
    rotations = {**extra, "oris": torch.linspace(0, 3, 20)[None]}
    upright, rotated = (matcher({"image0": {**GOOD, **e}, "image1": other}) for e in (extra, rotations))
    assert not torch.equal(upright["matching_scores0"], rotated["matching_scores0"])
    with pytest.raises(InputError, match="lacks 'scales'"):
        matcher({"image0": GOOD, "image1": other})
    with pytest.raises(InputError, match=r"oris must have shape \(B, N\) = \(1, 20\)"):
        matcher({"image0": {**GOOD, **extra, "oris": torch.zeros(1, 19)}, "image1": other})
    with pytest.raises(InputError, match="image0: scales hold NaN or infinity for 20 keypoints"):
        matcher({"image0": {**GOOD, **extra, "scales": torch.full((1, 20), torch.nan)}, "image1": other})


def test_half_parameters_are_refused_with_the_remedy():
    matcher = small_matcher().half()
    with pytest.raises(InputError, match="mp=True"):
        matcher({"image0": GOOD, "image1": GOOD})


def test_double_parameters_work():
    matcher = small_matcher().double()
    assert matcher({"image0": GOOD, "image1": GOOD})["matches0"].shape == (1, 20)


value = st.sampled_from([0.0, 1.0, -5.0, 1e6, 1e30, float("nan"), float("inf"), -0.0, 1e-40])
dtypes = st.sampled_from([torch.float32, torch.float64, torch.float16, torch.int64, torch.uint8, torch.bool])
shapes = st.lists(st.integers(0, 5), min_size=0, max_size=4)


@settings(max_examples=150, deadline=None)
@given(kp_shape=st.one_of(shapes, st.tuples(st.just(1), st.integers(0, 5), st.just(2))), n=st.integers(0, 5),
       dtype=dtypes, fill=value, size=st.one_of(st.none(), st.lists(value, min_size=1, max_size=3)))  # fmt: skip
def test_generated_features_give_a_valid_result_or_a_clear_error(matcher, kp_shape, n, dtype, fill, size):
    values = torch.full(tuple(kp_shape), fill, dtype=torch.float64)
    if not dtype.is_floating_point:
        values = values.nan_to_num(0, 7, -7).clamp(-7, 7)
    features = {
        "keypoints": values.to(dtype),
        "descriptors": torch.ones(1, n, 16),
        "image_size": size,
    }
    other = random_features(4, seed=2)
    try:
        found = matcher({"image0": features, "image1": other})
    except LightGlueError as error:
        assert "image0" in str(error)  # noqa: PT017  # either outcome is right
        return
    assert found["matches0"].shape == (1, n)
    assert found["matching_scores0"].isfinite().all()
    assert ((found["matches0"] >= -1) & (found["matches0"] < 4)).all()


def test_scores_have_the_matchers_precision_also_where_an_image_is_empty():
    matcher = small_matcher().double()
    pair = {"image0": random_features(0), "image1": random_features(5, seed=1)}
    assert matcher(pair)["matching_scores1"].dtype == torch.float64
