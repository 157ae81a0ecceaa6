"""The ALIKED network: an image in, a score map and descriptors out.

Zhao et al., "ALIKED: A Lighter Keypoint and Descriptor Extraction Network via Deformable Transformation", IEEE TIM 2023
(arXiv:2304.03608, github.com/Shiaoming/ALIKED). Module names are those of the published checkpoints.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lightglue.errors import InputError
from lightglue.extractors.padding import InputPadder

__all__ = [
    "ARCHITECTURES",
    "SDDH",
    "STRIDE",
    "AlikedNetwork",
    "Architecture",
    "ConvBlock",
    "DeformableConv2d",
    "DescriptorHead",
    "ResBlock",
    "deform_conv2d",
    "patch_pixels",
    "reader",
]

STRIDE = 32  # of the coarsest feature map, relative to the image

FeaturesAt = Callable[[Tensor], Tensor]  # int64 pixels (P, 2) x y inside a map to its features (P, D)


@dataclass(frozen=True)
class Architecture:
    """Sizes of one published network: channels of the four blocks, descriptor length, sample positions."""

    channels: tuple[int, int, int, int]
    descriptor_dim: int
    positions: int  # deformable samples per descriptor


# The paper's table of networks. n16rot is n16 trained with rotated images.
ARCHITECTURES = {
    "aliked-t16": Architecture((8, 16, 32, 64), 64, 16),
    "aliked-n16": Architecture((16, 32, 64, 128), 128, 16),
    "aliked-n16rot": Architecture((16, 32, 64, 128), 128, 16),
    "aliked-n32": Architecture((16, 32, 64, 128), 128, 32),
}


def deform_conv2d(image: Tensor, offsets: Tensor, weight: Tensor) -> Tensor:
    """Deformable 2-D convolution, stride 1, "same" padding with zeros, no bias (Dai et al., arXiv:1703.06211).

    One kernel position after another is sampled and multiplied in, so that the memory is that of one feature map,
    not of one per kernel position.

    Args:
        image: (B, C, H, W).
        offsets: (B, 2 * K * K, H, W), dy dx in px for each position of the kernel in raster order.
        weight: (O, C, K, K), K odd.

    Returns:
        (B, O, H, W).
    """
    (b, _, h, w), kernel = image.shape, int(weight.shape[-1])
    y = torch.arange(h, dtype=image.dtype, device=image.device)[:, None]
    x = torch.arange(w, dtype=image.dtype, device=image.device)
    shifts = offsets.view(b, kernel * kernel, 2, h, w)
    out = image.new_zeros(b, weight.shape[0], h * w)
    for position in range(kernel * kernel):
        row, col = divmod(position, kernel)
        dy, dx = shifts[:, position].unbind(dim=1)  # (B, H, W) each
        at_y, at_x = y + (row - kernel // 2) + dy, x + (col - kernel // 2) + dx
        # grid_sample's own coordinates, -1 and 1 at the edges of the outermost pixels: a side of 1 needs no care.
        grid = torch.stack(((2 * at_x + 1) / w - 1, (2 * at_y + 1) / h - 1), dim=-1)
        sampled = F.grid_sample(image, grid, align_corners=False)  # (B, C, H, W)
        out = out + weight[:, :, row, col] @ sampled.flatten(2)
    return out.view(b, -1, h, w)


class DeformableConv2d(nn.Module):
    """3x3 convolution whose sample positions another 3x3 convolution predicts."""

    padding, mask = 1, False  # published names, for those who replace `forward`

    def __init__(self, channels_in: int, channels_out: int) -> None:
        super().__init__()
        self.offset_conv = nn.Conv2d(channels_in, 2 * 3 * 3, 3, padding=1)
        self.regular_conv = nn.Conv2d(channels_in, channels_out, 3, padding=1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) to (B, O, H, W); an offset is at most a quarter of the longer side."""
        limit = max(x.shape[-2:]) / 4
        offsets = self.offset_conv(x).clamp(-limit, limit)
        return deform_conv2d(x, offsets, self.regular_conv.weight)


class ConvBlock(nn.Module):
    """Two 3x3 convolutions at full resolution."""

    def __init__(self, channels_in: int, channels_out: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels_in, channels_out, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels_out)
        self.conv2 = nn.Conv2d(channels_out, channels_out, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels_out)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) to (B, O, H, W)."""
        x = self.conv1(x)  # one step a line, so that no line holds more than its input and its output
        x = F.selu(self.bn1(x), inplace=True)
        x = self.conv2(x)
        return F.selu(self.bn2(x), inplace=True)


class ResBlock(nn.Module):
    """Two 3x3 convolutions, plain or deformable, beside a 1x1 one."""

    def __init__(self, channels_in: int, channels_out: int, deformable: bool) -> None:
        super().__init__()
        self.conv1 = _conv3x3(channels_in, channels_out, deformable)
        self.bn1 = nn.BatchNorm2d(channels_out)
        self.conv2 = _conv3x3(channels_out, channels_out, deformable)
        self.bn2 = nn.BatchNorm2d(channels_out)
        self.downsample = nn.Conv2d(channels_in, channels_out, 1)  # published name; the size stays

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) to (B, O, H, W)."""
        out = self.conv1(x)
        out = F.selu(self.bn1(out), inplace=True)
        out = self.conv2(out)
        out = self.bn2(out)
        out += self.downsample(x)
        return F.selu(out, inplace=True)


def _conv3x3(channels_in: int, channels_out: int, deformable: bool) -> nn.Module:
    if deformable:
        return DeformableConv2d(channels_in, channels_out)
    return nn.Conv2d(channels_in, channels_out, 3, padding=1, bias=False)


class DescriptorHead(nn.Module):
    """The sparse deformable descriptor head: a descriptor from a few learned sample positions around a keypoint."""

    def __init__(self, dim: int, positions: int) -> None:
        super().__init__()
        self.offset_conv = nn.Sequential(
            nn.Conv2d(dim, 2 * positions, 3), nn.SELU(), nn.Conv2d(2 * positions, 2 * positions, 1)
        )
        self.sf_conv = nn.Conv2d(dim, dim, 1, bias=False)
        self.agg_weights = nn.Parameter(torch.rand(positions, dim, dim))

    def forward(self, features_at: FeaturesAt, size: tuple[int, int], keypoints: Tensor) -> Tensor:
        """Descriptors (N, D), L2-normalised.

        Args:
            features_at: int64 pixels (P, 2) x y inside the map to its features (P, D).
            size: (H, W) of the feature map, px.
            keypoints: (N, 2) float x y, px of the feature map.
        """
        return self.describe(features_at, size, keypoints)[0]

    def describe(self, features_at: FeaturesAt, size: tuple[int, int], keypoints: Tensor) -> tuple[Tensor, Tensor]:
        """The descriptors of `forward`, and the sample positions (N, M, 2) relative to the keypoints, x y in px."""
        n, limit = len(keypoints), max(size) / 4
        around = patch_pixels(keypoints, size)  # (N, 3, 3, 2)
        patches = features_at(around.flatten(0, 2)).view(n, 3, 3, self.sf_conv.in_channels).permute(0, 3, 1, 2)
        offsets = self.offset_conv(patches).clamp(-limit, limit)
        offsets = offsets.view(n, 2, len(self.agg_weights)).transpose(1, 2)  # first all x, then all y
        samples = interpolate_features(features_at, size, (keypoints[:, None] + offsets).flatten(0, 1))
        samples = F.selu(F.linear(samples, self.sf_conv.weight[:, :, 0, 0]))
        descriptors = samples.view(n, self.agg_weights[:, 0].numel()) @ self.agg_weights.flatten(0, 1)
        return F.normalize(descriptors, dim=-1), offsets


class SDDH(DescriptorHead):
    """The descriptor head under its published name and call: `head(features, keypoints)`.

    Args:
        dims: of the features and descriptors.
        kernel_size: 3.
        n_pos: sample positions of a descriptor.
        gate, conv2D, mask: as in the published networks: SELU, False, False.
    """

    def __init__(
        self,
        dims: int,
        kernel_size: int = 3,
        n_pos: int = 8,
        gate: Any = None,
        conv2D: bool = False,
        mask: bool = False,
    ) -> None:
        if kernel_size != 3 or conv2D or mask or not isinstance(gate, (nn.SELU, type(None))):
            raise InputError("SDDH has only the published kernel_size=3, gate=SELU, conv2D=False, mask=False.")
        super().__init__(dims, n_pos)

    @classmethod
    def of(cls, head: DescriptorHead) -> SDDH:
        """`head`, its parameters and hooks, with the published call."""
        own = cls.__new__(cls)
        own.__dict__ = head.__dict__
        return own

    def forward(self, x: Tensor, keypoints: Sequence[Tensor]) -> tuple[list[Tensor], list[Tensor]]:  # type: ignore[override]
        """For each of the feature maps `x` (B, D, H, W) descriptors (N, D) and sample positions (N, M, 2).

        keypoints: B times (N, 2) x y from -1 to 1, between the centres of the outermost pixels.
        """
        h, w = x.shape[-2:]
        last = x.new_tensor([w - 1, h - 1])
        each = [self.describe(reader(one), (h, w), (xy + 1) / 2 * last) for one, xy in zip(x, keypoints, strict=True)]
        return [descriptors for descriptors, _ in each], [offsets for _, offsets in each]


def patch_pixels(keypoints: Tensor, size: tuple[int, int]) -> Tensor:
    """The pixels (N, 3, 3, 2) x y of the 3x3 patch around each keypoint (N, 2), all inside the map.

    The published patch never reaches the last row and column, since its corner stops at `size - 4`; without that,
    descriptors near these sides would not be the published ones. A map of less than four pixels, for which the
    published corner is negative, gives its outermost pixels repeatedly.
    """
    steps = torch.arange(3, device=keypoints.device)
    h, w = size
    corner_x, corner_y = (keypoints.long() - 1).unbind(dim=-1)
    x = (corner_x.clamp(max=w - 4).clamp(min=0)[:, None] + steps).clamp(max=w - 1)
    y = (corner_y.clamp(max=h - 4).clamp(min=0)[:, None] + steps).clamp(max=h - 1)
    return torch.stack((x[:, None, :].expand(-1, 3, 3), y[:, :, None].expand(-1, 3, 3)), dim=-1)


def interpolate_features(features_at: FeaturesAt, size: tuple[int, int], xy: Tensor) -> Tensor:
    """Bilinear interpolation between pixels: (P, D) at positions `xy` (P, 2). Outside the map lie zeros."""
    h, w = size
    corner = xy.floor()
    values: Tensor | float = 0.0
    for step in torch.tensor([[0, 0], [1, 0], [0, 1], [1, 1]], dtype=xy.dtype, device=xy.device):
        pixel = corner + step
        weight = (1 - (xy - pixel).abs()).prod(dim=-1)
        x, y = pixel.long().unbind(dim=-1)
        weight = weight.masked_fill((x < 0) | (x >= w) | (y < 0) | (y >= h), 0)
        inside = torch.stack((x.clamp(0, w - 1), y.clamp(0, h - 1)), dim=-1)
        features = features_at(inside)
        values = values + weight[:, None].to(features.dtype) * features
    return values  # type: ignore[return-value]


class AlikedNetwork(nn.Module):
    """The pure network, with dense maps: the definition that `aliked_fast` is tested against, and for training."""

    def __init__(self, architecture: Architecture) -> None:
        super().__init__()
        c1, c2, c3, c4 = architecture.channels
        dim = architecture.descriptor_dim
        self.block1 = ConvBlock(3, c1)
        self.block2 = ResBlock(c1, c2, deformable=False)
        self.block3 = ResBlock(c2, c3, deformable=True)
        self.block4 = ResBlock(c3, c4, deformable=True)
        self.conv1 = nn.Conv2d(c1, dim // 4, 1, bias=False)
        self.conv2 = nn.Conv2d(c2, dim // 4, 1, bias=False)
        self.conv3 = nn.Conv2d(c3, dim // 4, 1, bias=False)
        self.conv4 = nn.Conv2d(c4, dim // 4, 1, bias=False)
        self.score_head = nn.Sequential(
            nn.Conv2d(dim, 8, 1, bias=False),
            nn.SELU(),
            nn.Conv2d(8, 4, 3, padding=1, bias=False),
            nn.SELU(),
            nn.Conv2d(4, 4, 3, padding=1, bias=False),
            nn.SELU(),
            nn.Conv2d(4, 1, 3, padding=1, bias=False),
        )
        self.desc_head = DescriptorHead(dim, architecture.positions)

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """Image (B, 3, H, W) in [0, 1] to features (B, D, H, W), L2-normalised, and scores (B, 1, H, W) in [0, 1]."""
        padder = InputPadder(image.shape[-2], image.shape[-1], STRIDE)
        padded = padder.pad(image)
        x1 = self.block1(padded)
        x2 = self.block2(F.avg_pool2d(x1, 2))
        x3 = self.block3(F.avg_pool2d(x2, 4))
        x4 = self.block4(F.avg_pool2d(x3, 4))
        levels = (F.selu(self.conv1(x1)), F.selu(self.conv2(x2)), F.selu(self.conv3(x3)), F.selu(self.conv4(x4)))
        joined = torch.cat([_enlarge(level, padded) for level in levels], dim=1)
        scores = self.score_head(joined).sigmoid()
        return F.normalize(padder.unpad(joined), dim=1), padder.unpad(scores)

    def describe(self, features: Tensor, keypoints: Tensor) -> Tensor:
        """Descriptors (N, D) at `keypoints` (N, 2) x y, px, of one image's features (D, H, W)."""

        descriptors: Tensor = self.desc_head(reader(features), features.shape[-2:], keypoints)
        return descriptors


def reader(features: Tensor) -> FeaturesAt:
    """What reads a map (D, H, W) at pixels."""
    return lambda pixels: features[:, pixels[:, 1], pixels[:, 0]].T


def _enlarge(level: Tensor, like: Tensor) -> Tensor:
    return F.interpolate(level, size=like.shape[-2:], mode="bilinear", align_corners=True)
