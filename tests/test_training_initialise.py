"""Weights to start from: what is copied, what is new, and that nothing loads in silence."""

import pytest
import torch
from safetensors.torch import save_file

from lightglue.errors import InputError, WeightsError
from lightglue.matching import checkpoint
from lightglue.matching.config import LightGlueConfig
from lightglue.matching.network import LightGlueNetwork
from lightglue.training.initialise import chosen, describe, initialise, network_config
from lightglue.training.optimiser import factor, make_optimiser
from lightglue.training.options import NetworkOptions, OptimiserOptions
from support.training import TINY


def network(dim=8, scale_ori=False, **over):
    torch.manual_seed(5)
    names = {"layers": "n_layers", "width": "descriptor_dim", "heads": "num_heads"}
    shape = {names[key]: value for key, value in {**TINY, **over}.items()}
    return LightGlueNetwork(LightGlueConfig(input_dim=dim, add_scale_ori=scale_ori, **shape))


def started(path, dim=8, scale_ori=False, feature_type="sift", **over):
    options = NetworkOptions(init_from=str(path), **{**TINY, **over})
    return initialise(options, network_config(options, dim, scale_ori), feature_type, seed=0)


def fates(found):
    return {fate.name: fate.what for fate in found}


@pytest.fixture
def weights(tmp_path):
    """Of a network without scales, as a bare state dict."""
    save_file(dict(network().state_dict()), tmp_path / "w.safetensors")
    return tmp_path / "w.safetensors"


def test_all_of_it(weights):
    found, table = started(weights)
    assert set(fates(table).values()) == {"copied"}
    for name, value in network().named_parameters():
        assert torch.equal(dict(found.named_parameters())[name], value)


def test_features_with_scales_begin_as_those_without(weights):
    """The new columns are zero, so positions are encoded as before."""
    found, table = started(weights, scale_ori=True)
    assert fates(table)["posenc.Wr.weight"] == "zeroed"
    assert found.posenc.Wr.weight[:, 2:].eq(0).all()
    assert torch.equal(found.posenc.Wr.weight[:, :2], network().posenc.Wr.weight)
    positions = torch.randn(5, 2)
    with_scales = torch.cat((positions, torch.rand(5, 2)), 1)
    assert torch.equal(found.posenc(with_scales), network().posenc(positions))


def test_features_without_scales_from_those_with_them(tmp_path):
    save_file(dict(network(scale_ori=True).state_dict()), tmp_path / "w.safetensors")
    found, table = started(tmp_path / "w.safetensors")
    assert torch.equal(found.posenc.Wr.weight, network(scale_ori=True).posenc.Wr.weight[:, :2])
    assert "without the columns" in next(fate.why for fate in table if fate.name == "posenc.Wr.weight")


def test_descriptors_of_another_length_get_a_new_projection(weights):
    found, table = started(weights, dim=12)
    assert fates(table)["input_proj.weight"] == "fresh"
    assert "its shape is (16, 8), not (16, 12)" in next(f.why for f in table if f.name == "input_proj.weight")
    assert torch.equal(found.transformers[1].self_attn.Wqkv.weight, network().transformers[1].self_attn.Wqkv.weight)


@pytest.mark.parametrize(("choice", "what"), [("auto", "fresh"), ("copy", "copied"), ("fresh", "fresh")])
def test_descriptors_of_another_type_get_a_new_projection_though_they_are_as_long(tmp_path, choice, what):
    config = LightGlueConfig(input_dim=8, descriptor_dim=16, num_heads=2, n_layers=2)
    checkpoint.save(tmp_path / "w.safetensors", network(), config, "aliked", None)
    _, table = started(tmp_path / "w.safetensors", input_projection=choice)
    assert fates(table)["input_proj.weight"] == what
    assert fates(started(tmp_path / "w.safetensors", feature_type="aliked-n32")[1])["input_proj.weight"] == "copied"


def test_another_number_of_layers(weights):
    _, fewer = started(weights, layers=1)
    assert fates(fewer)["transformers.1.self_attn.Wqkv.weight"] == "left"
    _, more = started(weights, layers=3)
    assert fates(more)["transformers.1.self_attn.Wqkv.weight"] == "copied"
    assert fates(more)["transformers.2.self_attn.Wqkv.weight"] == "fresh"
    assert fates(more)["token_confidence.1.token.0.weight"] == "fresh"
    assert any(line.startswith("transformers 0-1") and "copied" in line for line in describe(more))


@pytest.mark.parametrize("prefix", ["module.", "matcher.", "_orig_mod."])
def test_prefixes_of_wrappers_are_known(tmp_path, prefix):
    save_file({prefix + name: value for name, value in network().state_dict().items()}, tmp_path / "w.safetensors")
    assert set(fates(started(tmp_path / "w.safetensors")[1]).values()) == {"copied"}


def test_weights_of_which_nothing_fits_are_an_error(weights, tmp_path):
    with pytest.raises(WeightsError, match=r"none of these weights fit this network \(width 32.*'descriptor_dim': 16"):
        started(weights, width=32)
    save_file({"other": torch.zeros(3)}, tmp_path / "o.safetensors")
    with pytest.raises(WeightsError, match="none of these weights fit"):
        started(tmp_path / "o.safetensors")
    with pytest.raises(WeightsError, match="no weight file"):
        started(tmp_path / "missing.safetensors")


def test_weights_that_hold_nan_are_refused(tmp_path):
    state = dict(network().state_dict())
    state["transformers.0.self_attn.Wqkv.bias"][0] = torch.nan
    save_file(state, tmp_path / "w.safetensors")
    with pytest.raises(WeightsError, match="transformers.0.self_attn.Wqkv.bias holds NaN"):
        started(tmp_path / "w.safetensors")


def test_fresh_values_depend_on_the_seed_alone():
    options = NetworkOptions(**TINY)
    made = [initialise(options, network_config(options, 8, False), "sift", seed)[0] for seed in (0, 0, 1)]
    first, same, other = (each.transformers[0].self_attn.Wqkv.weight for each in made)
    assert torch.equal(first, same)
    assert not torch.equal(first, other)


def test_scales_cannot_be_asked_of_features_without_them():
    with pytest.raises(InputError, match="add_scale_ori is true, but the features have no scales"):
        network_config(NetworkOptions(add_scale_ori=True), 8, has_scale_ori=False)


# -- the optimiser ---------------------------------------------------------------------------------------------------


def test_parts_are_named_by_their_beginnings():
    found = network(layers=11)
    assert all(name.startswith("transformers.1.") for name in chosen(found, ("transformers.1",), "network.freeze"))
    with pytest.raises(InputError, match="no parameter is called 'posenk'. Did you mean 'posenc'"):
        chosen(found, ("posenk",), "network.freeze")


def test_groups_have_their_own_learning_rates_and_frozen_parts_none():
    net = network()
    frozen = chosen(net, ("transformers",), "network.freeze")
    options = OptimiserOptions(lr=1e-4, lr_of={"input_proj": 1e-3, "input_proj.bias": 5e-3})
    groups = make_optimiser(net, options, frozen).param_groups
    rates = {name: group["base"] for group in groups for name in group["names"]}
    assert (rates["input_proj.weight"], rates["input_proj.bias"], rates["posenc.Wr.weight"]) == (1e-3, 5e-3, 1e-4)
    assert not any(name.startswith("transformers") for name in rates)
    assert not net.transformers[0].self_attn.Wqkv.weight.requires_grad
    decayed = {name for group in groups for name in group["names"] if group["weight_decay"]}
    assert "input_proj.weight" in decayed
    assert not {"input_proj.bias", "posenc.Wr.weight"} & decayed
    with pytest.raises(InputError, match="nothing to train"):
        make_optimiser(net, options, {name for name, _ in net.named_parameters()})


def test_schedules():
    cosine = OptimiserOptions(warmup=3, final=0.1)
    assert [factor(cosine, step, 0.0) for step in range(4)] == [0.25, 0.5, 0.75, 1.0]
    assert factor(cosine, 99, 0.5) == pytest.approx(0.55)
    assert factor(cosine, 99, 1.0) == pytest.approx(0.1)
    assert factor(OptimiserOptions(schedule="constant", warmup=0), 0, 0.9) == 1


def test_the_published_schedule_is_a_factor_of_0_794_an_epoch_from_the_20th_of_40():
    published = OptimiserOptions(schedule="published", warmup=0, decay_from=0.5, final=0.01)
    assert [factor(published, 0, epoch / 40) for epoch in (0, 19)] == [1, 1]
    for epoch in (20, 21, 39):
        assert factor(published, 0, epoch / 40) == pytest.approx(0.794 ** (epoch - 19), rel=0.02)
