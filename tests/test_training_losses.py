"""The loss: hand-computed, the paper's formula written out, gradients, and the same on every path."""

import math
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from lightglue.matching.config import LightGlueConfig
from lightglue.matching.network import LightGlueNetwork
from lightglue.training.batches import padded
from lightglue.training.contract import IGNORED, UNMATCHABLE
from lightglue.training.losses import agreement, assignment_nll, confidence_loss, layer_weights
from lightglue.training.options import LossOptions
from lightglue.training.trainer import pair_losses
from support.training import GeneratedSamples, batch_of


def tensors(*rows):
    return torch.tensor([rows], dtype=torch.float64)


def drawn(m, n, d=5, pairs=1, seed=0):
    """Projections and matchabilities of some pairs, double."""
    generator = torch.Generator().manual_seed(seed)
    shapes = (pairs, m, d), (pairs, n, d), (pairs, m), (pairs, n)
    return [torch.randn(shape, generator=generator, dtype=torch.float64, requires_grad=True) for shape in shapes]


def truths(*rows):
    return torch.tensor(rows)


def paper(a, b, z0, z1, matches0, matches1, positive=0.5):
    """Equations 8 to 11 of arXiv 2306.13643 for one pair, entry by entry."""
    m, n = len(a), len(b)
    s = [[sum(a[i][c] * b[j][c] for c in range(len(a[i]))) for j in range(n)] for i in range(m)]
    sigma = [1 / (1 + math.exp(-z)) for z in z0], [1 / (1 + math.exp(-z)) for z in z1]

    def p(i, j):
        row = math.exp(s[i][j]) / sum(math.exp(s[i][k]) for k in range(n))
        column = math.exp(s[i][j]) / sum(math.exp(s[k][j]) for k in range(m))
        return sigma[0][i] * sigma[1][j] * row * column

    positives = [-math.log(p(i, j)) for i, j in enumerate(matches0) if j >= 0]
    negatives = [-math.log(1 - sigma[0][i]) for i, j in enumerate(matches0) if j == UNMATCHABLE]
    negatives += [-math.log(1 - sigma[1][j]) for j, i in enumerate(matches1) if i == UNMATCHABLE]
    mean = [sum(each) / max(len(each), 1) for each in (positives, negatives)]
    return positive * mean[0] + (1 - positive) * mean[1]


def test_one_keypoint_each_with_equal_odds():
    """Both softmaxes are 1 and both matchabilities one half: -log(1/4), halved by the balance."""
    judged = assignment_nll(tensors([2.0]), tensors([3.0]), tensors(0.0), tensors(0.0), truths([0]), truths([0]))
    assert judged.nll.item() == pytest.approx(0.5 * math.log(4))
    # The match has 1/4, being unmatched 1/2.
    assert (judged.choice0.tolist(), judged.choice1.tolist()) == ([[UNMATCHABLE]], [[UNMATCHABLE]])


def test_two_keypoints_by_hand():
    """Similarities (1, 0; 0, 1) and infinite matchability: -2 log(e / (e + 1)) for each match."""
    one = torch.eye(2, dtype=torch.float64)[None]
    sure = tensors(40.0, 40.0)
    judged = assignment_nll(one, one, sure, sure, truths([0, 1]), truths([0, 1]), positive=1.0)
    assert judged.nll.item() == pytest.approx(2 * math.log(1 + math.exp(-1)))
    assert judged.choice0.tolist() == [[0, 1]]


def test_unmatchable_keypoints_of_both_images_share_one_mean():
    z0, z1 = tensors(1.0, -1.0), tensors(2.0)
    judged = assignment_nll(
        tensors([0.0], [0.0]), tensors([0.0]), z0, z1, truths([UNMATCHABLE, IGNORED]), truths([UNMATCHABLE])
    )
    expected = 0.5 * (math.log(1 + math.exp(1)) + math.log(1 + math.exp(2))) / 2
    assert judged.nll.item() == pytest.approx(expected)


def test_what_is_ignored_counts_in_the_denominators_alone():
    """-log of 1/3 over the row of three, log 1 over the column."""
    a, b = tensors([0.0]), tensors([0.0], [0.0], [0.0])
    sure = tensors(50.0), tensors(50.0, 50.0, 50.0)
    ignored = truths([1]), truths([IGNORED, 0, IGNORED])
    assert assignment_nll(a, b, *sure, *ignored, positive=1.0).nll.item() == pytest.approx(math.log(3))
    nothing = truths([IGNORED]), truths([IGNORED] * 3)
    assert assignment_nll(a, b, *sure, *nothing).nll.item() == 0


@pytest.mark.parametrize("positive", [0.5, 0.2])
def test_it_is_the_papers_formula(positive):
    a, b, z0, z1 = drawn(5, 4)
    matches0, matches1 = [2, UNMATCHABLE, IGNORED, 0, UNMATCHABLE], [3, UNMATCHABLE, 0, IGNORED]
    found = assignment_nll(a, b, z0, z1, truths(matches0), truths(matches1), positive=positive)
    each = [x[0].tolist() for x in (a, b, z0, z1)]
    assert found.nll.item() == pytest.approx(paper(*each, matches0, matches1, positive), rel=1e-12)


def test_choices_are_those_of_the_networks_log_assignment():
    network = LightGlueNetwork(LightGlueConfig(input_dim=8, descriptor_dim=8, num_heads=2, n_layers=1)).double()
    heads = network.log_assignment[0]
    x0, x1 = (torch.randn(1, n, 8, dtype=torch.float64) * 3 for n in (30, 40))
    scores = heads(x0, x1)[0][0]
    nothing = torch.full((1, 30), IGNORED), torch.full((1, 40), IGNORED)
    compared = [heads.compared(x) for x in (x0, x1)], [heads.matchability(x).squeeze(-1) for x in (x0, x1)]
    judged = assignment_nll(*compared[0], *compared[1], *nothing)
    expected0, expected1 = scores[:-1].argmax(1), scores[:, :-1].argmax(0)
    assert torch.equal(judged.choice0[0], expected0.where(expected0 < 40, UNMATCHABLE))
    assert torch.equal(judged.choice1[0], expected1.where(expected1 < 30, UNMATCHABLE))
    assert (judged.choice0 >= 0).any()
    assert (judged.choice0 < 0).any()


def test_gradients():
    a, b, z0, z1 = drawn(4, 3, d=3, pairs=2)
    truth = truths([1, UNMATCHABLE, 0, IGNORED], [IGNORED] * 4), truths([2, 0, UNMATCHABLE], [UNMATCHABLE] * 3)
    assert torch.autograd.gradcheck(lambda *x: assignment_nll(*x, *truth, positive=0.3).nll, (a, b, z0, z1))


def test_gradients_of_padding_are_zero():
    a, b, z0, z1 = drawn(4, 5, d=3)
    mask0, mask1 = truths([1, 1, 1, 0]).bool(), truths([1, 1, 0, 1, 1]).bool()
    truth = truths([1, UNMATCHABLE, 3, IGNORED]), truths([UNMATCHABLE, 0, IGNORED, 2, IGNORED])

    def loss(*x):
        return assignment_nll(*x, *truth, mask0, mask1).nll

    assert torch.autograd.gradcheck(loss, (a, b, z0, z1))
    loss(a, b, z0, z1).sum().backward()
    assert a.grad[0, 3].eq(0).all()
    assert b.grad[0, 2].eq(0).all()


def test_confidences_are_right_where_the_last_layer_decides_alike():
    logits = [torch.tensor([[0.0, 2.0]]), torch.tensor([[-1.0, 0.0]])]
    choices = [torch.tensor([[3, UNMATCHABLE]]), torch.tensor([[1, 4]]), torch.tensor([[3, 4]])]
    first = (math.log(2) + math.log(1 + math.exp(2))) / 2  # right, wrong
    second = (math.log(1 + math.exp(-1)) + math.log(2)) / 2  # wrong, right
    assert confidence_loss(logits, choices).item() == pytest.approx((first + second) / 2)
    assert confidence_loss([], choices[:1]).item() == 0
    mask = torch.tensor([[True, False]])
    masked = (math.log(2) + math.log(1 + math.exp(-1))) / 2
    assert confidence_loss(logits, choices, mask).item() == pytest.approx(masked)


def test_weights_of_layers():
    assert layer_weights(4, 1.0) == [0.25] * 4
    assert layer_weights(3, 0.5) == pytest.approx([1 / 7, 2 / 7, 4 / 7])


def test_precision_and_recall_count_what_a_matcher_would_find():
    """Two sure matches, of which one is right; a third whose truth is not known; one true match is missed."""
    a = 20 * torch.eye(4)[None]
    sure = torch.full((1, 4), 20.0)
    z0 = sure.clone()
    z0[0, 3] = -20
    found = agreement(a, a, z0, sure, truths([0, UNMATCHABLE, IGNORED, 3]))
    assert [x.item() for x in found] == [2, 1, 2]


# -- through the network ----------------------------------------------------------------------------------------------


def network_and_batch(**settings):
    samples = GeneratedSamples(**{"keypoints": 20, **settings})
    torch.manual_seed(0)
    config = LightGlueConfig(input_dim=8, descriptor_dim=16, num_heads=2, n_layers=3, add_scale_ori=True)
    return LightGlueNetwork(config).double(), double(batch_of(samples, range(3)))


def double(batch):
    return replace(batch, positions=batch.positions.double(), descriptors=batch.descriptors.double())


def by_the_network(network, batch, options):
    """The loss of each pair from `LightGlueNetwork.forward` and its log assignments, pair by pair."""
    found = []
    first, second = padded(batch)
    for p in range(len(batch)):
        m, n = batch.counts[2 * p : 2 * p + 2]
        inputs = first.positions[p, :m], second.positions[p, :n], first.descriptors[p, :m], second.descriptors[p, :n]
        outputs = network(*inputs)
        matches = first.matches[p, :m], second.matches[p, :n]
        total = 0.0
        for layer in outputs:
            scores, (i,) = layer.log_assignment, (matches[0] >= 0).nonzero(as_tuple=True)
            unmatched = scores[:-1, -1][matches[0] == UNMATCHABLE], scores[-1, :-1][matches[1] == UNMATCHABLE]
            negatives = torch.cat(unmatched)
            matched = scores[i, matches[0][i]]
            total = total - sum(each.sum() / max(len(each), 1) for each in (matched, negatives)) / 2 / len(outputs)
        for layer in outputs[:-1]:
            for side, sure in enumerate((layer.confidence0, layer.confidence1)):
                both = [each.log_assignment for each in (layer, outputs[-1])]
                own, last = (each if side == 0 else each.T for each in both)
                right = own[:-1].argmax(1) == last[:-1].argmax(1)
                loss = F.binary_cross_entropy(sure, right.double())
                total = total + options.confidence * loss / 2 / (len(outputs) - 1)
        found.append(total)
    return torch.stack(found)


@pytest.mark.parametrize("ragged", [False, True])
@pytest.mark.parametrize("is_padded", [False, True])
def test_both_paths_equal_the_network_in_losses_and_gradients(ragged, is_padded):
    network, batch = network_and_batch(ragged=ragged)
    assert batch.is_even != ragged
    options = LossOptions(confidence=0.7)
    expected = by_the_network(network, batch, options)
    expected.sum().backward()
    gradients = {name: p.grad.clone() for name, p in network.named_parameters()}
    network.zero_grad()
    found = pair_losses(network, batch, options, is_padded).total
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-6)  # the confidences' mean is in float32
    found.sum().backward()
    for name, p in network.named_parameters():
        torch.testing.assert_close(p.grad, gradients[name], rtol=1e-5, atol=1e-7, msg=name)


def in_single_precision(network, batch):
    return network.float(), replace(batch, positions=batch.positions.float(), descriptors=batch.descriptors.float())


@pytest.mark.parametrize("is_padded", [False, True])
def test_products_in_bfloat16_leave_losses_and_gradients_in_float32_and_finite(is_padded):
    network, batch = in_single_precision(*network_and_batch(ragged=True))
    found = pair_losses(network, batch, LossOptions(), is_padded, torch.bfloat16)
    exact = pair_losses(network, batch, LossOptions(), is_padded)
    assert all(each.dtype == torch.float32 and each.isfinite().all() for each in found)
    torch.testing.assert_close(found.total, exact.total, rtol=0.02, atol=0)
    assert not torch.equal(found.total, exact.total)
    found.total.sum().backward()
    assert all(p.grad.dtype == torch.float32 and p.grad.isfinite().all() for p in network.parameters())


def test_packed_and_padded_give_the_same_figures_in_float32():
    network, single = in_single_precision(*network_and_batch(ragged=True))
    options = LossOptions()
    for one, other in zip(*(pair_losses(network, single, options, each) for each in (False, True)), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)


def test_a_pair_with_an_empty_image_has_no_loss_and_disturbs_no_other():
    network, batch = network_and_batch()
    counts = (*batch.counts[:3], 0, *batch.counts[4:])
    keep = torch.ones(len(batch.matches), dtype=torch.bool)
    keep[60:80] = False
    emptied = type(batch)(
        batch.numbers, batch.views, counts, batch.positions[keep], batch.descriptors[keep], batch.matches[keep]
    )
    whole, found = (pair_losses(network, each, LossOptions()).total for each in (batch, emptied))
    assert found[1] == 0
    torch.testing.assert_close(found[[0, 2]], whole[[0, 2]])
