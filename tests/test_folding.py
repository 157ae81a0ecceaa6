"""Folded layers give what the network's own layers give."""

from __future__ import annotations

import pytest
import torch

from lightglue.matching.attention import (
    Segments,
    _attend_at_once,
    attend,
    fused_rows,
)
from lightglue.matching.folding import fold_layer
from lightglue.matching.packing import PackedPairs, Workspace, kept_rows, run_layer, sorted_rows
from support.matching import plain_attention, random_features, small_matcher

pytestmark = pytest.mark.usefixtures("onednn")

POSITIONS = torch.rand(50, 2, generator=torch.Generator().manual_seed(1)) * 2 - 1
TOKENS = torch.randn(50, 32, generator=torch.Generator().manual_seed(2))


def packed() -> tuple[torch.Tensor, PackedPairs]:
    """Two images of 20 and 30 keypoints: their encoding as the network takes it, and packed."""
    matcher = small_matcher()
    with torch.no_grad():
        encoding = matcher.posenc(POSITIONS)
    rotation = torch.complex(*encoding[:, 0, :, ::2])
    return encoding, PackedPairs(TOKENS.clone(), rotation, torch.arange(50), (20, 30), (0,))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_folded_layer_equals_the_layer(dtype):
    layer = small_matcher().transformers[0]
    encoding, pair = packed()
    with torch.no_grad():
        expected = torch.cat(layer(TOKENS[:20], TOKENS[20:], encoding[..., :20, :], encoding[..., 20:, :]))
        run_layer(fold_layer(layer, dtype), pair, Workspace(pair, dtype), dtype)
    found = pair.tokens
    assert found.dtype == torch.float32, "the residual stream keeps its precision"
    atol = 2e-6 if dtype == torch.float32 else 0.05
    torch.testing.assert_close(found, expected, atol=atol, rtol=0)
    assert (found - TOKENS).abs().max() > 10 * atol, "the layer should have done something"


def test_half_precision_attention_alone_is_close():
    """As on CUDA with flash=True: float16 attention inside a float32 network."""
    layer = small_matcher().transformers[0]
    (_, one), (_, other) = packed(), packed()
    with torch.no_grad():
        run_layer(fold_layer(layer, torch.float32), one, Workspace(one, torch.float32), torch.float32)
        run_layer(fold_layer(layer, torch.float32), other, Workspace(other, torch.float32), torch.float16)
    exact, half = one.tokens, other.tokens
    torch.testing.assert_close(half, exact, atol=2e-3, rtol=0)
    assert not torch.equal(half, exact)


@pytest.mark.parametrize(("m", "n"), [(1, 1), (1, 300), (300, 1), (257, 300), (512, 40)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_attention_of_rows_equals_the_plain_one(dtype, m, n):
    g = torch.Generator().manual_seed(m + n)
    q, k, v = (torch.randn(size, 3, 2, 16, generator=g).to(dtype)[:, 1] for size in (m, n, n))  # views, as in a batch
    expected = plain_attention(*(t.float().transpose(0, 1) for t in (q, k, v))).transpose(0, 1)
    atol = 1e-5 if dtype == torch.float32 else 0.03
    torch.testing.assert_close(fused_rows(q, k, v).float(), expected, atol=atol, rtol=0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_a_folded_matrix_and_its_bias_give_the_linear_layer(dtype, onednn):
    """As one product with a column of ones where that is fast, apart elsewhere."""
    layer = small_matcher().transformers[0]
    project = fold_layer(layer, dtype).cross_attn.project
    assert (project.both is None) == (dtype == torch.bfloat16 or (onednn and dtype == torch.float32))
    rows = torch.cat((torch.ones(50, 1), TOKENS), 1).to(dtype)
    found = project.into(rows, torch.empty(50, 64, dtype=dtype))
    with torch.no_grad():
        expected = torch.cat((layer.cross_attn.to_qk(TOKENS), layer.cross_attn.to_v(TOKENS)), 1)
    torch.testing.assert_close(found.float(), expected, atol=0.03 if dtype == torch.bfloat16 else 1e-5, rtol=0)


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


def test_a_parameter_changed_behind_torchs_back_counts_too():
    """`.data` and inference tensors leave no trace in the version counter."""
    matcher = small_matcher(filter_threshold=0.0)
    pair = {"image0": random_features(20), "image1": random_features(25, seed=1)}
    first = matcher(pair)["matching_scores0"]
    for layer in matcher.transformers:
        layer.self_attn.Wqkv.weight.data.mul_(0.5)
    assert not torch.equal(matcher(pair)["matching_scores0"], first)
    with torch.inference_mode():
        inferred, other = small_matcher(filter_threshold=0.0), small_matcher(seed=7, filter_threshold=0.0)
        assert torch.equal(inferred(pair)["matching_scores0"], first)
        inferred.load_state_dict(other.state_dict())
        assert torch.equal(inferred(pair)["matching_scores0"], other(pair)["matching_scores0"])


@pytest.mark.parametrize("name", ["self_attn.Wqkv.weight", "self_attn.Wqkv.bias", "self_attn.ffn.3.weight"])
@pytest.mark.parametrize("row", [0, 7, 31])
def test_a_single_row_changed_behind_torchs_back_counts_too(name, row):
    matcher = small_matcher(filter_threshold=0.0)
    pair = {"image0": random_features(20), "image1": random_features(25, seed=1)}
    first = matcher(pair)["matching_scores0"]
    matcher.transformers[1].get_parameter(name).data[row] += 1.0
    changed = matcher(pair)["matching_scores0"]
    assert not torch.equal(changed, first)
    fresh = small_matcher(filter_threshold=0.0)
    fresh.load_state_dict(matcher.state_dict())
    assert torch.equal(changed, fresh(pair)["matching_scores0"])


def loop_kernel(q, k, v, cu_seq_q, cu_seq_k, max_q, max_k):
    """What torch.nn.attention.varlen.varlen_attn is documented to do, segment by segment."""
    assert cu_seq_q.dtype == cu_seq_k.dtype == torch.int32
    assert (cu_seq_q.diff().max(), cu_seq_k.diff().max()) == (max_q, max_k)
    assert len(q) == cu_seq_q[-1]
    assert len(k) == len(v) == cu_seq_k[-1]
    out = torch.full_like(q, torch.nan)
    for i in range(len(cu_seq_q) - 1):
        rows = slice(cu_seq_q[i], cu_seq_q[i + 1])
        others = slice(cu_seq_k[i], cu_seq_k[i + 1])
        out[rows] = plain_attention(*(t.transpose(0, 1) for t in (q[rows], k[others], v[others]))).transpose(0, 1)
    return out


@pytest.mark.parametrize("cross", [False, True])
@pytest.mark.parametrize("counts", [(3, 5), (4, 4, 1, 9), (2, 30, 7, 7, 1, 1)])
def test_all_segments_at_once_equal_one_after_another(counts, cross):
    """The arguments for the varlen kernel of a GPU, which is imitated here."""
    rows = sum(counts) + 2  # two spare ones
    q, k, v = torch.randn(rows, 3, 2, 16, generator=torch.Generator().manual_seed(5)).unbind(1)
    expected, found = torch.zeros(rows, 32), torch.zeros(rows, 32)
    attend(q, k, v, Segments(counts), cross, expected)
    _attend_at_once(loop_kernel, q, k, v, Segments(counts), cross, found)
    torch.testing.assert_close(found, expected, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("keep", [[True, False, True, True, False], [False] * 5, [True] * 5])
def test_kept_rows_are_found_without_asking_for_their_number(keep):
    """On CUDA by a stable sort, since `nonzero` would make the host wait."""
    mask = torch.tensor(keep)
    assert torch.equal(sorted_rows(mask, sum(keep)), kept_rows(mask, sum(keep)))
