"""Weights of one's own wherever a matcher is chosen: `Models(weights=...)`, and --weights of the commands."""

from __future__ import annotations

import json
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import torch

from lightglue.errors import InputError, LightGlueError, WeightsError
from lightglue.matching import checkpoint
from lightglue.matching.config import LightGlueConfig
from lightglue.matching.lightglue import LightGlue
from lightglue.matching.network import LightGlueNetwork
from lightglue.matching.overlap import Coefficients
from lightglue.models.choice import Models
from lightglue.models.loaded import load_models
from lightglue.pairs.options import PairOptions
from lightglue.sfm.options import MatchOptions
from lightglue.sfm.pipeline import SfmOptions, run_stage
from lightglue.stores import MatchStore
from support import A, B
from support.command import lightglue
from support.matching import SMALL, random_features, small_state

FEW = ("--features", "sift", "--max-keypoints", "100", "--resize", "240", "--device", "cpu")
run = partial(lightglue, "match")


def write(path: Path, features: str | None = "sift", threshold: float = 0.0, **extra: object) -> Path:
    """A small matcher's file, for descriptors of 128 numbers."""
    config = LightGlueConfig(**{**SMALL, "input_dim": 128, "filter_threshold": threshold})
    network = LightGlueNetwork(config)
    network.load_state_dict(small_state(input_dim=128), strict=False)
    checkpoint.save(path, network, config, features, None, **extra)  # type: ignore[arg-type]
    return path


@pytest.fixture
def own(tmp_path: Path) -> Path:
    return write(tmp_path / "own.safetensors")


def test_the_file_is_what_is_matched_with(own):
    models = Models("sift", device="cpu", weights=str(own))
    found, there = models.load_matcher(), LightGlue.load(own)
    assert found.conf.filter_threshold == 0.0  # as the file has it
    assert all(map(torch.equal, found.state_dict().values(), there.state_dict().values()))
    assert replace(models, thresholds={"filter_threshold": 0.3}).load_matcher().conf.filter_threshold == 0.3


@pytest.mark.parametrize("backend", ["onnx", "openvino"])
def test_so_it_is_in_other_runtimes(own, backend):
    pytest.importorskip("openvino" if backend == "openvino" else "onnxruntime")
    pair = {f"image{k}": random_features(20, seed=k, dim=128) for k in (0, 1)}
    models = Models("sift", device="cpu", weights=str(own))
    expected = models.load_matcher()(pair)["matching_scores0"]
    found = replace(models, backend=backend).load_matcher()(pair)["matching_scores0"]
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=0)


def test_a_file_for_other_features_is_refused_with_the_right_ones(own):
    with pytest.raises(WeightsError, match="own.safetensors is for the features sift, not disk"):
        Models("disk", weights=str(own)).load_matcher()


def test_a_file_of_own_features_is_refused_for_those_of_the_package(tmp_path):
    path = write(tmp_path / "own.safetensors", None, record={"feature_type": "mine:Extractor"})
    with pytest.raises(WeightsError, match=r"trained on mine:Extractor.*LightGlue\.load"):
        Models("sift", weights=str(path)).load_matcher()


def test_a_file_that_is_not_there_is_not_replaced_by_the_published_one(tmp_path):
    with pytest.raises(WeightsError, match="There is no weight file"):
        Models("sift", weights=str(tmp_path / "no.safetensors")).load_matcher()


def test_a_file_that_was_cut_off_is_an_error(own):
    own.write_bytes(own.read_bytes()[:1000])
    with pytest.raises(LightGlueError, match=r"own\.safetensors"):
        Models("sift", weights=str(own)).load_matcher()


def test_nearest_neighbours_have_no_weights(own):
    with pytest.raises(InputError, match="weights are for LightGlue"):
        Models("sift", matcher="nearest", weights=str(own))


def test_records_say_which_file_by_its_digest_and_nothing_without_one(own, tmp_path):
    copy = tmp_path / "copy.safetensors"
    copy.write_bytes(own.read_bytes())
    models = Models("sift", device="cpu", weights=str(own))
    assert models.decisive()["weights"] == models.own.sha256
    assert replace(models, weights=str(copy)).decisive() == models.decisive()
    assert "weights" not in Models("aliked").decisive()
    assert MatchOptions(models).settings()["weights"] == models.own.sha256
    assert "weights" not in MatchOptions(Models("aliked", device="cpu")).settings()


def test_a_file_that_has_changed_is_loaded_again(own):
    models = Models("sift", 50, "cpu", weights=str(own))
    first = load_models(models)
    assert load_models(models) is first
    write(own, threshold=0.25)
    assert load_models(models).matcher.conf.filter_threshold == 0.25


def test_a_least_overlap_may_be_asked_for_where_the_file_says_one(own, tmp_path):
    fitted = write(tmp_path / "fitted.safetensors", fitted=checkpoint.Fitted(Coefficients(0.1, 0.2, 0.3)))
    without = write(tmp_path / "without.safetensors", "aliked", fitted=checkpoint.Fitted())
    options = PairOptions(min_overlap=0.5)
    options.check_models(Models("sift", weights=str(fitted)))
    MatchOptions(Models("sift", weights=str(fitted)), 0.5)
    for models in (Models("sift"), Models("sift", weights=str(own)), Models("aliked", weights=str(without))):
        with pytest.raises(InputError, match=r"no overlap.*leave min_overlap out"):
            options.check_models(models)
        with pytest.raises(InputError, match="no probability"):
            MatchOptions(models, 0.5)


def test_the_command_takes_the_file_or_says_what_is_wrong_with_it(own, tmp_path):
    found = json.loads(run(A, B, *FEW, "--weights", own, "--json").out)
    assert found["layers"] == 3  # of the small network, not of the published one
    wrong = run(A, B, "--features", "aliked", "--weights", own)
    assert (wrong.code, "is for the features sift, not aliked" in wrong.err) == (1, True)
    absent = run(A, B, *FEW, "--weights", tmp_path / "no.safetensors")
    assert (absent.code, "There is no weight file" in absent.err) == (1, True)


def test_a_map_made_with_one_file_refuses_another(own, tmp_path, monkeypatch):
    monkeypatch.setattr("lightglue.weights.table.OWN", {})  # nothing stands in for the published one
    images = tmp_path / "images"
    images.mkdir()
    for path in (A, B):
        (images / path.name).write_bytes(path.read_bytes())
    other = write(tmp_path / "other.safetensors", threshold=0.5)
    models = Models("sift", 60, "cpu", weights=str(own))
    for stage in ("extract", "pairs", "match"):
        run_stage(stage, tmp_path / "map", SfmOptions(models), images=images)
    settings = MatchStore.open(tmp_path / "map" / "matches.db", read_only=True).settings
    assert settings["weights"] == models.own.sha256
    for wrong in (str(other), None):
        with pytest.raises(LightGlueError, match="weights"):
            run_stage("match", tmp_path / "map", SfmOptions(replace(models, weights=wrong)))
