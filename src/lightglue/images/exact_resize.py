"""Shrink an image with the published result to the last bit.

`lightglue.images.resampling` is faster and right within rounding. Where an image is cut off to 8 bits afterwards, as
for SIFT, that is not enough: white comes out as 255 or as 254.99998, which is cut off to 254.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from lightglue_runtime.resize import blur_width

__all__ = ["shrink_exactly"]


def shrink_exactly(image: Tensor, size: tuple[int, int]) -> Tensor:
    """`image` (B, C, H, W) blurred and interpolated to `size` (height, width), in the steps and dtypes of kornia 0.9.

    These are those of `kornia.geometry.transform.resize(..., antialias=True)`: the blur along x, then along y, its
    kernels computed in the image's dtype, then bilinear interpolation.
    """
    kernels = [_kernel(n, m, image) for n, m in zip(image.shape[-2:], size, strict=True)]
    along_y, along_x = kernels
    pad_x, pad_y = len(along_x) // 2, len(along_y) // 2
    shrunk = []
    for own in image:  # image by image, since how many there are decides how torch rounds
        planes = F.pad(own[:, None], (pad_x, pad_x, pad_y, pad_y), mode="reflect")
        planes = F.conv2d(F.conv2d(planes, along_x.view(1, 1, 1, -1)), along_y.view(1, 1, -1, 1)).transpose(0, 1)
        # How torch rounds here depends on the number of threads too, but not for four channels that come last.
        four = F.pad(planes, (0, 0, 0, 0, 0, 4 - len(own))).contiguous(memory_format=torch.channels_last)
        shrunk.append(F.interpolate(four, size=size, mode="bilinear")[:, : len(own)])
    return torch.cat(shrunk).contiguous()


def _kernel(n_in: int, n_out: int, image: Tensor) -> Tensor:
    """The weights (T,) of the blur, computed in the image's dtype: it shows in their last bits."""
    if n_in <= n_out:
        return torch.ones(1).to(image)
    sigma, radius = blur_width(n_in, n_out)
    offset = torch.arange(-radius, radius + 1).to(image.dtype)
    weight = torch.exp(-(offset**2) / (2 * torch.tensor(sigma, dtype=image.dtype) ** 2))
    return (weight / weight.sum()).to(image)
