"""ALIKED's encoder and score map, on folded layers and without dense feature maps, one image at a time.

It gives what `AlikedNetwork.forward` gives. The finest feature map takes 16 numbers a pixel and the score head reads
32 more, so everything at full resolution is done a few rows at a time, through all layers while the rows are in the
cache. Inference only: nothing here lets gradients through.

Maps are (H, W, C) here, so that a 1x1 convolution is a matrix product and rows of a map are rows of a matrix.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from lightglue.extractors.aliked_folding import SCORE_COLUMNS, FoldedAliked, FoldedBlock, FoldedConv, activate
from lightglue.extractors.aliked_network import STRIDE
from lightglue.extractors.bilinear import Axis, axis, corners, mix_rows
from lightglue.extractors.buffers import keep_freed_memory, large_empty

__all__ = ["Encoded", "add_product", "encode", "product", "score_map"]

FEWER = 4  # times as few pixels as in a strip are worked on where the channels are the most
DEFORMED = 4096  # pixels that a thread works on at once in a deformable convolution
# Pixels of a map that a thread works on at once: 2 MiB of 16 channels, a few of which a cache holds. On a GPU, more at
# once is faster.
STRIP_CPU, STRIP_ELSEWHERE = 32 * 1024, 1024 * 1024


@dataclass(frozen=True)
class Encoded:
    """What the network knows of an image after its encoder, from which scores and descriptors come.

    The finest map has the sides H' and W', multiples of 32. The coarse levels are a half, an eighth and a 32nd of that.
    """

    fine: Tensor  # (H', W', c1)
    coarse: Tensor  # (n, d): the pixels of all coarse levels, level after level, row after row
    rows: tuple[Axis, ...]  # from H' to each level's height
    columns: tuple[Axis, ...]  # from W' to each level's width
    left: int  # where the image begins in the padded maps, px
    top: int
    size: tuple[int, int]  # (H, W) of the image, px

    def levels(self) -> list[Tensor]:
        """The coarse levels (h, w, d)."""
        height, width = self.fine.shape[:2]
        return _levels(self.coarse, _level_sizes(height, width))


def _level_sizes(height: int, width: int) -> list[tuple[int, int]]:
    return [(height // side, width // side) for side in (2, 8, 32)]


def encode(folded: FoldedAliked, image: Tensor) -> Encoded:
    """The feature pyramid of an image (3, H, W) in [0, 1]; sides are padded to multiples of 32."""
    keep_freed_memory(image)
    h, w = image.shape[-2:]
    top, left = (-h % STRIDE) // 2, (-w % STRIDE) // 2
    margins = (left, -w % STRIDE - left, top, -h % STRIDE - top)
    padded = F.pad(image[None], margins, mode="replicate") if any(margins) else image[None]
    fine, half = _full_resolution(folded, padded)
    height, width = padded.shape[-2:]
    sizes = _level_sizes(height, width)
    coarse = large_empty(fine, sum(rows * columns for rows, columns in sizes), len(folded.levels[0][1]))
    level2, level3, level4 = _levels(coarse, sizes)
    eighth = _half_resolution(folded, half, level2)
    x3 = _deformable_block(folded.blocks[2], eighth)
    x4 = _deformable_block(folded.blocks[3], _pool(x3, 4))
    activate(_linear(x3, *folded.levels[2]), out=level3)
    activate(_linear(x4, *folded.levels[3]), out=level4)
    rows = tuple(axis(height, size[0], fine) for size in sizes)
    columns = tuple(axis(width, size[1], fine) for size in sizes)
    return Encoded(fine, coarse, rows, columns, left, top, (h, w))


def _levels(coarse: Tensor, sizes: Sequence[tuple[int, int]]) -> list[Tensor]:
    """The maps (h, w, d) in the table `coarse` of all their pixels."""
    parts = torch.split(coarse, [rows * columns for rows, columns in sizes])
    return [part.view(*size, -1) for part, size in zip(parts, sizes, strict=True)]


def _strip_rows(map_like: Tensor, width: int, multiple: int) -> int:
    """How many rows of a map to work on at once."""
    pixels = STRIP_CPU * torch.get_num_threads() if map_like.device.type == "cpu" else STRIP_ELSEWHERE
    return max(pixels // width // multiple, 1) * multiple


def _rows(maps: Tensor, start: int, stop: int) -> Tensor:
    """Rows `start` to `stop` of (H, W, C); zeros outside."""
    height = maps.shape[0]
    inside = maps[max(start, 0) : stop]
    above, below = max(-start, 0), max(stop - height, 0)
    return F.pad(inside, (0, 0, 0, 0, above, below)) if above or below else inside


def _blank(rows: Tensor, start: int, height: int) -> Tensor:
    """`rows` (R, W, C) of a map of this height, from `start` on, with zeros outside of the map; in place."""
    rows[: max(-start, 0)] = 0
    rows[max(height - start, 0) :] = 0
    return rows


def _conv(rows: Tensor, conv: FoldedConv) -> Tensor:
    """3x3 convolution of (R, W, C) to (R - 2, W, O): zeros at the sides, no rows beyond the first and the last."""
    maps, reduced = rows[None].permute(0, 3, 1, 2), conv.weight.dtype != rows.dtype
    out = F.conv2d(maps.to(conv.weight.dtype), conv.weight, None if reduced else conv.bias, padding=(0, 1))
    out = out.permute(0, 2, 3, 1).contiguous()[0]
    return out.to(rows.dtype).add_(conv.bias) if reduced else out


def product(bias: Tensor, rows: Tensor, weight: Tensor) -> Tensor:
    """`bias + rows @ weight`, (P, O) of (P, C) and (C, O), multiplied in the dtype of `weight`.

    Only the product is rounded to it: an activation turns on the bias, which is large beside small sums.
    """
    if weight.dtype == rows.dtype:
        return torch.addmm(bias, rows, weight)
    return (rows.to(weight.dtype) @ weight).to(rows.dtype).add_(bias)


def add_product(out: Tensor, rows: Tensor, weight: Tensor) -> Tensor:
    """Add `rows @ weight` to `out` (P, O), in place."""
    if weight.dtype == rows.dtype:
        return out.addmm_(rows, weight)
    return out.add_(rows.to(weight.dtype) @ weight)


def _linear(maps: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """1x1 convolution of (H, W, C) to (H, W, O)."""
    return product(bias, maps.reshape(-1, maps.shape[-1]), weight).view(*maps.shape[:2], -1)


def _pool(maps: Tensor, side: int) -> Tensor:
    """Mean of squares of pixels: (H, W, C) to (H / side, W / side, C)."""
    while side > 1:
        rows = maps[0::2] + maps[1::2]
        maps = (rows[:, 0::2] + rows[:, 1::2]).mul_(0.25)
        side //= 2
    return maps


def _full_resolution(folded: FoldedAliked, image: Tensor) -> tuple[Tensor, Tensor]:
    """The finest map (H', W', c1) of an image (1, 3, H', W'), and the mean of each 2x2 of its pixels."""
    block, (height, width) = folded.blocks[0], image.shape[-2:]
    channels = len(block.conv2.bias)
    fine = large_empty(image, height, width, channels)
    half = large_empty(image, height // 2, width // 2, channels)
    pixels, step = image[0].permute(1, 2, 0), _strip_rows(image, width, 2)
    for start in range(0, height, step):
        stop = min(start + step, height)
        rows = _rows(pixels, start - 2, stop + 2).contiguous()
        rows = _blank(activate(_conv(rows, block.conv1)), start - 1, height)
        rows = activate(_conv(rows, block.conv2), out=fine[start:stop])
        half[start // 2 : stop // 2] = _pool(rows, 2)
    return fine, half


def _half_resolution(folded: FoldedAliked, half: Tensor, level: Tensor) -> Tensor:
    """The mean (h / 4, w / 4, c2) of 4x4 features at half resolution, of pooled features (h, w, c1); the level that
    comes of the features goes into `level` (h, w, d)."""
    block, height = folded.blocks[1], half.shape[0]
    eighth = half.new_empty(height // 4, half.shape[1] // 4, len(block.conv2.bias))
    step = _strip_rows(half, half.shape[1], 4)
    for start in range(0, height, step):
        stop = min(start + step, height)
        rows = _rows(half, start - 2, stop + 2)
        rows = _blank(activate(_conv(rows, block.conv1)), start - 1, height)
        rows = activate(_add_beside(_conv(rows, block.conv2), half[start:stop], block))
        eighth[start // 4 : stop // 4] = _pool(rows, 4)
        activate(_linear(rows, *folded.levels[1]), out=level[start:stop])
    return eighth


def _add_beside(out: Tensor, maps: Tensor, block: FoldedBlock) -> Tensor:
    """Add the 1x1 convolution of a block's input (H, W, C) to `out` (H, W, O), in place."""
    assert block.beside is not None
    flat, rows = out.view(-1, out.shape[-1]), maps.reshape(-1, maps.shape[-1])
    return add_product(flat, rows, block.beside).view_as(out)


def _deformable_block(block: FoldedBlock, maps: Tensor) -> Tensor:
    """A block of two deformable convolutions, (H, W, C) to (H, W, O)."""
    rows = activate(_deformable(maps, block.conv1))
    return activate(_add_beside(_deformable(rows, block.conv2), maps, block))


def _deformable(maps: Tensor, conv: FoldedConv) -> Tensor:
    """3x3 deformable convolution of (H, W, C) to (H, W, O), an offset being a quarter of the longer side at most.

    All nine samples of a pixel lie side by side, so that one product takes them in.
    """
    assert conv.offsets is not None
    (h, w, channels), limit = maps.shape, max(maps.shape[:2]) / 4
    offsets = _conv(_rows(maps, -1, h + 1), FoldedConv(*conv.offsets)).clamp_(-limit, limit)
    table, shifts = maps.view(-1, channels), offsets.view(-1, 9, 2)
    steps = torch.arange(-1, 2, device=maps.device)
    dy, dx = steps.repeat_interleave(3), steps.repeat(3)
    out = maps.new_empty(h * w, len(conv.bias))
    for pixels in torch.split(torch.arange(h * w, device=maps.device), DEFORMED * torch.get_num_threads()):
        part = slice(int(pixels[0]), int(pixels[-1]) + 1)
        y = shifts[part, :, 0] + (pixels.div(w, rounding_mode="floor")[:, None] + dy)
        x = shifts[part, :, 1] + (pixels.remainder(w)[:, None] + dx)
        index, weights = corners(x.flatten(), y.flatten(), (h, w))
        samples = mix_rows(table, index, weights).view(len(pixels), -1)
        out[part] = product(conv.bias, samples, conv.weight)
    return out.view(h, w, -1)


def score_map(folded: FoldedAliked, encoded: Encoded) -> Tensor:
    """The scores (H, W) of the image, in [0, 1].

    The head's first layer is linear and has as many weights for each level, so it is applied level by level and before
    the enlargement: 8 channels at full resolution instead of D.
    """
    height, width = encoded.fine.shape[:2]
    scores = large_empty(encoded.fine, height, width)
    ready = encoded.fine.new_zeros(3, width // 2, 16)  # rows of the first layer, from three above the next scores on
    done, step = 0, _strip_rows(encoded.fine, width, 8)
    for start in range(0, height, step):
        stop = min(start + step, height)
        rows = torch.cat((ready, activate(_first_score_layer(folded, encoded, start, stop))))
        if stop == height:
            rows = _rows(rows, 0, len(rows) + 3)
        ready, count = rows[-6:], len(rows) - 6
        for reach, conv, columns in zip((2, 1, 0), folded.score_head, SCORE_COLUMNS, strict=True):
            rows = _conv(rows.view(len(rows), width // columns, -1), conv)
            if reach:
                rows = _blank(activate(rows), done - reach, height)
        torch.sigmoid(rows.view(-1, width), out=scores[done : done + count])
        done += count
    h, w = encoded.size
    return scores[encoded.top : encoded.top + h, encoded.left : encoded.left + w]


def _first_score_layer(folded: FoldedAliked, encoded: Encoded, start: int, stop: int) -> Tensor:
    """Rows `start` to `stop` of the score head's first layer: (R, W' / 2, 16), two columns in one."""
    width = encoded.fine.shape[1]
    out = encoded.fine.new_empty(stop - start, width // 2, 16)
    step = max(_strip_rows(encoded.fine, width, 1) // FEWER, 1)
    for pixels, target in zip(torch.split(encoded.fine[start:stop], step), torch.split(out, step), strict=True):
        fine = activate(_linear(pixels, *folded.levels[0]))
        target.copy_(_linear(fine.view(len(fine), width // 2, -1), *folded.score_fine))
    flat = out.view(stop - start, -1)
    for level, weight, places in zip(encoded.levels(), folded.score_levels, encoded.rows, strict=True):
        low, high = places.low[start:stop], places.high[start:stop]
        first, last = int(low[0]), int(high[-1])
        part = _score_part(level[first : last + 1], weight, width)
        flat.addmm_(_enlarging(low - first, high - first, places.fraction[start:stop], len(part)), part.flatten(1))
    return out


def _score_part(level: Tensor, weight: Tensor, width: int) -> Tensor:
    """The score head's first layer on rows of a level (R, w, d), enlarged along the rows: (R, W', 8)."""
    part = (level.reshape(-1, len(weight)) @ weight).view(1, *level.shape[:2], -1)
    size = (len(level), width)
    wide = F.interpolate(part.permute(0, 3, 1, 2), size=size, mode="bilinear", align_corners=True)
    return wide.permute(0, 2, 3, 1).contiguous()[0]


def _enlarging(low: Tensor, high: Tensor, fraction: Tensor, n: int) -> Tensor:
    """The matrix (R, n) that interpolates R rows between n."""
    matrix = fraction.new_zeros(len(low), n)
    matrix.scatter_(1, low[:, None], (1 - fraction)[:, None])
    return matrix.scatter_add_(1, high[:, None], fraction[:, None])
