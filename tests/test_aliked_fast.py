"""ALIKED's folded path gives what the readable network gives, at any size, and follows its parameters."""

from __future__ import annotations

import copy
import pickle

import pytest
import torch
from torch import Tensor, nn

from conftest import ASSETS
from lightglue import ALIKED, load_image, weights
from lightglue.extractors import aliked, aliked_fast, aliked_sparse
from lightglue.extractors.aliked_fast import encode, score_map
from lightglue.extractors.aliked_folding import UNIT, activate, fold, is_foldable
from lightglue.extractors.aliked_network import ARCHITECTURES, AlikedNetwork
from lightglue.extractors.aliked_sparse import describe
from lightglue.types import Features

BEST = {"model_name": "aliked-t16", "max_num_keypoints": 50, "detection_threshold": -1}


@pytest.fixture(autouse=True)
def _no_grad() -> object:
    with torch.no_grad():
        yield


def rand(*shape: int, seed: int = 0) -> Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed))


@pytest.fixture(scope="module")
def network() -> AlikedNetwork:
    network = AlikedNetwork(ARCHITECTURES["aliked-t16"]).eval()
    network.load_state_dict(weights.load_state_dict("aliked-t16"))
    return network


@pytest.fixture
def model() -> ALIKED:
    return ALIKED(**BEST)


@pytest.fixture(scope="module")
def image() -> Tensor:
    """A photograph (3, 65, 96)."""
    return load_image(ASSETS / "montmartre_close.jpg", resize=96)


def assert_same(found: Features, expected: Features) -> None:
    for key in ("keypoints", "keypoint_scores", "descriptors"):
        torch.testing.assert_close(found[key], expected[key], atol=1e-4, rtol=0)


def test_the_activation_is_a_scaled_selu() -> None:
    x = torch.cat((torch.linspace(-30, 30, 301), torch.tensor([-1e4, 0.0, 1e-4, -1e-4, 1e4])))
    z = x * torch.log2(torch.tensor(torch.e)) - 1.6732632423543772 * torch.log2(torch.tensor(torch.e))
    torch.testing.assert_close(activate(z.clone()) / UNIT, torch.selu(x), atol=1e-6, rtol=1e-6)
    out = torch.empty(len(x))
    assert activate(z.clone(), out=out) is out
    assert torch.equal(out, activate(z.clone()))


@pytest.mark.parametrize(("h", "w"), [(1, 1), (32, 64), (70, 45), (17, 100), (200, 33)])
@pytest.mark.parametrize("strip", [256, 2048, 10**6])
def test_folded_maps_and_descriptors_equal_the_dense_ones(
    network: AlikedNetwork, h: int, w: int, strip: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(aliked_fast, "STRIP_CPU", strip)  # several strips and chunks also on a small image
    monkeypatch.setattr(aliked_sparse, "KEYPOINTS", 7)
    monkeypatch.setattr(aliked_fast, "DEFORMED", 50)
    image, keypoints = rand(3, h, w), rand(20, 2, seed=1) * torch.tensor([w, h]) - 0.5
    features, scores = network(image[None])
    folded = fold(network)
    encoded = encode(folded, image)
    torch.testing.assert_close(score_map(folded, encoded), scores[0, 0], atol=2e-5, rtol=0)
    found = describe(folded, encoded, keypoints)
    torch.testing.assert_close(found, network.describe(features[0], keypoints), atol=1e-4, rtol=0)
    assert describe(folded, encoded, keypoints[:0]).shape == (0, 64)


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_all_variants_in_float64_agree_to_rounding(name: str, image: Tensor) -> None:
    """No approximation hides behind float32's tolerance."""
    network = AlikedNetwork(ARCHITECTURES[name]).double().eval()
    network.load_state_dict(weights.load_state_dict(name))
    keypoints = rand(30, 2, seed=1).double() * 60
    features, scores = network(image[None].double())
    folded = fold(network)
    encoded = encode(folded, image.double())
    torch.testing.assert_close(score_map(folded, encoded), scores[0, 0], atol=1e-9, rtol=0)
    found = describe(folded, encoded, keypoints)
    torch.testing.assert_close(found, network.describe(features[0], keypoints), atol=1e-9, rtol=0)


def counted(model: ALIKED, monkeypatch: pytest.MonkeyPatch) -> list[object]:
    calls: list[object] = []

    def counting_fold(network: AlikedNetwork, *args: object) -> object:
        calls.append(network)
        return fold(network, *args)

    monkeypatch.setattr(aliked, "fold", counting_fold)
    model._folded = type(model._folded)(counting_fold)
    return calls


def test_folding_happens_once_until_a_parameter_changes(
    model: ALIKED, image: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = counted(model, monkeypatch)
    first = model({"image": image[None]})
    model({"image": image[None]})
    assert len(calls) == 1
    model.load_state_dict(model.state_dict())
    assert_same(model({"image": image[None]}), first)
    assert len(calls) == 2


def change_weight(model: ALIKED) -> None:
    model.network.block2.conv1.weight.mul_(1.3)


def change_data(model: ALIKED) -> None:
    model.network.block3.conv2.regular_conv.weight.data.mul_(1.3)


def change_statistics(model: ALIKED) -> None:
    model.network.block1.bn1.running_mean.add_(0.1)


def replace_parameter(model: ALIKED) -> None:
    model.network.conv1.weight = nn.Parameter(model.network.conv1.weight * 1.3)


@pytest.mark.parametrize("change", [change_weight, change_data, change_statistics, replace_parameter])
@pytest.mark.parametrize("inference", [False, True])
def test_a_changed_parameter_counts_at_the_next_call(change: object, inference: bool, image: Tensor) -> None:
    with torch.inference_mode() if inference else torch.no_grad():
        model, other = ALIKED(**BEST), ALIKED(**BEST)
        before = model({"image": image[None]})
        change(model)
        change(other)
        after = model({"image": image[None]})
        assert not torch.equal(after["keypoint_scores"], before["keypoint_scores"])
        assert_same(after, other({"image": image[None]}))


def test_copies_and_pickles_carry_no_folded_tensors(model: ALIKED, image: Tensor) -> None:
    expected = model({"image": image[None]})
    for twin in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert twin._folded._kept == {}
        twin.network.conv1.weight.mul_(1.0)
        assert_same(twin({"image": image[None]}), expected)
    torch.testing.assert_close(model.double()({"image": image[None].double()})["keypoints"], expected["keypoints"])


def dense(model: ALIKED, image: Tensor) -> Features:
    """The features by way of the readable network."""
    with torch.enable_grad():
        found = model({"image": image[None]})
    assert found["descriptors"].requires_grad
    return {key: value.detach() for key, value in found.items()}  # type: ignore[return-value]


def test_with_gradients_the_readable_network_gives_the_same(model: ALIKED, image: Tensor) -> None:
    assert_same(model({"image": image[None]}), dense(model, image))


def test_gradients_reach_image_and_weights(model: ALIKED, image: Tensor) -> None:
    image = image[None].clone().requires_grad_()
    with torch.enable_grad():
        features = model({"image": image})
        (features["descriptors"].square().sum() + features["keypoint_scores"].sum()).backward()
    for tensor in (image, model.network.block1.conv1.weight, model.network.score_head[6].weight):
        assert tensor.grad is not None
        assert tensor.grad.isfinite().all()
        assert tensor.grad.abs().max() > 0


def test_a_hook_another_module_or_training_takes_the_readable_path(model: ALIKED, image: Tensor) -> None:
    before = model({"image": image[None]})
    handle = model.network.conv2.register_forward_hook(lambda module, args, out: out * 0)
    assert not is_foldable(model.network)
    assert not torch.equal(model({"image": image[None]})["keypoint_scores"], before["keypoint_scores"])
    handle.remove()
    assert is_foldable(model.network)
    model.network.score_head[1] = nn.ReLU()
    assert not is_foldable(model.network)
    model = ALIKED(**BEST).train()
    whole = model.network.block1.bn1.running_mean.clone()
    model({"image": image[None]})
    assert not torch.equal(model.network.block1.bn1.running_mean, whole)


def test_half_precision_weights_take_the_readable_path(model: ALIKED) -> None:
    assert not is_foldable(model.bfloat16().network)
