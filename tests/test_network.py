"""The differentiable network: masks, gradients, export; and the matcher's use of it."""

from __future__ import annotations

import copy
import threading
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from lightglue.errors import InputError
from lightglue.matching.assignment import PADDED
from lightglue.matching.config import LightGlueConfig
from lightglue.matching.lightglue import LightGlue
from lightglue.matching.network import Attention, LightGlueNetwork
from support.matching import SMALL, plain_attention, random_features, small_matcher, small_state
from support.replicas import replica

SIZES = (7, 5)
PAIR = {"image0": random_features(20), "image1": random_features(25, seed=1)}


def small_network(**options: Any) -> LightGlueNetwork:
    network = LightGlueNetwork(LightGlueConfig(**{**SMALL, **options}))
    network.load_state_dict(small_state(**options))
    return network


def inputs(m: int, n: int, batch: int = 1, seed: int = 0, dtype: torch.dtype = torch.float32) -> list[Tensor]:
    """Positions and descriptors of both images, as `LightGlueNetwork.forward` takes them."""
    g = torch.Generator().manual_seed(seed)
    shapes = [(batch, m, 2), (batch, n, 2), (batch, m, 16), (batch, n, 16)]
    return [torch.randn(shape, generator=g, dtype=dtype) for shape in shapes]


def padded(tensors: list[Tensor], lengths: tuple[int, int], value: float) -> tuple[list[Tensor], list[Tensor]]:
    """The inputs with rows of `value` up to these lengths, and both masks."""
    found, masks = [], []
    for i, tensor in enumerate(tensors):
        rows = tensor.new_full((tensor.shape[0], lengths[i % 2] - tensor.shape[1], tensor.shape[2]), value)
        found.append(torch.cat((tensor, rows), 1))
        masks.append(torch.arange(lengths[i % 2]).expand(len(tensor), -1) < tensor.shape[1])
    return found, masks[:2]


# -- what a layer yields ---------------------------------------------------------------------------------------------


def test_every_layer_yields_tokens_an_assignment_and_confidences():
    outputs = small_network()(*inputs(*SIZES, batch=2))
    assert len(outputs) == 3
    for i, output in enumerate(outputs):
        assert output.x0.shape == (2, 7, 32)
        assert output.x1.shape == (2, 5, 32)
        assert output.log_assignment.shape == (2, 8, 6)
        assert (output.log_assignment[:, -1, -1] == 0).all()
        shares = output.log_assignment[:, :-1].exp()
        assert ((shares >= 0) & (shares <= 1)).all()
        assert (output.confidence0 is None) == (output.confidence1 is None) == (i == 2)
    assert outputs[0].confidence0.shape == (2, 7)
    assert outputs[1].confidence1.shape == (2, 5)


def test_the_unmatched_column_and_row_are_the_matchabilities():
    network = small_network()
    output = network(*inputs(*SIZES))[1]
    for scores, tokens in (
        (output.log_assignment[:, :-1, -1], output.x0),
        (output.log_assignment[:, -1, :-1], output.x1),
    ):
        torch.testing.assert_close(scores.exp(), 1 - network.log_assignment[1].get_matchability(tokens))


def test_reference_is_the_last_entry_and_the_matchers_own():
    network, matcher = small_network(), small_matcher()
    found = network.reference(*inputs(*SIZES))
    assert torch.equal(found, network(*inputs(*SIZES))[-1].log_assignment[..., :-1, :-1])
    assert torch.equal(matcher.reference(*inputs(*SIZES)), found)
    one = network.reference(*(t[0] for t in inputs(*SIZES)))
    torch.testing.assert_close(one, found[0], atol=1e-5, rtol=1e-5)  # also without a batch dimension


@pytest.mark.parametrize(("m", "n"), [(0, 5), (5, 0), (0, 0)])
def test_images_without_keypoints_give_empty_assignments(m, n):
    output = small_network()(*inputs(m, n))[-1]
    assert output.log_assignment.shape == (1, m + 1, n + 1)
    assert output.log_assignment.isfinite().all()


def test_attention_is_the_softmax_of_products():
    q, k, v = (torch.randn(2, 3, size, 8, generator=torch.Generator().manual_seed(size)) for size in (4, 6, 6))
    torch.testing.assert_close(Attention()(q, k, v), plain_attention(q, k, v))


# -- masks -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("value", [0.0, 1e30, float("nan"), float("inf")])
def test_a_padded_batch_gives_each_pair_its_own_result(value):
    network = small_network()
    pairs = [inputs(7, 5, seed=1), inputs(4, 9, seed=2)]
    both = [padded(pair, (9, 9), value) for pair in pairs]
    batch = [torch.cat(tensors) for tensors in zip(*(tensors for tensors, _ in both), strict=True)]
    masks = [torch.cat(masks) for masks in zip(*(masks for _, masks in both), strict=True)]
    found = network(*batch, *masks)
    for b, pair in enumerate(pairs):
        m, n = pair[0].shape[1], pair[1].shape[1]
        for output, alone in zip(found, network(*pair), strict=True):
            torch.testing.assert_close(output.x0[b, :m], alone.x0[0], atol=2e-6, rtol=1e-5)
            torch.testing.assert_close(output.x1[b, :n], alone.x1[0], atol=2e-6, rtol=1e-5)
            rows, columns = [*range(m), 9], [*range(n), 9]
            scores = output.log_assignment[b][rows][:, columns]
            torch.testing.assert_close(scores, alone.log_assignment[0], atol=1e-5, rtol=1e-5)
            if alone.confidence0 is not None:
                torch.testing.assert_close(output.confidence0[b, :m], alone.confidence0[0])


@pytest.mark.parametrize("masks", [(True, None), (None, True), (1.0, 1.0)])
def test_one_mask_without_the_other_or_of_another_kind_is_refused(masks):
    given = [None if value is None else torch.full((1, n), value) for value, n in zip(masks, SIZES, strict=True)]
    with pytest.raises(InputError, match="give both or none, bool, True where the row is a keypoint"):
        small_network()(*inputs(*SIZES), *given)


def test_padding_is_zero_and_matches_nothing():
    tensors, masks = padded(inputs(*SIZES), (9, 9), 3.0)
    for output in small_network()(*tensors, *masks):
        assert (output.x0[:, 7:] == 0).all()
        assert (output.x1[:, 5:] == 0).all()
        assert (output.log_assignment[:, 7:-1] == PADDED).all()
        assert (output.log_assignment[:, :, 5:-1] == PADDED).all()
        if output.confidence0 is not None:
            assert (output.confidence0[:, 7:] == 0).all()


def loss(outputs: list[Any]) -> Tensor:
    """Something of every entry of every layer."""
    total = torch.zeros((), dtype=outputs[0].x0.dtype)
    for output in outputs:
        total = total + output.log_assignment.clamp(min=-50).square().mean() + output.x0.mean() + output.x1.mean()
        if output.confidence0 is not None:
            total = total + output.confidence0.square().mean() + output.confidence1.square().mean()
    return total


@pytest.mark.parametrize("value", [0.0, float("nan")])
@pytest.mark.parametrize("sizes", [(7, 5), (7, 0), (0, 5), (0, 0)])
def test_padding_gets_and_gives_no_gradient(sizes, value):
    """Also where an image is all padding."""
    network = small_network()
    tensors, masks = padded(inputs(*sizes), (9, 8), value)
    leaves = [tensor.requires_grad_() for tensor in tensors]
    outputs = network(*leaves, *masks)
    assert all(t.isfinite().all() for output in outputs for t in output if t is not None)
    loss(outputs).backward()
    for leaf, mask in zip(leaves, masks * 2, strict=True):
        assert leaf.grad.isfinite().all()
        assert (leaf.grad[~mask] == 0).all()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in network.parameters())


def test_padding_changes_no_gradient():
    alone, batch = small_network().double(), small_network().double()
    unpadded = inputs(*SIZES, dtype=torch.float64)
    tensors, masks = padded(unpadded, (9, 9), 2.0)
    for network, outputs in ((alone, alone(*unpadded)), (batch, batch(*tensors, *masks))):
        scores = outputs[-1].log_assignment
        (scores[0, :7, :5].sum() + scores[0, :7, -1].sum()).backward()
        assert network.input_proj.weight.grad.abs().max() > 0
    for expected, found in zip(alone.parameters(), batch.parameters(), strict=True):
        if expected.grad is not None:
            torch.testing.assert_close(found.grad, expected.grad, atol=1e-10, rtol=1e-8)


# -- gradients -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("masked", [False, True])
def test_every_parameter_gets_a_gradient(masked):
    network = small_network()
    tensors, masks = padded(inputs(*SIZES), (9, 9), 0.0) if masked else (inputs(*SIZES), [])
    loss(network(*tensors, *masks)).backward()
    without = [name for name, p in network.named_parameters() if p.grad is None or not p.grad.abs().max() > 0]
    assert not without


def test_confidences_pass_no_gradient_to_the_tokens():
    network = small_network()
    output = network(*inputs(*SIZES))[0]
    (output.confidence0.sum() + output.confidence1.sum()).backward()
    asked = {name for name, p in network.named_parameters() if p.grad is not None}
    assert asked == {"token_confidence.0.token.0.weight", "token_confidence.0.token.0.bias"}


def test_gradients_are_right_to_the_last_digit():
    network = small_network(input_dim=4, descriptor_dim=4, n_layers=2).double()
    (*tensors, descriptors0, descriptors1), masks = padded(
        [t[..., :4] for t in inputs(3, 2, dtype=torch.float64)], (4, 4), 0.0
    )
    some = ("transformers.0.self_attn.Wqkv.weight", "posenc.Wr.weight", "log_assignment.0.matchability.weight")

    def outputs(*changed: Tensor) -> tuple[Tensor, ...]:
        parameters = dict(zip(some, changed[2:], strict=True))
        found = torch.func.functional_call(network, parameters, (*tensors, *changed[:2], *masks))
        return tuple(t for output in found for t in (output.x0, output.log_assignment))

    leaves = [descriptors0, descriptors1, *(network.get_parameter(name).detach() for name in some)]
    assert torch.autograd.gradcheck(outputs, [leaf.clone().requires_grad_() for leaf in leaves])


# -- export ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("masked", [False, True])
def test_an_exported_program_gives_the_same_for_any_numbers_of_keypoints(masked):
    network = small_network(n_layers=2).eval()  # one layer with confidences and the last, which has none
    tensors, masks = padded(inputs(6, 4), (8, 9), 0.0)
    arguments = (*tensors, *masks) if masked else tuple(inputs(8, 9))
    m, n = torch.export.Dim("m", min=2), torch.export.Dim("n", min=2)
    shapes = tuple({1: (m, n)[i % 2]} for i in range(len(arguments)))
    program = torch.export.export(network, arguments, dynamic_shapes=shapes).module()
    for sizes in ((8, 9), (5, 5), (30, 12)):
        others = tuple(inputs(*sizes, seed=3))
        if masked:
            tensors, masks = padded(inputs(sizes[0] - 2, sizes[1] - 1, seed=3), sizes, 0.0)
            others = (*tensors, *masks)
        for found, expected in zip(program(*others), network(*others), strict=True):
            for a, b in zip(found, expected, strict=True):
                torch.testing.assert_close(a, b, atol=1e-6, rtol=1e-5)


# -- the matcher -----------------------------------------------------------------------------------------------------


def asking(features: dict[str, Tensor], key: str) -> dict[str, Tensor]:
    return {**features, key: features[key].clone().requires_grad_()}


def test_nothing_is_recorded_unless_asked_for():
    """Users who forget `torch.no_grad()` or `eval()` lose neither time nor `.numpy()`."""
    matcher = small_matcher(filter_threshold=0.0)
    assert not LightGlue(features=None, weights=small_state(), **SMALL).training
    assert not matcher(PAIR)["matching_scores0"].requires_grad
    frozen = small_matcher(filter_threshold=0.0).requires_grad_(False).train()
    assert not frozen(PAIR)["matching_scores0"].requires_grad
    with torch.no_grad():
        assert not matcher.train()(PAIR)["matching_scores0"].requires_grad


def test_scores_carry_gradients_in_training():
    matcher = small_matcher(filter_threshold=0.0, depth_confidence=-1, width_confidence=-1).train()
    found = matcher(PAIR)
    assert len(found["matches"][0])
    found["scores"][0].log().sum().backward()
    asked = {name for name, p in matcher.named_parameters() if p.grad is not None and p.grad.abs().max() > 0}
    expected = {name for name, _ in matcher.named_parameters() if name.startswith("transformers.")}
    assert expected | {"log_assignment.2.final_proj.weight", "posenc.Wr.weight", "input_proj.weight"} <= asked


def test_a_copy_without_parameters_trains_too():
    """As `nn.DataParallel` makes them: their tensors are attributes, which lead back to the parameters."""
    matcher = small_matcher(filter_threshold=0.0, depth_confidence=-1, width_confidence=-1).train()
    found = replica(matcher, torch.clone)(PAIR)
    found["scores"][0].log().sum().backward()
    assert matcher.posenc.Wr.weight.grad.abs().max() > 0
    with torch.no_grad():
        expected = matcher(PAIR)["matching_scores0"]
    torch.testing.assert_close(found["matching_scores0"].detach(), expected)


def test_modules_beside_the_networks_own_change_nothing():
    matcher = small_matcher()
    expected, names = matcher(PAIR)["matching_scores0"], list(matcher.network.state_dict())
    matcher.loss = nn.BatchNorm1d(3)
    assert torch.equal(matcher(PAIR)["matching_scores0"], expected)
    assert list(matcher.network.state_dict()) == names
    assert "loss.weight" in matcher.state_dict()


@pytest.mark.parametrize("key", ["keypoints", "descriptors"])
def test_scores_carry_gradients_to_inputs_that_ask_for_them(key):
    matcher = small_matcher(filter_threshold=0.0)
    features = asking(PAIR["image0"], key)
    found = matcher({"image0": features, "image1": PAIR["image1"]})
    expected = matcher(PAIR)
    assert found["stop"] == expected["stop"]
    for name in ("matches0", "matches1", "prune0", "prune1"):
        assert torch.equal(found[name], expected[name])
    torch.testing.assert_close(found["matching_scores0"], expected["matching_scores0"], rtol=1e-4, atol=0)
    found["matching_scores0"].sum().backward()
    assert features[key].grad.abs().max() > 0


@pytest.mark.parametrize("depth", [-1, 0.4, 0.95])
@pytest.mark.parametrize("width", [-1, 0.9])
def test_gradients_change_no_decision(depth, width):
    matcher = small_matcher(filter_threshold=0.0, depth_confidence=depth, width_confidence=width)
    pairs = [(random_features(m, seed=m), random_features(n, seed=n)) for m, n in ((20, 25), (0, 3), (3, 40), (1, 1))]
    for found, expected in zip(copy.deepcopy(matcher).train().match(pairs), matcher.match(pairs), strict=True):
        assert found["stop"] == expected["stop"]
        for name in ("matches0", "matches1", "prune0", "prune1"):
            assert torch.equal(found[name], expected[name])
        torch.testing.assert_close(found["matching_scores0"], expected["matching_scores0"], rtol=1e-3, atol=1e-7)


def test_training_the_network_trains_the_matcher():
    matcher = small_matcher(filter_threshold=0.0)
    before = matcher(PAIR)["matching_scores0"]
    network = matcher.network
    assert {*network.state_dict()} == {*matcher.state_dict()}
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1)
    network(*inputs(*SIZES))[-1].log_assignment.mean().backward()
    optimizer.step()
    assert not torch.equal(matcher(PAIR)["matching_scores0"], before)
    other = LightGlue(features=None, weights=network.state_dict(), filter_threshold=0.0, **SMALL)
    assert torch.equal(matcher(PAIR)["matching_scores0"], other(PAIR)["matching_scores0"])


HOOKED = [
    "input_proj", "posenc", "transformers.1", "transformers.0.self_attn", "transformers.0.self_attn.inner_attn",
    "transformers.2.cross_attn.to_v", "token_confidence.0", "log_assignment.2",
]  # fmt: skip


@pytest.mark.parametrize("name", HOOKED)
def test_hooks_are_called_and_change_nothing_by_themselves(name):
    matcher = small_matcher(filter_threshold=0.0)
    expected, seen = matcher(PAIR), []
    handle = matcher.get_submodule(name).register_forward_hook(lambda *call: seen.append(call[2]))
    found = matcher(PAIR)
    assert seen
    assert torch.equal(found["matches0"], expected["matches0"])
    assert found["stop"] == expected["stop"]
    torch.testing.assert_close(found["matching_scores0"], expected["matching_scores0"], rtol=1e-4, atol=0)
    handle.remove()
    assert torch.equal(matcher(PAIR)["matching_scores0"], expected["matching_scores0"])


def test_a_replaced_module_does_what_it_does():
    class Doubled(torch.nn.Linear):
        def forward(self, x: Tensor) -> Tensor:
            return 2 * super().forward(x)

    matcher, other = small_matcher(filter_threshold=0.0), small_matcher(filter_threshold=0.0)
    block = matcher.transformers[0].self_attn
    block.out_proj, original = Doubled(32, 32), block.out_proj
    block.out_proj.load_state_dict(original.state_dict())
    with torch.no_grad():
        for p in other.transformers[0].self_attn.out_proj.parameters():
            p.mul_(2)
    found, expected = matcher(PAIR)["matching_scores0"], other(PAIR)["matching_scores0"]
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=0)


def test_threads_may_share_a_matcher():
    matcher = small_matcher(filter_threshold=0.0)
    expected = copy.deepcopy(matcher)(PAIR)["matching_scores0"]
    found: list[Tensor] = []
    threads = [threading.Thread(target=lambda: found.append(matcher(PAIR)["matching_scores0"])) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 8
    assert all(torch.equal(scores, expected) for scores in found)
