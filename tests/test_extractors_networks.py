"""The networks' layers against plain formulas, and what is computed sparsely or in strips against the dense maps."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lightglue import weights
from lightglue.extractors.aliked_network import (
    ARCHITECTURES,
    AlikedNetwork,
    DeformableConv2d,
    DescriptorHead,
    deform_conv2d,
    interpolate_features,
    patch_pixels,
)
from lightglue.extractors.disk_network import ConvBlock, DiskNetwork

CLOSE = {"atol": 2e-5, "rtol": 0}


@pytest.fixture(autouse=True)
def _no_grad() -> object:
    with torch.no_grad():
        yield


def rand(*shape: int, seed: int = 0) -> Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed))


@pytest.fixture(scope="module")
def disk() -> DiskNetwork:
    network = DiskNetwork().eval()
    network.load_state_dict(weights.load_state_dict("disk-depth"))
    return network


def bilinear(image: Tensor, y: float, x: float) -> Tensor:
    """One value for each channel of `image` (C, H, W), zeros outside."""
    value = torch.zeros(len(image))
    for row in (math.floor(y), math.floor(y) + 1):
        for col in (math.floor(x), math.floor(x) + 1):
            if 0 <= row < image.shape[1] and 0 <= col < image.shape[2]:
                value += (1 - abs(y - row)) * (1 - abs(x - col)) * image[:, row, col]
    return value


@pytest.mark.parametrize(("h", "w"), [(1, 1), (1, 4), (5, 3)])
def test_deformable_convolution_samples_around_each_pixel(h: int, w: int) -> None:
    image, weight = rand(2, 3, h, w), rand(4, 3, 3, 3, seed=1) - 0.5
    offsets = 6 * rand(2, 18, h, w, seed=2) - 3
    expected = torch.zeros(2, 4, h, w)
    for b in range(2):
        for y in range(h):
            for x in range(w):
                for k in range(9):
                    dy, dx = offsets[b, 2 * k : 2 * k + 2, y, x].tolist()
                    sample = bilinear(image[b], y + k // 3 - 1 + dy, x + k % 3 - 1 + dx)
                    expected[b, :, y, x] += weight[:, :, k // 3, k % 3] @ sample
    torch.testing.assert_close(deform_conv2d(image, offsets, weight), expected, **CLOSE)


def test_deformable_convolution_without_offsets_is_a_convolution() -> None:
    image, weight = rand(2, 3, 6, 7), rand(4, 3, 3, 3, seed=1)
    expected = F.conv2d(image, weight, padding=1)
    torch.testing.assert_close(deform_conv2d(image, torch.zeros(2, 18, 6, 7), weight), expected, **CLOSE)


def test_deformable_offsets_reach_a_quarter_of_the_longer_side_at_most() -> None:
    layer, image = DeformableConv2d(2, 3), rand(1, 2, 4, 8)
    nn.init.zeros_(layer.offset_conv.weight)
    nn.init.constant_(layer.offset_conv.bias, 1000.0)
    expected = deform_conv2d(image, torch.full((1, 18, 4, 8), 2.0), layer.regular_conv.weight)
    torch.testing.assert_close(layer(image), expected, **CLOSE)


@pytest.mark.parametrize(
    ("x", "first"),
    [(5.0, 4), (5.9, 4), (1.2, 0), (0.4, 0), (-0.5, 0), (7.0, 6), (8.0, 6), (9.4, 6)],
)
def test_a_patch_surrounds_the_keypoint_but_for_the_last_pixel(x: float, first: int) -> None:
    patch = patch_pixels(torch.tensor([[x, 4.0], [4.0, x]]), (10, 10))
    assert patch.shape == (2, 3, 3, 2)
    assert patch[0, :, :, 0].tolist() == [[first, first + 1, first + 2]] * 3
    assert patch[1, :, :, 1].T.tolist() == [[first, first + 1, first + 2]] * 3


@pytest.mark.parametrize("side", [1, 2, 3, 4])
def test_a_patch_stays_inside_a_tiny_map(side: int) -> None:
    pixels = patch_pixels(torch.tensor([[side - 1.0, 0.0], [0.0, side - 1.0]]), (side, side))
    assert pixels.min() == 0
    assert pixels.max() == min(side - 1, 2)


def test_features_between_pixels_are_interpolated_and_zero_outside() -> None:
    maps, xy = rand(3, 6, 8), rand(40, 2, seed=1) * 14 - 3
    found = interpolate_features(lambda p: maps[:, p[:, 1], p[:, 0]].T, (6, 8), xy)
    expected = torch.stack([bilinear(maps, y, x) for x, y in xy.tolist()])
    torch.testing.assert_close(found, expected, **CLOSE)


def test_a_descriptor_aggregates_deformed_samples() -> None:
    torch.manual_seed(0)
    head, maps = DescriptorHead(4, positions=3), rand(4, 9, 11)
    nn.init.normal_(head.agg_weights)
    x, y = 5.3, 4.6
    found = head(lambda p: maps[:, p[:, 1], p[:, 0]].T, (9, 11), torch.tensor([[x, y]]))[0]

    offsets = head.offset_conv(maps[None, :, 3:6, 4:7]).flatten().clamp(-11 / 4, 11 / 4)
    expected = torch.zeros(4)
    for m in range(3):
        sample = bilinear(maps, y + offsets[3 + m].item(), x + offsets[m].item())
        expected += F.selu(head.sf_conv.weight[:, :, 0, 0] @ sample) @ head.agg_weights[m]
    torch.testing.assert_close(found, expected / expected.norm(), **CLOSE)


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_aliked_has_exactly_the_published_parameters(name: str) -> None:
    published = weights.load_state_dict(name)
    own = AlikedNetwork(ARCHITECTURES[name]).state_dict()
    assert {k: v.shape for k, v in own.items()} == {k: v.shape for k, v in published.items()}


def test_disk_has_exactly_the_published_parameters() -> None:
    published = weights.load_state_dict("disk-depth")
    own = DiskNetwork().state_dict()
    assert {k: v.shape for k, v in own.items()} == {k: v.shape for k, v in published.items()}


@pytest.mark.parametrize("image_seed", [0, 1])
def test_disk_block_normalises_gates_and_convolves(image_seed: int) -> None:
    torch.manual_seed(0)
    block, x = ConvBlock(3, 5), 4 * rand(2, 3, 6, 7, seed=image_seed) - 2
    mean, variance = x.mean((2, 3), keepdim=True), x.var((2, 3), correction=0, keepdim=True)
    normalised = (x - mean) / (variance + 1e-5).sqrt()
    gated = torch.where(normalised > 0, normalised, 0.25 * normalised)
    torch.testing.assert_close(block(x), F.conv2d(gated, block[3].weight, block[3].bias, padding=2), **CLOSE)
