"""The XFeat network: a gray image in; descriptors, keypoint logits and reliability on a grid of cells of 8 px out.

Potje et al., "XFeat: Accelerated Features for Lightweight Image Matching", CVPR 2024 (arXiv:2404.19174), section 3.
Parameters bear the names of the published checkpoint (github.com/verlab/accelerated_features), so that it loads
strictly.
"""

from __future__ import annotations

from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

__all__ = ["CELL", "STRIDE", "ConvLayer", "XFeatNetwork", "cells_at", "normalize"]

CELL = 8  # px, side of a cell
STRIDE = 32  # px: the sides of an image are multiples of it
EPSILON = 1e-5  # added to the variance of the image (torch's default for instance norms)


def normalize(gray: Tensor) -> Tensor:
    """Each image of (B, 1, H, W) with its own mean taken away, and divided by its own deviation."""
    # Step by step, which takes a third of the time of `var_mean`.
    centred = gray - gray.mean(dim=(1, 2, 3), keepdim=True)
    variance = centred.square().mean(dim=(1, 2, 3), keepdim=True)
    return centred * (variance + EPSILON).rsqrt()


def cells_at(pixels: Tensor, size: tuple[int, int]) -> Tensor:
    """Where `pixels` (N, 2), x y in an image of `size` (height, width), lie among its cells: (N, 2) x y in cells.

    The published formula. It stretches the outermost pixels' centres to the outer edges of the outermost cells, so that
    positions are up to half a pixel off towards each side; the network was trained with it.
    """
    height, width = size
    last = torch.tensor([width - 1, height - 1], dtype=pixels.dtype, device=pixels.device)
    extent = torch.tensor([width / CELL, height / CELL], dtype=pixels.dtype, device=pixels.device)
    return pixels / last * extent - 0.5


class ConvLayer(nn.Module):
    """Convolution, batch norm without parameters of its own, ReLU."""

    def __init__(self, before: int, after: int, kernel: int = 3, stride: int = 1) -> None:
        super().__init__()
        self.layer = nn.Sequential(
            nn.Conv2d(before, after, kernel, stride, padding=kernel // 2, bias=False),
            nn.BatchNorm2d(after, affine=False),
            nn.ReLU(),
        )

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) to (B, O, H / stride, W / stride)."""
        y: Tensor = self.layer(x)
        return y


class XFeatNetwork(nn.Module):
    """The pure network."""

    def __init__(self) -> None:
        super().__init__()
        self.skip1 = nn.Sequential(nn.AvgPool2d(4, stride=4), nn.Conv2d(1, 24, 1))
        self.block1 = nn.Sequential(
            ConvLayer(1, 4), ConvLayer(4, 8, stride=2), ConvLayer(8, 8), ConvLayer(8, 24, stride=2)
        )
        self.block2 = nn.Sequential(ConvLayer(24, 24), ConvLayer(24, 24))
        self.block3 = nn.Sequential(ConvLayer(24, 64, stride=2), ConvLayer(64, 64), ConvLayer(64, 64, kernel=1))
        self.block4 = nn.Sequential(ConvLayer(64, 64, stride=2), ConvLayer(64, 64), ConvLayer(64, 64))
        self.block5 = nn.Sequential(
            ConvLayer(64, 128, stride=2), ConvLayer(128, 128), ConvLayer(128, 128), ConvLayer(128, 64, kernel=1)
        )
        self.block_fusion = nn.Sequential(ConvLayer(64, 64), ConvLayer(64, 64), nn.Conv2d(64, 64, 1))
        self.heatmap_head = nn.Sequential(
            ConvLayer(64, 64, kernel=1), ConvLayer(64, 64, kernel=1), nn.Conv2d(64, 1, 1), nn.Sigmoid()
        )
        self.keypoint_head = nn.Sequential(
            *(ConvLayer(CELL**2, CELL**2, kernel=1) for _ in range(3)), nn.Conv2d(CELL**2, CELL**2 + 1, 1)
        )
        # Refines semi-dense matches, which this package does not make. It is here for its place in the checkpoint.
        widths = (128, 512, 512, 512, 512)
        layers: list[nn.Module] = []
        for before, after in pairwise(widths):
            layers += [nn.Linear(before, after), nn.BatchNorm1d(after, affine=False), nn.ReLU()]
        self.fine_matcher = nn.Sequential(*layers, nn.Linear(widths[-1], CELL**2))

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Features (B, 64, h, w), not normalised, logits (B, 65, h, w) and reliability (B, 1, h, w) in [0, 1].

        `image` is (B, 1, H, W), normalised, its sides multiples of STRIDE; h = H / CELL, w = W / CELL. The logits are
        of the pixels of a cell in raster order, then of none of them being a keypoint.
        """
        fine = self.block3(self.block2(self.block1(image) + self.skip1(image)))
        middle = self.block4(fine)
        coarse = self.block5(middle)
        size = fine.shape[-2:]
        pyramid = fine + _enlarge(middle, size) + _enlarge(coarse, size)
        features = self.block_fusion(pyramid)
        logits = self.keypoint_head(F.pixel_unshuffle(image, CELL))
        return features, logits, self.heatmap_head(features)

    def heatmap(self, logits: Tensor) -> Tensor:
        """Each pixel's probability (B, 1, H, W) of being the keypoint of its cell."""
        return F.pixel_shuffle(logits.softmax(dim=1)[:, :-1], CELL)

    def describe(self, features: Tensor, pixels: Tensor) -> Tensor:
        """Unit descriptors (N, 64) of an image's `features` (64, h, w), by bicubic interpolation at `pixels` (N, 2)."""
        return F.normalize(_sample(F.normalize(features, dim=0), pixels, "bicubic"), dim=-1)

    def trust(self, reliability: Tensor, pixels: Tensor) -> Tensor:
        """The reliability (N,) at `pixels` (N, 2) of an image's map (1, h, w), by bilinear interpolation."""
        return _sample(reliability, pixels, "bilinear")[:, 0]


def _enlarge(x: Tensor, size: torch.Size) -> Tensor:
    return F.interpolate(x, size, mode="bilinear", align_corners=False)


def _sample(maps: Tensor, pixels: Tensor, mode: str) -> Tensor:
    """Values (N, C) of `maps` (C, h, w), which are 0 outside."""
    h, w = maps.shape[-2:]
    cells = cells_at(pixels, (h * CELL, w * CELL))
    grid = ((cells + 0.5) / torch.tensor([w, h], dtype=cells.dtype, device=cells.device) * 2 - 1).to(maps.dtype)
    return F.grid_sample(maps[None], grid[None, None], mode=mode, align_corners=False)[0, :, 0].T
