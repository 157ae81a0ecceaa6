"""kornia's interface: the same calls, the same matches, without kornia."""

from __future__ import annotations

import copy
import inspect
import math

import pytest
import torch

import lightglue
from lightglue.errors import InputError
from lightglue.kornia import LightGlue, LightGlueMatcher, _scales_and_orientations
from lightglue.matching.config import LightGlueConfig
from lightglue.matching.network import LightGlueNetwork
from support.kornia_oracle import (
    OPTIONS,
    SEEDED_HW,
    SEEDED_OPTIONS,
    SIFT_LIKE,
    TRAINED,
    montmartre,
    seeded_frames,
    seeded_state,
    sizes,
)
from support.matching import random_features, small_state
from test_public_surface import modules_after

SMALL = {"input_dim": 16, "descriptor_dim": 32, "num_heads": 2, "n_layers": 3, "filter_threshold": 0.0}


def sift_like_weights():
    config = LightGlueConfig(input_dim=128, add_scale_ori=True, n_layers=SEEDED_OPTIONS["n_layers"])
    return seeded_state((key, tuple(value.shape)) for key, value in LightGlueNetwork(config).state_dict().items())


def seeded_matcher(name="sift", **options):
    return LightGlueMatcher(name, {**SEEDED_OPTIONS, "weights": sift_like_weights(), **options})


@pytest.fixture(scope="module")
def matcher():
    return seeded_matcher()


@pytest.fixture(scope="module")
def pair():
    (desc1, lafs1), (desc2, lafs2) = seeded_frames(40, 1), seeded_frames(50, 2)
    return desc1, desc2, lafs1, lafs2


# -- the same matches as kornia's own classes ------------------------------------------------------------------------


@pytest.mark.parametrize("name", TRAINED)
@pytest.mark.parametrize("case", OPTIONS)
@pytest.mark.parametrize("sized", [True, False])
def test_matches_are_kornias(name, case, sized, reference):
    (desc1, lafs1), (desc2, lafs2) = montmartre(name, 0), montmartre(name, 1)
    matcher = LightGlueMatcher(name, OPTIONS[case])
    scores, indices = matcher(desc1, desc2, lafs1, lafs2, *(sizes(name) if sized else ()))
    expected, key = reference("kornia_lightglue"), f"{name}_{case}" + ("" if sized else "_unsized")
    assert len(indices) > 20
    assert indices.tolist() == expected[f"{key}_indices"].tolist()
    torch.testing.assert_close(
        scores, torch.from_numpy(expected[f"{key}_scores"]), rtol=0, atol=1e-3
    )  # as all published scores


@pytest.mark.parametrize("name", SIFT_LIKE)
def test_scales_and_orientations_are_read_from_frames_as_kornia_does(name, pair, reference):
    scales, oris = _scales_and_orientations(pair[2], name)
    expected = reference("kornia_lightglue")
    torch.testing.assert_close(scales, torch.from_numpy(expected[f"{name}_scales"]))
    torch.testing.assert_close(oris, torch.from_numpy(expected[f"{name}_oris"]), rtol=0, atol=2e-6)


@pytest.mark.parametrize("name", SIFT_LIKE)
def test_matches_of_sift_like_features_are_kornias(name, pair, reference):
    """The weights are seeded ones, so that everything that the network is given shows in the scores."""
    scores, indices = seeded_matcher(name)(*pair, SEEDED_HW, SEEDED_HW)
    expected = reference("kornia_lightglue")
    assert len(indices) > 5
    assert indices.tolist() == expected[f"{name}_indices"].tolist()
    torch.testing.assert_close(scores, torch.from_numpy(expected[f"{name}_scores"]), rtol=1e-3, atol=1e-7)


def test_the_orientation_at_the_seam_is_on_kornias_side():
    """A frame that is turned by pi: SIFT takes (-pi, pi], the others [0, 2 pi)."""
    turned = torch.tensor([[[[-2.0, 0.0, 5.0], [0.0, -2.0, 5.0]], [[-2.0, -0.0, 5.0], [0.0, -2.0, 5.0]]]])
    for name, expected in [("sift", math.pi), ("doghardnet", math.pi)]:
        torch.testing.assert_close(_scales_and_orientations(turned, name)[1], torch.full((1, 2), expected))


def test_the_same_as_our_own_matcher():
    name = "aliked"
    (desc1, lafs1), (desc2, lafs2) = montmartre(name, 0), montmartre(name, 1)
    hw1, hw2 = sizes(name)
    scores, indices = LightGlueMatcher(name)(desc1, desc2, lafs1, lafs2, hw1, hw2)
    images = [
        {"keypoints": lafs[..., 2], "descriptors": desc[None], "image_size": torch.tensor([hw[::-1]])}
        for desc, lafs, hw in ((desc1, lafs1, hw1), (desc2, lafs2, hw2))
    ]
    found = lightglue.LightGlue(name)({"image0": images[0], "image1": images[1]})
    assert torch.equal(found["matches"][0], indices)
    assert torch.equal(found["scores"][0], scores[:, 0])


# -- the interface ---------------------------------------------------------------------------------------------------


def test_the_signatures_are_kornias():
    assert list(inspect.signature(LightGlueMatcher).parameters) == ["feature_name", "params"]
    assert inspect.signature(LightGlueMatcher).parameters["feature_name"].default == "disk"
    assert list(inspect.signature(LightGlueMatcher.forward).parameters)[1:] == [
        "desc1", "desc2", "lafs1", "lafs2", "hw1", "hw2",
    ]  # fmt: skip
    assert inspect.signature(LightGlue).parameters["features"].default == "superpoint"


def test_scores_are_a_column_and_indices_are_rows(matcher, pair):
    scores, indices = matcher(*pair)
    assert scores.shape == (len(indices), 1)
    assert indices.shape == (len(indices), 2)
    assert (scores.dtype, indices.dtype) == (torch.float32, torch.int64)
    assert (indices[1:, 0] > indices[:-1, 0]).all()


def test_params_reach_the_matcher(pair):
    assert len(seeded_matcher(filter_threshold=0.999)(*pair)[0]) == 0
    inner = seeded_matcher(mp=True, flash=False).matcher
    assert (inner.conf.mp, inner.conf.flash) == (True, False)
    assert LightGlueMatcher("ALIKED", {"n_layers": 2}).feature_name == "aliked"
    assert not seeded_matcher().training
    with pytest.warns(UserWarning, match="did you mean 'filter_threshold'"):
        seeded_matcher(filter_treshold=0.2)


def test_hardnet_is_neither_stopped_nor_pruned_whatever_is_asked_for():
    """kornia lets the feature's own settings win."""
    conf = seeded_matcher("doghardnet", depth_confidence=0.5, width_confidence=0.5, scale_coef=3.0).matcher.conf
    assert (conf.depth_confidence, conf.width_confidence, conf.scale_coef) == (-1, -1, 1 / 6)


def test_scale_coef_multiplies_the_scales(pair):
    hardnet = seeded_matcher("doghardnet").matcher
    own = LightGlue(None, weights=sift_like_weights(), input_dim=128, add_scale_ori=True, **SEEDED_OPTIONS)
    desc1, desc2, lafs1, lafs2 = pair
    images = []
    for desc, lafs in ((desc1, lafs1), (desc2, lafs2)):
        scales, oris = _scales_and_orientations(lafs, "doghardnet")
        images.append({"keypoints": lafs[..., 2], "descriptors": desc[None], "scales": scales, "oris": oris})
    shrunk = [{**image, "scales": image["scales"] / 6} for image in images]
    expected = own({"image0": shrunk[0], "image1": shrunk[1]})
    assert torch.equal(hardnet({"image0": images[0], "image1": images[1]})["matches0"], expected["matches0"])
    assert torch.equal(hardnet.match([(images[0], images[1])])[0]["matches0"], expected["matches0"])
    assert not torch.equal(
        own({"image0": images[0], "image1": images[1]})["matching_scores0"], expected["matching_scores0"]
    )


def test_a_saved_matcher_takes_the_same_scales(tmp_path):
    path = tmp_path / "matcher.safetensors"
    seeded_matcher("doghardnet").matcher.save(path)
    assert LightGlue.load(path).conf.scale_coef == 1 / 6
    own = LightGlue(None, weights=sift_like_weights(), input_dim=128, add_scale_ori=True, scale_coef=0.5, n_layers=2)
    with pytest.raises(InputError, match="scale_coef"):
        own.save(path)


def test_stop_is_an_int_for_several_pairs_too():
    matcher = LightGlue(None, weights=small_state(), **SMALL)
    g = torch.Generator().manual_seed(0)
    image = {
        "keypoints": 100 * torch.rand(2, 9, 2, generator=g),
        "descriptors": torch.randn(2, 9, 16, generator=g),
        "image_size": torch.tensor([[100, 100]]),
    }
    assert isinstance(matcher({"image0": image, "image1": image})["stop"], int)


def test_copies_match_alike(matcher, pair):
    assert torch.equal(copy.deepcopy(matcher)(*pair)[1], matcher(*pair)[1])


def test_a_batch_dimension_of_one_is_taken(matcher, pair):
    desc1, desc2, lafs1, lafs2 = pair
    assert torch.equal(matcher(desc1[None], desc2[None], lafs1, lafs2)[1], matcher(*pair)[1])


def test_scores_have_the_dtype_of_the_descriptors(matcher, pair):
    desc1, desc2, lafs1, lafs2 = pair
    scores, _ = matcher(desc1.half(), desc2.half(), lafs1.half(), lafs2.half())
    assert scores.dtype == torch.float16


@pytest.mark.parametrize(("m", "n"), [(0, 0), (0, 50), (1, 50), (40, 0), (40, 1)])
def test_fewer_than_two_keypoints_give_no_match(m, n, matcher, pair):
    desc1, desc2, lafs1, lafs2 = pair
    scores, indices = matcher(desc1[:m], desc2[:n], lafs1[:, :m], lafs2[:, :n], SEEDED_HW, SEEDED_HW)
    assert (scores.shape, indices.shape, indices.dtype) == ((0, 1), (0, 2), torch.int64)


def test_kornia_is_neither_imported_nor_hidden():
    code = """
import sys, types, lightglue.kornia
assert "kornia" not in sys.modules
sys.modules["kornia"] = types.ModuleType("kornia")
import kornia
assert kornia is not lightglue.kornia and kornia.__name__ == "kornia"
"""
    loaded = modules_after(code)
    assert "lightglue.kornia" in loaded
    assert not loaded & {"torchvision", "matplotlib"}


# -- what is refused -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["dedodeb", "keynet_affnet_hardnet"])
@pytest.mark.parametrize("interface", [LightGlue, LightGlueMatcher])
def test_a_feature_without_weights_here_names_those_that_work(name, interface):
    with pytest.raises(InputError, match=rf"'{name}' has no weights in this package; these work: aliked, disk"):
        interface(name)


@pytest.mark.parametrize(
    ("name", "hint"), [("alikd", "did you mean 'aliked'"), (3, "these work"), ("loftr", "these work")]
)
def test_an_unknown_feature_is_refused(name, hint):
    with pytest.raises(InputError, match=hint):
        LightGlueMatcher(name)


def test_positions_of_axes_are_refused():
    with pytest.raises(InputError, match="keynet_affnet_hardnet"):
        LightGlue(None, add_laf=True, weights=small_state(), **SMALL)
    assert LightGlue(None, add_laf=False, weights=small_state(), **SMALL).conf.scale_coef == 1


def test_bad_arguments_are_refused_with_a_remedy(matcher, pair):
    desc1, desc2, lafs1, lafs2 = pair
    cases = [
        ((desc1[:5], desc2, lafs1, lafs2), r"desc1 must be a tensor \(N, D\) with N = 40.*not \(5, 128\)"),
        ((desc1, desc2, lafs1, lafs2[0]), r"lafs2 must be a tensor \(1, N, 2, 3\), not \(50, 2, 3\)"),
        ((desc1, desc2, lafs1.expand(2, -1, -1, -1), lafs2), "one pair at a time"),
        ((None, desc2, lafs1, lafs2), "desc1 must be a tensor"),
        (
            (desc1, desc2, lafs1 * math.nan, lafs2, SEEDED_HW, SEEDED_HW),
            "image0: keypoints hold NaN|positions hold NaN",
        ),
        ((desc1[:, :64], desc2, lafs1, lafs2), "length 128"),
        ((desc1, desc2, lafs1, lafs2, 480, SEEDED_HW), r"hw1 must be the two numbers \(H, W\)"),
        ((desc1, desc2, lafs1, lafs2, (0, 0), SEEDED_HW), "image0"),
        ((desc1, desc2, lafs1, lafs2, (320, 240), SEEDED_HW), r"keypoints lie outside.*hw1 and hw2.*\(height, width\)"),
    ]
    for arguments, message in cases:
        with pytest.raises(InputError, match=message):
            matcher(*arguments)


def test_exchanged_sides_are_noticed(matcher, pair):
    """Here x reaches 640: within the square about a 640 x 480 image, not in that about a 480 x 640 one."""
    with pytest.raises(InputError, match="outside of the image"):
        matcher(*pair, SEEDED_HW[::-1], SEEDED_HW)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"image_size": torch.full((3, 2), 100.0)}, r"image_size must have shape \(B, 2\) = \(2, 2\), not \(3, 2\)"),
        ({"image_size": torch.ones(2, 2, device="meta")}, "image_size"),
        ({"keypoints": torch.ones(2, 5, 2, dtype=torch.bool)}, "keypoints must hold real numbers"),
        ({"keypoints": torch.ones(2, 5, 2).to_sparse()}, r"use \.to_dense\(\)"),
    ],
)
def test_what_is_wrong_otherwise_is_the_matchers_to_say(wrong, message):
    features = {**random_features(5, batch=2), "image_size": torch.full((2, 2), 2000.0)}
    matcher = LightGlue(None, weights=small_state(), **SMALL)
    with pytest.raises(InputError, match=message):
        matcher({"image0": {**features, **wrong}, "image1": features})


def test_keypoints_half_a_pixel_beyond_the_centres_are_taken(matcher, pair):
    desc1, desc2, lafs1, lafs2 = pair
    edges = lafs1.clone()
    edges[0, :2, :, 2] = torch.tensor([[-0.5, -0.5], [639.5, 479.5]])
    assert len(matcher(desc1, desc2, edges, lafs2, SEEDED_HW, SEEDED_HW)[1]) > 0
