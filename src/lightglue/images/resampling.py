"""Resize image tensors for extraction: `lightglue_runtime.resize` in torch, on any device, for batches and gradients.

Only the rows and columns that the result needs are computed, and a large image is never copied as a whole.
"""

from __future__ import annotations

from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any, ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from lightglue.errors import InputError
from lightglue.options import warn_unknown
from lightglue_runtime.resize import Axis, bands, blur_kernel, reflect, target_size

__all__ = ["ImagePreprocessor", "resize_tensor"]

_INTERPOLATIONS = ("bilinear", "bicubic", "nearest", "nearest-exact", "area")


def resize_tensor(
    image: Tensor,
    size: int | tuple[int, int] | None,
    *,
    side: str = "long",
    interpolation: str = "bilinear",
    align_corners: bool | None = None,
    antialias: bool = True,
) -> tuple[Tensor, Tensor]:
    """Resize `image` as the published package does before it extracts features.

    Args:
        image: (B, C, H, W) or (C, H, W), floating point.
        size: px of the edge that `side` names, the other following the aspect ratio (rounded down, at least
            1 px); or (height, width) in px; or None to leave the image as it is.
        side: "long", "short", "vert" or "horz"; unused where `size` is a pair.
        interpolation: a mode of `torch.nn.functional.interpolate` for images.
        align_corners: as in `torch.nn.functional.interpolate`; bilinear and bicubic only.
        antialias: blur before shrinking; an edge that grows is never blurred.

    Returns:
        The image (..., h, w) in the input's dtype and on its device, and the scales (w / W, h / H) as a (2,)
        float32 tensor: a pixel at x in the input lies at (x + 0.5) * scale - 0.5 in the result.

    Raises:
        InputError: for an image, a size or a mode that this cannot work with.
    """
    _check_image(image)
    if interpolation not in _INTERPOLATIONS:
        raise InputError(f"interpolation is {interpolation!r}; choose one of {', '.join(_INTERPOLATIONS)}.")
    if align_corners is not None and interpolation not in ("bilinear", "bicubic"):
        raise InputError(f"align_corners has no meaning for interpolation={interpolation!r}; leave it None.")
    height, width = image.shape[-2:]
    new_height, new_width = (height, width) if size is None else target_size(height, width, size, side)
    scales = torch.tensor([new_width / width, new_height / height], dtype=torch.float32, device=image.device)
    if (new_height, new_width) == (height, width):
        return image, scales

    blur = antialias and (new_height < height or new_width < width)
    resample = _resample_banded if blur and interpolation == "bilinear" else _resample_reference
    planes = image.reshape(-1, 1, height, width)
    planes = resample(planes, (new_height, new_width), interpolation, align_corners, blur)
    return planes.reshape(*image.shape[:-2], new_height, new_width), scales


class ImagePreprocessor:
    """Published name: a callable that resizes one image or a batch with options fixed at construction."""

    default_conf: ClassVar[dict[str, Any]] = {
        "resize": None,  # px of the edge that `side` names, or (height, width); None keeps the image
        "side": "long",
        "interpolation": "bilinear",
        "align_corners": None,
        "antialias": True,
    }

    def __init__(self, **conf: Any) -> None:
        unknown = [name for name in conf if name not in self.default_conf]
        warn_unknown("ImagePreprocessor", unknown, self.default_conf)
        self.conf = SimpleNamespace(**{**self.default_conf, **conf})

    def __call__(self, img: Tensor) -> tuple[Tensor, Tensor]:
        """Resize `img`, (C, H, W) or (B, C, H, W): the image and its scales (2,), as from `resize_tensor`."""
        return resize_tensor(
            img,
            self.conf.resize,
            side=self.conf.side,
            interpolation=self.conf.interpolation,
            align_corners=self.conf.align_corners,
            antialias=self.conf.antialias,
        )


def _check_image(image: Any) -> None:
    if not isinstance(image, Tensor):
        raise InputError(f"The image is a {type(image).__name__}; numpy_image_to_torch makes a tensor of an array.")
    if image.ndim not in (3, 4) or image.numel() == 0:
        raise InputError(f"The image has shape {tuple(image.shape)}; give (C, H, W) or (B, C, H, W), not empty.")
    if not image.is_floating_point():
        raise InputError(f"The image has dtype {image.dtype}; give floating point with values in [0, 1].")


def _resample_banded(
    planes: Tensor, size: tuple[int, int], interpolation: str, align_corners: bool | None, blur: bool
) -> Tensor:
    """Blur and bilinear interpolation of (P, 1, H, W) planes as two products with banded matrices.

    Equal to `_resample_reference` within rounding, and several times as fast on a CPU.
    """
    height, width = planes.shape[-2:]
    original = planes.dtype
    dtype = torch.float64 if original == torch.float64 else torch.float32
    vertical = _bands(Axis(height, size[0], bool(align_corners), blur), planes.device, dtype)
    horizontal = _bands(Axis(width, size[1], bool(align_corners), blur), planes.device, dtype)
    planes = planes[:, 0]
    with torch.autocast(planes.device.type, enabled=False):
        # Rows first: what is left for the second product is short.
        rows = [band.expand(len(planes), -1, -1) @ planes[:, a:b].to(dtype) for a, b, band in vertical]
        lines = torch.cat(rows, 1).reshape(-1, width)
        columns = [lines[:, a:b] @ band.T for a, b, band in horizontal]
    return torch.cat(columns, 1).reshape(-1, 1, *size).to(original)


def _bands(axis: Axis, device: torch.device, dtype: torch.dtype) -> Iterator[tuple[int, int, Tensor]]:
    """The blocks of `bands`, on a device: the input range [start, stop) of each, and its weights."""
    found = list(bands(axis, np.float64 if dtype == torch.float64 else np.float32))
    weights = torch.from_numpy(np.concatenate([band.ravel() for *_, band in found])).to(device)  # one copy for all
    offset = 0
    for _, start, stop, band in found:
        yield start, stop, weights[offset : offset + band.size].view(band.shape)
        offset += band.size


def _resample_reference(
    planes: Tensor, size: tuple[int, int], interpolation: str, align_corners: bool | None, blur: bool
) -> Tensor:
    """Blur, then interpolate, step by step: for the other modes, and what the banded form is tested against."""
    for dim, n_out in ((-1, size[1]), (-2, size[0])) if blur else ():
        n_in = planes.shape[dim]
        offsets, weights = blur_kernel(n_in, n_out)
        blurred = torch.zeros_like(planes)
        for offset, weight in zip(offsets.tolist(), weights.tolist(), strict=True):
            source = torch.from_numpy(reflect(np.arange(n_in) + offset, n_in)).to(planes.device)
            blurred = blurred + weight * planes.index_select(dim, source)
        planes = blurred
    return F.interpolate(planes, size=size, mode=interpolation, align_corners=align_corners)
