"""Resize image tensors for extraction, with the result that published features were made with.

The published package resizes with `kornia.geometry.transform.resize(..., antialias=True)`: a Gaussian blur
with reflected borders, then `torch.nn.functional.interpolate`. Both are linear and separable, so blur and
bilinear interpolation along one axis are together one banded matrix. Only the rows and columns that the result
needs are computed, and a large image is never copied as a whole.
"""

from __future__ import annotations

from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any, ClassVar, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from lightglue.errors import InputError
from lightglue.options import warn_unknown
from lightglue.support.checks import is_int

__all__ = ["MAX_EDGE", "ImagePreprocessor", "blur_kernel", "resize_tensor", "target_size"]

_SIDES = ("long", "short", "vert", "horz")
_INTERPOLATIONS = ("bilinear", "bicubic", "nearest", "nearest-exact", "area")

# Rows of the banded matrix that are multiplied at once: few, so that the band stays narrow; enough for BLAS.
_BLOCK = 16

MAX_EDGE = 65_536  # px; a size beyond is a slip, and would only fail for want of memory


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


def target_size(height: int, width: int, size: int | tuple[int, int], side: str = "long") -> tuple[int, int]:
    """Edges (height, width) in px of a `height` x `width` image after `resize_tensor` with this `size`.

    The free edge is rounded down, from the aspect ratio in double precision, as in kornia's `resize`. An edge
    that would vanish keeps one pixel. Raises InputError also for an edge of more than 65,536 px.
    """
    if side not in _SIDES:
        raise InputError(f"side is {side!r}; choose one of {', '.join(_SIDES)}.")
    edges = tuple(size) if isinstance(size, (tuple, list)) else (size,)
    is_pair = isinstance(size, (tuple, list))
    if len(edges) != 1 + is_pair or not all(is_int(edge, 1) for edge in edges):
        raise InputError(f"resize is {size!r}; give a positive integer in px, or a pair (height, width) of them.")
    given = [min(int(edge), MAX_EDGE + 1) for edge in edges]
    target = (given[0], given[1]) if is_pair else _in_proportion(height, width, given[0], side)
    if max(target) > MAX_EDGE:
        made = f"makes an edge of this image, {width} x {height} px, longer than {MAX_EDGE:,} px"
        raise InputError(f"resize is {size!r}, which {made}; give a smaller one.")
    return target


def _in_proportion(height: int, width: int, edge: int, side: str) -> tuple[int, int]:
    """Edges (height, width) where the one that `side` names is `edge` px."""
    aspect = width / height
    height_is_given = {"vert": True, "horz": False, "long": aspect < 1, "short": aspect >= 1}[side]
    return (edge, max(1, int(edge * aspect))) if height_is_given else (max(1, int(edge / aspect)), edge)


def _check_image(image: Any) -> None:
    if not isinstance(image, Tensor):
        raise InputError(f"The image is a {type(image).__name__}; numpy_image_to_torch makes a tensor of an array.")
    if image.ndim not in (3, 4) or image.numel() == 0:
        raise InputError(f"The image has shape {tuple(image.shape)}; give (C, H, W) or (B, C, H, W), not empty.")
    if not image.is_floating_point():
        raise InputError(f"The image has dtype {image.dtype}; give floating point with values in [0, 1].")


class _Axis(NamedTuple):
    """How one axis is resampled: its length before and after, and in which way."""

    n_in: int
    n_out: int
    align_corners: bool
    blur: bool


def _resample_banded(
    planes: Tensor, size: tuple[int, int], interpolation: str, align_corners: bool | None, blur: bool
) -> Tensor:
    """Blur and bilinear interpolation of (P, 1, H, W) planes as two products with banded matrices.

    Equal to `_resample_reference` within rounding, and several times as fast on a CPU.
    """
    height, width = planes.shape[-2:]
    original = planes.dtype
    dtype = torch.float64 if original == torch.float64 else torch.float32
    vertical = _bands(_Axis(height, size[0], bool(align_corners), blur), planes.device, dtype)
    horizontal = _bands(_Axis(width, size[1], bool(align_corners), blur), planes.device, dtype)
    planes = planes[:, 0]
    with torch.autocast(planes.device.type, enabled=False):
        # Rows first: what is left for the second product is short.
        rows = [band.expand(len(planes), -1, -1) @ planes[:, a:b].to(dtype) for a, b, band in vertical]
        lines = torch.cat(rows, 1).reshape(-1, width)
        columns = [lines[:, a:b] @ band.T for a, b, band in horizontal]
    return torch.cat(columns, 1).reshape(-1, 1, *size).to(original)


def _bands(axis: _Axis, device: torch.device, dtype: torch.dtype) -> Iterator[tuple[int, int, Tensor]]:
    """The matrix that resamples one axis, in blocks of at most _BLOCK rows.

    Yields `start, stop, weights`: the input range [start, stop) and its weights (rows, stop - start).
    """
    index, weight = _taps(axis, dtype)
    ranges, bands = [], []
    for row in range(0, axis.n_out, _BLOCK):
        taps, values = index[row : row + _BLOCK], weight[row : row + _BLOCK]
        start, stop = int(taps.min()), int(taps.max()) + 1
        ranges.append((start, stop))
        bands.append(torch.zeros(len(taps), stop - start, dtype=dtype).scatter_add_(1, taps - start, values))
    on_device = torch.cat([band.flatten() for band in bands]).to(device)  # one copy for all blocks
    offset = 0
    for (start, stop), band in zip(ranges, bands, strict=True):
        yield start, stop, on_device[offset : offset + band.numel()].view_as(band)
        offset += band.numel()


def _taps(axis: _Axis, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """For each output position its input positions (n_out, T) int64 and their weights (n_out, T)."""
    n_in, n_out = axis.n_in, axis.n_out
    # Rounded as torch does: the ratio to the image's precision, then the position, once.
    ratio = (n_in - 1) / max(n_out - 1, 1) if axis.align_corners else n_in / n_out
    step = torch.tensor(ratio, dtype=dtype).to(torch.float64)
    position = torch.arange(n_out, dtype=torch.float64)
    position = position * step if axis.align_corners else (position + 0.5) * step - 0.5
    position = position.to(dtype).clamp(0, n_in - 1)
    left = position.long()
    right = (left + 1).clamp_max(n_in - 1)
    fraction = (position - left)[:, None]
    offset, kernel = blur_kernel(n_in, n_out if axis.blur else n_in)
    kernel = kernel.to(dtype)
    index = torch.cat([left[:, None] + offset, right[:, None] + offset], 1)
    return _reflect(index, n_in), torch.cat([(1 - fraction) * kernel, fraction * kernel], 1)


def blur_kernel(n_in: int, n_out: int, dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor]:
    """Offsets (T,) int64 and weights (T,) of the blur before an axis shrinks from `n_in` to `n_out`.

    sigma = (n_in / n_out - 1) / 2 px and about 4 sigma taps, an odd number, at least 3: what kornia's `resize`
    chooses (kornia/geometry/transform/affwarp.py). An axis that does not shrink is not blurred. The weights are
    computed in `dtype`, which shows in their last bits.
    """
    if n_in <= n_out:
        return torch.zeros(1, dtype=torch.long), torch.ones(1, dtype=dtype)
    sigma = max((n_in / n_out - 1) / 2, 0.001)
    radius = int(max(4 * sigma, 3)) // 2
    offset = torch.arange(-radius, radius + 1)
    weight = torch.exp(-(offset.to(dtype) ** 2) / (2 * torch.tensor(sigma, dtype=dtype) ** 2))
    return offset, weight / weight.sum()


def _reflect(index: Tensor, length: int) -> Tensor:
    """Fold positions outside [0, length) back at the centres of the border pixels: -1 becomes 1."""
    period = max(2 * (length - 1), 1)
    folded = index.abs() % period
    return torch.where(folded < length, folded, period - folded)


def _resample_reference(
    planes: Tensor, size: tuple[int, int], interpolation: str, align_corners: bool | None, blur: bool
) -> Tensor:
    """Blur, then interpolate, step by step: for the other modes, and what the banded form is tested against."""
    for dim, n_out in ((-1, size[1]), (-2, size[0])) if blur else ():
        n_in = planes.shape[dim]
        offsets, weights = blur_kernel(n_in, n_out)
        blurred = torch.zeros_like(planes)
        for offset, weight in zip(offsets.tolist(), weights.tolist(), strict=True):
            source = _reflect(torch.arange(n_in, device=planes.device) + offset, n_in)
            blurred = blurred + weight * planes.index_select(dim, source)
        planes = blurred
    return F.interpolate(planes, size=size, mode=interpolation, align_corners=align_corners)
