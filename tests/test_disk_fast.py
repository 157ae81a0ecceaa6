"""DISK's fast path: the same as the dense definition, and what it must never compute or hold."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from lightglue import DISK, InputError, load_image, weights
from lightglue.extractors import disk_fast
from lightglue.extractors.disk_fast import describe, encode, heatmap
from lightglue.extractors.disk_network import DiskNetwork
from lightglue.support import precision


@pytest.fixture(autouse=True)
def _no_grad() -> object:
    with torch.no_grad():
        yield


@pytest.fixture(scope="module")
def network() -> DiskNetwork:
    network = DiskNetwork().eval()
    network.load_state_dict(weights.load_state_dict("disk-depth"))
    return network


@pytest.fixture
def photo(image_path: Callable[[str, int], Path]) -> Tensor:
    return load_image(image_path("montmartre", 0), resize=480)


def rand(*shape: int, seed: int = 0) -> Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed))


def every_pixel(h: int, w: int) -> Tensor:
    return torch.stack(torch.meshgrid(torch.arange(w), torch.arange(h), indexing="xy"), dim=-1).view(-1, 2)


def small_strips(monkeypatch: pytest.MonkeyPatch, pixels: int) -> None:
    for name in ("CONVOLVED", "PASSED", "KEYPOINTS"):
        monkeypatch.setattr(disk_fast, name, pixels)


# Equal to the definition


@pytest.mark.parametrize(("h", "w"), [(16, 16), (48, 32), (16, 96)])
@pytest.mark.parametrize("pixels", [20, 150, 100_000])
def test_strips_and_windows_give_what_the_dense_maps_give(
    network: DiskNetwork, h: int, w: int, pixels: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    small_strips(monkeypatch, pixels)
    double, image = copy.deepcopy(network).double(), rand(1, 3, h, w).double()
    heat, descriptors = double(image)
    encoded = encode(double, image[0])
    torch.testing.assert_close(heatmap(double, encoded), heat[0, 0], atol=1e-9, rtol=0)
    torch.testing.assert_close(
        describe(double, encoded, every_pixel(h, w)), descriptors[0].flatten(1).T, atol=1e-9, rtol=0
    )
    assert describe(double, encoded, every_pixel(h, w)[:0]).shape == (0, 128)


def test_in_float32_it_is_no_less_exact_than_the_dense_maps(network: DiskNetwork, photo: Tensor) -> None:
    image = photo[:, 40:200, 100:260]
    exact = copy.deepcopy(network).double()(image[None].double())[0][0, 0]
    dense = (network(image[None])[0][0, 0] - exact).abs()
    fast = (heatmap(network, encode(network, image)) - exact).abs()
    assert fast.mean() < dense.mean()
    assert fast.max() < 2e-3  # of heatmap values up to 300


@pytest.mark.parametrize(("h", "w"), [(1, 1), (1, 7), (6, 5)])
def test_statistics_of_an_enlarged_map_follow_from_the_small_one(
    h: int, w: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    small_strips(monkeypatch, 10)
    x = 5 * rand(h, w, 3).double() + 40
    enlarged = F.interpolate(x[None].permute(0, 3, 1, 2), scale_factor=2, mode="bilinear")
    expected = torch.var_mean(enlarged, dim=(0, 2, 3), correction=0)
    mean, variance = disk_fast._enlarged_statistics(x)
    torch.testing.assert_close((variance, mean), expected)


def test_gradients_flow_to_the_image_and_the_parameters(network: DiskNetwork, monkeypatch: pytest.MonkeyPatch) -> None:
    small_strips(monkeypatch, 300)
    double, pixels = copy.deepcopy(network).double(), torch.tensor([[0, 0], [9, 12], [15, 31]])
    gradients = []
    for fast in (False, True):
        image = rand(1, 3, 32, 16).double().requires_grad_()
        with torch.enable_grad():
            if fast:
                encoded = encode(double, image[0])
                heat, descriptors = heatmap(double, encoded), describe(double, encoded, pixels)
            else:
                dense, maps = double(image)
                heat, descriptors = dense[0, 0], maps[0, :, pixels[:, 1], pixels[:, 0]].T
            loss = heat.square().sum() + descriptors.square().sum()
            gradients.append(torch.autograd.grad(loss, [image, *double.parameters()], allow_unused=True))
    for there, here in zip(*gradients, strict=True):
        # The biases that normalisation takes away have no gradient but rounding.
        torch.testing.assert_close(torch.zeros_like(there) if here is None else here, there, atol=1e-6, rtol=1e-6)


def test_changed_parameters_are_noticed(photo: Tensor) -> None:
    extractor = DISK(max_num_keypoints=20)
    before = extractor.extract(photo, resize=None)["descriptors"]
    extractor.model.unet.first.conv.weight.data.mul_(torch.tensor([1.5, 1, 0.5])[:, None, None])
    after = extractor.extract(photo, resize=None)["descriptors"]
    assert not torch.allclose(before, after, atol=1e-3)


def test_a_hook_or_another_module_takes_the_readable_path(photo: Tensor) -> None:
    extractor = DISK(max_num_keypoints=20)
    before = extractor.extract(photo, resize=None)
    handle = extractor.model.unet.path_up[0].register_forward_hook(lambda module, args, out: out * 1.0)
    same = extractor.extract(photo, resize=None)
    assert torch.equal(same["keypoints"], before["keypoints"])
    torch.testing.assert_close(same["descriptors"], before["descriptors"], atol=1e-4, rtol=0)
    handle.remove()
    extractor.model.unet.path_up[0].register_forward_hook(lambda module, args, out: out * 0)
    assert not torch.allclose(extractor.extract(photo, resize=None)["descriptors"], before["descriptors"], atol=1e-3)


# What it costs


class Recorder(TorchDispatchMode):
    """Notes the largest tensor that is made, and the convolutions."""

    def __init__(self) -> None:
        super().__init__()
        self.largest = 0
        self.convolutions: list[tuple[int, ...]] = []  # inputs, outputs, kernel height and width, output pixels
        self.pooled = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for made in result if isinstance(result, (tuple, list)) else (result,):
            if isinstance(made, Tensor) and made._base is None and made.numel() > self.largest:
                self.largest = made.numel()
        if func is torch.ops.aten.convolution.default:
            outputs, inputs, *kernel = args[1].shape
            self.convolutions.append((inputs, outputs, *kernel, result.shape[0] * result.shape[2] * result.shape[3]))
        self.pooled += func is torch.ops.aten.max_pool2d_with_indices.default
        return result


@pytest.fixture(scope="module")
def recorded() -> tuple[Recorder, int]:
    """What extraction from an image of so many pixels does."""
    h, w = 512, 640
    extractor, image = DISK(max_num_keypoints=100), rand(3, h, w)
    with pytest.MonkeyPatch.context() as patch, torch.no_grad(), Recorder() as recorder:
        patch.setattr(torch, "get_num_threads", lambda: 1)  # more cores get larger strips
        extractor.extract(image, resize=None)
    return recorder, h * w


def test_no_map_is_larger_than_64_channels_of_half_resolution(recorded: tuple[Recorder, int]) -> None:
    recorder, pixels = recorded
    assert recorder.largest == 64 * pixels // 4


def test_no_convolution_has_full_resolution_and_descriptors_take_none(recorded: tuple[Recorder, int]) -> None:
    recorder, pixels = recorded
    work: dict[tuple[int, ...], int] = {}
    for *kind, made in recorder.convolutions:
        work[tuple(kind)] = work.get(tuple(kind), 0) + made
    assert work == {
        (3, 64, 6, 6): 2 * pixels // 4,  # the first, for all phases, and once more for the heatmap
        (16, 32, 5, 5): pixels // 4,
        (32, 64, 5, 5): pixels // 16,
        (64, 64, 5, 5): pixels // 64 + pixels // 256,
        (128, 64, 5, 5): pixels // 64 + pixels // 16,
        (96, 64, 5, 5): pixels // 4,
        (3, 16, 5, 5): 25 * 100,  # the first, around keypoints
    }


def test_detection_uses_no_pooling_that_makes_indices(recorded: tuple[Recorder, int]) -> None:
    assert recorded[0].pooled == 0


def test_convolutions_get_channels_last(photo: Tensor, network: DiskNetwork, monkeypatch: pytest.MonkeyPatch) -> None:
    layouts = []
    convolve = F.conv2d

    def note(x: Tensor, weight: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        layouts.append(weight.is_contiguous(memory_format=torch.channels_last))
        layouts.append(len(weight[0]) == 3 or x.is_contiguous(memory_format=torch.channels_last))
        return convolve(x, weight, *args, **kwargs)

    monkeypatch.setattr(F, "conv2d", note)
    encode(network, rand(3, 64, 96))
    assert len(layouts) >= 16
    assert all(layouts)


# Reduced precision


def test_mp_changes_nothing_where_nothing_is_faster(photo: Tensor, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(precision, "cpu_has_fast_bfloat16", lambda: False)
    plain, mixed = (DISK(max_num_keypoints=50, mp=mp).extract(photo, resize=160) for mp in (False, True))
    for key, value in plain.items():
        assert torch.equal(value, mixed[key])  # type: ignore[literal-required]


def test_mp_convolves_in_bfloat16_and_keeps_features(photo: Tensor, monkeypatch: pytest.MonkeyPatch) -> None:
    """Measured on three photographs: 99.8 % of 1,024 keypoints stay, cosines above 0.9999."""
    monkeypatch.setattr(precision, "cpu_has_fast_bfloat16", lambda: True)
    plain = DISK(max_num_keypoints=512).extract(photo, resize=None)
    dtypes = []
    convolve = F.conv2d
    with monkeypatch.context() as patch:

        def note(x: Tensor, weight: Tensor, *args: Any, **kwargs: Any) -> Tensor:
            dtypes.append((len(weight[0]) == 3, x.dtype, weight.dtype))
            return convolve(x, weight, *args, **kwargs)

        patch.setattr(F, "conv2d", note)
        mixed = DISK(max_num_keypoints=512, mp=True).extract(photo, resize=None)
    assert set(dtypes) == {(True, torch.float32, torch.float32), (False, torch.bfloat16, torch.bfloat16)}
    assert {value.dtype for value in mixed.values()} == {torch.float32}  # type: ignore[attr-defined]
    distance, index = torch.cdist(mixed["keypoints"][0], plain["keypoints"][0]).min(dim=1)
    same = distance < 1
    assert same.float().mean() >= 0.99
    cosine = (mixed["descriptors"][0] * plain["descriptors"][0][index]).sum(dim=1)[same]
    assert cosine.min() > 0.999


def test_mp_is_true_or_false() -> None:
    with pytest.raises(InputError, match="mp is 'bf16'; give True or False"):
        DISK(mp="bf16")
