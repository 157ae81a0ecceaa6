"""The RaCo network: an image in, maps of keypoint logits, ranks and uncertainties out.

Shenoi et al., "RaCo: Ranking and Covariance for Practical Learned Keypoints", 3DV 2026 (arXiv:2602.15755,
github.com/cvg/RaCo). An encoder like ALIKED's, without deformable convolutions. Module names are those of the published
checkpoint.
"""

from __future__ import annotations

from itertools import pairwise
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lightglue.extractors.aliked_network import ConvBlock

__all__ = ["STRIDE", "RacoMaps", "RacoNetwork"]

STRIDE = 32  # of the coarsest feature map; sides are padded to multiples of it
CHANNELS = (16, 32, 64, 128)  # of the four blocks
LEVEL_CHANNELS = 32  # of each level after its projection
RANKER_CHANNELS, RANKER_BLOCKS = 12, 9
# Colours are normalised as for ImageNet.
MEAN, DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class RacoMaps(NamedTuple):
    """What the network says of each pixel."""

    logits: Tensor  # (B, 1, H, W) of being a keypoint
    ranks: Tensor | None  # (B, 1, H, W), higher is better; None without that head
    cholesky: Tensor | None  # (B, 3, H, W), L11 > 0, L21 and L22 > 0 in px, of a covariance L L^T; None likewise


class ResBlock(nn.Module):
    """Two 3x3 convolutions beside a 1x1 one."""

    def __init__(self, channels_in: int, channels_out: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels_in, channels_out, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels_out)
        self.conv2 = nn.Conv2d(channels_out, channels_out, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels_out)
        self.match_dims = nn.Conv2d(channels_in, channels_out, 1)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) to (B, O, H, W)."""
        out = F.selu(self.bn1(self.conv1(x)), inplace=True)
        return F.selu(self.bn2(self.conv2(out)) + self.match_dims(x), inplace=True)


class RacoNetwork(nn.Module):
    """The pure network.

    Args:
        ranker: with the head that says which keypoints are matched best. It reads the image, not the encoder's maps.
        covariance: with the head that says how well a keypoint is localised.
    """

    def __init__(self, ranker: bool = True, covariance: bool = True) -> None:
        super().__init__()
        first, *others = CHANNELS
        self.block1 = ConvBlock(3, first)
        self.block2, self.block3, self.block4 = (ResBlock(before, after) for before, after in pairwise(CHANNELS))
        self.conv1 = nn.Conv2d(first, LEVEL_CHANNELS, 1, bias=False)
        self.conv2, self.conv3, self.conv4 = (
            nn.Conv2d(channels, LEVEL_CHANNELS, 3, padding=1, bias=False) for channels in others
        )
        dim = LEVEL_CHANNELS * len(CHANNELS)
        self.score_head = _score_head(dim)
        self.ranker_head = _ranker_head() if ranker else None
        self.covariance_estimator_head = _covariance_head(dim) if covariance else None

    def forward(self, image: Tensor) -> RacoMaps:
        """The maps of images (B, 3, H, W) in [0, 1], of any size."""
        h, w = image.shape[-2:]
        mean, deviation = (image.new_tensor(values)[:, None, None] for values in (MEAN, DEVIATION))
        left, top = -w % STRIDE // 2, -h % STRIDE // 2
        pads = (left, -w % STRIDE - left, top, -h % STRIDE - top)
        x = F.pad((image - mean) / deviation, pads, mode="replicate")

        def unpad(maps: Tensor) -> Tensor:
            return maps[..., top : top + h, left : left + w]

        features = self.encode(x)
        logits = unpad(self.score_head(features))
        ranks = None if self.ranker_head is None else unpad(self.ranker_head(x))
        if self.covariance_estimator_head is None:
            return RacoMaps(logits, ranks, None)
        l11, l21, l22 = unpad(self.covariance_estimator_head(features)).unbind(1)
        return RacoMaps(logits, ranks, torch.stack((F.softplus(l11), l21, F.softplus(l22)), 1))

    def encode(self, x: Tensor) -> Tensor:
        """Features (B, D, H, W) of normalised images (B, 3, H, W), whose sides are multiples of the stride."""
        size = x.shape[-2:]
        x = self.block1(x)
        levels = [self.conv1(x)]
        for pool, block, project in (
            (2, self.block2, self.conv2),
            (4, self.block3, self.conv3),
            (4, self.block4, self.conv4),
        ):
            x = block(F.avg_pool2d(x, pool))
            levels.append(project(x))
        first, *others = (F.selu(level, inplace=True) for level in levels)
        enlarged = [F.interpolate(level, size, mode="bilinear", align_corners=True) for level in others]
        return torch.cat((first, *enlarged), 1)


def _score_head(dim: int) -> nn.Sequential:
    layers: list[nn.Module] = [nn.Conv2d(dim, 8, 1, bias=False)]
    for before, after in ((8, 4), (4, 4), (4, 1)):
        layers += [nn.SELU(), nn.Conv2d(before, after, 3, padding=1, bias=False)]
    return nn.Sequential(*layers)


def _ranker_head() -> nn.Sequential:
    widths = (3, *[RANKER_CHANNELS] * RANKER_BLOCKS)
    blocks = [ResBlock(before, after) for before, after in pairwise(widths)]
    return nn.Sequential(*blocks, nn.Conv2d(RANKER_CHANNELS, 1, 5, padding=2, padding_mode="reflect"))


def _covariance_head(dim: int) -> nn.Sequential:
    layers: list[nn.Module] = []
    for before, after in ((dim, 64), (64, 32), (32, 32)):
        layers += [nn.Conv2d(before, after, 3, padding=1, bias=False, padding_mode="reflect"), nn.LeakyReLU()]
    return nn.Sequential(*layers, nn.Conv2d(32, 3, 1))
