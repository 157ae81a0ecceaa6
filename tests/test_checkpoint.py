"""Weights of the matcher: published layouts, strict loading, and our self-describing file."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from lightglue.errors import InputError, WeightsError
from lightglue.matching.checkpoint import adapt, infer_architecture
from lightglue.matching.lightglue import LightGlue
from support.matching import SMALL, random_features, small_matcher, small_state


def result(matcher: LightGlue) -> dict:
    return matcher({"image0": random_features(20, seed=1), "image1": random_features(25, seed=2)})


def assert_equal_results(a: LightGlue, b: LightGlue) -> None:
    assert torch.equal(result(a)["matching_scores0"], result(b)["matching_scores0"])


def build(state, **options) -> LightGlue:
    return LightGlue(features=None, weights=state, **{**SMALL, **options}).eval()


# -- layouts ---------------------------------------------------------------------------------------------------------


def test_parameters_have_the_published_names_and_shapes():
    """As in aliked_lightglue.pth: 253 entries, plus the thresholds that the published class adds on saving."""
    state = LightGlue(features="aliked").state_dict()
    assert len(state) == 254
    assert state["transformers.3.self_attn.Wqkv.weight"].shape == (768, 256)
    assert state["transformers.8.cross_attn.to_qk.bias"].shape == (256,)
    assert state["transformers.0.cross_attn.ffn.1.weight"].shape == (512,)
    assert state["log_assignment.8.matchability.weight"].shape == (1, 256)
    assert state["token_confidence.7.token.0.bias"].shape == (1,)
    assert state["posenc.Wr.weight"].shape == (32, 2)
    assert state["confidence_thresholds"].shape == (9,)


def test_the_older_layout_loads():
    """disk_lightglue.pth keeps self- and cross-attention in two lists."""
    state = small_state()
    older = {}
    for key, value in state.items():
        parts = key.split(".")
        older[".".join([parts[2], parts[1], *parts[3:]]) if parts[0] == "transformers" else key] = value
    assert "self_attn.2.Wqkv.weight" in older
    assert_equal_results(build(older), build(state))


def test_a_training_checkpoint_loads():
    """glue-factory saves the matcher beside the extractor, under a prefix."""
    state = small_state()
    trained = {f"matcher.{k}": v for k, v in state.items()} | {"extractor.conv.weight": torch.zeros(1)}
    assert_equal_results(build(trained), build(state))


def test_known_unused_entries_are_let_go():
    state = small_state() | {f"log_assignment.{i}.r": torch.zeros(1) for i in range(3)}
    assert_equal_results(build(state), build(small_state()))


def test_fewer_layers_than_the_checkpoint_has():
    matcher = build(small_state(), n_layers=2)
    assert len(matcher.transformers) == 2
    assert len(matcher.token_confidence) == 1
    assert result(matcher)["stop"] <= 2


def test_the_architecture_is_read_off_a_checkpoint():
    state = adapt(small_state(add_scale_ori=True), n_layers=3)
    assert infer_architecture(state) == {**SMALL, "add_scale_ori": True}


# -- strictness ------------------------------------------------------------------------------------------------------

WRONG = {
    "a layer is missing": (lambda s: {k: v for k, v in s.items() if "transformers.1" not in k}, "missing"),
    "an unknown entry": (lambda s: s | {"decoder.weight": torch.zeros(2)}, "unexpected: decoder.weight"),
    "a wrong shape": (lambda s: s | {"posenc.Wr.weight": torch.zeros(8, 4)}, r"is \(8, 4\), not \(8, 2\)"),
    "another width": (lambda s: small_state(descriptor_dim=64), "'descriptor_dim': 64"),
    "no entries": (lambda s: {}, "missing"),
    "NaN": (lambda s: s | {"input_proj.bias": torch.full((32,), float("nan"))}, "NaN"),
    "no values": (lambda s: {k: v.to("meta") for k, v in s.items()}, "meta device"),
    "not tensors": (lambda s: {"epoch": 3}, "names to tensors"),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_checkpoint_that_does_not_fit_is_refused(case):
    change, message = WRONG[case]
    with pytest.raises(WeightsError, match=message):
        build(change(small_state()))


def test_more_layers_than_the_checkpoint_has_are_refused():
    with pytest.raises(WeightsError, match="missing"):
        build(small_state(), n_layers=4)


def test_the_error_tells_what_the_file_was_made_with():
    with pytest.raises(WeightsError, match="'input_dim': 16, 'descriptor_dim': 32, 'num_heads': 2"):
        LightGlue(features=None, weights=small_state(), n_layers=3)


@pytest.mark.parametrize("weights", [3, [1], object()])
def test_weights_of_another_type_are_refused(weights):
    with pytest.raises(InputError, match="a name, a path or a state dict"):
        LightGlue(features=None, weights=weights, **SMALL)


def test_a_missing_file_is_an_error_and_never_random_weights(tmp_path):
    with pytest.raises(WeightsError, match="nowhere.pth"):
        LightGlue(features=None, weights=tmp_path / "nowhere.pth")


def test_an_untrained_network_is_only_given_on_request_and_with_a_warning():
    with pytest.warns(UserWarning, match="untrained"):
        LightGlue(features=None, **SMALL)


# -- files -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["pth", "safetensors"])
def test_a_bare_state_dict_loads_from_a_file(kind, tmp_path):
    path = tmp_path / f"small.{kind}"
    torch.save(small_state(), path) if kind == "pth" else save_file(small_state(), path)
    assert_equal_results(build(path), build(small_state()))
    assert_equal_results(build(str(path)), build(small_state()))


def test_save_and_load_bring_back_weights_options_type_and_licence(tmp_path):
    matcher = build(small_state(), filter_threshold=0.25, depth_confidence=-1)
    matcher.feature_type, matcher.licence = "aliked", "Apache-2.0"
    matcher.save(tmp_path / "mine.safetensors")
    with safe_open(tmp_path / "mine.safetensors", framework="pt") as file:
        metadata = file.metadata()
    assert metadata["features"] == "aliked"
    assert metadata["licence"] == "Apache-2.0"
    assert json.loads(metadata["config"])["filter_threshold"] == 0.25


def test_a_saved_matcher_needs_nothing_but_its_file(tmp_path):
    matcher = small_matcher(filter_threshold=0.25)
    matcher.save(tmp_path / "mine.safetensors")
    loaded = LightGlue.load(tmp_path / "mine.safetensors").eval()
    assert loaded.conf.filter_threshold == 0.25
    assert loaded.conf.input_dim == 16
    assert_equal_results(loaded, matcher)
    assert LightGlue.load(tmp_path / "mine.safetensors", filter_threshold=0.5).conf.filter_threshold == 0.5


def test_published_weights_survive_a_round_trip(tmp_path):
    matcher = LightGlue(features="aliked", n_layers=2).eval()
    matcher.save(tmp_path / "aliked2.safetensors")
    loaded = LightGlue.load(tmp_path / "aliked2.safetensors")
    assert (loaded.feature_type, loaded.licence, loaded.conf.n_layers) == ("aliked", "Apache-2.0", 2)
    for key, value in matcher.state_dict().items():
        assert torch.equal(loaded.state_dict()[key], value)


def test_a_file_trained_for_other_features_is_refused(tmp_path):
    """DISK's and ALIKED's files have the same shapes: only the description tells them apart."""
    matcher = LightGlue(features="disk", n_layers=1)
    matcher.save(tmp_path / "disk.safetensors")
    with pytest.raises(WeightsError, match="features='disk', not 'aliked'"):
        LightGlue(features="aliked", n_layers=1, weights=tmp_path / "disk.safetensors")


def test_thresholds_follow_from_the_layers_whatever_the_file_says():
    """Published state dicts carry them only where a matcher was saved again."""
    for thresholds in (torch.tensor(1.0), torch.full((3,), 5.0), torch.zeros(9)):
        matcher = build({**small_state(), "confidence_thresholds": thresholds})
        assert torch.equal(matcher.confidence_thresholds, small_matcher().confidence_thresholds)


def test_load_takes_neither_features_nor_weights(tmp_path):
    small_matcher().save(tmp_path / "mine.safetensors")
    with pytest.raises(InputError, match="features cannot be given"):
        LightGlue.load(tmp_path / "mine.safetensors", features="aliked")


@pytest.mark.parametrize("path", [None, 3])
def test_a_path_is_a_string_or_a_path(path):
    with pytest.raises(InputError, match="string or a Path"):
        LightGlue.load(path)
    with pytest.raises(InputError, match="string or a Path"):
        small_matcher().save(path)


def test_saving_asks_for_the_right_ending(tmp_path):
    with pytest.raises(WeightsError, match=r"must end in \.safetensors"):
        small_matcher().save(tmp_path / "mine.pth")


def test_saving_into_a_missing_folder_is_refused(tmp_path):
    with pytest.raises(WeightsError, match="could not write"):
        small_matcher().save(tmp_path / "nowhere" / "mine.safetensors")


def test_a_failed_save_leaves_the_old_file_and_no_half_one(tmp_path, monkeypatch):
    target = tmp_path / "mine.safetensors"
    small_matcher().save(target)
    before = target.read_bytes()

    def full_disk(tensors, filename, metadata):
        Path(filename).write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("lightglue.matching.checkpoint.save_file", full_disk)
    with pytest.raises(WeightsError, match="No space left"):
        small_matcher(seed=1).save(target)
    assert target.read_bytes() == before
    assert list(tmp_path.iterdir()) == [target]


@pytest.mark.parametrize("content", [b"", b"\0" * 7, b"not a weight file", b"\xff" * 100])
def test_a_broken_file_is_refused_by_load(content, tmp_path):
    path = tmp_path / "broken.safetensors"
    path.write_bytes(content)
    with pytest.raises(WeightsError, match=r"broken\.safetensors"):
        LightGlue.load(path)


def test_load_refuses_a_file_that_save_did_not_write(tmp_path):
    save_file(small_state(), tmp_path / "bare.safetensors")
    with pytest.raises(WeightsError, match="LightGlue.save"):
        LightGlue.load(tmp_path / "bare.safetensors")
    with pytest.raises(WeightsError, match="LightGlue.save"):
        LightGlue.load(tmp_path / "missing.safetensors")


@pytest.mark.parametrize("config", ["[]", "{", '{"n_layers": "many"}'])
def test_a_description_that_makes_no_sense_is_refused(config, tmp_path):
    path = tmp_path / "odd.safetensors"
    save_file(small_state(), path, {"format": "lightglue-1", "config": config})
    with pytest.raises((WeightsError, InputError), match=r"odd\.safetensors|n_layers"):
        LightGlue.load(path)


def test_an_option_of_a_later_version_gives_a_warning(tmp_path):
    path = tmp_path / "later.safetensors"
    save_file(small_state(), path, {"format": "lightglue-1", "config": json.dumps({**SMALL, "n_layer": 3})})
    with pytest.warns(UserWarning, match="did you mean 'n_layers'"):
        assert LightGlue.load(path).conf.n_layers == 3
