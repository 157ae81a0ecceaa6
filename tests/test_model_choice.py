"""Which models are loaded for a choice in words and numbers."""

from __future__ import annotations

import subprocess
import sys
from functools import partial
from typing import Any
from unittest import mock

import pytest
import torch

import lightglue
from lightglue.models.choice import MATCHERS, Models
from lightglue.models.defaults import EXTRACTORS, TRAINED_ON


@pytest.fixture
def built(monkeypatch: pytest.MonkeyPatch) -> dict[str, dict[str, Any]]:
    """The options that each class is built with; nothing is loaded."""
    made: dict[str, dict[str, Any]] = {}

    def recorder(name: str, **conf: Any) -> mock.MagicMock:
        made[name] = conf
        return mock.MagicMock()

    for name in {name for name, _ in EXTRACTORS.values()} | {"LightGlue", "NearestNeighbor"}:
        known = getattr(lightglue, name).default_conf
        monkeypatch.setattr(lightglue, name, mock.Mock(side_effect=partial(recorder, name), default_conf=known))
    return made


def test_the_choice_is_made_without_loading_torch() -> None:
    script = (
        "import sys; from lightglue.models.choice import Models; Models('aliked', 9)\n"
        "assert not {'torch', 'numpy', 'cv2'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", script], check=True)


@pytest.mark.parametrize("features", EXTRACTORS)
def test_every_feature_type_has_an_extractor_and_goes_with_a_matcher(
    features: str, built: dict[str, dict[str, Any]]
) -> None:
    Models(features, 77, device="cpu", mp=False).load()
    name, options = EXTRACTORS[features]
    assert built[name]["max_num_keypoints"] == 77
    assert built[name].items() >= dict(options).items()
    assert set(built[name]) <= {*getattr(lightglue, name).default_conf, "commercial_only"}
    assert built["LightGlue"]["features"] == TRAINED_ON.get(features, features)
    assert built["LightGlue"]["pruning"] == "tuned"


def test_own_options_come_before_the_usual_ones(built: dict[str, dict[str, Any]]) -> None:
    thresholds, extractor = {"filter_threshold": 0.3}, {"detection_threshold": 0.2, "max_num_keypoints": 5}
    Models("aliked", 77, "cpu", True, True, thresholds, extractor=extractor).load()
    assert built["ALIKED"] == {
        "max_num_keypoints": 5,
        "detection_threshold": 0.2,
        "commercial_only": True,
        "mp": True,
    }
    assert built["LightGlue"]["filter_threshold"] == 0.3
    assert (built["LightGlue"]["mp"], built["LightGlue"]["commercial_only"]) == (True, True)


def test_sift_has_no_weights_to_say_anything_of(built: dict[str, dict[str, Any]]) -> None:
    Models("sift", 77, "cpu", True, True).load_extractor()
    assert built == {"SIFT": {"max_num_keypoints": 77}}


def test_nearest_neighbours_take_their_thresholds_only(built: dict[str, dict[str, Any]]) -> None:
    assert "nearest" in MATCHERS
    Models("disk", 77, "cpu", matcher="nearest", thresholds={"ratio_thresh": 0.8}).load_matcher()
    assert built == {"NearestNeighbor": {"ratio_thresh": 0.8}}


def test_models_come_in_evaluation_mode_on_their_device() -> None:
    matcher = Models("sift", 77, "cpu", matcher="nearest").load_matcher()
    assert not matcher.training
    assert Models("sift", 77, "cpu").found_device().type == "cpu"


def test_reduced_precision_is_asked_for_or_as_the_device_likes_it() -> None:
    assert Models("disk", 1, "cpu", mp=True).with_mp()
    assert not Models("disk", 1, "cpu", mp=False).with_mp()
    with mock.patch("lightglue.models.choice.default_mp", return_value=True) as asked:
        assert Models("disk", 1, "cpu").with_mp()
    assert asked.call_args.args[0].type == "cpu"
    assert asked.call_args.args[1] == "disk"


def test_xfeat_stays_in_float32() -> None:
    with mock.patch("lightglue.support.precision.product_dtype", return_value=torch.bfloat16):
        assert Models("aliked", 1, "cpu").with_mp()
        assert not Models("xfeat", 1, "cpu").with_mp()
    assert Models("xfeat", 1, "cpu", mp=True).with_mp()
