"""What DISK needs of its network, without the dense maps of full resolution. `disk_network` is the definition.

The last convolution is four fifths of the network's arithmetic, nearly all of it for descriptors that no keypoint
reads, and passing over full-resolution maps takes as long again. So here

- the last convolution is taken densely for the heatmap and at keypoints for the descriptors;
- a full-resolution map is four half-resolution ones, its *phases*: those of its pixels (2 y + p, 2 x + q). An
  enlarged map's phases are plain averages of shifted rows and columns, so nothing is ever woven together but the
  heatmap, and the first convolution gives its phases as 64 channels of one convolution of stride 2;
- normalisation is a scale and a shift, which commute with the enlargement and are done before it. The variance of the
  enlarged map follows from the small one (`_enlarged_statistics`). It takes away the biases of all convolutions but
  the last, which are left out: maps are then nearer to 0, where reduced precision is finest;
- everything runs in strips of rows that fit in the cache; the first convolution, which is cheap, is done twice and
  never stored as a whole.

Shapes: maps are (H, W, C) here, channels last, as CPUs convolve them fastest; R rows of a strip. `small` maps and
indices are those of half resolution. Nothing is kept between calls, so parameters may change at any time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lightglue.extractors.disk_network import EPSILON, KERNEL, REACH, ConvBlock, DiskNetwork, UpBlock

__all__ = ["Affine", "Encoded", "Norms", "describe", "encode", "heatmap"]

CONVOLVED = 16384  # pixels for each core of a strip that goes through a convolution
PASSED = 4096  # and of one that only element-wise steps and small products pass over
KEYPOINTS = 1024  # that are described at once
GPU_FACTOR = 64  # strips are larger by: it has no cache to fit, and each step takes a launch
PHASES = ((0, 0), (0, 1), (1, 0), (1, 1))


class Affine(NamedTuple):
    """Instance normalisation as x * scale + shift, (C,) each."""

    scale: Tensor
    shift: Tensor

    def __call__(self, x: Tensor) -> Tensor:
        """(..., C)."""
        return torch.addcmul(self.shift, x, self.scale)


class Norms:
    """The network's normalisations in the order in which they come: of the maps at hand, or given."""

    def __init__(self, given: Sequence[Affine] | None = None) -> None:
        self.taken: list[Affine] = []
        self._given = None if given is None else iter(given)

    def take(self, measure: Callable[[Tensor], tuple[Tensor, Tensor]], x: Tensor) -> Affine:
        """The next one; `measure` gives the mean and the variance of `x`."""
        norm = _affine(*measure(x)) if self._given is None else next(self._given)
        self.taken.append(norm)
        return norm


class Encoded(NamedTuple):
    """What the last block joins, for one image."""

    image: Tensor  # (3, H, W), of which the first block makes the map beside
    below: Tensor  # (H / 2, W / 2, C)
    norm_below: Affine  # of the enlarged map
    norm_beside: Affine


def encode(
    network: DiskNetwork, image: Tensor, dtype: torch.dtype | None = None, norms: Norms | None = None
) -> Encoded:
    """All but the last block, for an image (3, H, W) in [0, 1] whose sides are multiples of 16.

    `dtype` is that of the convolutions between the first and the last; None for that of the parameters. All else is
    in the dtype of the image. `norms` are those of this image unless they are given.
    """
    norms = Norms() if norms is None else norms
    x, norm_beside = _first(network, image, norms)
    maps: list[Tensor] = []
    for i, step in enumerate(list(network.unet.path_down)[1:]):
        if i:
            x = F.avg_pool2d(_channels_first(maps[-1]), 2)[0].permute(1, 2, 0)
        maps.append(_down(cast(ConvBlock, cast(nn.Sequential, step)[1]), x, dtype, norms))
    x = maps.pop()
    for block in _up_blocks(network)[:-1]:
        x = _up(block, x, maps.pop(), dtype, norms)
    return Encoded(image, x, norms.take(_enlarged_statistics, x), norm_beside)


def heatmap(network: DiskNetwork, encoded: Encoded) -> Tensor:
    """The heatmap (H, W).

    A convolution with one output is slow on CPUs. One matrix product gives each pixel's share in the 25 pixels around
    it, and these are added up.
    """
    h, w, _ = encoded.below.shape
    weight, bias = _weights(_up_blocks(network)[-1].conv, slice(-1, None), encoded.image.dtype)
    taps = weight[0].permute(1, 2, 0).flatten(0, 1)  # (25, C)
    taps_below, taps_beside = (part.contiguous() for part in taps.tensor_split([encoded.below.shape[2]], 1))
    rows, carry = [], encoded.below.new_zeros(2, 2, 2, w + 2)
    for start, stop in _strips(encoded.below):
        columns = encoded.below.new_zeros(2, 2, KERNEL, stop - start, w + 2)  # added up within rows of the kernel
        for p, q, below, beside in _phases(network, encoded, start, stop):
            shares = torch.addmm(taps_below @ below.T, taps_beside, beside.T).view(KERNEL, KERNEL, stop - start, w)
            for k, to, phase in _targets(q):
                columns[p, phase, ..., 1 + to : 1 + to + w] += shares[:, k]
        sums = encoded.below.new_zeros(2, 2, stop - start + 2, w + 2)  # with a margin of one small pixel
        for p in (0, 1):
            for k, to, phase in _targets(p):
                sums[phase, :, 1 + to : 1 + to + stop - start] += columns[p, :, k]
        sums[:, :, :2] += carry
        rows.append(sums[:, :, :-2, 1:-1])
        carry = sums[:, :, -2:]
    rows.append(carry[:, :, :1, 1:-1])
    phases = torch.cat(rows, dim=2)[:, :, 1:]  # the first row lies above the map
    return phases.permute(2, 0, 3, 1).reshape(2 * h, 2 * w) + bias


def describe(network: DiskNetwork, encoded: Encoded, pixels: Tensor) -> Tensor:
    """Descriptors (N, D), not normalised, at `pixels` (N, 2) int64 x y."""
    weight, bias = _weights(_up_blocks(network)[-1].conv, slice(0, -1), encoded.image.dtype)
    weight = weight.permute(2, 3, 1, 0).flatten(0, 2)  # (25 * C, D)
    parts = (_windows(network, encoded, part).flatten(1) for part in torch.split(pixels, KEYPOINTS))
    return torch.cat([torch.addmm(bias, part, weight) for part in parts])


def _up_blocks(network: DiskNetwork) -> list[UpBlock]:
    return cast(list[UpBlock], list(network.unet.path_up))


def _weights(block: ConvBlock, outputs: slice, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    weight, bias = block.weights(outputs)
    return weight.to(dtype), bias.to(dtype)


def _first(network: DiskNetwork, image: Tensor, norms: Norms) -> tuple[Tensor, Affine]:
    """The first block's map, halved (H / 2, W / 2, C), and its normalisation."""
    weight = _first_weight(network, image.dtype)
    pooled = image.new_empty(image.shape[1] // 2, image.shape[2] // 2, len(weight) // 4)
    parts = []
    for start, stop in _strips(pooled):
        phases = _first_rows(image, weight, start, stop)
        pooled[start:stop] = phases.mean(dim=2)
        parts.append(_moments(phases.flatten(0, 2)))
    return pooled, norms.take(lambda _: _merge(parts), pooled)


def _first_weight(network: DiskNetwork, dtype: torch.dtype) -> Tensor:
    """The first convolution as one of stride 2 that gives all phases, (4 C, 3, 6, 6)."""
    weight = network.unet.first.conv.weight.to(dtype)
    weight = torch.cat([F.pad(weight, (q, 1 - q, p, 1 - p)) for p, q in PHASES])
    return weight.contiguous(memory_format=torch.channels_last)


def _first_rows(image: Tensor, weight: Tensor, start: int, stop: int) -> Tensor:
    """Small rows [start, stop) of the first block's map, by phases: (R, W / 2, 4, C)."""
    height = image.shape[1]
    top, bottom = 2 * start - REACH, 2 * stop + REACH
    rows = F.pad(
        image[None, :, max(top, 0) : min(bottom, height)],
        (REACH, REACH, max(-top, 0), max(bottom - height, 0)),
    )
    phases = F.conv2d(rows, weight, stride=2)[0].permute(1, 2, 0)
    return phases.reshape(stop - start, image.shape[2] // 2, 4, -1)


def _down(block: ConvBlock, x: Tensor, dtype: torch.dtype | None, norms: Norms) -> Tensor:
    """(H, W, C) to (H, W, O)."""
    norm = norms.take(_statistics, x)
    return _convolve(block, x, lambda start, stop: (norm(x[start:stop]),), dtype)


def _up(block: UpBlock, below: Tensor, beside: Tensor, dtype: torch.dtype | None, norms: Norms) -> Tensor:
    """(H / 2, W / 2, C1) and (H, W, C2) to (H, W, O)."""
    norm_below, norm_beside = norms.take(_enlarged_statistics, below), norms.take(_statistics, beside)

    def rows(start: int, stop: int) -> tuple[Tensor, Tensor]:
        first, last = max(start // 2 - 1, 0), (stop + 1) // 2 + 1  # one more on each side for the interpolation
        small = _channels_first(norm_below(below[first:last]))
        large = F.interpolate(small, scale_factor=2, mode="bilinear", align_corners=False)[0].permute(1, 2, 0)
        return large[start - 2 * first : stop - 2 * first], norm_beside(beside[start:stop])

    return _convolve(block.conv, beside, rows, dtype)


def _convolve(
    block: ConvBlock, like: Tensor, rows: Callable[[int, int], tuple[Tensor, ...]], dtype: torch.dtype | None
) -> Tensor:
    """The block's gate and convolution, (H, W, O), of a normalised map (H, W, C) of the size and dtype of `like`.

    `rows` gives the map's rows [start, stop) in pieces (R, W, .) of its channels. The zeros around the map are written
    out: on AVX2 oneDNN takes a slower kernel where it is to add them to a small strip.
    """
    height, width = like.shape[:2]
    weight = block.conv.weight
    weight = weight.to(dtype or weight.dtype).contiguous(memory_format=torch.channels_last)
    out = like.new_empty(height, width, len(weight))
    for start, stop in _strips(out, CONVOLVED):
        top, bottom = start - REACH, stop + REACH
        x = like.new_zeros(bottom - top, width + 2 * REACH, weight.shape[1])
        inside = x[max(-top, 0) : min(bottom, height) - top, REACH:-REACH]
        channel = 0
        for piece in rows(max(top, 0), min(bottom, height)):
            inside[..., channel : channel + piece.shape[-1]] = piece
            channel += piece.shape[-1]
        x = _channels_first(_gate(x, block.slopes).to(weight.dtype))
        out[start:stop] = F.conv2d(x, weight)[0].permute(1, 2, 0)
    return out


def _phases(network: DiskNetwork, encoded: Encoded, start: int, stop: int) -> Iterator[tuple[int, int, Tensor, Tensor]]:
    """The last convolution's input at small rows [start, stop), phase (p, q) by phase.

    Each is in two pieces, (R * W / 2, C1) from below and (R * W / 2, C2) from beside: joining them would take a copy.
    """
    image, below, norm_below, norm_beside = encoded
    (height, w, channels), r = below.shape, stop - start
    slopes = _up_blocks(network)[-1].conv.slopes
    small = norm_below(below[max(start - 1, 0) : stop + 1])
    small = torch.cat((small[:1],) * (start == 0) + (small,) + (small[-1:],) * (stop == height))
    small = torch.cat((small[:, :1], small, small[:, -1:]), dim=1)  # edges continued: (R + 2, W / 2 + 2, C1)
    beside = norm_beside(_first_rows(image, _first_weight(network, image.dtype), start, stop))
    beside = _gate(beside, slopes[channels:]).flatten(0, 1)
    for p in (0, 1):
        rows = torch.lerp(small[p : p + r], small[p + 1 : p + 1 + r], 0.75 - 0.5 * p)
        for q in (0, 1):
            large = torch.lerp(rows[:, q : q + w], rows[:, q + 1 : q + 1 + w], 0.75 - 0.5 * q)
            yield p, q, _gate(large, slopes[:channels]).flatten(0, 1), beside[:, 2 * p + q]


def _targets(p: int) -> Iterator[tuple[int, int, int]]:
    """For each k of the kernel the `to` and `phase` for which pixel 2 y + p contributes to pixel 2 (y + to) + phase."""
    return ((k, *divmod(p + REACH - k, 2)) for k in range(KERNEL))


def _windows(network: DiskNetwork, encoded: Encoded, pixels: Tensor) -> Tensor:
    """The last convolution's input in the 5 x 5 pixels around each of `pixels` (N, 2): (N, 25, C)."""
    image, below, norm_below, norm_beside = encoded
    h, w = image.shape[1:]
    x, y, inside = _around(pixels, -2 * REACH, 2 * REACH, w, h)
    patches = image[:, y, x].masked_fill(~inside, 0).transpose(0, 1)  # (N, 3, 81)
    patches = patches.reshape(len(pixels), len(image), 4 * REACH + 1, 4 * REACH + 1)
    beside = norm_beside(F.conv2d(patches, network.unet.first.conv.weight.to(image.dtype)).flatten(2).transpose(1, 2))
    # Two small pixels before to one after pixel 2 x reach far enough, and one before to two after 2 x + 1.
    x, y, _ = _around((pixels - 1).div(2, rounding_mode="floor"), -1, 2, w // 2, h // 2)
    weights = _enlarging(below)[pixels[:, 1] % 2, pixels[:, 0] % 2]  # (N, 25, 16)
    large = weights @ norm_below(F.embedding(y * (w // 2) + x, below.flatten(0, 1)))  # (N, 25, C1)
    windows = _gate(torch.cat((large, beside), dim=-1), _up_blocks(network)[-1].conv.slopes)
    *_, inside = _around(pixels, -REACH, REACH, w, h)
    return windows.masked_fill(~inside[..., None], 0)  # the convolution's zeros around the map


def _around(pixels: Tensor, first: int, last: int, w: int, h: int) -> tuple[Tensor, Tensor, Tensor]:
    """x, y (N, K) of the pixels `first` to `last` beside each one, row by row, clamped; and whether they are inside."""
    steps = torch.arange(first, last + 1, device=pixels.device)
    dy, dx = torch.meshgrid(steps, steps, indexing="ij")
    x, y = pixels[:, :1] + dx.flatten(), pixels[:, 1:] + dy.flatten()
    inside = (x >= 0) & (x < w) & (y >= 0) & (y < h)
    return x.clamp(0, w - 1), y.clamp(0, h - 1), inside


def _enlarging(like: Tensor) -> Tensor:
    """(2, 2, 25, 16): for pixels of odd or even y and x, their window as weights of the 4 x 4 small pixels around."""
    steps = torch.arange(KERNEL, dtype=like.dtype, device=like.device) / 2
    positions = torch.stack((0.75 + steps, 0.25 + steps))  # of the window's columns in the small ones
    weights = (1 - (positions[..., None] - torch.arange(4, device=like.device)).abs()).clamp_min(0)  # (2, 5, 4)
    return torch.einsum("pik,qjl->pqijkl", weights, weights).flatten(4, 5).flatten(2, 3)


def _statistics(x: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and variance (C,) of a map (H, W, C)."""
    return _merge([_moments(x[start:stop].flatten(0, 1)) for start, stop in _strips(x)])


def _enlarged_statistics(x: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and variance (C,) of a map (H, W, C) enlarged twofold.

    The mean stays. The squares of a row that is enlarged sum to twice the row's own less 3/8 of those of the
    differences between neighbours; rows and columns are enlarged independently.
    """
    h, w, _ = x.shape
    mean, variance = _statistics(x)
    along, across = torch.zeros_like(mean), torch.zeros_like(mean)
    for start, stop in _strips(x):
        rows = x[start : stop + 1]
        dx, dy = x[start:stop, 1:] - x[start:stop, :-1], rows[1:] - rows[:-1]
        along = along + _squares(dx) + _squares(dy)
        across = across + _squares(dy[:, 1:] - dy[:, :-1])
    return mean, variance - (3 / 16 * along - 9 / 256 * across) / (h * w)


def _squares(x: Tensor) -> Tensor:
    """Sums of squares (C,) of (..., C)."""
    return (x * x).flatten(0, -2).sum(dim=0)


class Moments(NamedTuple):
    """Of a part of a map."""

    pixels: int
    mean: Tensor  # (C,)
    squares: Tensor  # (C,) sum of the squared differences from the mean


def _moments(x: Tensor) -> Moments:
    """Of (L, C)."""
    mean = x.mean(dim=0)
    return Moments(len(x), mean, _squares(x - mean))


def _merge(parts: list[Moments]) -> tuple[Tensor, Tensor]:
    """Mean and variance of all (Chan et al. 1979)."""
    means = torch.stack([part.mean for part in parts])
    pixels = means.new_tensor([part.pixels for part in parts])[:, None]
    mean = (pixels * means).sum(dim=0) / pixels.sum()
    squares = torch.stack([part.squares for part in parts]) + pixels * (means - mean) ** 2
    return mean, squares.sum(dim=0) / pixels.sum()


def _affine(mean: Tensor, variance: Tensor) -> Affine:
    scale = (variance + EPSILON).rsqrt()
    return Affine(scale, -mean * scale)


def _gate(x: Tensor, slopes: Tensor) -> Tensor:
    """PReLU of (..., C) with slopes (C,)."""
    return F.prelu(x.flatten(0, -2), slopes.to(x.dtype)).view(x.shape)


def _channels_first(x: Tensor) -> Tensor:
    """(H, W, C) to a view (1, C, H, W)."""
    return x[None].permute(0, 3, 1, 2)  # not [None] last, whose stride would hide the layout from torch


def _strips(like: Tensor, pixels: int | None = None) -> Iterator[tuple[int, int]]:
    """Strips of a map (H, W, ...) as rows [start, stop): about so many pixels for each core, more on a GPU."""
    height, width = like.shape[:2]
    factor = torch.get_num_threads() if like.device.type == "cpu" else GPU_FACTOR
    rows = max((pixels or PASSED) * factor // width, 1)
    return ((start, min(start + rows, height)) for start in range(0, height, rows))
