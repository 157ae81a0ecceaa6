"""The DISK network: a U-Net from an image to a heatmap and descriptors.

Tyszkiewicz et al., "DISK: Learning local features with policy gradient", NeurIPS 2020 (arXiv:2006.13566,
github.com/cvlab-epfl/disk). Module names are those of the published checkpoints.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import cast

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

    def activate(self, x: Tensor, mean: Tensor, variance: Tensor) -> Tensor:
        """The convolution's input: `x` (B, C, ...) normalised with the image's statistics (B, C, 1...), gated."""
        return self[1]((x - mean) * (variance + EPSILON).rsqrt())  # type: ignore[no-any-return]

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) to (B, O, H, W)."""
        if not self.first:
            variance, mean = torch.var_mean(x, dim=(2, 3), correction=0, keepdim=True)
            x = self.activate(x, mean, variance)
        return cast(Tensor, self.conv(x))


class UpBlock(nn.Module):
    """Doubles the resolution and joins the map of the way down."""

    def __init__(self, channels_below: int, channels_beside: int, channels_out: int) -> None:
        super().__init__()
        self.conv = ConvBlock(channels_below + channels_beside, channels_out)

    def forward(self, below: Tensor, beside: Tensor) -> Tensor:
        """(B, C, H, W) and (B, C', 2H, 2W) to (B, O, 2H, 2W)."""
        return self.conv(torch.cat((_enlarge(below), beside), dim=1))  # type: ignore[no-any-return]


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


@dataclass(frozen=True)
class Encoded:
    """What goes into the last block: its two maps, and the statistics (B, C, 1, 1) of both joined."""

    below: Tensor  # (B, C1, H / 2, W / 2)
    beside: Tensor  # (B, C2, H, W)
    mean: Tensor
    variance: Tensor


class DiskNetwork(nn.Module):
    """The pure network. `forward` is its readable definition with dense maps.

    `encode`, `heatmap` and `describe` give the same, but descriptors only where asked for: the last convolution is
    four fifths of the arithmetic, and nearly all of it is for descriptors that no keypoint reads.
    """

    def __init__(self, descriptor_dim: int = 128) -> None:
        super().__init__()
        self.unet = UNet(descriptor_dim + 1)

    @property
    def last(self) -> ConvBlock:
        """The block that gives the descriptors and, as its last channel, the heatmap."""
        return cast(UpBlock, self.unet.path_up[-1]).conv

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """Heatmap (B, 1, H, W) and descriptors (B, D, H, W), not normalised.

        `image` is (B, 3, H, W) in [0, 1], its sides multiples of 16.
        """
        below, beside = self._halves(image)
        maps = self.unet.path_up[-1](below, beside)
        return maps[:, -1:], maps[:, :-1]

    def _halves(self, image: Tensor) -> tuple[Tensor, Tensor]:
        maps = [image]
        for block in self.unet.path_down:
            maps.append(block(maps[-1]))
        below = maps.pop()
        for block in self.unet.path_up[:-1]:
            below = block(below, maps.pop())
        return below, maps.pop()

    def encode(self, image: Tensor) -> Encoded:
        """All but the last convolution, for images (B, 3, H, W) in [0, 1] whose sides are multiples of 16."""
        below, beside = self._halves(image)
        shares, variances, means = [], [], []
        for start, stop in _strips(beside.shape[2]):
            variance, mean = torch.var_mean(_rows(below, beside, start, stop), dim=(2, 3), correction=0, keepdim=True)
            shares.append((stop - start) / beside.shape[2])
            variances.append(variance)
            means.append(mean)
        share = beside.new_tensor(shares)[:, None, None, None, None]
        mean = (share * torch.stack(means)).sum(dim=0)
        spread = torch.stack(variances) + (torch.stack(means) - mean) ** 2
        return Encoded(below, beside, mean, (share * spread).sum(dim=0))

    def heatmap(self, encoded: Encoded) -> Tensor:
        """The heatmap (B, 1, H, W), in strips."""
        conv, height = self.last.conv, encoded.beside.shape[2]
        strips = []
        for start, stop in _strips(height):
            above, below = min(REACH, start), min(REACH, height - stop)
            rows = _rows(encoded.below, encoded.beside, start - above, stop + below)
            x = self.last.activate(rows, encoded.mean, encoded.variance)
            heat = F.conv2d(x, conv.weight[-1:], conv.bias[-1:], padding=REACH)  # type: ignore[index]
            strips.append(heat[:, :, above : above + stop - start])
        return torch.cat(strips, dim=2)

    def describe(self, encoded: Encoded, index: int, pixels: Tensor) -> Tensor:
        """Descriptors (N, D), not normalised, of image number `index` at `pixels` (N, 2) int64 x y."""
        return torch.cat([self._describe(encoded, index, part) for part in torch.split(pixels, KEYPOINTS)])

    def _describe(self, encoded: Encoded, index: int, pixels: Tensor) -> Tensor:
        beside, conv = encoded.beside[index], self.last.conv
        h, w = beside.shape[-2:]
        steps = torch.arange(-REACH, REACH + 1, device=pixels.device)
        dy, dx = torch.meshgrid(steps, steps, indexing="ij")
        xy = (pixels[:, None] + torch.stack((dx.flatten(), dy.flatten()), dim=-1)).flatten(0, 1)  # (N * 25, 2)
        x, y = xy.unbind(dim=-1)
        inside = (x >= 0) & (x < w) & (y >= 0) & (y < h)
        x, y = x.clamp(0, w - 1), y.clamp(0, h - 1)
        halved = torch.stack((x, y), dim=-1).to(beside.dtype) / 2 - 0.25
        values = torch.cat((sample_bilinear(encoded.below[index], halved, "border"), beside[:, y, x].T), dim=1)
        values = self.last.activate(values, encoded.mean[index, :, 0, 0], encoded.variance[index, :, 0, 0])
        values = values.masked_fill(~inside[:, None], 0)  # the convolution's zeros around the map
        weight = conv.weight[:-1].permute(2, 3, 1, 0).flatten(0, 2)  # (25 * C, D)
        return values.view(len(pixels), -1) @ weight + conv.bias[:-1]  # type: ignore[index]


def _enlarge(below: Tensor) -> Tensor:
    return F.interpolate(below, scale_factor=2, mode="bilinear", align_corners=False)


def _strips(height: int) -> Iterator[tuple[int, int]]:
    return ((start, min(start + ROWS, height)) for start in range(0, height, ROWS))


def _rows(below: Tensor, beside: Tensor, start: int, stop: int) -> Tensor:
    """Rows [start, stop) of the enlarged `below` and of `beside`, joined."""
    first, last = max(start // 2 - 1, 0), (stop + 1) // 2 + 1  # one more on each side for the interpolation
    enlarged = _enlarge(below[:, :, first:last])[:, :, start - 2 * first : stop - 2 * first]
    return torch.cat((enlarged, beside[:, :, start:stop]), dim=1)
