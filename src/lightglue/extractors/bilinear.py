"""Bilinear interpolation as weighted sums of a table's rows, the pixels of a map (H, W, C) being the rows."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["Axis", "axis", "corner_weights", "corners", "mix_rows", "neighbours"]


@dataclass(frozen=True)
class Axis:
    """Where each of N pixels lies between two of n, the outermost pixels' centres on each other."""

    low: Tensor  # (N,) int64
    high: Tensor  # (N,) int64
    fraction: Tensor  # (N,) of the way from low to high


def axis(n: int, side: int, like: Tensor, start: int = 0, whole: int | None = None) -> Axis:
    """The `Axis` from `n` pixels to the n / side of a map, on the device and in the dtype of `like`.

    Where the pixels are those from `start` on of `whole` pixels, all multiples of `side`, the outermost pixels on each
    other are those of the whole and its map. What lies beyond the part's own map is its outermost pixel.
    """
    coarse, whole = n // side, n if whole is None else whole
    steps = torch.arange(start, start + n, dtype=torch.float64, device="cpu")
    at = (steps * ((whole // side - 1) / max(whole - 1, 1)) - start // side).clamp_(0, coarse - 1)
    low = at.long()
    fraction = (at - low).to(like)
    low = low.to(like.device)
    return Axis(low, (low + 1).clamp_(max=coarse - 1), fraction)


def neighbours(at: Tensor, n: int) -> tuple[Tensor, Tensor]:
    """For positions (P,) on an axis of n pixels the two pixels (2, P) around each, moved inside of the axis where they
    are not, and their weights (2, P), then 0."""
    low = at.floor()
    index = torch.stack((low, low + 1))
    inside = index.clamp(0, n - 1)
    weights = (1 - (index - at).abs()).mul_(inside == index)
    return inside.long(), weights


def corners(x: Tensor, y: Tensor, size: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """The four pixels around positions (P,) as flat indices (P, 4) into a map, and their weights (P, 4), 0 outside."""
    (left, right), across = neighbours(x, size[1])
    rows, down = neighbours(y, size[0])
    above, below = rows * size[1]
    index = torch.stack((above + left, above + right, below + left, below + right), dim=1)
    return index, corner_weights(down, across)


def corner_weights(down: Tensor, across: Tensor) -> Tensor:
    """The weights (P, 4) of four corners from those of their rows and columns, (2, P) each."""
    return torch.stack((down[0] * across[0], down[0] * across[1], down[1] * across[0], down[1] * across[1]), dim=1)


def mix_rows(table: Tensor, index: Tensor, weights: Tensor) -> Tensor:
    """Sums (P, C) of K rows of `table` (N, C) each, chosen by `index` (P, K) and weighted by `weights` (P, K)."""
    if table.device.type == "cpu":
        return F.embedding_bag(index, table, mode="sum", per_sample_weights=weights)
    return (weights[:, None] @ table[index])[:, 0]
