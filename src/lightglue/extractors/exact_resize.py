"""Shrink an image with the published result to the last bit.

`lightglue.resampling` is faster and right within rounding. Where an image is cut off to 8 bits afterwards, as for
SIFT, that is not enough: white comes out as 255 or as 254.99998, which is cut off to 254.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["shrink_exactly"]


def shrink_exactly(image: Tensor, size: tuple[int, int]) -> Tensor:
    """`image` (B, C, H, W) blurred and interpolated to `size` (height, width), in the steps and dtypes of kornia 0.9.

    These are those of `kornia.geometry.transform.resize(..., antialias=True)`: the blur along x, then along y, its
    kernels computed in the image's dtype, then bilinear interpolation.
    """
    along_y, along_x = (_gaussian(n, m, image) for n, m in zip(image.shape[-2:], size, strict=True))
    pad_x, pad_y = len(along_x) // 2, len(along_y) // 2
    shrunk = []
    for own in image:  # image by image, since how many there are decides how torch rounds
        planes = F.pad(own[:, None], (pad_x, pad_x, pad_y, pad_y), mode="reflect")
        planes = F.conv2d(F.conv2d(planes, along_x.view(1, 1, 1, -1)), along_y.view(1, 1, -1, 1)).transpose(0, 1)
        # How torch rounds here depends on the number of threads too, but not for four channels that come last.
        four = F.pad(planes, (0, 0, 0, 0, 0, 4 - len(own))).contiguous(memory_format=torch.channels_last)
        shrunk.append(F.interpolate(four, size=size, mode="bilinear")[:, : len(own)])
    return torch.cat(shrunk).contiguous()


def _gaussian(before: int, after: int, like: Tensor) -> Tensor:
    """The kernel (T,) for an axis of `before` px that becomes one of `after` px; without effect if that is more."""
    if before == 1:  # has nothing to be blurred with
        return like.new_ones(1)
    sigma = max((before / after - 1) / 2, 0.001)
    radius = int(max(4 * sigma, 3)) // 2
    offsets = torch.arange(-radius, radius + 1).to(like)
    weights = torch.exp(-(offsets**2) / (2 * like.new_tensor(sigma) ** 2))
    return weights / weights.sum()
