"""The DISK network: a U-Net from an image to a heatmap and descriptors. Its readable definition; see `disk_fast`.

Tyszkiewicz et al., "DISK: Learning local features with policy gradient", NeurIPS 2020 (arXiv:2006.13566,
github.com/cvlab-epfl/disk). Module names are those of the published checkpoints.
"""

from __future__ import annotations

from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

__all__ = ["EPSILON", "KERNEL", "PLAIN_MODULES", "REACH", "STRIDE", "ConvBlock", "DiskNetwork", "UpBlock"]

STRIDE = 16  # of the coarsest feature map, relative to the image
KERNEL = 5
REACH = KERNEL // 2
EPSILON = 1e-5  # of the instance normalisation


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

    @property
    def slopes(self) -> Tensor:
        """Those of the PReLU, (C,)."""
        return cast(Tensor, self[1].weight)

    def weights(self, outputs: slice = slice(None)) -> tuple[Tensor, Tensor]:
        """Weight (O, C, 5, 5) and bias (O,) of the convolution's output channels `outputs`."""
        return self.conv.weight[outputs], cast(Tensor, self.conv.bias)[outputs]

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) to (B, O, H, W)."""
        if not self.first:
            variance, mean = torch.var_mean(x, dim=(2, 3), correction=0, keepdim=True)
            x = self[1]((x - mean) * (variance + EPSILON).rsqrt())
        return cast(Tensor, self.conv(x))


class UpBlock(nn.Module):
    """Doubles the resolution of the map from below and joins the one of the way down."""

    def __init__(self, channels_below: int, channels_beside: int, channels_out: int) -> None:
        super().__init__()
        self.conv = ConvBlock(channels_below + channels_beside, channels_out)

    def forward(self, below: Tensor, beside: Tensor) -> Tensor:
        """(B, C1, H / 2, W / 2) and (B, C2, H, W) to (B, O, H, W)."""
        enlarged = F.interpolate(below, scale_factor=2, mode="bilinear", align_corners=False)
        return cast(Tensor, self.conv(torch.cat((enlarged, beside), dim=1)))


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


class DiskNetwork(nn.Module):
    """The pure network."""

    def __init__(self, descriptor_dim: int = 128) -> None:
        super().__init__()
        self.unet = UNet(descriptor_dim + 1)

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """Heatmap (B, 1, H, W) and descriptors (B, D, H, W), not normalised.

        `image` is (B, 3, H, W) in [0, 1], its sides multiples of 16.
        """
        maps: list[Tensor] = []
        for block in self.unet.path_down:
            maps.append(block(maps[-1] if maps else image))
        x = maps.pop()
        for block in self.unet.path_up:
            x = block(x, maps.pop())
        return x[:, -1:], x[:, :-1]


# Modules whose parameters say all that they do.
PLAIN_MODULES = (
    DiskNetwork,
    UNet,
    UpBlock,
    ConvBlock,
    nn.Sequential,
    nn.ModuleList,
    nn.Identity,
    nn.PReLU,
    nn.Conv2d,
    nn.AvgPool2d,
)
