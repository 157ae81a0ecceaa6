"""Which models are loaded for a choice in words and numbers."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any
from unittest import mock

import cv2
import numpy as np
import pytest
import torch

import lightglue
from lightglue.errors import InputError
from lightglue.matching.config import PRESETS
from lightglue.models.choice import MATCHERS, Models
from lightglue.models.registry import FEATURES


@pytest.fixture
def built(monkeypatch: pytest.MonkeyPatch) -> dict[str, dict[str, Any]]:
    """The options that each class is built with; nothing is loaded."""
    made: dict[str, dict[str, Any]] = {}
    monkeypatch.setattr("lightglue.weights.table.OWN", {})  # whether published weights are here is no matter

    def recorder(name: str, **conf: Any) -> mock.MagicMock:
        made[name] = conf
        return mock.MagicMock()

    owners = {(row.module, row.extractor) for row in FEATURES.values()}
    matchers = {("lightglue.matching.lightglue", "LightGlue"), ("lightglue.matching.nearest", "NearestNeighbor")}
    loaded = [(import_module(module), name) for module, name in owners | matchers]  # before any base class is replaced
    for owner, name in loaded:
        known = getattr(owner, name).default_conf
        monkeypatch.setattr(owner, name, mock.Mock(side_effect=partial(recorder, name), default_conf=known))
    return made


def test_the_choice_is_made_without_loading_torch() -> None:
    script = (
        "import sys; from lightglue.models.choice import Models; Models('aliked', 9)\n"
        "assert not {'torch', 'numpy', 'cv2'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", script], check=True)


@pytest.mark.parametrize("features", FEATURES)
def test_every_feature_type_has_an_extractor_and_goes_with_a_matcher(
    features: str, built: dict[str, dict[str, Any]]
) -> None:
    Models(features, 77, device="cpu", mp=False).load()
    row = FEATURES[features]
    options = built[row.extractor]
    assert options["max_num_keypoints"] == 77
    assert options.items() >= dict(row.best).items()
    assert set(options) <= {*row.load().default_conf, "commercial_only"}
    assert row.matcher in PRESETS
    assert built["LightGlue"]["features"] == row.matcher
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


@pytest.mark.parametrize("wrong", [{"features": "orb"}, {"matcher": "superglue"}])
def test_what_there_is_not_is_refused_at_once(wrong: dict[str, str]) -> None:
    with pytest.raises(InputError, match="choose one of"):
        Models(**wrong)


def test_every_extractor_is_a_public_name() -> None:
    owners = {row.extractor: row.module for row in FEATURES.values()}
    assert owners.items() <= lightglue._OWNERS.items()
    assert all(getattr(lightglue, row.extractor) is row.load() for row in FEATURES.values())


# One file with a class, and one row: all that a new extractor takes.
TOY = """
import torch
from lightglue.extractors.base import Extractor

class Corners(Extractor):
    '''Where contrast is highest, described by the pixels around.'''

    default_conf = {"max_num_keypoints": 64}
    preprocess_conf = {"resize": None}

    def forward(self, data):
        image, _ = self.images_in(data)
        gray = torch.nn.functional.unfold(image.mean(1, keepdim=True), 9)
        best = gray.std(dim=1).topk(self.conf.max_num_keypoints).indices
        width = image.shape[-1] - 8
        x, y = best % width + 4, best // width + 4
        described = gray.gather(2, best[:, None].expand(-1, 81, -1)).transpose(1, 2)
        described = torch.nn.functional.normalize(described - described.mean(-1, keepdim=True), dim=-1)
        return {"keypoints": torch.stack((x, y), -1).float(), "descriptors": described}
"""


def test_a_new_extractor_is_one_file_and_one_row(tmp_path: Path) -> None:
    (tmp_path / "corners.py").write_text(TOY)
    pixels = np.random.default_rng(0).integers(0, 256, (60, 80), np.uint8)
    cv2.imwrite(str(tmp_path / "a.png"), pixels)
    cv2.imwrite(str(tmp_path / "b.png"), np.roll(pixels, 3, axis=1))
    script = """
from lightglue.models import registry
registry._FEATURES["corners"] = registry.FeatureType("corners", "Corners", weights=False)
from lightglue.cli import main
main()
"""
    command = [sys.executable, "-c", script, "match", "a.png", "b.png", "--features", "corners", "--json"]
    options = ["--matcher", "nearest", "--max-keypoints", "40", "--resize", "none", "--device", "cpu"]
    path = os.pathsep.join([str(tmp_path), *sys.path])
    done = subprocess.run(
        [*command, *options], cwd=tmp_path, env={**os.environ, "PYTHONPATH": path}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert "ignores" not in done.stderr
    found = json.loads(done.stdout)
    moved = np.subtract(found["points1"], found["points0"])
    assert len(moved) > 20
    assert (np.median(moved, axis=0) == [3, 0]).all()
    refused = subprocess.run(
        [*command, "--device", "cpu"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
    )
    assert refused.returncode != 0
    assert "nearest" in refused.stderr


def test_the_documented_module_is_found_where_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "lightglue.model_choice", raising=False)
    with pytest.warns(DeprecationWarning, match=r"lightglue\.model_choice is now lightglue\.models\.choice"):
        moved = import_module("lightglue.model_choice")
    assert moved.Models is Models
    assert moved.MATCHERS is MATCHERS
