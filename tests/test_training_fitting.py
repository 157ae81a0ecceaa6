"""After training: confidence heads, calibration and overlap are fitted, and the matcher heeds them."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from lightglue.errors import InputError
from lightglue.matching.calibration import Calibration
from lightglue.matching.lightglue import LightGlue
from lightglue.matching.overlap import COEFFICIENTS, overlap_probability
from lightglue.stores.features import ImageFeatures
from lightglue.training.contract import IGNORED, UNMATCHABLE, Sample, Truth
from lightglue.training.fitting import logistic
from lightglue.training.fitting.calibration import (
    Scored,
    calibration_error,
    fit_calibration,
    judged_matches,
    reliability,
    scored_matches,
)
from lightglue.training.fitting.confidence import fit_heads, token_rows
from lightglue.training.fitting.overlap import different, evidence_of, fit_overlap
from support.matching import small_matcher


def features(count: int, seed: int) -> ImageFeatures:
    drawn = np.random.default_rng(seed)
    descriptors = drawn.normal(size=(count, 16))
    descriptors /= np.linalg.norm(descriptors, axis=1, keepdims=True)
    keypoints = drawn.uniform(0, 400, (count, 2)).astype(np.float32)
    return ImageFeatures(keypoints, descriptors.astype(np.float16), np.ones(count, np.float32), (400, 400), "own")


def sample(seed: int, count: int = 24) -> Sample:
    """A pair of which image 1 is image 0 with its keypoints in another order."""
    one = features(count, seed)
    order = np.random.default_rng((seed, 1)).permutation(count)
    other = ImageFeatures(one.keypoints[order], one.descriptors[order], one.scores, one.image_size, "own")
    return Sample((f"{seed}#0", f"{seed}#1"), one, other, Truth(np.argsort(order), order))


SAMPLES = [sample(seed) for seed in range(20)]


def matcher() -> LightGlue:
    made = small_matcher()
    made.conf.width_confidence = -1
    return made


# -- logistic regression ---------------------------------------------------------------------------------------------


def test_the_coefficients_of_a_known_distribution_are_found():
    drawn = np.random.default_rng(0)
    x = drawn.normal((1.0, -2.0), (1.0, 3.0), (20_000, 2))
    y = drawn.random(20_000) < logistic.probabilities(np.array([0.5, -1.0, 0.25]), x)
    assert logistic.fit(x, y, 1e-6) == pytest.approx([0.5, -1.0, 0.25], abs=0.06)


def test_at_the_optimum_the_plain_formula_has_no_gradient():
    drawn = np.random.default_rng(1)
    x = drawn.normal(size=(300, 3))
    y = x[:, 0] + drawn.normal(size=300) > 0
    b = logistic.fit(x, y, 0.0)
    p_mean = 1 / (1 + np.exp(-(b[0] + b[1:] @ x.mean(0))))
    residual = logistic.probabilities(b, x) - y
    assert residual.sum() + 2 * p_mean - 1 == pytest.approx(0, abs=1e-5)


def test_classes_without_overlap_or_of_one_kind_give_finite_coefficients():
    x = np.linspace(-1, 1, 50)[:, None]
    for y in (x[:, 0] > 0, np.ones(50, bool), np.zeros(50, bool)):
        assert np.isfinite(logistic.fit(x, y, 1.0)).all()


def test_a_strong_ridge_gives_its_centre():
    x, y = np.random.default_rng(0).normal(size=(40, 2)), np.arange(40) % 2 == 0
    assert logistic.fit(x, y, 1e9, np.array([1.0, 2.0, 3.0])) == pytest.approx([1.0, 2.0, 3.0], abs=1e-3)


# -- confidence ------------------------------------------------------------------------------------------------------


def test_the_target_is_that_the_match_of_a_layer_is_the_last_ones_with_unmatched_as_a_match():
    made = matcher()
    rows = token_rows(made, SAMPLES[:1])
    one, other = (
        made._single(f.torch(), "image", made.checked_conf()) for f in (SAMPLES[0].features0, SAMPLES[0].features1)
    )
    with torch.no_grad():
        outputs = made.network(one.positions, other.positions, one.descriptors, other.descriptors)
    first, last = outputs[0].log_assignment, outputs[-1].log_assignment
    expected = [int(first[i].argmax()) == int(last[i].argmax()) for i in range(24)]
    expected += [int(first[:, j].argmax()) == int(last[:, j].argmax()) for j in range(24)]
    assert rows[0].agree.tolist() == expected
    assert torch.equal(torch.from_numpy(rows[0].tokens[:24]), outputs[0].x0)


def test_heads_are_fitted_in_place_and_nothing_else_is():
    made = matcher()
    before = {name: value.clone() for name, value in made.state_dict().items()}
    fits = fit_heads(made, SAMPLES)
    assert [fit.layer for fit in fits] == [1, 2]
    assert all(fit.after < fit.before and fit.replaced for fit in fits)  # the small network's heads are random
    changed = {name for name, value in made.state_dict().items() if not torch.equal(value, before[name])}
    assert changed == {f"token_confidence.{i}.token.0.{name}" for i in (0, 1) for name in ("weight", "bias")}


def test_a_head_that_is_right_already_is_not_made_worse():
    made = matcher()
    fit_heads(made, SAMPLES)
    again = fit_heads(made, SAMPLES)
    assert all(fit.after <= fit.before or not fit.replaced for fit in again)
    kept = {name: value.clone() for name, value in made.state_dict().items()}
    left = [fit for fit in fit_heads(made, SAMPLES) if not fit.replaced]
    for fit in left:
        name = f"token_confidence.{fit.layer - 1}.token.0.weight"
        assert torch.equal(made.state_dict()[name], kept[name])


def test_fitted_heads_stop_a_pair_whose_matches_no_longer_change():
    """Where each layer's matches are the last one's, fitted heads are sure at once, and those before never were."""
    made = matcher()
    with torch.no_grad():
        for block in (each for layer in made.transformers for each in (layer.self_attn, layer.cross_attn)):
            block.ffn[3].weight.zero_()
            block.ffn[3].bias.zero_()
        for head in made.log_assignment[:-1]:
            head.load_state_dict(made.log_assignment[-1].state_dict())
        for head in made.token_confidence:
            head.token[0].weight.zero_()
            head.token[0].bias.fill_(-9)
    pair = {"image0": SAMPLES[0].features0.torch(), "image1": SAMPLES[0].features1.torch()}
    assert made(pair)["stop"] == 3
    fit_heads(made, SAMPLES)
    assert made(pair)["stop"] == 1


def test_the_fit_does_not_depend_on_chance():
    one, other = matcher(), matcher()
    assert repr(fit_heads(one, SAMPLES)) == repr(fit_heads(other, SAMPLES))
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), other.parameters(), strict=True))


def test_pairs_without_keypoints_are_left_out_and_nothing_but_them_is_an_error():
    empty = Sample(("a", "b"), features(0, 0), features(5, 1), Truth(np.zeros(0, np.int64), np.full(5, UNMATCHABLE)))
    assert len(token_rows(matcher(), [empty, SAMPLES[0]])[0].tokens) == 48
    with pytest.raises(InputError, match="None of 1 pairs has keypoints"):
        fit_heads(matcher(), [empty])


# -- calibration -----------------------------------------------------------------------------------------------------


def test_a_match_is_right_wrong_or_unknown():
    truth = Truth(np.array([1, UNMATCHABLE, IGNORED, IGNORED]), np.array([UNMATCHABLE, 0, IGNORED]))
    ij = np.array([[0, 1], [0, 0], [1, 2], [2, 2], [3, 0], [2, 1]])
    correct, known = judged_matches(ij, truth)
    assert correct.tolist() == [True, False, False, False, False, False]
    assert known.tolist() == [True, True, True, False, True, True]


def test_scores_that_are_too_low_are_calibrated():
    drawn = np.random.default_rng(0)
    p = drawn.uniform(0.02, 0.98, 5_000)
    said = Calibration(0.0, 1.0)
    scores = np.array([said.threshold(float(x)) for x in p]) ** 2  # products of two
    scored = Scored(scores.astype(np.float32), drawn.random(5_000) < p, np.zeros(5_000, np.int64))
    fitted = fit_calibration(scored)
    assert fitted is not None
    after = calibration_error(fitted.probability(scored.scores), scored.correct)
    assert after < 0.3 * calibration_error(scored.scores, scored.correct)
    assert after < 0.04


@pytest.mark.parametrize("scored", [
    Scored(np.zeros(0, np.float32), np.zeros(0, bool), np.zeros(0, np.int64)),
    Scored(np.linspace(0, 1, 999, dtype=np.float32), np.linspace(0, 1, 999) < 0.5, np.zeros(999, np.int64)),
])  # fmt: skip
def test_scores_that_say_nothing_are_not_calibrated(scored):
    assert fit_calibration(scored) is None


def test_all_mutual_partners_are_judged_and_the_threshold_is_as_before():
    made = matcher()
    scored = scored_matches(made, SAMPLES[:3])
    assert made.conf.filter_threshold == 0.1
    assert set(scored.pair.tolist()) == {0, 1, 2}
    assert len(scored.scores) == len(scored.correct) > 0
    assert sum(each.count for each in reliability(scored.scores, scored.correct)) == len(scored.scores)


# -- overlap ---------------------------------------------------------------------------------------------------------


def test_coefficients_tell_pairs_apart_and_are_what_the_matcher_computes_with():
    made = matcher()
    positives = [(each.features0, each.features1) for each in SAMPLES] * 2
    negatives = different([(each.views[0][:-2], each.features0) for each in SAMPLES], 40, seed=0)
    good, bad = evidence_of(made, positives), evidence_of(made, negatives)
    found = fit_overlap(good, bad, None)
    assert (found.positives, found.negatives) == (40, 40)
    assert found.auc > 0.8
    made.overlap = found.coefficients
    pair = {"image0": positives[0][0].torch(), "image1": positives[0][1].torch()}
    matches = made(pair)
    assert found.coefficients is not None
    assert matches["overlap"] == overlap_probability(matches["matching_scores0"][0], 24, 24, found.coefficients)


def test_pairs_told_apart_without_a_fault_keep_a_curve_as_steep_as_the_published_one():
    drawn = np.random.default_rng(0)
    good, bad = drawn.normal((5, -1), 0.3, (500, 2)), drawn.normal((0.2, -6), 0.3, (500, 2))
    found = fit_overlap(good, bad, "aliked")
    assert found.auc == 1
    assert found.coefficients is not None
    assert 0.3 < found.coefficients.amount / COEFFICIENTS["aliked"].amount < 2


def test_too_few_pairs_fit_nothing():
    assert fit_overlap(np.zeros((3, 2)), np.zeros((500, 2)), "aliked").coefficients is None


def test_negatives_are_of_different_images_and_one_image_has_none():
    items = [(str(k // 2), features(3, k)) for k in range(8)]
    owner = {id(each): name for name, each in items}
    drawn = different(items, 10, seed=3)
    assert len(drawn) == 10
    assert all(owner[id(one)] != owner[id(other)] for one, other in drawn)
    assert different(items[:2], 10, seed=3) == []
