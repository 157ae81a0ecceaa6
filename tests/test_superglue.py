"""SuperGlue, the baseline: the published architecture, held to the published code's result on random weights."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pytest
import torch

from lightglue.errors import InputError, WeightsError
from lightglue.matching.superglue import SuperGlue
from lightglue.matching.superglue_network import SuperGlueNetwork, sinkhorn
from support.matching import random_features

SMALL: dict[str, Any] = {
    "descriptor_dim": 16,
    "keypoint_encoder": (8, 12),
    "GNN_layers": ("self", "cross", "self", "cross"),
    "sinkhorn_iterations": 50,
    "match_threshold": 0.0,
}


def small_state(seed: int = 0) -> dict[str, torch.Tensor]:
    """Seeded random weights of a small network, decided enough to match, in the published layout (convolutions)."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        network = SuperGlueNetwork(SMALL["descriptor_dim"], SMALL["keypoint_encoder"], SMALL["GNN_layers"])
        network.final_proj.weight.data *= 10
    return {k: v[..., None] if v.ndim == 2 else v for k, v in network.state_dict().items()}


def small_superglue(**options: Any) -> SuperGlue:
    return SuperGlue(weights=small_state(), **{**SMALL, **options})


def features(n: int, seed: int, batch: int = 1) -> dict[str, torch.Tensor]:
    scores = torch.rand(batch, n, generator=torch.Generator().manual_seed(seed))
    return random_features(n, seed=seed, batch=batch, keypoint_scores=scores)


PAIR = {"image0": features(20, 1), "image1": features(25, 2)}


def test_gives_what_the_published_code_gives(random_weights):
    arrays = {k: torch.from_numpy(np.asarray(v)) for k, v in random_weights("superglue_random").items()}
    state = {k.removeprefix("w/"): v.float() for k, v in arrays.items() if k.startswith("w/")}
    matcher = SuperGlue(weights=state, GNN_layers=["self", "cross"] * 2, sinkhorn_iterations=20, match_threshold=0.0)
    found = matcher(
        {
            f"image{i}": {
                "keypoints": arrays[f"keypoints{i}"],
                "descriptors": arrays[f"descriptors{i}"].mT,
                "keypoint_scores": arrays[f"scores{i}"],
                "image_size": torch.tensor([[640.0, 480.0]]),
            }
            for i in (0, 1)
        }
    )
    for i in (0, 1):
        assert torch.equal(found[f"matches{i}"], arrays[f"out_matches{i}"])
        torch.testing.assert_close(found[f"matching_scores{i}"], arrays[f"out_matching_scores{i}"], atol=1e-5, rtol=0)
    assert len(found["matches"][0]) == 6


def test_published_defaults():
    with pytest.warns(UserWarning, match="SuperGlue without weights is random"):
        matcher = SuperGlue()
    assert matcher.conf.sinkhorn_iterations == 100
    assert matcher.conf.match_threshold == 0.2
    assert len(matcher.gnn.layers) == 18
    assert sum(p.numel() for p in matcher.parameters()) == 12_023_297  # 12 million (paper, section 4)


def test_the_soft_assignment_has_the_masses_of_keypoints_and_bins():
    scores = 3 * torch.randn(5, 7, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    assignment = sinkhorn(scores, torch.tensor(0.5, dtype=torch.float64), 200).exp()
    ones = torch.ones(12, dtype=torch.float64)
    torch.testing.assert_close(assignment.sum(1), torch.cat((ones[:5], 7 * ones[:1])))
    torch.testing.assert_close(assignment.sum(0), torch.cat((ones[:7], 5 * ones[:1])))


def test_swapped_images_give_the_swapped_result():
    matcher = small_superglue(sinkhorn_iterations=500)
    found, swapped = matcher(PAIR), matcher({"image0": PAIR["image1"], "image1": PAIR["image0"]})
    assert torch.equal(found["matches0"], swapped["matches1"])
    torch.testing.assert_close(found["matching_scores1"], swapped["matching_scores0"], atol=1e-4, rtol=0)
    assert len(found["matches"][0]) > 10


def test_the_order_of_keypoints_does_not_matter():
    order = torch.randperm(25, generator=torch.Generator().manual_seed(3))
    image1 = {k: v[:, order] if k != "image_size" else v for k, v in PAIR["image1"].items()}
    matcher = small_superglue()
    found, expected = matcher({**PAIR, "image1": image1}), matcher(PAIR)
    assert torch.equal(found["matches1"], expected["matches1"][:, order])
    torch.testing.assert_close(found["matching_scores0"], expected["matching_scores0"], atol=1e-5, rtol=0)


def test_position_and_score_matter():
    matcher = small_superglue()
    expected = matcher(PAIR)["matching_scores0"]
    for key, value in [("keypoints", 30.0), ("keypoint_scores", 0.5)]:
        moved = {**PAIR["image0"], key: PAIR["image0"][key] + value}
        assert not torch.allclose(matcher({**PAIR, "image0": moved})["matching_scores0"], expected, atol=1e-5)


def test_each_pair_of_a_batch_is_matched_as_if_alone():
    matcher = small_superglue()
    batch = {"image0": features(20, 1, batch=2), "image1": features(25, 2, batch=2)}
    found = matcher(batch)
    for b in range(2):
        alone = matcher({name: {k: v[b : b + 1] for k, v in image.items()} for name, image in batch.items()})
        assert torch.equal(found["matches0"][b], alone["matches0"][0])
        assert torch.equal(found["matches"][b], alone["matches"][0])
        assert torch.equal(found["scores"][b], alone["scores"][0])


@pytest.mark.parametrize(("m", "n"), [(0, 25), (20, 0), (0, 0)])
def test_an_image_without_keypoints_has_no_matches(m, n):
    found = small_superglue()({"image0": features(m, 1), "image1": features(n, 2)})
    assert found["matches0"].tolist() == [[-1] * m]
    assert found["matching_scores1"].tolist() == [[0.0] * n]
    assert found["matches"][0].shape == (0, 2)


def test_a_saved_state_dict_gives_the_same_matcher():
    matcher = small_superglue()
    again = SuperGlue(weights=matcher.state_dict(), **SMALL)
    assert torch.equal(again(PAIR)["matching_scores0"], matcher(PAIR)["matching_scores0"])


def test_checkpoints_load_strictly_from_a_file(tmp_path):
    torch.save(small_state(), tmp_path / "superglue.pth")
    found = SuperGlue(weights=tmp_path / "superglue.pth", **SMALL)(PAIR)
    assert torch.equal(found["matches0"], small_superglue()(PAIR)["matches0"])
    state = small_state()
    del state["bin_score"]
    state["kenc.encoder.0.weight"] = torch.zeros(8, 4, 1)
    state["gnn.layers.4.mlp.0.bias"] = torch.zeros(32)
    with pytest.raises(WeightsError, match="(?s)SuperGlue.*missing.*bin_score.*layers.4.*encoder.0.weight is"):
        SuperGlue(weights=state, **SMALL)


@pytest.mark.parametrize("name", ["indoor", "outdoor"])
def test_the_published_weights_are_never_fetched(name):
    with pytest.raises(WeightsError, match=f"non-commercial.*superglue_{name}.pth"):
        SuperGlue(weights=name)


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"descriptor_dim": 30}, "multiple of its 4 heads"),
        ({"sinkhorn_iterations": 0}, "a positive integer"),
        ({"keypoint_encoder": (32, -1)}, "a positive integer"),
        ({"keypoint_encoder": 32}, "a list or a tuple"),
        ({"GNN_layers": ("self", "crass")}, "'crass'"),
        ({"match_threshold": float("nan")}, "finite"),
        ({"weights": 3}, "not int"),
    ],
)
def test_options_are_checked(options, told):
    with pytest.raises(InputError, match=told):
        SuperGlue(**options)


def test_features_are_checked():
    matcher = small_superglue()
    with pytest.raises(InputError, match="image0 lacks 'keypoint_scores'"):
        matcher({**PAIR, "image0": random_features(20)})
    with pytest.raises(InputError, match="SuperGlue needs 'image1'"):
        matcher({"image0": PAIR["image0"]})
    with pytest.raises(InputError, match="made for descriptors of length 16"):
        matcher({**PAIR, "image0": {**PAIR["image0"], "descriptors": torch.zeros(1, 20, 32)}})


def test_building_with_weights_is_silent():
    with warnings.catch_warnings(record=True) as heard:
        warnings.simplefilter("always")
        small_superglue()
    assert not heard
