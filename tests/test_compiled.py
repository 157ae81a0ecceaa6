"""compile(): the uncompiled result without pruning, from two graphs whatever numbers of keypoints come along.

Most tests compile with a backend that records the graphs and runs them as they are, which takes no C++ compiler.
"""

from __future__ import annotations

import copy
import pickle
import shutil
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch._dynamo.utils import counters

from lightglue.errors import InputError, LightGlueError
from lightglue.matching.compiled import MODES, CompiledSteps, padded_length
from lightglue.matching.folding import fold_layer
from lightglue.matching.lightglue import LightGlue
from lightglue.matching.packing import PackedPairs, Workspace, run_layer
from support.devices import needs_gpu
from support.matching import random_features, small_matcher, small_state

# Raised inside torch's compiler.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")

# Equal and unequal numbers, one keypoint, both sides of what one could take for a limit.
COUNTS = [(20, 25), (25, 20), (25, 25), (1, 7), (1, 1), (2, 2), (2, 1), (16, 16), (17, 16), (64, 3), (64, 64), (63, 64)]
COUNTS += [(n, 70 - n) for n in range(10, 18)]


def some_pair(m: int, n: int) -> dict[str, dict[str, torch.Tensor]]:
    return {"image0": random_features(m, seed=m), "image1": random_features(n, seed=n + 1)}


def assert_same(found: Any, expected: Any) -> None:
    assert found["stop"] == expected["stop"]
    for side in "01":
        assert torch.equal(found[f"matches{side}"], expected[f"matches{side}"])
        assert torch.equal(found[f"prune{side}"], expected[f"prune{side}"])
        scores = (found[f"matching_scores{side}"], expected[f"matching_scores{side}"])
        torch.testing.assert_close(*scores, rtol=1e-3, atol=0)


def compile_with(backend: Callable[..., Any], matcher: LightGlue, **options: Any) -> LightGlue:
    """The matcher, compiled with another backend of torch than its own."""
    original = torch.compile
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch, "compile", lambda function, mode: original(function, backend=backend))
        matcher.compile(**options)
    return matcher


def compile_at_once(matcher: LightGlue, **options: Any) -> list[Any]:
    """Compile the matcher; the graphs that are traced for it from then on, which run as they are."""
    graphs: list[Any] = []

    def backend(graph: torch.fx.GraphModule, inputs: list[torch.Tensor]) -> Callable[..., Any]:
        graphs.append(graph)
        return graph.forward

    compile_with(backend, matcher, **options)
    return graphs


def plain_matcher(**options: Any) -> LightGlue:
    return small_matcher(filter_threshold=0.0, width_confidence=-1, **options)


@pytest.fixture(scope="module")
def compiled() -> tuple[LightGlue, list[Any]]:
    """One compiled matcher, and the graphs that were built for it so far: tracing them takes seconds."""
    matcher = small_matcher(filter_threshold=0.0)
    return matcher, compile_at_once(matcher, static_lengths=[64, 32])


@pytest.fixture(scope="module")
def compiled_for_bfloat16() -> LightGlue:
    """Another one, whose graphs are of other dtypes."""
    matcher = small_matcher(filter_threshold=0.0)
    compile_at_once(matcher, static_lengths=[64])
    return matcher


@pytest.mark.parametrize("products", [None, torch.bfloat16])
@pytest.mark.parametrize("counts", [(20, 30), (30, 30)])
def test_the_padded_layer_equals_the_packed_layer(counts, products, compiled, compiled_for_bfloat16):
    m, n = counts
    g = torch.Generator().manual_seed(0)
    tokens, positions = torch.randn(m + n, 32, generator=g), torch.rand(m + n, 2, generator=g)
    matcher, dtype = compiled[0] if products is None else compiled_for_bfloat16, products or torch.float32
    network = matcher.network
    with torch.no_grad():
        rotation = torch.complex(*network.posenc(positions)[:, 0, :, ::2])
        padded = PackedPairs(tokens, rotation, torch.arange(m + n), counts, (0,))
        packed = replace(padded, tokens=tokens.clone())
        run_layer(fold_layer(network.transformers[0], dtype), packed, Workspace(packed, dtype), dtype)
        found = CompiledSteps(network, products, matcher._compiled).run(0, padded).tokens
    assert found.dtype == torch.float32, "the residual stream keeps its precision"
    atol = 2e-6 if products is None else 0.05
    torch.testing.assert_close(found, packed.tokens, atol=atol, rtol=0)
    assert (found - tokens).abs().max() > 10 * atol, "the layer should have done something"


@pytest.mark.parametrize("depth_confidence", [-1, 0.4, 0.95])
def test_varying_numbers_of_keypoints_take_two_graphs_and_give_the_uncompiled_result(compiled, depth_confidence):
    matcher, graphs = compiled
    matcher.conf.depth_confidence = depth_confidence
    plain = plain_matcher(depth_confidence=depth_confidence)
    counters.clear()
    for m, n in COUNTS:
        assert_same(matcher(some_pair(m, n)), plain(some_pair(m, n)))
    assert len(graphs) == 2, "one with a mask and one without, for three layers and any length"
    assert not counters["graph_break"]


def test_lists_and_batches_are_matched_pair_by_pair(compiled):
    matcher, plain = compiled[0], plain_matcher()
    matcher.conf.depth_confidence = plain.conf.depth_confidence
    pairs = [tuple(some_pair(m, n).values()) for m, n in COUNTS[:4]]
    for found, expected in zip(matcher.match(pairs), plain.match(pairs), strict=True):
        assert_same(found, expected)
    batch = {"image0": random_features(20, batch=2), "image1": random_features(25, seed=1, batch=2)}
    found, expected = matcher(batch), plain(batch)
    assert torch.equal(found["matches0"], expected["matches0"])
    assert torch.equal(found["stop"], expected["stop"])


@pytest.mark.parametrize(("m", "n"), [(65, 5), (5, 65), (0, 5), (5, 0)])
def test_pairs_that_do_not_fit_take_the_ordinary_path_with_pruning(compiled, m, n):
    matcher = compiled[0]
    ordinary = copy.deepcopy(matcher)
    found = matcher(some_pair(m, n))
    assert_same(found, ordinary(some_pair(m, n)))
    assert found["prune0"].dtype == torch.int64, "as where pruning is on"


def test_changed_parameters_count_without_another_graph(compiled):
    matcher, graphs = compiled
    pair, n_graphs = some_pair(20, 25), len(graphs)
    matcher.conf.depth_confidence = -1
    before = matcher(pair)
    matcher.load_state_dict(small_state(seed=1))
    assert_same(matcher(pair), plain_matcher(seed=1, depth_confidence=-1)(pair))
    matcher.load_state_dict(small_state())
    assert_same(matcher(pair), before)
    assert len(graphs) == n_graphs


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m))], ids=["deepcopy", "pickle"])
def test_copies_are_not_compiled(compiled, copied):
    matcher = compiled[0]
    other = copied(matcher)
    assert matcher.static_lengths == [32, 64]
    assert other.static_lengths is None
    other.conf.width_confidence = -1
    assert_same(other(some_pair(20, 25)), matcher(some_pair(20, 25)))


def test_matching_works_in_inference_mode():
    matcher = small_matcher(filter_threshold=0.0)
    compile_at_once(matcher, static_lengths=[64])
    with torch.inference_mode():
        found = matcher(some_pair(20, 25))
    assert_same(found, plain_matcher()(some_pair(20, 25)))


def test_matchers_do_not_use_up_each_others_graphs():
    """torch builds a limited number of variants of a function, which it tells by its code."""
    pair = some_pair(20, 25)
    with torch._dynamo.config.patch(cache_size_limit=1):
        for dtype in (torch.float32, torch.float64):
            matcher = small_matcher(filter_threshold=0.0)
            graphs = compile_at_once(matcher, static_lengths=[64])
            assert_same(matcher.to(dtype)(pair), plain_matcher().to(dtype)(pair))
            assert len(graphs) == 1


def test_compiling_again_takes_the_new_lengths():
    matcher = small_matcher()
    compile_at_once(matcher, static_lengths=[64])
    graphs = compile_at_once(matcher, mode="default", static_lengths=[16, 8])
    matcher(some_pair(20, 25))
    assert matcher.static_lengths == [8, 16]
    assert not graphs


def test_lengths_are_static_where_cuda_graphs_are_recorded():
    cpu, cuda = torch.device("cpu"), torch.device("cuda")
    assert padded_length([300, 200], [512, 256], cuda) == 512
    assert padded_length([200, 256], [512, 256], cuda) == 256
    assert padded_length([300, 200], [512, 256], cpu) == 300
    for device in (cpu, cuda):
        assert padded_length([513, 200], [512, 256], device) is None
        assert padded_length([0, 200], [512, 256], device) is None


@pytest.mark.parametrize("lengths", [[], [0], [-256], [256.0], ["256"]])
def test_lengths_that_are_none_are_refused(lengths):
    with pytest.raises(InputError, match="static_lengths"):
        small_matcher().compile(static_lengths=lengths)


@pytest.mark.parametrize("mode", ["fastest", "", None])
def test_unknown_modes_are_refused(mode):
    with pytest.raises(InputError, match=f"mode must be one of {', '.join(MODES)}, not"):
        small_matcher().compile(mode=mode)


def test_the_modes_are_torchs():
    assert set(MODES) <= set(torch._inductor.list_mode_options())


def test_a_missing_compiler_is_told_in_a_sentence():
    def backend(graph: torch.fx.GraphModule, inputs: list[torch.Tensor]) -> Callable[..., Any]:
        raise RuntimeError("No working C++ compiler found\nin many lines")

    matcher = compile_with(backend, small_matcher(), static_lengths=[64])
    with pytest.raises(LightGlueError, match=r"\(No working C\+\+ compiler found\).*install g\+\+"):
        matcher(some_pair(20, 25))


def test_a_python_that_torch_cannot_compile_is_told_in_a_sentence(monkeypatch):
    def refuse(*_: Any, **__: Any) -> None:
        raise RuntimeError("torch.compile is not supported on this Python")

    monkeypatch.setattr(torch, "compile", refuse)
    with pytest.raises(LightGlueError, match="not supported on this Python; match without compile"):
        small_matcher().compile()


@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a C++ compiler")
def test_torchs_own_backend_gives_the_uncompiled_result():
    matcher, plain = small_matcher(filter_threshold=0.0, depth_confidence=0.4), plain_matcher(depth_confidence=0.4)
    matcher.compile(static_lengths=[64])
    for m, n in [(20, 25), (64, 1)]:  # one graph
        assert_same(matcher(some_pair(m, n)), plain(some_pair(m, n)))


@needs_gpu
def test_cuda_graphs_leave_earlier_results_alone():
    matcher, plain = (plain_matcher(flash=False).cuda() for _ in range(2))
    matcher.compile(static_lengths=[32, 64])
    on_gpu = [
        {image: {k: v.cuda() for k, v in features.items()} for image, features in some_pair(m, n).items()}
        for m, n in [(20, 25), (25, 25), (64, 40)] * 3
    ]
    for found, pair in zip([matcher(pair) for pair in on_gpu], on_gpu, strict=True):
        expected = plain(pair)
        assert found["stop"] == expected["stop"]
        torch.testing.assert_close(found["matching_scores0"], expected["matching_scores0"], atol=1e-4, rtol=0)
