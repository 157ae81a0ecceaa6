"""What the matcher does not do, counted in operations: each line guards a step of docs/performance.md."""

from __future__ import annotations

from collections import Counter

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from lightglue.matching.folding import fold_layer
from lightglue.matching.packing import PackedPairs, Workspace, run_layer
from lightglue.support import products
from support.matching import random_features, small_matcher

D = 32


@pytest.fixture(autouse=True)
def torchs_own_products(monkeypatch):
    """Where oneDNN's are faster, layers are computed in other steps (test_in_blocks.py)."""
    monkeypatch.setattr(products, "onednn_is_faster", lambda: False)


class Operations(TorchDispatchMode):
    """Counts operations by name, and notes the shapes of the matrix products and of what is newly allocated."""

    def __init__(self) -> None:
        super().__init__()
        self.counts: Counter[str] = Counter()
        self.products: list[tuple[int, ...]] = []
        self.allocated = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func.overloadpacket.__name__
        result = func(*args, **(kwargs or {}))
        self.counts[name] += 1
        if name in ("addmm", "addmm_", "mm"):
            matrices = args[1:3] if name != "mm" else args
            self.products.append((*matrices[0].shape, matrices[1].shape[1]))
        inputs = {a.untyped_storage().data_ptr() for a in (*args, *(kwargs or {}).values()) if torch.is_tensor(a)}
        for made in result if isinstance(result, tuple) else (result,):
            if torch.is_tensor(made) and made.untyped_storage().data_ptr() not in inputs:
                self.allocated = max(self.allocated, made.numel())
        return result


def run_counted(counts=(20, 30)) -> tuple[Operations, PackedPairs]:
    layer = small_matcher().transformers[0]
    rows = sum(counts)
    rotation = torch.polar(torch.ones(rows, 8), torch.rand(rows, 8))
    packed = PackedPairs(torch.randn(rows, D), rotation, torch.arange(rows), counts, (0,))
    with torch.no_grad():
        folded, workspace = fold_layer(layer, torch.float32), Workspace(packed, torch.float32)
        with Operations() as operations:
            run_layer(folded, packed, workspace, torch.float32)
    return operations, packed


def test_a_layer_is_six_matrix_products():
    """Projection, and two of the MLP; attended values are projected in the first. Biases are columns."""
    operations, _ = run_counted()
    own = [(50, 1 + D, 3 * D), (50, 1 + 2 * D, 2 * D), (50, 2 * D, D)]
    assert operations.products == [*own, (50, 1 + D, 2 * D), *own[1:]]


def test_a_layer_joins_and_splits_nothing_by_copying():
    operations, _ = run_counted()
    assert not {"cat", "stack", "clone", "index_select", "index", "new_zeros"} & operations.counts.keys()
    copies = operations.counts["copy_"]
    assert copies == 2 + 4 + 2, (
        "the stream into what the MLP reads, each image's attended values beside it, what is attended to head by head"
    )


def test_positions_turn_queries_and_keys_in_one_multiplication():
    operations, _ = run_counted()
    assert operations.counts["mul"] + operations.counts["mul_"] == 1
    assert operations.counts["mm"] + operations.counts["addmm_"] == 6, "no product is preceded by a pass for its bias"


def test_a_layer_allocates_no_more_than_one_hidden_layer():
    operations, _ = run_counted()
    assert operations.allocated == 50 * 2 * D


def test_an_image_of_many_pairs_is_projected_once():
    matcher = small_matcher(filter_threshold=0.0)
    first, others = random_features(40, seed=1), [random_features(20 + i, seed=2 + i) for i in range(5)]
    alone = [matcher({"image0": first, "image1": other}) for other in others]
    with Operations() as operations:
        found = matcher.match([(first, other) for other in others])
    projected = sorted(rows for rows, inputs, _ in operations.products if inputs == 16)
    assert projected == [20, 21, 22, 23, 24, 40]
    for batched, single in zip(found, alone, strict=True):
        assert torch.equal(batched["matches0"], single["matches0"])


def test_a_generator_may_write_one_pair_over_the_last():
    matcher = small_matcher(filter_threshold=0.0)
    pairs = [(random_features(30, seed=i), random_features(30, seed=50 + i)) for i in range(3)]
    buffers = random_features(30), random_features(30)

    def rewritten():
        for pair in pairs:
            for buffer, features in zip(buffers, pair, strict=True):
                for key in ("keypoints", "descriptors"):
                    buffer[key].copy_(features[key])
            yield buffers

    for one, other in zip(matcher.match(rewritten()), matcher.match(pairs), strict=True):
        assert torch.equal(one["matches0"], other["matches0"])


def test_arrays_that_a_mapping_makes_anew_at_each_access_are_never_taken_for_one_another():
    class Lazy(dict):  # as of a file that is read when asked
        def __getitem__(self, key):
            return super().__getitem__(key).clone()

        def get(self, key, default=None):
            value = super().get(key, default)
            return None if value is None else value.clone()

    matcher = small_matcher(filter_threshold=0.0)
    features = [random_features(30, seed=i) for i in range(6)]
    expected = matcher.match(list(zip(features[::2], features[1::2], strict=True)))
    found = matcher.match([(Lazy(a), Lazy(b)) for a, b in zip(features[::2], features[1::2], strict=True)])
    for one, other in zip(found, expected, strict=True):
        assert torch.equal(one["matches0"], other["matches0"])


def test_a_pair_asks_the_device_once_a_layer():
    """Each decision needs one transfer to the host; on a GPU any more would stop the stream."""
    matcher = small_matcher(filter_threshold=0.0, depth_confidence=1.0, width_confidence=0.5)
    pair = (random_features(40, seed=1), random_features(30, seed=2))
    transfers = []
    original = torch.Tensor.tolist
    torch.Tensor.tolist = lambda self: transfers.append(self.shape) or original(self)
    try:
        (found,) = matcher.match([pair])
    finally:
        torch.Tensor.tolist = original
    assert found["stop"] == 3
    assert transfers == [(2, 2)] * 2, "a number of unsure and of kept keypoints for each image, after all but the last"
