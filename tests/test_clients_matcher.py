"""What public code asks of the published matcher beside matching: each test imitates a client's call."""

from __future__ import annotations

import importlib
import warnings

import pytest
import torch
import torch.nn.functional as F

import lightglue.kornia
import lightglue.lightglue as published
from lightglue.errors import InputError, WeightsError
from lightglue.matching.lightglue import LightGlue
from support.matching import random_features, small_matcher, small_state

PAIR = {"image0": random_features(20), "image1": random_features(25, seed=1)}


@pytest.fixture(scope="module")
def matcher() -> LightGlue:
    return small_matcher(filter_threshold=0.0, depth_confidence=-1, width_confidence=-1)


# -- names that public files import ----------------------------------------------------------------------------------

NAMES = [
    "Attention", "CrossBlock", "LearnableFourierPositionalEncoding", "LightGlue", "MatchAssignment", "SelfBlock",
    "TokenConfidence", "TransformerLayer", "apply_cached_rotary_emb", "filter_matches", "normalize_keypoints",
    "pad_to_length", "rotate_half", "sigmoid_log_double_softmax",
]  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
def test_published_names_stand_under_their_import_path(name):
    assert callable(getattr(importlib.import_module("lightglue.lightglue"), name))
    assert sorted(published.__all__) == NAMES


def test_classes_are_built_as_published():
    """Clients build single layers for networks of their own."""
    layer = published.TransformerLayer(32, 2, True)
    assert published.SelfBlock(32, 2, flash=False)(torch.zeros(1, 3, 32), None).shape == (1, 3, 32)
    assert published.CrossBlock(32, 2)(torch.zeros(1, 3, 32), torch.zeros(1, 4, 32))[1].shape == (1, 4, 32)
    encoding = published.LearnableFourierPositionalEncoding(2, 16, 16, gamma=1.0)(torch.rand(1, 3, 2))
    assert encoding.shape == (2, 1, 1, 3, 16)
    assert layer(torch.zeros(1, 3, 32), torch.zeros(1, 3, 32), encoding, encoding)[0].shape == (1, 3, 32)
    scores, similarity = published.MatchAssignment(32)(torch.zeros(1, 3, 32), torch.zeros(1, 4, 32))
    assert (scores.shape, similarity.shape) == ((1, 4, 5), (1, 3, 4))
    assert [c.shape for c in published.TokenConfidence(32)(torch.zeros(1, 3, 32), torch.zeros(1, 4, 32))] == [
        (1, 3),
        (1, 4),
    ]
    q, k = torch.rand(1, 2, 3, 16), torch.rand(1, 2, 4, 16)
    assert published.Attention(allow_flash=True)(q, k, k).shape == q.shape


# -- layers called from outside --------------------------------------------------------------------------------------


@torch.no_grad()
def test_the_published_forward_written_out_gives_the_matchers_result(matcher):
    """Exporters and visualisers copy the published loop over the layers."""
    keypoints = [
        published.normalize_keypoints(PAIR[image]["keypoints"], PAIR[image]["image_size"])
        for image in ("image0", "image1")
    ]
    desc0, desc1 = (matcher.input_proj(PAIR[image]["descriptors"]) for image in ("image0", "image1"))
    encoding0, encoding1 = (matcher.posenc(kpts) for kpts in keypoints)
    assert encoding0.shape == (2, 1, 1, 20, 16)
    for i in range(matcher.conf.n_layers):
        desc0, desc1 = matcher.transformers[i](desc0, desc1, encoding0, encoding1)
        if i < matcher.conf.n_layers - 1:
            token0, token1 = matcher.token_confidence[i](desc0, desc1)
            assert (token0.shape, token1.shape) == ((1, 20), (1, 25))
    scores, similarity = matcher.log_assignment[i](desc0, desc1)
    assert (scores.shape, similarity.shape) == ((1, 21, 26), (1, 20, 25))
    m0, m1, mscores0, mscores1 = published.filter_matches(scores, matcher.conf.filter_threshold)
    expected = matcher(PAIR)
    assert torch.equal(m0, expected["matches0"])
    assert torch.equal(m1, expected["matches1"])
    torch.testing.assert_close(mscores0, expected["matching_scores0"], rtol=1e-4, atol=0)
    torch.testing.assert_close(mscores1, expected["matching_scores1"], rtol=1e-4, atol=0)


@torch.no_grad()
def test_blocks_can_be_called_one_by_one(matcher):
    layer = matcher.transformers[0]
    desc0, desc1 = torch.randn(1, 20, 32), torch.randn(1, 25, 32)
    encoding0, encoding1 = (matcher.posenc(torch.rand(1, n, 2)) for n in (20, 25))
    whole = layer(desc0, desc1, encoding0, encoding1)
    parts = layer.cross_attn(layer.self_attn(desc0, encoding0), layer.self_attn(desc1, encoding1))
    assert torch.equal(whole[0], parts[0])
    assert torch.equal(whole[1], parts[1])


@torch.no_grad()
def test_padded_layers_are_called_as_published(matcher):
    """Masks are (B, N, 1), as `pad_to_length` gives them."""
    layer = matcher.transformers[0]
    desc0, desc1, kpts0, kpts1 = (torch.randn(1, *shape) for shape in ((20, 32), (25, 32), (20, 2), (25, 2)))
    expected = layer(desc0, desc1, matcher.posenc(kpts0), matcher.posenc(kpts1))
    (desc0, mask0), (desc1, mask1) = (published.pad_to_length(d, 30) for d in (desc0, desc1))
    encodings = [matcher.posenc(published.pad_to_length(k, 30)[0]) for k in (kpts0, kpts1)]
    assert (mask0.shape, int(mask0.sum()), int(mask1.sum())) == ((1, 30, 1), 20, 25)
    for found in (
        layer(desc0, desc1, *encodings, mask0, mask1),
        layer.masked_forward(desc0, desc1, *encodings, mask0, mask1),
    ):
        torch.testing.assert_close(found[0][:, :20], expected[0], atol=2e-6, rtol=1e-5)
        torch.testing.assert_close(found[1][:, :25], expected[1], atol=2e-6, rtol=1e-5)


def test_a_tensor_of_the_length_is_not_padded():
    x = torch.rand(1, 5, 2)
    padded, mask = published.pad_to_length(x, 4)
    assert torch.equal(padded, x)
    assert mask.all()


@torch.no_grad()
def test_the_decisions_can_be_asked_for(matcher):
    n = matcher.conf.n_layers
    assert [matcher.confidence_threshold(i) for i in range(n)] == pytest.approx(matcher.confidence_thresholds.tolist())
    other = small_matcher(depth_confidence=0.5, width_confidence=0.9)
    sure, unsure = torch.ones(1, 6), torch.zeros(1, 6)
    assert other.check_if_stop(sure, sure, 0, 12)
    assert not other.check_if_stop(unsure, sure, 0, 12), "half is not above half"
    scores = torch.tensor([[0.05, 0.5, 0.05, 0.5, 0.1, 0.11]])
    assert other.get_pruning_mask(sure, scores, 0).tolist() == [[False, True, False, True, False, True]]
    assert other.get_pruning_mask(unsure, scores, 0).all()
    assert other.get_pruning_mask(None, scores, 0).tolist() == [[False, True, False, True, False, True]]
    matchability = other.log_assignment[0].get_matchability(torch.randn(1, 6, 32))
    assert matchability.shape == (1, 6)
    assert ((matchability >= 0) & (matchability <= 1)).all()


def test_the_url_of_the_weights_is_formatted_as_published():
    assert LightGlue.url.format(LightGlue.version, "disk").endswith("/v0.1_arxiv/disk_lightglue.pth")


# -- pure functions --------------------------------------------------------------------------------------------------


def test_the_log_assignment_has_the_unmatched_row_and_column():
    sim, z0, z1 = torch.randn(2, 3, 4), torch.randn(2, 3, 1), torch.randn(2, 4, 1)
    scores = published.sigmoid_log_double_softmax(sim, z0, z1)
    assert scores.shape == (2, 4, 5)
    both = sim.softmax(1) * sim.softmax(2) * z0.sigmoid() * z1.sigmoid().transpose(1, 2)
    torch.testing.assert_close(scores[:, :-1, :-1].exp(), both)
    torch.testing.assert_close(scores[:, :-1, -1], F.logsigmoid(-z0)[..., 0])
    torch.testing.assert_close(scores[:, -1, :-1], F.logsigmoid(-z1)[..., 0])
    assert (scores[:, -1, -1] == 0).all()


def test_matches_are_filtered_as_published():
    scores = torch.full((1, 4, 3), -9.0)
    scores[0, 0, 1], scores[0, 2, 0], scores[0, 1, 1] = -0.1, -1.0, -0.5
    m0, m1, mscores0, mscores1 = published.filter_matches(scores, 0.5)
    assert m0.tolist() == [[1, -1, -1]]
    assert m1.tolist() == [[-1, 0]]
    torch.testing.assert_close(mscores0, torch.tensor([[-0.1, -torch.inf, -1.0]]).exp())
    torch.testing.assert_close(mscores1, torch.tensor([[-1.0, -0.1]]).exp())
    assert published.filter_matches(scores, None)[0].tolist() == [[1, -1, 0]]
    assert [t.shape for t in published.filter_matches(torch.zeros(1, 1, 3), 0.1)] == [(1, 0), (1, 2), (1, 0), (1, 2)]


def test_positions_are_normalised_by_the_keypoints_extent_without_a_size():
    kpts = torch.tensor([[[10.0, 20.0], [109.0, 69.0]]])
    torch.testing.assert_close(published.normalize_keypoints(kpts), (kpts - torch.tensor([50.0, 25.0])) / 50)
    assert torch.equal(
        published.normalize_keypoints(kpts, [100, 50]), published.normalize_keypoints(kpts, torch.tensor([[100, 50]]))
    )


def test_patching_the_normalisation_has_its_effect(matcher, monkeypatch):
    expected = matcher(PAIR)["matching_scores0"]
    monkeypatch.setattr(published, "normalize_keypoints", lambda kpts, size: torch.zeros_like(kpts))
    assert not torch.equal(matcher(PAIR)["matching_scores0"], expected)
    monkeypatch.undo()
    assert torch.equal(matcher(PAIR)["matching_scores0"], expected)


def test_a_patch_without_effect_says_so():
    original = published.filter_matches
    with pytest.warns(UserWarning, match="filter_matches was replaced, which changes nothing"):
        published.filter_matches = lambda *_: None
    with pytest.warns(UserWarning, match="filter_matches"):
        published.filter_matches = original


def test_a_patched_class_is_nothing_to_warn_of(monkeypatch):
    with warnings.catch_warnings(record=True) as heard:
        warnings.simplefilter("always")
        monkeypatch.setattr(published, "LightGlue", None)
    assert not heard


# -- options as clients give them ------------------------------------------------------------------------------------


def test_a_path_that_is_not_there_gives_the_published_weights_with_a_warning(tmp_path):
    """image-matching-webui, whose own download failed."""
    with pytest.warns(UserWarning, match=r"there is no file .*aliked_lightglue\.pth.* published weights for aliked"):
        found = LightGlue(features="aliked", n_layers=1, weights=str(tmp_path / "aliked_lightglue.pth"))
    expected = LightGlue(features="aliked", n_layers=1).state_dict()
    assert all(torch.equal(value, expected[key]) for key, value in found.state_dict().items())


def test_a_file_that_is_there_and_does_not_fit_stays_an_error(tmp_path):
    torch.save(small_state(), tmp_path / "mine.pth")
    with pytest.raises(WeightsError, match=r"mine\.pth: these weights do not fit"):
        LightGlue(features="aliked", weights=tmp_path / "mine.pth")
    with pytest.raises(WeightsError, match="nowhere"):
        LightGlue(features=None, weights=tmp_path / "nowhere.pth")
    with pytest.raises(WeightsError, match="alikedd_lightglue"):
        LightGlue(features="aliked", weights="alikedd_lightglue")


@pytest.mark.parametrize("cls", [LightGlue, lightglue.kornia.LightGlue])
def test_all_defaults_handed_back_mean_none_of_them(cls):
    """glue-factory, for every kind of features."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        matcher = cls("xfeat", **{**cls.default_conf, "filter_threshold": 0.2})
    assert (matcher.conf.n_layers, matcher.conf.depth_confidence, matcher.conf.width_confidence) == (6, -1, 0.95)
    assert matcher.conf.filter_threshold == (0.2 if cls is LightGlue else 0.1)


def test_with_kornia_what_the_features_set_wins():
    matcher = lightglue.kornia.LightGlue("xfeat", depth_confidence=0.9, width_confidence=0.5, n_layers=9)
    assert (matcher.conf.depth_confidence, matcher.conf.width_confidence, matcher.conf.n_layers) == (-1, 0.95, 6)
    assert lightglue.kornia.LightGlue.default_conf["scale_coef"] == 1.0
    assert lightglue.kornia.LightGlue.default_conf["add_laf"] is False


def test_kornias_matcher_looks_at_nothing_where_an_image_has_no_descriptors():
    matcher = lightglue.kornia.LightGlueMatcher("disk")
    arguments = torch.rand(5, 128), torch.empty(0, 256), torch.rand(1, 5, 2, 3), torch.empty(0, 0, 2, 3)
    scores, indices = matcher(*arguments)
    assert (scores.shape, indices.shape) == ((0, 1), (0, 2))
    scores, indices = matcher(*(arguments[i] for i in (1, 0, 3, 2)))
    assert (scores.shape, indices.shape) == ((0, 1), (0, 2))
    with pytest.raises(InputError, match="desc2"):
        matcher(torch.rand(5, 128), torch.rand(3, 128), torch.rand(1, 5, 2, 3), torch.rand(1, 4, 2, 3))
