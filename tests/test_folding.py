"""Folded layers give what the network's own layers give."""

from __future__ import annotations

import pytest
import torch

from lightglue.matching import precision
from lightglue.matching.folding import fold_layer
from lightglue.matching.packing import PackedPairs, run_layer
from matching_support import random_features, small_matcher

POSITIONS = torch.rand(50, 2, generator=torch.Generator().manual_seed(1)) * 2 - 1
TOKENS = torch.randn(50, 32, generator=torch.Generator().manual_seed(2))


def packed() -> tuple[torch.Tensor, PackedPairs]:
    """Two images of 20 and 30 keypoints: the rotation as the network takes it, and packed."""
    matcher = small_matcher()
    with torch.no_grad():
        rotation = matcher.posenc(POSITIONS)
    return rotation, PackedPairs(TOKENS, rotation.unsqueeze(2), torch.arange(50), (20, 30), (0,))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_folded_layer_equals_the_layer(dtype):
    layer = small_matcher().layers()[0]
    rotation, pair = packed()
    with torch.no_grad():
        expected = torch.cat(layer(TOKENS[:20], TOKENS[20:], rotation[:, :20], rotation[:, 20:]))
        found = run_layer(fold_layer(layer, dtype), pair, dtype).tokens
    assert found.dtype == torch.float32, "the residual stream keeps its precision"
    atol = 2e-6 if dtype == torch.float32 else 0.05
    torch.testing.assert_close(found, expected, atol=atol, rtol=0)
    assert (found - TOKENS).abs().max() > 10 * atol, "the layer should have done something"


def test_half_precision_attention_alone_is_close():
    """As on CUDA with flash=True: float16 attention inside a float32 network."""
    layer = small_matcher().layers()[0]
    _, pair = packed()
    with torch.no_grad():
        exact = run_layer(fold_layer(layer, torch.float32), pair, torch.float32).tokens
        half = run_layer(fold_layer(layer, torch.float32), pair, torch.float16).tokens
    torch.testing.assert_close(half, exact, atol=2e-3, rtol=0)
    assert not torch.equal(half, exact)


def test_folding_does_not_touch_the_parameters():
    matcher = small_matcher()
    before = {k: v.clone() for k, v in matcher.state_dict().items()}
    matcher({"image0": random_features(20), "image1": random_features(20, seed=1)})
    after = matcher.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(before[k], after[k]) for k in before)


def test_a_changed_parameter_counts_at_the_next_call():
    matcher, other = small_matcher(filter_threshold=0.0), small_matcher(seed=7, filter_threshold=0.0)
    pair = {"image0": random_features(20), "image1": random_features(25, seed=1)}
    first = matcher(pair)["matching_scores0"]
    matcher.load_state_dict(other.state_dict())
    assert not torch.equal(matcher(pair)["matching_scores0"], first)
    assert torch.equal(matcher(pair)["matching_scores0"], other(pair)["matching_scores0"])
    with torch.no_grad():
        matcher.transformers[0].self_attn.Wqkv.bias += 0.5
    assert not torch.equal(matcher(pair)["matching_scores0"], other(pair)["matching_scores0"])


@pytest.mark.parametrize(
    ("device", "mp", "fast", "expected"),
    [
        ("cpu", False, True, None),
        ("cpu", True, True, torch.bfloat16),
        ("cpu", True, False, None),
        ("cuda", True, False, torch.float16),
        ("cuda", False, True, None),
        ("mps", True, False, torch.float16),
    ],
)
def test_reduced_precision_is_chosen_by_what_the_device_can_do(device, mp, fast, expected, monkeypatch):
    monkeypatch.setattr(precision, "cpu_has_fast_bfloat16", lambda: fast)
    assert precision.product_dtype(torch.device(device), mp) == expected
