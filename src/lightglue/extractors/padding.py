"""Padding an image so that a network's strides divide its sides."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

__all__ = ["InputPadder"]


class InputPadder:
    """Pads images (B, C, h, w) to sides that are multiples of `divis_by`, with their border, as much on either side.

    The odd pixel goes to the right and the bottom. `_pad` is (left, right, top, bottom), px.
    """

    def __init__(self, h: int, w: int, divis_by: int = 8) -> None:
        down, across = -h % divis_by, -w % divis_by
        self._pad = [across // 2, across - across // 2, down // 2, down - down // 2]

    def pad(self, x: Tensor) -> Tensor:
        """`x` (B, C, h, w) with the padding."""
        return F.pad(x, self._pad, mode="replicate")

    def unpad(self, x: Tensor) -> Tensor:
        """`x` (B, C, H, W) without the padding."""
        left, right, top, bottom = self._pad
        return x[..., top : x.shape[-2] - bottom, left : x.shape[-1] - right]
