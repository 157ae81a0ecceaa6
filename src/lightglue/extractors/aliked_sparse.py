"""ALIKED's descriptors from the pyramid, read only at the pixels that the descriptor head asks for.

The head reads the dense map of normalised features at the 3x3 pixels around a keypoint and at the four corners of each
sample position. A pixel's features are its finest level, through a 1x1 convolution, and the three coarse levels
interpolated: twelve rows of one table, whose indices and weights are sums and products of a row's and a column's.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from lightglue.extractors.aliked_fast import Encoded, add_product, product
from lightglue.extractors.aliked_folding import FoldedAliked, activate
from lightglue.extractors.aliked_network import patch_pixels
from lightglue.extractors.bilinear import Axis, corner_weights, mix_rows, neighbours

__all__ = ["describe"]

KEYPOINTS = 128  # that a thread describes at once


def describe(folded: FoldedAliked, encoded: Encoded, keypoints: Tensor) -> Tensor:
    """Descriptors (N, D), L2-normalised, at `keypoints` (N, 2) x y, px of the image."""
    pixels = PixelReader(folded, encoded)
    out = keypoints.new_empty(len(keypoints), folded.descriptor_head.join.shape[1])
    step = KEYPOINTS * torch.get_num_threads()
    for start in range(0, len(keypoints), step):
        out[start : start + step] = _describe(folded, pixels, keypoints[start : start + step])
    return out


def _describe(folded: FoldedAliked, pixels: PixelReader, keypoints: Tensor) -> Tensor:
    head, n, (h, w) = folded.descriptor_head, len(keypoints), pixels.size
    limit = max(h, w) / 4
    patch = patch_pixels(keypoints, (h, w))
    fine, coarse, norms = pixels.read(patch[:, :, 0, 1], patch[:, 0, :, 0])
    hidden = product(head.patch_bias, fine.div_(norms[:, None]).view(n, -1), head.patch_fine)
    add_product(hidden, coarse.div_(norms[:, None]).view(n, -1), head.patch_coarse)
    offsets = torch.addmm(head.offsets_bias, activate(hidden), head.offsets).clamp_(-limit, limit)
    offsets = offsets.view(n, 2, -1)  # first all x, then all y
    x, y = (keypoints.T[:, :, None] + offsets.transpose(0, 1)).flatten(1)  # (N M,) each
    columns, across = neighbours(x, w)
    rows, down = neighbours(y, h)
    fine, coarse, norms = pixels.read(rows.T, columns.T)
    weights = corner_weights(down, across).div_(norms.view(-1, 4))
    order = torch.arange(len(norms), device=norms.device).view(-1, 4)
    samples = product(head.sample_bias, mix_rows(fine, order, weights), head.sample_fine)
    samples = activate(add_product(samples, mix_rows(coarse, order, weights), head.sample_coarse))
    return F.normalize((samples.view(n, -1).to(head.join.dtype) @ head.join).to(samples.dtype), dim=-1)


class PixelReader:
    """Reads features of single pixels of an encoded image."""

    def __init__(self, folded: FoldedAliked, encoded: Encoded) -> None:
        self.size, self._left, self._top = encoded.size, encoded.left, encoded.top
        self._weight, self._bias = folded.levels[0]
        self._fine, self._coarse = encoded.fine.flatten(0, 1), encoded.coarse
        self._width = encoded.fine.shape[1]
        levels = encoded.levels()
        widths = [level.shape[1] for level in levels]
        starts = [0, levels[0][..., 0].numel(), sum(level[..., 0].numel() for level in levels[:2])]
        self._rows = _corners(encoded.rows, widths, starts, repeat=True)
        self._columns = _corners(encoded.columns, [1, 1, 1], [0, 0, 0], repeat=False)

    def read(self, y: Tensor, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Features of the pixels (G, k, k) of G grids with the rows `y` (G, k) and columns `x` (G, k) of the image.

        Returns:
            the finest level (P, d), the coarse ones (P, 3 d), P = G k k, and the norm (P,) of both together.
        """
        y, x = y + self._top, x + self._left
        places = (y * self._width)[:, :, None] + x[:, None, :]
        fine = self._fine.index_select(0, places.flatten())
        fine = activate(torch.addmm(self._bias, fine, self._weight))
        row_index, row_weights = (t.index_select(0, y.flatten()).view(*y.shape, 1, 12) for t in self._rows)
        index, weights = (t.index_select(0, x.flatten()).view(len(x), 1, -1, 12) for t in self._columns)
        index, weights = row_index + index, row_weights * weights
        coarse = mix_rows(self._coarse, index.view(-1, 4), weights.view(-1, 4)).view(len(fine), -1)
        norms = torch.linalg.vector_norm(fine, dim=1).hypot_(torch.linalg.vector_norm(coarse, dim=1))
        return fine, coarse, norms.clamp_(min=1e-12)


def _corners(
    axes: Sequence[Axis], strides: Sequence[int], starts: Sequence[int], repeat: bool
) -> tuple[Tensor, Tensor]:
    """For N rows or columns what they add to the indices (N, 12) and what they multiply the weights (N, 12) with.

    The four corners of a level are in raster order: rows, with `repeat`, come as low low high high, columns as low
    high low high.
    """
    order = [0, 0, 1, 1] if repeat else [0, 1, 0, 1]
    index, weights = [], []
    for one, stride, start in zip(axes, strides, starts, strict=True):
        index.append(torch.stack((one.low, one.high), dim=1)[:, order] * stride + start)
        weights.append(torch.stack((1 - one.fraction, one.fraction), dim=1)[:, order])
    return torch.cat(index, dim=1), torch.cat(weights, dim=1)
