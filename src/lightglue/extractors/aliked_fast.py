"""ALIKED without dense feature maps: what `AlikedNetwork.forward` gives, on the folded layers, one image at a time.

The finest feature map takes 16 numbers a pixel and the score head reads 32 more; everything at full resolution is
therefore done a few rows at a time, through all layers while the rows are in the cache, and the descriptor head reads
the pyramid only where it needs it. Inference only: nothing here lets gradients through.

Maps are (H, W, C) here, so that a 1x1 convolution is a matrix product and rows of a map are rows of a matrix.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from lightglue.extractors.aliked_folding import SCORE_COLUMNS, FoldedAliked, FoldedBlock, FoldedConv, activate
from lightglue.extractors.aliked_network import STRIDE, patch_pixels

__all__ = ["Encoded", "describe", "encode", "score_map"]

KEYPOINTS = 256  # that are described at once
DEFORMED = 8192  # pixels that a deformable convolution works on at once
# Pixels of a full-resolution map that are worked on at once: 1 MiB of 16 channels. A GPU has no such cache.
STRIP_CPU, STRIP_ELSEWHERE = 16 * 1024, 1024 * 1024


@dataclass(frozen=True)
class Level:
    """A coarse level of the pyramid. Sides of the map are h and w, those of the finest map H' and W'."""

    features: Tensor  # (h, w, d)
    scores: Tensor  # (h, W', 8): its part of the score head's first layer, enlarged along the rows
    rows: Axis  # from H' to h
    columns: Axis  # from W' to w


@dataclass(frozen=True)
class Axis:
    """Where each of N pixels lies between two of n, the outermost pixels' centres on each other."""

    low: Tensor  # (N,) int64
    high: Tensor  # (N,) int64
    fraction: Tensor  # (N,) of the way from low to high


@dataclass(frozen=True)
class Encoded:
    """What the network knows of an image after its encoder, from which scores and descriptors come."""

    fine: Tensor  # (H', W', c1), H' and W' being multiples of 32
    levels: tuple[Level, Level, Level]
    left: int  # where the image begins in the padded maps, px
    top: int
    size: tuple[int, int]  # (H, W) of the image, px


def axis(n: int, coarse: int, like: Tensor) -> Axis:
    """The `Axis` from `n` pixels to `coarse` ones, on the device and in the dtype of `like`."""
    at = torch.arange(n, dtype=torch.float64, device="cpu") * ((coarse - 1) / max(n - 1, 1))
    low = at.long().clamp_(max=coarse - 1)
    fraction = (at - low).to(like)
    low = low.to(like.device)
    return Axis(low, (low + 1).clamp_(max=coarse - 1), fraction)


def encode(folded: FoldedAliked, image: Tensor) -> Encoded:
    """The feature pyramid of an image (3, H, W) in [0, 1]; sides are padded to multiples of 32."""
    h, w = image.shape[-2:]
    top, left = (-h % STRIDE) // 2, (-w % STRIDE) // 2
    margins = (left, -w % STRIDE - left, top, -h % STRIDE - top)
    padded = F.pad(image[None], margins, mode="replicate") if any(margins) else image[None]
    fine, half = _full_resolution(folded, padded)
    size = (fine.shape[0], fine.shape[1])
    level2, eighth = _half_resolution(folded, half, size)
    x3 = _deformable_block(folded.blocks[2], eighth)
    x4 = _deformable_block(folded.blocks[3], _pool(x3, 4))
    levels = (level2, _level(folded, 1, x3, size), _level(folded, 2, x4, size))
    return Encoded(fine, levels, left, top, (h, w))


def _strip_rows(map_like: Tensor, width: int, multiple: int) -> int:
    """How many rows of a map to work on at once."""
    pixels = STRIP_CPU if map_like.device.type == "cpu" else STRIP_ELSEWHERE
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
    out = F.conv2d(rows.permute(2, 0, 1)[None], conv.weight, conv.bias, padding=(0, 1))
    return out.permute(0, 2, 3, 1).contiguous()[0]


def _linear(maps: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """1x1 convolution of (H, W, C) to (H, W, O)."""
    out = torch.addmm(bias, maps.reshape(-1, maps.shape[-1]), weight)
    return out.view(*maps.shape[:2], -1)


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
    fine = image.new_empty(height, width, channels)
    half = image.new_empty(height // 2, width // 2, channels)
    pixels, step = image[0].permute(1, 2, 0), _strip_rows(image, width, 2)
    for start in range(0, height, step):
        stop = min(start + step, height)
        rows = _rows(pixels, start - 2, stop + 2).contiguous()
        rows = _blank(activate(_conv(rows, block.conv1)), start - 1, height)
        rows = activate(_conv(rows, block.conv2), out=fine[start:stop])
        half[start // 2 : stop // 2] = _pool(rows, 2)
    return fine, half


def _half_resolution(folded: FoldedAliked, half: Tensor, size: tuple[int, int]) -> tuple[Level, Tensor]:
    """The level of half resolution of pooled features (h, w, c1), and the mean (h / 4, w / 4, c2) of 4x4 features."""
    block, (height, width) = folded.blocks[1], half.shape[:2]
    weight, bias = folded.levels[1]
    features = half.new_empty(height, width, len(bias))
    scores = half.new_empty(height, size[1], 8)
    eighth = half.new_empty(height // 4, width // 4, len(block.conv2.bias))
    step = _strip_rows(half, width, 4)
    for start in range(0, height, step):
        stop = min(start + step, height)
        rows = _rows(half, start - 2, stop + 2)
        rows = _blank(activate(_conv(rows, block.conv1)), start - 1, height)
        rows = activate(_add_beside(_conv(rows, block.conv2), half[start:stop], block))
        eighth[start // 4 : stop // 4] = _pool(rows, 4)
        activate(_linear(rows, weight, bias), out=features[start:stop])
        scores[start:stop] = _score_part(features[start:stop], folded.score_levels[0], size[1])
    return Level(features, scores, axis(size[0], height, half), axis(size[1], width, half)), eighth


def _add_beside(out: Tensor, maps: Tensor, block: FoldedBlock) -> Tensor:
    """Add the 1x1 convolution of a block's input (H, W, C) to `out` (H, W, O), in place."""
    assert block.beside is not None
    out.view(-1, out.shape[-1]).addmm_(maps.reshape(-1, maps.shape[-1]), block.beside)
    return out


def _score_part(features: Tensor, weight: Tensor, width: int) -> Tensor:
    """A level's part (h, W', 8) of the score head's first layer, enlarged along the rows, of (h, w, d)."""
    part = (features.view(-1, features.shape[-1]) @ weight).view(*features.shape[:2], -1)
    wide = F.interpolate(part.permute(2, 0, 1)[None], size=(len(part), width), mode="bilinear", align_corners=True)
    return wide[0].permute(1, 2, 0)


def _level(folded: FoldedAliked, index: int, maps: Tensor, size: tuple[int, int]) -> Level:
    """The coarse level number `index` of a block's output (h, w, c)."""
    features = activate(_linear(maps, *folded.levels[index + 1]))
    scores = _score_part(features, folded.score_levels[index], size[1]).contiguous()
    h, w = maps.shape[:2]
    return Level(features, scores, axis(size[0], h, maps), axis(size[1], w, maps))


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
    for pixels in torch.split(torch.arange(h * w, device=maps.device), DEFORMED):
        part = slice(int(pixels[0]), int(pixels[-1]) + 1)
        y = shifts[part, :, 0] + (pixels.div(w, rounding_mode="floor")[:, None] + dy)
        x = shifts[part, :, 1] + (pixels.remainder(w)[:, None] + dx)
        index, weights = corners(x.flatten(), y.flatten(), (h, w))
        samples = mix_rows(table, index, weights).view(len(pixels), -1)
        torch.addmm(conv.bias, samples, conv.weight, out=out[part])
    return out.view(h, w, -1)


def corners(x: Tensor, y: Tensor, size: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """The four pixels (P, 4) around positions (P,) as flat indices into a map, and their weights (P, 4) in bilinear
    interpolation, 0 outside the map."""
    (h, w), left, top = size, x.floor(), y.floor()
    right_share, bottom_share = x - left, y - top
    columns, column_weights = _pair(left.long(), right_share, w)
    rows, row_weights = _pair(top.long(), bottom_share, h)
    index = (rows * w)[:, :, None] + columns[:, None, :]
    return index.flatten(1), (row_weights[:, :, None] * column_weights[:, None, :]).flatten(1)


def _pair(low: Tensor, share: Tensor, n: int) -> tuple[Tensor, Tensor]:
    """Two neighbours (P, 2) along an axis of n pixels, inside of it, and their weights (P, 2), 0 outside."""
    index = torch.stack((low, low + 1), dim=1)
    inside = index.clamp(0, n - 1)
    weights = torch.stack((1 - share, share), dim=1)
    return inside, weights.mul_(inside == index)


def mix_rows(table: Tensor, index: Tensor, weights: Tensor) -> Tensor:
    """Sums (P, C) of K rows of `table` (N, C) each, chosen by `index` (P, K) and weighted by `weights` (P, K)."""
    if table.device.type == "cpu":
        return F.embedding_bag(index, table, mode="sum", per_sample_weights=weights)
    return (weights[:, None] @ table[index])[:, 0]


def score_map(folded: FoldedAliked, encoded: Encoded) -> Tensor:
    """The scores (H, W) of the image, in [0, 1].

    The head's first layer is linear and has as many weights for each level, so it is applied level by level and before
    the enlargement: 8 channels at full resolution instead of D.
    """
    height, width = encoded.fine.shape[:2]
    scores = encoded.fine.new_empty(height, width)
    step = _strip_rows(encoded.fine, width, 8)
    for start in range(0, height, step):
        stop = min(start + step, height)
        first = max(start - 3, 0)
        rows = activate(_first_score_layer(folded, encoded, first, min(stop + 3, height)))
        rows = _rows(rows, start - 3 - first, stop + 3 - first)
        for reach, conv, columns in zip((2, 1, 0), folded.score_head, SCORE_COLUMNS, strict=True):
            rows = _conv(rows.reshape(len(rows), width // columns, -1), conv)
            if reach:
                rows = _blank(activate(rows), start - reach, height)
        torch.sigmoid(rows.view(-1, width), out=scores[start:stop])
    h, w = encoded.size
    return scores[encoded.top : encoded.top + h, encoded.left : encoded.left + w]


def _first_score_layer(folded: FoldedAliked, encoded: Encoded, start: int, stop: int) -> Tensor:
    """Rows `start` to `stop` of the score head's first layer: (R, W' / 2, 16), two columns in one."""
    width = encoded.fine.shape[1]
    fine = activate(_linear(encoded.fine[start:stop], *folded.levels[0]))
    out = _linear(fine.view(stop - start, width // 2, -1), *folded.score_fine)
    flat = out.view(stop - start, -1)
    for level in encoded.levels:
        low, high = level.rows.low[start:stop], level.rows.high[start:stop]
        base, end = int(low[0]), int(high[-1]) + 1
        part = level.scores[base:end].view(end - base, -1)
        flat.addmm_(_enlarging(low - base, high - base, level.rows.fraction[start:stop], end - base), part)
    return out


def _enlarging(low: Tensor, high: Tensor, fraction: Tensor, n: int) -> Tensor:
    """The matrix (R, n) that interpolates R rows between n."""
    matrix = fraction.new_zeros(len(low), n)
    matrix.scatter_(1, low[:, None], (1 - fraction)[:, None])
    return matrix.scatter_add_(1, high[:, None], fraction[:, None])


def describe(folded: FoldedAliked, encoded: Encoded, keypoints: Tensor) -> Tensor:
    """Descriptors (N, D), L2-normalised, at `keypoints` (N, 2) x y, px of the image."""
    out = keypoints.new_empty(len(keypoints), folded.descriptor_head.join.shape[1])
    for start in range(0, len(keypoints), KEYPOINTS):
        out[start : start + KEYPOINTS] = _describe(folded, encoded, keypoints[start : start + KEYPOINTS])
    return out


def _describe(folded: FoldedAliked, encoded: Encoded, keypoints: Tensor) -> Tensor:
    head, n, (h, w) = folded.descriptor_head, len(keypoints), encoded.size
    limit = max(h, w) / 4
    around = patch_pixels(keypoints, (h, w)).flatten(0, 2)
    patches, norms = pixel_features(folded, encoded, around[:, 0], around[:, 1])
    patches = patches.div_(norms[:, None]).view(n, -1)
    hidden = activate(torch.addmm(head.patch_bias, patches, head.patch))
    offsets = torch.addmm(head.offsets_bias, hidden, head.offsets).clamp_(-limit, limit)
    offsets = offsets.view(n, 2, -1)  # first all x, then all y
    positions = (keypoints.T[:, :, None] + offsets.transpose(0, 1)).flatten(1)  # (2, N M)
    index, weights = corners(positions[0], positions[1], (h, w))
    flat = index.flatten()
    features, norms = pixel_features(folded, encoded, flat.remainder(w), flat.div(w, rounding_mode="floor"))
    weights = weights.div_(norms.view_as(weights))
    order = torch.arange(len(flat), device=flat.device).view_as(index)
    samples = mix_rows(features, order, weights)
    samples = activate(torch.addmm(head.sample_bias, samples, head.sample))
    return F.normalize(samples.view(n, -1) @ head.join, dim=-1)


def pixel_features(folded: FoldedAliked, encoded: Encoded, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Columns (P, D) of the feature map at pixels (P,) of the image, and their norms (P,)."""
    x, y = x + encoded.left, y + encoded.top
    width = encoded.fine.shape[1]
    fine = encoded.fine.view(-1, encoded.fine.shape[-1]).index_select(0, y * width + x)
    parts = [activate(torch.addmm(folded.levels[0][1], fine, folded.levels[0][0]))]
    for level in encoded.levels:
        (_, w, d), rows, columns = level.features.shape, level.rows, level.columns
        row = torch.stack((rows.low[y], rows.high[y]), dim=1) * w
        column = torch.stack((columns.low[x], columns.high[x]), dim=1)
        fy, fx = rows.fraction[y], columns.fraction[x]
        row_weights, column_weights = torch.stack((1 - fy, fy), dim=1), torch.stack((1 - fx, fx), dim=1)
        index = (row[:, :, None] + column[:, None, :]).flatten(1)
        weights = (row_weights[:, :, None] * column_weights[:, None, :]).flatten(1)
        parts.append(mix_rows(level.features.view(-1, d), index, weights))
    features = torch.cat(parts, dim=1)
    return features, torch.linalg.vector_norm(features, dim=1).clamp_(min=1e-12)
