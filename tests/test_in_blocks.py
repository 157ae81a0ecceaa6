"""Layers in blocks of rows give what the network's own layers give."""

from __future__ import annotations

import pytest
import torch

from lightglue.matching import in_blocks
from lightglue.matching.folding import fold_layer
from lightglue.matching.in_blocks import blocks, run_layer_in_blocks, suits_blocks
from lightglue.matching.packing import PackedPairs
from lightglue.support import products
from support.matching import random_features, small_matcher

pytestmark = pytest.mark.usefixtures("onednn")
COUNTS = [(1, 1), (20, 30), (33, 1), (300, 257), (64, 32, 5, 100)]


def packed(counts: tuple[int, ...], seed: int = 1, scale: float = 1.0) -> tuple[torch.Tensor, PackedPairs]:
    """The encoding of some images as the network takes it, and the images packed."""
    g, n = torch.Generator().manual_seed(seed), sum(counts)
    with torch.no_grad():
        encoding = small_matcher().posenc(torch.rand(n, 2, generator=g) * 2 - 1)
    tokens = scale * torch.randn(n, 32, generator=g)
    pairs = tuple(range(len(counts) // 2))
    return encoding, PackedPairs(tokens, torch.complex(*encoding[:, 0, :, ::2]), torch.arange(n), counts, pairs)


def by_the_network(layer, encoding: torch.Tensor, pair: PackedPairs) -> torch.Tensor:
    slices, found = pair.slices(), []
    for rows0, rows1 in zip(slices[::2], slices[1::2], strict=True):
        inputs = pair.tokens[rows0], pair.tokens[rows1], encoding[..., rows0, :], encoding[..., rows1, :]
        found += layer(*inputs)
    return torch.cat(found)


@pytest.mark.parametrize("counts", COUNTS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_layer_in_blocks_equals_the_layer(counts, dtype, monkeypatch):
    monkeypatch.setattr(in_blocks, "FEWEST_ROWS", 64)
    monkeypatch.setattr(in_blocks, "BLOCK", 64 * 64)
    layer = small_matcher().transformers[0]
    encoding, pair = packed(counts)
    before = pair.tokens.clone()
    with torch.no_grad():
        expected = by_the_network(layer, encoding, pair)
        run_layer_in_blocks(fold_layer(layer, dtype), pair)
    atol = 2e-6 if dtype == torch.float32 else 0.05
    assert pair.tokens.dtype == torch.float32, "the residual stream keeps its precision"
    torch.testing.assert_close(pair.tokens, expected, atol=atol, rtol=0)
    assert (pair.tokens - before).abs().max() > 10 * atol, "the layer should have done something"


def test_logits_of_hundreds_neither_overflow_nor_vanish():
    """As the published weights have them."""
    layer = small_matcher().transformers[0]
    with torch.no_grad():
        for projection in (layer.self_attn.Wqkv, layer.cross_attn.to_qk):
            projection.weight *= 60
        encoding, pair = packed((40, 70))
        expected = by_the_network(layer, encoding, pair)
        run_layer_in_blocks(fold_layer(layer, torch.float32), pair)
    torch.testing.assert_close(pair.tokens, expected, atol=2e-3, rtol=0)


def test_a_pair_does_not_depend_on_the_pairs_beside_it():
    layer = fold_layer(small_matcher().transformers[0], torch.float32)
    _, both = packed((40, 70, 33, 20))
    alone = PackedPairs(both.tokens[110:].clone(), both.rotation[110:], torch.arange(53), (33, 20), (0,))
    with torch.no_grad():
        run_layer_in_blocks(layer, both)
        run_layer_in_blocks(layer, alone)
    assert torch.equal(both.tokens[110:], alone.tokens)


@pytest.mark.parametrize(("n", "keys"), [(1, 1), (600, 700), (2048, 2048), (1030, 96), (20_000, 20_000)])
@pytest.mark.parametrize("threads", [1, 2])
def test_blocks_cover_all_queries_and_are_bounded(n, keys, threads, monkeypatch):
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
    size, parts = blocks(n, keys)
    assert [row for part in parts for row in range(part.start, part.stop)] == list(range(n))
    assert all(part.stop - part.start <= size for part in parts)
    assert size % products.STEP == 0
    assert size <= threads * 1024
    assert size == threads * 128 or size * keys <= 1.1 * threads * in_blocks.BLOCK


def test_layers_run_in_blocks_where_onednn_is_faster(onednn):
    assert suits_blocks(torch.device("cpu"), torch.float32) is onednn
    assert not suits_blocks(torch.device("cpu"), torch.float64)
    assert not suits_blocks(torch.device("cuda"), torch.float32)


@pytest.mark.parametrize("amx", [True, False])
def test_in_bfloat16_they_do_where_there_is_no_amx(amx, monkeypatch):
    """With AMX torch's fused attention is the faster one."""
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: amx)
    assert suits_blocks(torch.device("cpu"), torch.bfloat16) is not amx
    assert not suits_blocks(torch.device("cuda"), torch.bfloat16)


def test_a_matcher_runs_them(onednn, monkeypatch):
    ran = []
    monkeypatch.setattr("lightglue.matching.steps.run_layer_in_blocks", lambda layer, packed: ran.append(layer))
    small_matcher()({"image0": random_features(20), "image1": random_features(30, seed=1)})
    assert len(ran) == (3 if onednn else 0)
