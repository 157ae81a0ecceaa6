"""ALIKED's encoder and score map, on folded layers and without dense feature maps, one image at a time.

It gives what `AlikedNetwork.forward` gives. The finest feature map takes 16 numbers a pixel and the score head reads
32 more, so everything at full resolution is done a few rows at a time, through all layers while the rows are in the
cache. Inference only: nothing here lets gradients through.

Maps are (H, W, C) here, so that a 1x1 convolution is a matrix product and rows of a map are rows of a matrix.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from lightglue.extractors.aliked_folding import SCORE_COLUMNS, FoldedAliked, FoldedBlock, FoldedConv, activate
from lightglue.extractors.aliked_network import STRIDE
from lightglue.extractors.bilinear import Axis, axis, corners, mix_rows
from lightglue.extractors.request import Part
from lightglue.support.buffers import keep_freed_memory, large_empty

__all__ = ["Encoded", "add_product", "coarsest_level", "encode", "product", "score_map"]

SIDES = (2, 8, 32)  # of a pixel of each coarse level, px
PART, MARGIN = 28, 3  # cells of the coarsest level that `coarsest_level` works out at once, and sees around these
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
    return [(height // side, width // side) for side in SIDES]


class Edge(NamedTuple):
    """An edge of an image or of a part of one, px, and the padding that puts it on the grid of the whole image."""

    before: int
    after: int
    length: int  # padded
    start: int  # of the padded edge in that of the whole image
    whole: int  # the latter's length

    def axes(self, like: Tensor) -> tuple[Axis, ...]:
        """From the padded edge to that of each coarse level, enlarged as the whole image's levels are."""
        return tuple(axis(self.length, side, like, self.start, self.whole) for side in SIDES)

    @property
    def cells(self) -> slice:
        """The edge in the coarsest level of the whole image."""
        return slice(self.start // STRIDE, (self.start + self.length) // STRIDE)


def _edge(length: int, start: int, whole: int) -> Edge:
    """The `Edge` of `length` px from `start` on of `whole` px, which is padded to a multiple of 32, centred."""
    missing = -whole % STRIDE
    begin = start + missing // 2
    before = begin % STRIDE
    after = -(length + before) % STRIDE
    return Edge(before, after, before + length + after, begin - before, whole + missing)


def _on_grid(image: Tensor, part: Part | None) -> tuple[Tensor, Edge, Edge]:
    """An image (3, H, W), or a part of one, as (1, 3, H', W') with its edges continued; its vertical and its horizontal
    edge."""
    h, w = image.shape[-2:]
    down = _edge(h, part.y, part.height) if part else _edge(h, 0, h)
    across = _edge(w, part.x, part.width) if part else _edge(w, 0, w)
    margins = (across.before, across.after, down.before, down.after)
    return F.pad(image[None], margins, mode="replicate") if any(margins) else image[None], down, across


def encode(folded: FoldedAliked, image: Tensor, part: Part | None = None) -> Encoded:
    """The feature pyramid of an image (3, H, W) in [0, 1]; sides are padded to multiples of 32.

    Where the image is a `part` of a whole, its coarsest level is the whole's, `part.prepared` by `coarsest_level`.
    """
    keep_freed_memory(image)
    padded, down, across = _on_grid(image, part)
    fine, half = _full_resolution(folded, padded)
    sizes = _level_sizes(down.length, across.length)
    coarse = large_empty(fine, sum(rows * columns for rows, columns in sizes), len(folded.levels[0][1]))
    level2, level3, level4 = _levels(coarse, sizes)
    x3 = _deformable_block(folded.blocks[2], _half_resolution(folded, half, level2))
    activate(_linear(x3, *folded.levels[2]), out=level3)
    if part is None:
        activate(_linear(_deformable_block(folded.blocks[3], _pool(x3, 4)), *folded.levels[3]), out=level4)
    else:
        level4.copy_(part.prepared[down.cells, across.cells])
    size = (image.shape[1], image.shape[2])
    return Encoded(fine, coarse, down.axes(fine), across.axes(fine), across.before, down.before, size)


def coarsest_level(folded: FoldedAliked, read: Callable[[slice, slice], Tensor], size: tuple[int, int]) -> Tensor:
    """The coarsest level (h, w, d) of an image of `size`, height and width in px, that is too large for memory.

    The level's deformable convolutions look hundreds of px far, farther than tiles overlap. What they look at has only
    a 1024th of the pixels and fits into memory; the layers before it see hardly farther than `MARGIN` and are done in
    parts.

    Args:
        read: the image (3, h, w) of given rows and columns.
    """
    height, width = size
    (_, _, h, _, _), (_, _, w, _, _) = down, across = _edge(height, 0, height), _edge(width, 0, width)
    corners = [(top, left) for top in range(0, h // STRIDE, PART) for left in range(0, w // STRIDE, PART)]
    pooled: Tensor | None = None
    for top, left in corners:
        rows, columns = _with_margin(top, down), _with_margin(left, across)
        part = Part(columns.start, rows.start, width, height)
        padded, y, x = _on_grid(read(rows, columns), part)
        _, half = _full_resolution(folded, padded)
        found = _pool(_deformable_block(folded.blocks[2], _half_resolution(folded, half)), 4)
        pooled = found.new_empty(h // STRIDE, w // STRIDE, found.shape[2]) if pooled is None else pooled
        target = pooled[top : top + PART, left : left + PART]
        top, left = top - y.cells.start, left - x.cells.start
        target.copy_(found[top : top + len(target), left : left + target.shape[1]])
    assert pooled is not None
    return activate(_linear(_deformable_block(folded.blocks[3], pooled), *folded.levels[3]))


def _with_margin(first: int, edge: Edge) -> slice:
    """The px of an image's `edge` in `PART` cells of the coarsest level from `first` on, and `MARGIN` around these."""
    start, stop = STRIDE * (first - MARGIN) - edge.before, STRIDE * (first + PART + MARGIN) - edge.before
    return slice(max(start, 0), min(stop, edge.length - edge.before - edge.after))


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


def _half_resolution(folded: FoldedAliked, half: Tensor, level: Tensor | None = None) -> Tensor:
    """The mean (h / 4, w / 4, c2) of 4x4 features at half resolution, of pooled features (h, w, c1); the level that
    comes of the features goes into `level` (h, w, d) where there is one."""
    block, height = folded.blocks[1], half.shape[0]
    eighth = half.new_empty(height // 4, half.shape[1] // 4, len(block.conv2.bias))
    step = _strip_rows(half, half.shape[1], 4)
    for start in range(0, height, step):
        stop = min(start + step, height)
        rows = _rows(half, start - 2, stop + 2)
        rows = _blank(activate(_conv(rows, block.conv1)), start - 1, height)
        rows = activate(_add_beside(_conv(rows, block.conv2), half[start:stop], block))
        eighth[start // 4 : stop // 4] = _pool(rows, 4)
        if level is not None:
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
    levels = zip(encoded.levels(), folded.score_levels, encoded.rows, encoded.columns, strict=True)
    for level, weight, places, columns in levels:
        low, high = places.low[start:stop], places.high[start:stop]
        first, last = int(low[0]), int(high[-1])
        part = _score_part(level[first : last + 1], weight, columns)
        flat.addmm_(_enlarging(low - first, high - first, places.fraction[start:stop], len(part)), part.flatten(1))
    return out


def _score_part(level: Tensor, weight: Tensor, columns: Axis) -> Tensor:
    """The score head's first layer on rows of a level (R, w, d), enlarged along the rows: (R, W', 8)."""
    part = (level.reshape(-1, len(weight)) @ weight).view(*level.shape[:2], -1)
    low, high = part.index_select(1, columns.low), part.index_select(1, columns.high)
    return low.lerp_(high, columns.fraction[:, None])


def _enlarging(low: Tensor, high: Tensor, fraction: Tensor, n: int) -> Tensor:
    """The matrix (R, n) that interpolates R rows between n."""
    matrix = fraction.new_zeros(len(low), n)
    matrix.scatter_(1, low[:, None], (1 - fraction)[:, None])
    return matrix.scatter_add_(1, high[:, None], fraction[:, None])
