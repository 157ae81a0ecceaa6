"""The DISK network: a U-Net from an image to a heatmap and descriptors.

Tyszkiewicz et al., "DISK: Learning local features with policy gradient", NeurIPS 2020 (arXiv:2006.13566,
github.com/cvlab-epfl/disk). Module names are those of the published checkpoints.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lightglue.extractors.detection import sample_bilinear

__all__ = ["DiskNetwork", "Encoded"]

STRIDE = 16  # of the coarsest feature map, relative to the image
KERNEL = 5
REACH = KERNEL // 2
EPSILON = 1e-5  # of the instance normalisation
ROWS = 64  # of a full-resolution map that are worked on at once, to bound the memory
KEYPOINTS = 1024  # that are described at once, likewise


class Statistics(NamedTuple):
    """What instance normalisation subtracts and divides by, (B, C, 1, 1) each."""

    mean: Tensor
    variance: Tensor


class ConvBlock(nn.Sequential):
    """Instance norm, PReLU, 5x5 convolution; the network's first block is the convolution alone."""

    def __init__(self, channels_in: int, channels_out: int, first: bool = False) -> None:
        gate = nn.Identity() if first else nn.PReLU(channels_in)
        conv = nn.Conv2d(channels_in, channels_out, KERNEL, padding=REACH)
        super().__init__(nn.Identity(), gate, nn.Identity(), conv)  # checkpoints number them 1 and 3
        self.first = first

    @property
    def conv(self) -> nn.Conv2d:
        """The convolution."""
        return cast(nn.Conv2d, self[3])

    def weights(self, outputs: slice) -> tuple[Tensor, Tensor]:
        """Weight (O, C, 5, 5) and bias (O,) of the convolution's output channels `outputs`."""
        return self.conv.weight[outputs], cast(Tensor, self.conv.bias)[outputs]

    def activate(self, x: Tensor, statistics: Statistics) -> Tensor:
        """The convolution's input: `x` (B, C, H, W) normalised with each image's statistics, then gated."""
        x = (x - statistics.mean) * (statistics.variance + EPSILON).rsqrt()
        return cast(Tensor, self[1](x))

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) to (B, O, H, W)."""
        if not self.first:
            variance, mean = torch.var_mean(x, dim=(2, 3), correction=0, keepdim=True)
            x = self.activate(x, Statistics(mean, variance))
        return cast(Tensor, self.conv(x))


class UpBlock(nn.Module):
    """Doubles the resolution of the map from below and joins the one of the way down.

    `forward` is the readable definition; `statistics` and `convolve` give the same strip by strip, since the joined map
    is larger than all else in the network.
    """

    def __init__(self, channels_below: int, channels_beside: int, channels_out: int) -> None:
        super().__init__()
        self.conv = ConvBlock(channels_below + channels_beside, channels_out)

    def forward(self, below: Tensor, beside: Tensor) -> Tensor:
        """(B, C1, H / 2, W / 2) and (B, C2, H, W) to (B, O, H, W)."""
        return cast(Tensor, self.conv(torch.cat((_enlarge(below), beside), dim=1)))

    def statistics(self, below: Tensor, beside: Tensor) -> Statistics:
        """Mean and variance of both maps joined: those of the strips, combined (Chan et al. 1979)."""
        height = beside.shape[2]
        parts, shares = [], []
        for start, stop in _strips(height):
            parts.append(torch.var_mean(_rows(below, beside, start, stop), dim=(2, 3), correction=0, keepdim=True))
            shares.append((stop - start) / height)
        variances, means = (torch.stack(values) for values in zip(*parts, strict=True))
        share = beside.new_tensor(shares)[:, None, None, None, None]
        mean = (share * means).sum(dim=0)
        return Statistics(mean, (share * (variances + (means - mean) ** 2)).sum(dim=0))

    def convolve(self, below: Tensor, beside: Tensor, statistics: Statistics, outputs: slice) -> Tensor:
        """The output channels `outputs`, (B, O, H, W)."""
        height = beside.shape[2]
        weight, bias = self.conv.weights(outputs)
        strips = []
        for start, stop in _strips(height):
            above, under = min(REACH, start), min(REACH, height - stop)
            rows = _rows(below, beside, start - above, stop + under)
            out = F.conv2d(self.conv.activate(rows, statistics), weight, bias, padding=REACH)
            strips.append(out[:, :, above : above + stop - start])
        return torch.cat(strips, dim=2)


class UNet(nn.Module):
    """The U-Net's blocks under their published names."""

    def __init__(self, channels_out: int) -> None:
        super().__init__()
        down = (3, 16, 32, 64, 64, 64)
        up = (64, 64, 64, 64, channels_out)
        self.path_down = nn.ModuleList(
            nn.Sequential(nn.AvgPool2d(2) if i else nn.Identity(), ConvBlock(down[i], down[i + 1], first=i == 0))
            for i in range(5)
        )
        self.path_up = nn.ModuleList(UpBlock(up[i], down[4 - i], up[i + 1]) for i in range(4))

    @property
    def first(self) -> ConvBlock:
        """The block that sees the image."""
        return cast(ConvBlock, cast(nn.Sequential, self.path_down[0])[1])


class Encoded(NamedTuple):
    """What goes into the last block."""

    below: Tensor  # (B, C1, H / 2, W / 2)
    beside: Tensor  # (B, C2, H, W)
    statistics: Statistics


class DiskNetwork(nn.Module):
    """The pure network. `forward` is its readable definition with dense maps.

    `encode`, `heatmap` and `describe` give the same, but descriptors only where asked for: the last convolution is
    four fifths of the arithmetic, and nearly all of it is for descriptors that no keypoint reads.
    """

    def __init__(self, descriptor_dim: int = 128) -> None:
        super().__init__()
        self.unet = UNet(descriptor_dim + 1)

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """Heatmap (B, 1, H, W) and descriptors (B, D, H, W), not normalised.

        `image` is (B, 3, H, W) in [0, 1], its sides multiples of 16.
        """
        maps = self._way_down(image)
        x = maps.pop()
        for block in self.unet.path_up:
            x = block(x, maps.pop())
        return x[:, -1:], x[:, :-1]

    def encode(self, image: Tensor) -> Encoded:
        """All but the last block, for images (B, 3, H, W) in [0, 1] whose sides are multiples of 16."""
        maps = self._way_down(image)
        x = maps.pop()
        *blocks, last = cast(list[UpBlock], list(self.unet.path_up))
        for block in blocks:
            beside = maps.pop()
            x = block.convolve(x, beside, block.statistics(x, beside), slice(None))
        beside = maps.pop()
        return Encoded(x, beside, last.statistics(x, beside))

    def _way_down(self, image: Tensor) -> list[Tensor]:
        maps: list[Tensor] = []
        for block in self.unet.path_down:
            maps.append(block(maps[-1] if maps else image))
        return maps

    @property
    def last(self) -> UpBlock:
        """The block that gives the descriptors and, as its last channel, the heatmap."""
        return cast(UpBlock, self.unet.path_up[-1])

    def heatmap(self, encoded: Encoded) -> Tensor:
        """The heatmap (B, 1, H, W)."""
        return self.last.convolve(*encoded, slice(-1, None))

    def describe(self, encoded: Encoded, index: int, pixels: Tensor) -> Tensor:
        """Descriptors (N, D), not normalised, of image number `index` at `pixels` (N, 2) int64 x y."""
        return torch.cat([self._describe(encoded, index, part) for part in torch.split(pixels, KEYPOINTS)])

    def _describe(self, encoded: Encoded, index: int, pixels: Tensor) -> Tensor:
        below, beside = encoded.below[index], encoded.beside[index]
        h, w = beside.shape[-2:]
        steps = torch.arange(-REACH, REACH + 1, device=pixels.device)
        dy, dx = torch.meshgrid(steps, steps, indexing="ij")
        xy = (pixels[:, None] + torch.stack((dx.flatten(), dy.flatten()), dim=-1)).flatten(0, 1)  # (N * 25, 2)
        x, y = xy.unbind(dim=-1)
        inside = (x >= 0) & (x < w) & (y >= 0) & (y < h)
        x, y = x.clamp(0, w - 1), y.clamp(0, h - 1)
        halved = torch.stack((x, y), dim=-1).to(beside.dtype) / 2 - 0.25
        values = torch.cat((sample_bilinear(below, halved, "border"), beside[:, y, x].T), dim=1)  # (N * 25, C)
        values = self.last.conv.activate(values, Statistics(*(s[index, :, 0, 0] for s in encoded.statistics)))
        values = values.masked_fill(~inside[:, None], 0)  # the convolution's zeros around the map
        weight, bias = self.last.conv.weights(slice(0, -1))
        weight = weight.permute(2, 3, 1, 0).flatten(0, 2)  # (25 * C, D)
        return values.view(len(pixels), len(weight)) @ weight + bias


def _enlarge(below: Tensor) -> Tensor:
    return F.interpolate(below, scale_factor=2, mode="bilinear", align_corners=False)


def _strips(height: int) -> Iterator[tuple[int, int]]:
    return ((start, min(start + ROWS, height)) for start in range(0, height, ROWS))


def _rows(below: Tensor, beside: Tensor, start: int, stop: int) -> Tensor:
    """Rows [start, stop) of the enlarged `below` and of `beside`, joined."""
    first, last = max(start // 2 - 1, 0), (stop + 1) // 2 + 1  # one more on each side for the interpolation
    enlarged = _enlarge(below[:, :, first:last])[:, :, start - 2 * first : stop - 2 * first]
    return torch.cat((enlarged, beside[:, :, start:stop]), dim=1)
