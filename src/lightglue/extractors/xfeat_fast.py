"""What XFeat needs of its network, with the layers rearranged for speed. `xfeat_network` is the definition.

- Batch norms are multiplied into the convolutions before them, in float64.
- Maps are channels last: CPUs convolve them fastest, and a map's pixels are then the rows of a table, from which
  descriptors and reliabilities are read at keypoints only (`bilinear.mix_rows`).
- The image has one channel, which leaves vector registers nearly empty. Four neighbouring columns of it are taken as
  four channels, without moving a number: the first convolution is one of 4 to 16 channels, whose result is that of 4
  channels, and the path beside the first block is one of 4 x 1 pixels.

In reduced precision, blocks 2 to 5 and the fusion are so. The first block, and all that says where keypoints are, is
not.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lightglue.extractors.bilinear import corners, mix_rows
from lightglue.extractors.xfeat_network import CELL, ConvLayer, XFeatNetwork, cells_at
from lightglue.support.buffers import keep_freed_memory
from lightglue.support.derived import is_plain

__all__ = ["FoldedXFeat", "Maps", "encode", "fold", "heatmap", "is_foldable"]

COLUMNS = 4  # of the image that are taken as channels
CELLS = 2048  # for each core that go through the keypoint head at once, so that they stay in the cache
SHORTEST = 1e-12  # length that a feature is divided by (torch's default for `normalize`)
SHARPNESS = -0.75  # of the bicubic kernel (Keys 1981), as torch has it


@dataclass(frozen=True)
class FoldedConv:
    """A convolution with what follows it."""

    weight: Tensor  # (O, C, k, l), channels last
    bias: Tensor  # (O,)
    stride: tuple[int, int]
    padding: int
    active: bool  # whether ReLU follows

    def __call__(self, x: Tensor) -> Tensor:
        """(1, C, H, W), channels last, to (1, O, H', W')."""
        if self.weight.shape[2:] == (1, 1):  # a product over the pixels; torch would take the channels first
            y = F.linear(x.permute(0, 2, 3, 1), self.weight[:, :, 0, 0], self.bias).permute(0, 3, 1, 2)
        else:
            y = F.conv2d(x, self.weight, self.bias, self.stride, self.padding)
        return y.relu_() if self.active else y


Layers = tuple[FoldedConv, ...]


@dataclass(frozen=True)
class FoldedXFeat:
    """The whole network."""

    first: FoldedConv  # of block 1, over four columns in one
    beside: FoldedConv  # the path beside block 1, likewise
    block1: Layers  # the other three
    block2: Layers
    block3: Layers
    block4: Layers
    block5: Layers
    fusion: Layers
    reliability: Layers  # ends before the sigmoid
    keypoints: Layers


@dataclass(frozen=True)
class Maps:
    """An image's maps on its grid of cells, for which the keypoints ask."""

    features: Tensor  # (h * w, 64), not normalised
    lengths: Tensor  # (h * w,) of the features
    reliability: Tensor  # (h * w,)
    size: tuple[int, int]  # h, w

    def describe(self, pixels: Tensor) -> Tensor:
        """Unit descriptors (N, 64) at `pixels` (N, 2)."""
        x, y = self._cells(pixels)
        index, weights = _cubic_neighbours(x, y, self.size)
        # The features are normalised by way of their weights: fewer are read than there are.
        weights = weights.to(self.features) / self.lengths[index].clamp_min_(SHORTEST)
        return F.normalize(mix_rows(self.features, index, weights), dim=-1)

    def trust(self, pixels: Tensor) -> Tensor:
        """The reliability (N,) at `pixels` (N, 2)."""
        index, weights = corners(*self._cells(pixels), self.size)
        return (self.reliability[index] * weights).sum(dim=1)

    def _cells(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        height, width = self.size
        x, y = cells_at(pixels, (height * CELL, width * CELL)).unbind(dim=-1)
        return x, y


PLAIN_MODULES = (
    XFeatNetwork,
    ConvLayer,
    nn.Conv2d,
    nn.BatchNorm2d,
    nn.BatchNorm1d,
    nn.ReLU,
    nn.Sigmoid,
    nn.AvgPool2d,
    nn.Linear,
    nn.Sequential,
)


def is_foldable(network: XFeatNetwork) -> bool:
    """Whether the folded layers do all that the network's own do: not with a hook, another module or batch statistics,
    nor in half precision, where the rounding would not be the network's."""
    if cast(Tensor, network.skip1[1].weight).dtype not in (torch.float32, torch.float64):
        return False
    in_training = any(module.training for module in network.modules())
    return not in_training and is_plain(network, PLAIN_MODULES)


def encode(folded: FoldedXFeat, image: Tensor) -> Maps:
    """The maps of an image (1, 1, H, W), normalised, its sides multiples of 32 px."""
    keep_freed_memory(image)
    columns = _columns(image)
    x = folded.first(columns).permute(0, 2, 3, 1)
    x = _run(folded.block1, x.reshape(*x.shape[:2], image.shape[-1], -1).permute(0, 3, 1, 2))
    x = x.add_(folded.beside(columns))
    fine = _run(folded.block3, _run(folded.block2, x.to(folded.block2[0].weight)))
    middle = _run(folded.block4, fine)
    coarse = _run(folded.block5, middle)
    size = fine.shape[-2:]
    for small in (middle, coarse):
        fine += F.interpolate(small, size, mode="bilinear", align_corners=False)
    features = _run(folded.fusion, fine).to(image.dtype)
    reliability = _run(folded.reliability, features).flatten().sigmoid_()
    table = _table(features)
    return Maps(table, torch.linalg.vector_norm(table, dim=-1), reliability, (size[0], size[1]))


def heatmap(folded: FoldedXFeat, image: Tensor) -> Tensor:
    """Each pixel's probability (H, W) of being the keypoint of its cell, for an image as `encode` takes it."""
    height, width = image.shape[-2:]
    cells = image.view(height // CELL, CELL, width // CELL, CELL).transpose(1, 2)
    heat = torch.empty_like(image).view(height // CELL, CELL, width // CELL, CELL).transpose(1, 2)
    rows = height if image.is_cuda else max(CELLS * torch.get_num_threads() * CELL // width, 1)
    for some, found in zip(torch.split(cells, rows), torch.split(heat, rows), strict=True):
        logits = _run(folded.keypoints, some.reshape(1, *some.shape[:2], -1).permute(0, 3, 1, 2))
        found.copy_(_table(logits).softmax(dim=-1)[:, :-1].view_as(found))
    return heat.transpose(1, 2).view(height, width)


def _columns(image: Tensor) -> Tensor:
    """(1, 1, H, W) as (1, 4, H, W / 4): a view, channels last."""
    return image.reshape(1, image.shape[-2], -1, COLUMNS).permute(0, 3, 1, 2)


def _run(layers: Layers, x: Tensor) -> Tensor:
    for layer in layers:
        x = layer(x)
    return x


def _table(maps: Tensor) -> Tensor:
    """(1, C, h, w), channels last, as rows (h * w, C)."""
    return maps.permute(0, 2, 3, 1).reshape(-1, maps.shape[1])


def _cubic_neighbours(x: Tensor, y: Tensor, size: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """The 16 pixels around positions (N,) as flat indices (N, 16) into a map of `size`, and their weights (N, 16)."""
    height, width = size
    (columns, across), (rows, down) = _cubic_axis(x, width), _cubic_axis(y, height)
    index = rows[:, :, None] * width + columns[:, None]
    return index.flatten(1), (down[:, :, None] * across[:, None]).flatten(1)


def _cubic_axis(at: Tensor, n: int) -> tuple[Tensor, Tensor]:
    """For positions (N,) on an axis of n pixels the four around each, and their weights, (N, 4) both, 0 outside."""
    index = at.floor()[:, None] + torch.arange(-1, 3, device=at.device)
    inside = index.clamp(0, n - 1)
    d, a = (index - at[:, None]).abs(), SHARPNESS
    near = ((a + 2) * d - (a + 3)) * d * d + 1
    far = a * (((d - 5) * d + 8) * d - 4)
    return inside.long(), torch.where(d <= 1, near, far) * (inside == index)


def fold(network: XFeatNetwork, products: torch.dtype | None = None) -> FoldedXFeat:
    """The folded network, in the dtype of the parameters, but blocks 2 to 5 and the fusion in `products`."""
    own = cast(Tensor, network.skip1[1].weight).dtype
    reduced = products or own
    first, *others = network.block1
    return FoldedXFeat(
        first=_first(cast(ConvLayer, first), own),
        beside=_beside(cast(nn.Conv2d, network.skip1[1])),
        block1=tuple(_fold(layer, own) for layer in others),
        block2=_fold_all(network.block2, reduced),
        block3=_fold_all(network.block3, reduced),
        block4=_fold_all(network.block4, reduced),
        block5=_fold_all(network.block5, reduced),
        fusion=_fold_all(network.block_fusion, reduced),
        reliability=tuple(_fold(layer, own) for layer in list(network.heatmap_head)[:-1]),
        keypoints=_fold_all(network.keypoint_head, own),
    )


def _fold_all(layers: nn.Sequential, dtype: torch.dtype) -> Layers:
    return tuple(_fold(layer, dtype) for layer in layers)


def _fold(layer: nn.Module, dtype: torch.dtype) -> FoldedConv:
    """A `ConvLayer`, or a convolution that nothing follows."""
    if isinstance(layer, nn.Conv2d):
        assert layer.bias is not None
        return _conv(layer.weight.detach().double(), layer.bias.detach().double(), layer.stride, False, dtype)
    weight, bias = _merged(cast(ConvLayer, layer))
    return _conv(weight, bias, cast(nn.Conv2d, cast(ConvLayer, layer).layer[0]).stride, True, dtype)


def _conv(weight: Tensor, bias: Tensor, stride: tuple[int, ...], active: bool, dtype: torch.dtype) -> FoldedConv:
    weight = weight.to(dtype).contiguous(memory_format=torch.channels_last)
    return FoldedConv(weight, bias.to(dtype), (stride[0], stride[1]), weight.shape[3] // 2, active)


def _merged(layer: ConvLayer) -> tuple[Tensor, Tensor]:
    """Weight and bias of a convolution with its batch norm, in float64."""
    conv, norm = cast(nn.Conv2d, layer.layer[0]), cast(nn.BatchNorm2d, layer.layer[1])
    mean, variance = (cast(Tensor, t).double() for t in (norm.running_mean, norm.running_var))
    gain = (variance + norm.eps).rsqrt()
    return conv.weight.detach().double() * gain[:, None, None, None], -mean * gain


def _first(layer: ConvLayer, dtype: torch.dtype) -> FoldedConv:
    """The first convolution (O, 1, 3, 3) over four columns in one: (4 O, 4, 3, 3), which holds it four times."""
    weight, bias = _merged(layer)
    grouped = weight.new_zeros(COLUMNS, len(weight), COLUMNS, 3, 3)
    for column in range(COLUMNS):
        for dx in range(3):
            block, place = divmod(column + dx - 1, COLUMNS)
            grouped[column, :, place, :, block + 1] = weight[:, 0, :, dx]
    return _conv(grouped.flatten(0, 1), bias.repeat(COLUMNS), (1, 1), True, dtype)


def _beside(conv: nn.Conv2d) -> FoldedConv:
    """The mean of 4 x 4 pixels and the 1x1 convolution (O, 1, 1, 1) of it, over four columns in one: (O, 4, 4, 1)."""
    assert conv.bias is not None
    weight = (conv.weight.detach().double() / COLUMNS**2).expand(-1, COLUMNS, COLUMNS, 1)
    return _conv(weight, conv.bias.detach().double(), (COLUMNS, 1), False, conv.weight.dtype)
