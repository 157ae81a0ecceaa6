"""What a trained matcher's file carries beside its parameters, and that everyone who reads the file heeds it."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from lightglue.errors import InputError, WeightsError
from lightglue.export.adaptive import Thresholds
from lightglue.export.provenance import describe
from lightglue.matching import checkpoint
from lightglue.matching.calibration import Calibration
from lightglue.matching.config import LightGlueConfig
from lightglue.matching.lightglue import LightGlue
from lightglue.matching.overlap import COEFFICIENTS, Coefficients, overlap_probability
from support.matching import SMALL, random_features, small_state

OWN = Coefficients(0.3, -0.2, 0.1)
CALIBRATED = Calibration(0.5, 1.5)
# A small network for ALIKED's descriptors.
SHAPE = {**SMALL, "input_dim": 128}


def write(path: Path, features: str | None = "aliked", **extra: object) -> Path:
    """A small trained matcher's file."""
    from lightglue.matching.network import LightGlueNetwork

    config = LightGlueConfig(**SHAPE)
    network = LightGlueNetwork(config)
    network.load_state_dict(small_state(input_dim=128), strict=False)
    checkpoint.save(path, network, config, features, "CC0-1.0", **extra)  # type: ignore[arg-type]
    return path


def overlap_of(matcher: LightGlue) -> float:
    pair = {f"image{k}": random_features(30, seed=k, dim=128) for k in (0, 1)}
    return float(matcher(pair)["overlap"])


@pytest.fixture
def trained(tmp_path: Path) -> Path:
    return write(tmp_path / "trained.safetensors", fitted=checkpoint.Fitted(OWN, CALIBRATED), record={"images": 3})


@pytest.mark.parametrize("read", [LightGlue.load, lambda path: LightGlue("aliked", weights=path)])
def test_the_overlap_is_by_the_files_own_coefficients(trained, read):
    matcher = read(trained)
    assert (matcher.overlap, matcher.calibration) == (OWN, CALIBRATED)
    pair = {f"image{k}": random_features(30, seed=k, dim=128) for k in (0, 1)}
    found = matcher(pair)
    expected = overlap_probability(found["matching_scores0"][0], 30, 30, OWN)
    assert torch.equal(found["overlap"], expected[None])


def test_a_file_that_says_that_nothing_was_fitted_gives_no_overlap(tmp_path):
    matcher = LightGlue.load(write(tmp_path / "plain.safetensors", fitted=checkpoint.Fitted()))
    assert "overlap" not in matcher({f"image{k}": random_features(9, seed=k, dim=128) for k in (0, 1)})


def test_a_file_of_an_earlier_version_has_the_feature_types_coefficients(tmp_path):
    assert LightGlue.load(write(tmp_path / "old.safetensors")).overlap == COEFFICIENTS["aliked"]


def test_a_feature_type_without_published_coefficients_gets_an_overlap_from_its_file(tmp_path):
    path = write(tmp_path / "own.safetensors", features=None, fitted=checkpoint.Fitted(OWN))
    assert 0 < overlap_of(LightGlue.load(path)) < 1


def test_what_was_fitted_survives_saving_again(trained, tmp_path):
    LightGlue.load(trained).save(tmp_path / "again.safetensors")
    again = checkpoint.read_description(tmp_path / "again.safetensors")
    assert again is not None
    assert again.fitted == checkpoint.Fitted(OWN, CALIBRATED)


def test_the_training_record_is_in_the_file(trained):
    description = checkpoint.read_description(trained)
    assert description is not None
    assert (description.record, description.licence) == ({"images": 3}, "CC0-1.0")


def test_an_exported_model_says_the_files_own_coefficients(trained):
    matcher = LightGlue.load(trained)
    described = describe(matcher, "adaptive", "f32", Thresholds(0.9, 0.9, 0.1, 128))
    assert json.loads(described.overlap) == asdict(OWN)
    assert json.loads(described.calibration) == asdict(CALIBRATED)


def test_the_runtimes_have_the_calibration_of_the_matcher_that_was_exported(trained, tmp_path):
    pytest.importorskip("onnxruntime")
    from lightglue.export import write_matcher
    from lightglue.runtime.matcher import OnnxMatcher
    from lightglue_runtime import Matcher

    write_matcher(LightGlue.load(trained), tmp_path / "m.onnx")
    assert Matcher.open(tmp_path / "m.onnx", "onnx").calibration == CALIBRATED
    assert OnnxMatcher.open(tmp_path / "m.onnx").calibration == CALIBRATED
    assert OnnxMatcher.of(LightGlue.load(trained)).calibration == CALIBRATED


@pytest.mark.parametrize("said", ['{"offset": 0, "slope": -1}', '{"slope": 1}'])
def test_an_exported_model_whose_calibration_is_none_is_refused(trained, tmp_path, said):
    onnx = pytest.importorskip("onnx")
    from lightglue.export import write_matcher
    from lightglue_runtime import Matcher, ModelError

    path = tmp_path / "m.onnx"
    write_matcher(LightGlue.load(trained), path)
    model = onnx.load(path)
    for property in model.metadata_props:
        if property.key == "lightglue.calibration":
            property.value = said
    onnx.save(model, path)
    with pytest.raises(ModelError, match=r"m\.onnx has damaged metadata \(calibration"):
        Matcher.open(path, "onnx")


def test_a_model_in_the_cache_is_not_taken_for_one_with_other_coefficients(trained, tmp_path, monkeypatch):
    pytest.importorskip("onnxruntime")
    from lightglue.runtime.matcher import OnnxMatcher

    monkeypatch.setenv("LIGHTGLUE_CACHE", str(tmp_path / "cache"))
    torch_matcher = LightGlue.load(trained)
    ours = overlap_of(OnnxMatcher.of(torch_matcher))
    assert ours == pytest.approx(overlap_of(torch_matcher), abs=1e-4)
    torch_matcher.overlap = replace(OWN, constant=2.0)
    theirs = overlap_of(OnnxMatcher.of(torch_matcher))
    assert theirs == pytest.approx(overlap_of(torch_matcher), abs=1e-4)
    assert theirs != pytest.approx(ours, abs=1e-2)


def test_half_precision_halves_the_file_and_is_read_as_float32(tmp_path):
    full, half = write(tmp_path / "full.safetensors"), write(tmp_path / "half.safetensors", dtype=torch.float16)
    assert half.stat().st_size < 0.55 * full.stat().st_size
    matcher = LightGlue.load(half)
    assert {p.dtype for p in matcher.parameters()} == {torch.float32}
    for (name, a), b in zip(LightGlue.load(full).state_dict().items(), matcher.state_dict().values(), strict=True):
        torch.testing.assert_close(a, b, atol=1e-2, rtol=1e-3, msg=name)


def test_weights_say_the_shape_of_their_network(trained):
    matcher = LightGlue("aliked", weights=trained)
    assert (matcher.conf.descriptor_dim, matcher.conf.n_layers) == (32, 3)
    assert len(LightGlue("aliked", weights=trained, n_layers=2).transformers) == 2
    with pytest.raises(WeightsError, match="wrong shape"):
        LightGlue("aliked", weights=trained, descriptor_dim=64)


@pytest.mark.parametrize(
    ("key", "value"),
    [("overlap", "["), ("overlap", '{"constant": 1}'), ("overlap", '{"constant": null, "amount": 1, "share": 1}'),
     ("calibration", '{"offset": 0, "slope": -1}'), ("calibration", "7"), ("training", "[1]")],
)  # fmt: skip
def test_damaged_metadata_are_an_error_that_names_the_file(trained, tmp_path, key, value):
    with safe_open(trained, framework="pt") as file:
        tensors, metadata = {name: file.get_tensor(name) for name in file.keys()}, file.metadata()  # noqa: SIM118
    path = tmp_path / "damaged.safetensors"
    save_file(tensors, path, {**metadata, key: value})
    with pytest.raises(WeightsError, match=r"damaged\.safetensors is not a readable LightGlue file"):
        LightGlue.load(path)


# -- calibration -----------------------------------------------------------------------------------------------------


def test_calibration_by_hand():
    """Log odds of 0.5 are 0, of 0.9 log 9: half of the slope 0.5 makes 3 to 1 of 9 to 1."""
    assert Calibration(0.0, 0.5).probability(np.array([0.5, 0.9])) == pytest.approx([0.5, 0.75])


def test_a_threshold_is_the_score_of_its_probability():
    for probability in (0.1, 0.5, 0.99):
        assert CALIBRATED.probability(np.array(CALIBRATED.threshold(probability))) == pytest.approx(probability)


def test_probabilities_are_in_the_order_of_the_scores_even_at_their_ends():
    found = CALIBRATED.probability(np.linspace(0, 1, 50))
    assert np.isfinite(found).all()
    assert (np.diff(found) >= 0).all()


@pytest.mark.parametrize(("offset", "slope"), [(0, 0), (0, -1), (float("nan"), 1), (0, float("inf"))])
def test_a_line_that_does_not_rise_is_refused(offset, slope):
    with pytest.raises(InputError, match="calibration"):
        Calibration(offset, slope)
