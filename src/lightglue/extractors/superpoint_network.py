"""The SuperPoint network: a gray image in, keypoint logits and descriptors on a grid of cells out.

DeTone et al., "SuperPoint: Self-Supervised Interest Point Detection and Description", CVPRW 2018 (arXiv:1712.07629).
Layers bear the names of the authors' checkpoint. The open re-implementation (github.com/rpautrat/SuperPoint, MIT) has
the same layers with batch normalisation after each activation, under names of its own, and reads its descriptors at
slightly other positions.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lightglue.extractors.detection import sample_bilinear

__all__ = ["SuperPointNetwork", "is_open_layout", "published_cells", "published_names"]

EPSILON = 1e-3  # of the open re-implementation's batch normalisation
ROWS = 64  # of a block's input that are worked on at once, to bound the memory

# Where the open layout has the layers of the two heads.
_HEADS = {"detector.0": "Pa", "detector.1": "Pb", "descriptor.0": "Da", "descriptor.1": "Db"}


class SuperPointNetwork(nn.Module):
    """The pure network.

    Args:
        channels: of the blocks, each two 3x3 convolutions, all but the last halving the resolution; then of the heads.
        descriptor_dim: length D of the descriptors.
        batch_norm: whether this is the open re-implementation.
    """

    def __init__(self, channels: Sequence[int], descriptor_dim: int, batch_norm: bool = False) -> None:
        super().__init__()
        *blocks, head = channels
        self.blocks = len(blocks)
        self.stride = 2 ** (self.blocks - 1)  # side of a cell, px
        self.batch_norm = batch_norm
        for number, (before, after) in enumerate(pairwise((1, *blocks)), start=1):
            self._add_layer(f"{number}a", before, after, kernel=3)
            self._add_layer(f"{number}b", after, after, kernel=3)
        for name, outputs in (("P", self.stride**2 + 1), ("D", descriptor_dim)):
            self._add_layer(f"{name}a", blocks[-1], head, kernel=3)
            self._add_layer(f"{name}b", head, outputs, kernel=1)

    def _add_layer(self, name: str, before: int, after: int, kernel: int) -> None:
        self.add_module(f"conv{name}", nn.Conv2d(before, after, kernel, padding=kernel // 2))
        if self.batch_norm:
            self.add_module(f"bn{name}", nn.BatchNorm2d(after, eps=EPSILON))

    def _layer(self, name: str, x: Tensor, active: bool = True) -> Tensor:
        x = self.get_submodule(f"conv{name}")(x)
        if active:
            x = F.relu(x, inplace=True)
        return self.get_submodule(f"bn{name}")(x) if self.batch_norm else x

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """Logits (B, S * S + 1, h, w) and descriptors (B, D, h, w), not normalised.

        `image` is (B, 1, H, W) in [0, 1], its sides at least the stride S; h = H // S and w = W // S. The logits are of
        the S * S pixels of a cell in raster order, then of none of them being a keypoint.
        """
        x = image
        for number in range(1, self.blocks):
            x = self._halve(number, x)
        x = self._layer(f"{self.blocks}b", self._layer(f"{self.blocks}a", x))
        logits = self._layer("Pb", self._layer("Pa", x), active=False)
        return logits, self._layer("Db", self._layer("Da", x), active=False)

    def _halve(self, number: int, x: Tensor) -> Tensor:
        """A block and the maximum in windows of 2x2: strip by strip, each with the two rows beside it that it needs."""
        height, strips = x.shape[2] // 2 * 2, []
        for start in range(0, height, ROWS):
            stop = min(start + ROWS, height)
            first = max(start - 2, 0)
            strip = self._layer(f"{number}b", self._layer(f"{number}a", x[:, :, first : stop + 2]))
            strips.append(F.max_pool2d(strip[:, :, start - first : stop - first], 2))
        return torch.cat(strips, dim=2)

    def scores(self, logits: Tensor) -> Tensor:
        """Each pixel's probability (B, 1, h * S, w * S) of being the keypoint of its cell."""
        return F.pixel_shuffle(logits.softmax(dim=1)[:, :-1], self.stride)

    def describe(self, dense: Tensor, pixels: Tensor) -> Tensor:
        """Unit descriptors (N, D) at `pixels` (N, 2) x y, of one image's `dense` (D, h, w)."""
        dense = F.normalize(dense, dim=0)
        if self.batch_norm:
            positions = (pixels.to(torch.float32) - (self.stride - 1) / 2) / self.stride
        else:
            positions = published_cells(pixels, dense, self.stride)
        return F.normalize(sample_bilinear(dense, positions), dim=-1)


def published_cells(pixels: Tensor, dense: Tensor, stride: int) -> Tensor:
    """Where `pixels` (N, 2) x y lie in a map (D, h, w) of cells of `stride` px: (N, 2), in cells.

    The published formula: the last pixel lies at the last cell's middle, all others in proportion.
    """
    cells = torch.tensor(dense.shape[:0:-1], device=dense.device)  # w, h
    centre = pixels.to(torch.float32) - (stride - 1) / 2  # from the middle of the first cell, px
    return centre * (cells - 1) / (cells * stride - (stride + 1) / 2)


def is_open_layout(state: Mapping[str, Tensor]) -> bool:
    """Whether this is a checkpoint of the open re-implementation."""
    return any(key.startswith("backbone.") for key in state)


def published_names(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The open re-implementation's state dict under the names of `SuperPointNetwork`; unknown names stay."""
    return {_published_name(key): value for key, value in state.items()}


def _published_name(key: str) -> str:
    matched = re.fullmatch(r"backbone\.(\d+)\.([01])\.(conv|bn)\.(\w+)", key)
    if matched:
        block, layer, kind, parameter = matched.groups()
        return f"{kind}{int(block) + 1}{'ab'[int(layer)]}.{parameter}"
    matched = re.fullmatch(r"(\w+\.[01])\.(conv|bn)\.(\w+)", key)
    if matched and matched[1] in _HEADS:
        return f"{matched[2]}{_HEADS[matched[1]]}.{matched[3]}"
    return key
