"""Options of the matcher: published names, defaults and behaviour."""

from __future__ import annotations

import copy
import pickle
import warnings
from typing import ClassVar

import numpy as np
import pytest
import torch

from lightglue.errors import InputError
from lightglue.matching.lightglue import LightGlue
from lightglue.support.precision import cpu_has_fast_bfloat16
from support.matching import SMALL, random_features, small_matcher, small_state

PAIR = {"image0": random_features(20, seed=1), "image1": random_features(25, seed=2)}


def test_defaults_are_the_published_ones():
    assert dict(LightGlue.default_conf) == {
        "name": "lightglue",
        "input_dim": 256,
        "descriptor_dim": 256,
        "add_scale_ori": False,
        "n_layers": 9,
        "num_heads": 4,
        "flash": True,
        "mp": False,
        "depth_confidence": 0.95,
        "width_confidence": 0.99,
        "filter_threshold": 0.1,
        "weights": None,
    }
    assert LightGlue.__init__.__defaults__ == ("superpoint",)


def test_feature_types_are_the_published_ones():
    sift_like = {"input_dim": 128, "add_scale_ori": True}
    assert {name: dict(preset) for name, preset in LightGlue.features.items()} == {
        "superpoint": {"weights": "superpoint_lightglue", "input_dim": 256, "add_scale_ori": False},
        "disk": {"weights": "disk_lightglue", "input_dim": 128, "add_scale_ori": False},
        "aliked": {"weights": "aliked_lightglue", "input_dim": 128, "add_scale_ori": False},
        "sift": {"weights": "sift_lightglue", **sift_like},
        "doghardnet": {"weights": "doghardnet_lightglue", **sift_like},
        "raco-aliked": {"weights": "raco_aliked_lightglue", "input_dim": 128, "add_scale_ori": False},
        "xfeat": {  # not in the published package
            "weights": "xfeat-lighterglue",
            "input_dim": 64,
            "add_scale_ori": False,
            "descriptor_dim": 96,
            "num_heads": 1,
        },
    }


def test_the_feature_type_sets_the_input_as_published():
    """glue-factory passes every default along with `features`, input_dim=256 among them."""
    matcher = LightGlue(**{"features": "aliked", **LightGlue.default_conf, "n_layers": 1})
    assert (matcher.conf.input_dim, matcher.conf.weights) == (128, "aliked_lightglue")


@pytest.mark.parametrize(
    ("wrong", "hint"), [("alikid", "'aliked'"), ("SuperPoint", "'superpoint'"), ("", "valid"), (["aliked"], "valid")]
)
def test_an_unknown_feature_type_names_the_nearest(wrong, hint):
    with pytest.raises(InputError, match=hint):
        LightGlue(features=wrong)


def test_an_unknown_option_warns_and_names_the_nearest():
    with pytest.warns(UserWarning, match=r"'filter_treshold'; did you mean 'filter_threshold'\?") as caught:
        matcher = small_matcher(filter_treshold=0.5)
    assert matcher.conf.filter_threshold == 0.1
    assert len(caught) == 1


def test_a_misspelt_feature_type_keyword_is_noticed():
    """Code in the wild says feature="disk" and gets SuperPoint."""
    with pytest.warns(UserWarning, match="did you mean 'features'"):
        LightGlue(None, feature="disk", weights=small_state(), **SMALL)


def test_the_warning_points_at_the_callers_line():
    with pytest.warns(UserWarning, match="treshold") as caught:
        LightGlue(features=None, weights=small_state(), **SMALL, treshold=1)
    assert caught[0].filename == __file__


@pytest.mark.parametrize("keyword", ["name", "compile", "trainable", "timeit", "freeze_batch_normalization"])
def test_what_known_callers_pass_is_let_through(keyword):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert getattr(small_matcher(**{keyword: False}).conf, keyword) is False


@pytest.mark.parametrize(
    "option",
    [
        *[{"n_layers": 0}, {"n_layers": 2.0}, {"n_layers": True}, {"num_heads": 3}, {"num_heads": -4}],
        *[{"input_dim": "many"}, {"descriptor_dim": None}, {"depth_confidence": "high"}],
        *[{"filter_threshold": float("nan")}, {"width_confidence": float("inf")}, {"width_confidence": None}],
    ],
    ids=str,
)
def test_an_impossible_option_is_refused_by_name(option):
    (name,) = option
    with pytest.raises(InputError, match=name):
        LightGlue(features=None, weights=small_state(), **{**SMALL, **option})


def test_a_threshold_changed_in_conf_counts_at_the_next_call():
    matcher = small_matcher(filter_threshold=0.0)
    assert len(matcher(PAIR)["scores"][0]) > 0
    matcher.conf.filter_threshold = 1.0
    assert len(matcher(PAIR)["scores"][0]) == 0
    matcher.conf.filter_threshold = "high"
    with pytest.raises(InputError, match="filter_threshold"):
        matcher(PAIR)


def test_depth_confidence_minus_one_runs_every_layer():
    assert small_matcher(depth_confidence=-1)(PAIR)["stop"] == 3
    assert small_matcher(depth_confidence=1e-6)(PAIR)["stop"] < 3


def test_pruning_starts_above_the_number_of_keypoints_for_the_device():
    assert dict(LightGlue.pruning_keypoint_thresholds) == {"cpu": -1, "mps": -1, "cuda": 1024, "flash": 1536}
    matcher = small_matcher(depth_confidence=-1, width_confidence=0.97)
    assert matcher(PAIR)["prune0"].min() < matcher(PAIR)["prune0"].max()
    matcher.pruning_keypoint_thresholds["cpu"] = 20
    assert (matcher(PAIR)["prune0"] == 1).all()
    assert matcher(PAIR)["prune1"].max() > 1
    assert LightGlue.pruning_keypoint_thresholds["cpu"] == -1, "one matcher's setting is its own"


def test_the_class_wide_pruning_threshold_can_be_tuned_as_published(monkeypatch):
    """The published README: update `LightGlue.pruning_keypoint_thresholds['cuda']`."""
    matcher = small_matcher()
    monkeypatch.setitem(LightGlue.pruning_keypoint_thresholds, "cpu", 512)
    assert matcher.pruning_min_kpts(torch.device("cpu")) == 512


@pytest.mark.parametrize(("flash", "limit"), [(True, 1536), (False, 1024)])
def test_on_cuda_the_threshold_depends_on_flash(flash, limit):
    assert small_matcher(flash=flash).pruning_min_kpts(torch.device("cuda")) == limit


@pytest.mark.skipif(not cpu_has_fast_bfloat16(), reason="this CPU has no bfloat16 instructions; mp changes nothing")
def test_mixed_precision_on_a_cpu_gives_float32_results_close_to_the_exact_ones(reference):
    images = {
        f"image{i}": {k: torch.from_numpy(v) for k, v in reference(f"aliked-n16_montmartre_{i}").items()}
        for i in (0, 1)
    }
    exact, reduced = (LightGlue(features="aliked", mp=mp).eval()(images) for mp in (False, True))
    assert reduced["matching_scores0"].dtype == torch.float32
    assert not torch.equal(reduced["matching_scores0"], exact["matching_scores0"])
    assert (reduced["matches0"] == exact["matches0"]).float().mean() > 0.97


def test_the_matcher_is_as_independent_of_training_mode_as_the_published_one():
    matcher = small_matcher(filter_threshold=0.0)
    evaluated = matcher(PAIR)
    with torch.no_grad():
        assert torch.equal(matcher.train()(PAIR)["matching_scores0"], evaluated["matching_scores0"])
    trained = matcher(PAIR)
    assert torch.equal(trained["matches0"], evaluated["matches0"])
    torch.testing.assert_close(trained["matching_scores0"], evaluated["matching_scores0"], rtol=1e-4, atol=0)


def test_a_subclass_may_change_defaults_and_add_feature_types():
    class Mine(LightGlue):
        default_conf: ClassVar = {**LightGlue.default_conf, **SMALL, "filter_threshold": 0.9}
        features: ClassVar = {**LightGlue.features, "mine": {"input_dim": 16}}

    matcher = Mine("mine", weights=small_state())
    assert (matcher.conf.filter_threshold, matcher.conf.descriptor_dim, matcher.feature_type) == (0.9, 32, "mine")


def test_numbers_may_come_from_numpy():
    matcher = small_matcher(filter_threshold=np.float32(0.25), depth_confidence=np.int64(-1))
    assert matcher(PAIR)["stop"] == 3


@pytest.mark.parametrize("name", ["n_layers", "num_heads", "input_dim", "descriptor_dim"])
def test_the_architecture_cannot_be_changed_afterwards(name):
    matcher = small_matcher()
    setattr(matcher.conf, name, 1 if name == "num_heads" else 8)
    with pytest.raises(InputError, match=f"conf.{name}"):
        matcher(PAIR)


def test_keywords_of_known_callers_stay_readable():
    assert small_matcher(trainable=False).conf.trainable is False


@pytest.mark.parametrize("limits", [{"cpu": 100}, {"cpu": 100, "cuda": 0}])
def test_pruning_thresholds_may_be_replaced_by_fewer(limits):
    matcher = small_matcher()
    matcher.pruning_keypoint_thresholds = limits
    assert (matcher(PAIR)["prune0"] == 1).all()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_an_outer_autocast_changes_nothing(dtype):
    matcher = small_matcher(filter_threshold=0.0)
    with torch.autocast("cpu", dtype):
        found = matcher(PAIR)
    assert torch.equal(found["matching_scores0"], matcher(PAIR)["matching_scores0"])


def test_another_default_dtype_changes_nothing():
    matcher = small_matcher(filter_threshold=0.0)
    expected, state = matcher(PAIR), small_state()
    torch.set_default_dtype(torch.float64)
    try:
        double = LightGlue(features=None, weights=state, **SMALL, filter_threshold=0.0)
        found = double(PAIR)
    finally:
        torch.set_default_dtype(torch.float32)
    assert torch.equal(found["matches0"], expected["matches0"])


@pytest.mark.parametrize("copy", [copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m))], ids=["deepcopy", "pickle"])
def test_copies_match_alike_and_do_not_carry_derived_matrices(copy):
    matcher = small_matcher(filter_threshold=0.0)
    size = len(pickle.dumps(matcher))
    expected = matcher(PAIR)["matching_scores0"]
    assert abs(len(pickle.dumps(matcher)) - size) < size / 10
    assert torch.equal(copy(matcher)(PAIR)["matching_scores0"], expected)


def test_building_on_the_meta_device_is_refused():
    with pytest.raises(InputError, match="meta"), torch.device("meta"):
        LightGlue(features=None, weights=small_state(), **SMALL)


@pytest.mark.parametrize("name", ["fast", None, ["tuned"]])
def test_an_unknown_preset_of_pruning_is_refused_with_the_valid_ones(name):
    with pytest.raises(InputError, match="published, tuned"):
        LightGlue(features=None, weights=small_state(), **SMALL, pruning=name)


def test_the_tuned_preset_changes_the_instance_alone():
    tuned, plain = small_matcher(pruning="tuned"), small_matcher()
    assert tuned.pruning_min_kpts(torch.device("cpu")) == 128
    assert plain.pruning_min_kpts(torch.device("cpu")) == -1
    assert LightGlue.pruning_keypoint_thresholds["cpu"] == -1
