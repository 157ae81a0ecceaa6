"""The HardNet network, and the patches that it describes.

Mishchuk et al., "Working hard to know your neighbor's margins: Local descriptor learning loss", NIPS 2017
(arXiv:1705.10872, github.com/DagnyT/hardnet). Module names are those of the published checkpoints.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lightglue.extractors.detection import sample_bilinear

__all__ = ["PATCH", "HardNetNetwork", "extract_patches"]

PATCH = 32  # side of a patch, samples
EPSILON = 1e-6  # beside a patch's standard deviation
PATCHES = 64  # that are worked on at once, to bound the memory
DROPOUT = 0.3  # in training

# Binomial kernel of the image pyramid (Burt and Adelson 1983).
BINOMIAL = (1 / 16, 4 / 16, 6 / 16, 4 / 16, 1 / 16)


class HardNetNetwork(nn.Module):
    """The pure network: gray patches in, unit descriptors of 128 numbers out."""

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        before = 1
        for after, stride in ((32, 1), (32, 1), (64, 2), (64, 1), (128, 2), (128, 1)):
            layers += [nn.Conv2d(before, after, 3, stride, padding=1, bias=False)]
            layers += [nn.BatchNorm2d(after, affine=False), nn.ReLU()]
            before = after
        layers += [nn.Dropout(DROPOUT), nn.Conv2d(before, 128, PATCH // 4, bias=False)]
        self.features = nn.Sequential(*layers, nn.BatchNorm2d(128, affine=False))

    def forward(self, patches: Tensor) -> Tensor:
        """(N, 1, 32, 32), of any brightness and contrast, to (N, 128)."""
        deviation, mean = torch.std_mean(patches, dim=(1, 2, 3), keepdim=True)
        return F.normalize(self.features((patches - mean) / (deviation + EPSILON)).flatten(1), dim=-1)

    def describe(self, image: Tensor, keypoints: Tensor, radii: Tensor, angles: Tensor) -> Tensor:
        """Descriptors (N, 128) of the patches that `extract_patches` cuts out of one image."""
        found = [image.new_zeros(0, 128)]
        pyramid = _pyramid(image)
        for start in range(0, len(keypoints), PATCHES):
            part = slice(start, start + PATCHES)
            found.append(self(_cut(pyramid, keypoints[part], radii[part], angles[part])))
        return torch.cat(found)


def extract_patches(image: Tensor, keypoints: Tensor, radii: Tensor, angles: Tensor) -> Tensor:
    """Square patches around keypoints, from the level of an image pyramid that has about their resolution.

    The square is rotated by the angle from x towards -y, thus counter-clockwise on the screen. Beyond the image its
    border is continued. This is kornia 0.9's `extract_patches_from_pyramid` for frames without shear.

    Args:
        image: (1, H, W).
        keypoints: (N, 2) x y in px, the centres.
        radii: (N,) half the square's side in px.
        angles: (N,) radians.

    Returns:
        (N, 1, 32, 32).
    """
    return _cut(_pyramid(image), keypoints, radii, angles)


def _pyramid(image: Tensor) -> list[Tensor]:
    """(1, H, W) and its halves, quarters, ... as long as both sides hold a patch."""
    kernel = image.new_tensor(BINOMIAL)
    levels = [image]
    while min(size := [side // 2 for side in levels[-1].shape[-2:]]) >= PATCH:
        blurred = F.pad(levels[-1][None], (2, 2, 2, 2), mode="reflect")
        blurred = F.conv2d(F.conv2d(blurred, kernel.view(1, 1, 1, -1)), kernel.view(1, 1, -1, 1))
        levels.append(F.interpolate(blurred, size=size, mode="bilinear", align_corners=False)[0])
    return levels


def _cut(pyramid: list[Tensor], keypoints: Tensor, radii: Tensor, angles: Tensor) -> Tensor:
    """`extract_patches` from the levels (1, h, w) of a pyramid."""
    steps = (2 * torch.arange(PATCH, device=keypoints.device) + 1) / PATCH - 1  # the samples' middles, in [-1, 1]
    down, right = torch.meshgrid(steps, steps, indexing="ij")
    cos, sin = (radii * angles.cos())[:, None, None], (radii * angles.sin())[:, None, None]
    offsets = torch.stack((cos * right + sin * down, cos * down - sin * right), dim=-1)
    positions = keypoints[:, None, None] + offsets  # (N, 32, 32, 2)
    # One sample to each pixel or less: a level above would be too coarse.
    wanted = (2 * radii / PATCH).log2().clamp(0, len(pyramid) - 1).long()
    patches = pyramid[0].new_empty(len(keypoints), 1, PATCH, PATCH)
    full = torch.tensor(pyramid[0].shape[:0:-1], device=keypoints.device)  # w, h
    for number, level in enumerate(pyramid):
        chosen = (wanted == number).nonzero()[:, 0]
        size = torch.tensor(level.shape[:0:-1], device=keypoints.device)
        there = (positions[chosen] + 0.5) * (size / full) - 0.5
        samples = sample_bilinear(level, there.flatten(0, 2), "border")
        patches[chosen] = samples.view(-1, 1, PATCH, PATCH)
    return patches
