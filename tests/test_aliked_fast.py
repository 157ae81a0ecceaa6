"""ALIKED's folded path gives what the readable network gives, at any size, and follows its parameters."""

from __future__ import annotations

import copy
import math
import pickle
from collections import Counter
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from lightglue import ALIKED, InputError, load_image, weights
from lightglue.extractors import aliked, aliked_fast, aliked_sparse, detection
from lightglue.extractors.aliked_fast import encode, score_map
from lightglue.extractors.aliked_folding import UNIT, activate, fold, is_foldable
from lightglue.extractors.aliked_network import ARCHITECTURES, AlikedNetwork
from lightglue.extractors.aliked_sparse import describe
from lightglue.support import buffers, precision
from lightglue.types import Features
from support import ASSETS

BEST = {"model_name": "aliked-t16", "max_num_keypoints": 50, "detection_threshold": -1}


@pytest.fixture(autouse=True)
def _no_grad(monkeypatch: pytest.MonkeyPatch) -> object:
    monkeypatch.setattr(torch, "get_num_threads", lambda: 1)  # strips grow with the threads
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


def change_a_channel(model: ALIKED) -> None:
    model.network.block1.conv1.weight.data[5] += 0.2


def change_one_bias(model: ALIKED) -> None:
    model.network.block1.bn1.bias.data[3] += 2


def change_statistics(model: ALIKED) -> None:
    model.network.block1.bn1.running_mean.add_(0.1)


def replace_parameter(model: ALIKED) -> None:
    model.network.conv1.weight = nn.Parameter(model.network.conv1.weight * 1.3)


@pytest.mark.parametrize(
    "change", [change_weight, change_data, change_a_channel, change_one_bias, change_statistics, replace_parameter]
)
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


class Recorder(TorchDispatchMode):
    """Counts operators, and the elements of the new tensors that each made: of the largest and of all."""

    def __init__(self) -> None:
        super().__init__()
        self.counts: Counter[str] = Counter()
        self.largest: Counter[str] = Counter()
        self.total: Counter[str] = Counter()
        self.conv_dtypes: list[tuple[torch.dtype, bool]] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.overloadpacket.__name__
        if name in ("convolution", "mkldnn_convolution"):
            self.conv_dtypes.append((args[1].dtype, args[0].is_contiguous(memory_format=torch.channels_last)))
        result = func(*args, **(kwargs or {}))
        self.counts[name] += 1
        if isinstance(result, Tensor) and not any(r.alias_info for r in func._schema.returns):
            self.largest[name] = max(self.largest[name], result.numel())
            self.total[name] += result.numel()
        return result


def test_nothing_large_is_made_and_nothing_slow_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    """What makes it fast, in operations and elements instead of time."""
    elements: list[int] = []

    def counting_empty(like: Tensor, *shape: int) -> Tensor:
        elements.append(math.prod(shape))
        return like.new_empty(shape)

    monkeypatch.setattr(aliked_fast, "STRIP_CPU", 8 * 256)
    monkeypatch.setattr(aliked_sparse, "KEYPOINTS", 16)
    monkeypatch.setattr(aliked_fast, "large_empty", counting_empty)
    model, image = ALIKED(**BEST), rand(1, 3, 512, 256)
    pixels = 512 * 256
    with Recorder() as recorder:
        model({"image": image})
    slow = {"elu", "elu_", "native_batch_norm", "grid_sampler_2d", "max_pool2d", "max_pool2d_with_indices"}
    slow |= {"avg_pool2d", "masked_fill"}
    assert not {name for name in slow & set(recorder.counts) if recorder.largest[name] > pixels // 16}
    # The network has 8 channels at full resolution, 16 at half, 16 for each level of the map, 8 in the score head.
    # Only these exist as a whole: the finest map, its mean of 2x2, the coarse levels and the scores.
    assert sum(elements) <= (8 + 8 / 4 + 16 * (1 / 4 + 1 / 64 + 1 / 1024) + 1) * pixels
    assert max(size for name, size in recorder.largest.items() if "empty" not in name) <= 1.1 * pixels
    # An exponential for each channel of each activation, and a few for rows that two strips share.
    assert recorder.total["exp2"] <= 1.3 * (8 + 8 + 3 * 16 / 4 + 16 + 8 + 4 + 4) * pixels


def test_detection_passes_over_the_map_a_bounded_number_of_times() -> None:
    scores = rand(1, 1, 300, 400)
    with Recorder() as recorder:
        detection.nms_maxima(scores, 2)
    # Five windows, 5 x 5 in three doubling steps along each axis; two of them on bytes.
    assert recorder.counts["maximum"] == 5 * 6
    assert recorder.counts.keys().isdisjoint({"max_pool2d", "max_pool2d_with_indices", "masked_fill"})
    assert max(recorder.largest.values()) <= 304 * 404


def test_reduced_precision_is_off_where_the_cpu_is_not_fast_at_it(
    image: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(precision, "cpu_has_fast_bfloat16", lambda: False)
    plain, reduced = ALIKED(**BEST), ALIKED(**BEST, mp=True)
    for key, value in plain.extract(image, resize=None).items():
        assert torch.equal(reduced.extract(image, resize=None)[key], value)


def test_reduced_precision_moves_few_keypoints_and_descriptors_little(monkeypatch: pytest.MonkeyPatch) -> None:
    """Measured at 1,024 px on four photographs: at least 99.6 % within 1 px, mean cosine at least 0.9998."""
    monkeypatch.setattr(precision, "cpu_has_fast_bfloat16", lambda: True)
    image, options = load_image(ASSETS / "montmartre_close.jpg", resize=320), {**BEST, "max_num_keypoints": 500}
    plain = ALIKED(**options).extract(image, resize=None)
    with Recorder() as recorder:
        reduced = ALIKED(**options, mp=True).extract(image, resize=None)
    distance, nearest = torch.cdist(plain["keypoints"][0], reduced["keypoints"][0]).min(dim=1)
    assert (distance < 1).float().mean() >= 0.99
    cosine = (plain["descriptors"][0] * reduced["descriptors"][0][nearest]).sum(dim=-1)[distance < 1]
    assert cosine.mean() >= 0.9995
    assert not torch.equal(plain["descriptors"], reduced["descriptors"])
    assert reduced["descriptors"].dtype == torch.float32
    # oneDNN takes bfloat16 convolutions with the channels last; what says where keypoints are stays float32.
    assert (torch.bfloat16, True) in recorder.conv_dtypes
    assert (torch.float32, True) in recorder.conv_dtypes
    assert all(channels_last for _, channels_last in recorder.conv_dtypes)


def test_mp_is_true_or_false() -> None:
    with pytest.raises(InputError, match="mp is 'yes'; give True or False"):
        ALIKED(**BEST, mp="yes")


def test_large_memory_is_like_any_other() -> None:
    like = torch.zeros(1, dtype=torch.float64)
    for shape in ((3,), (1024, 513)):
        made = buffers.large_empty(like, *shape)
        assert (made.shape, made.dtype, made.is_contiguous()) == (shape, torch.float64, True)
        twin = made.fill_(2).clone()
        part = made[1:].add_(1)
        del made
        assert torch.equal(part, twin[1:] + 1)


def test_large_memory_does_without_what_the_system_refuses(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: object, **kwargs: object) -> None:
        raise OSError("no")

    monkeypatch.setattr(buffers.mmap, "mmap", refuse)
    assert buffers.large_empty(torch.zeros(1), 2**20).shape == (2**20,)
