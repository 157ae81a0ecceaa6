"""ALIKED's layers rearranged for speed, once, from the parameters of the network. The results stay the same.

- Batch norms are multiplied into the convolutions before them.
- `selu` costs an exponential, and `exp2` is the cheapest that torch has: half of `exp` and a quarter of `elu`. So the
  layer before an activation gives `z = log2(e) x - C`, `activate` makes `UNIT * selu(x)` of it, and the layer after it
  divides by UNIT. Zero stays zero but for rounding, and where features are normalised the unit drops out.
- The score head's layers have so few channels that vector registers stay half empty. Where channels come last, g
  neighbouring columns of C channels are one column of g C channels without moving a number; a 3x3 kernel over them
  holds the original one g times, and zeros.

Everything is multiplied in float64 and then cast; biases keep the network's dtype. Shapes: c1 to c4 the channels of the
blocks, d = D / 4.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn

from lightglue.extractors.aliked_network import AlikedNetwork, ConvBlock, DeformableConv2d, DescriptorHead, ResBlock
from lightglue.support.derived import is_plain

__all__ = [
    "UNIT",
    "FoldedAliked",
    "FoldedBlock",
    "FoldedConv",
    "FoldedDescriptorHead",
    "activate",
    "fold",
    "is_foldable",
]

# SELU's two constants (Klambauer et al. 2017, arXiv:1706.02515), as torch has them.
ALPHA, SCALE = 1.6732632423543772, 1.0507009873554805
LOG2E = math.log2(math.e)
C = ALPHA * LOG2E
UNIT = LOG2E / SCALE


def activate(z: Tensor, out: Tensor | None = None) -> Tensor:
    """`UNIT * selu(x)` from `z = log2(e) x - C`, which is overwritten, into `out` or in place."""
    # x > 0: z + C = log2(e) x. Below: C (2^(z + C) - 1) = C (e^x - 1). An overflow ends at the first clamp.
    powers = torch.exp2(z).clamp_(max=2.0**-C)
    return torch.add(z.clamp_(min=-C), powers, alpha=C * 2.0**C, out=z if out is None else out)


@dataclass(frozen=True)
class FoldedConv:
    """A 3x3 convolution, and its sample positions where it is deformable."""

    weight: Tensor  # (O, C, 3, 3) channels last; where deformable (9 C, O), the positions in raster order
    bias: Tensor  # (O,)
    offsets: tuple[Tensor, Tensor] | None = None  # weight (18, C, 3, 3) and bias (18,) of dy dx for each position


@dataclass(frozen=True)
class FoldedBlock:
    """Two convolutions, their activations, and the 1x1 convolution beside them (none in the first block)."""

    conv1: FoldedConv
    conv2: FoldedConv
    beside: Tensor | None  # (C, O), its bias is in that of `conv2`


@dataclass(frozen=True)
class FoldedDescriptorHead:
    """The layers of the descriptor head. All read features in any unit, since they are normalised."""

    patch_fine: Tensor  # (9 d, 2 M) from a patch's pixels in raster order, their finest level
    patch_coarse: Tensor  # (9 * 3 d, 2 M) likewise, their coarse levels
    patch_bias: Tensor  # (2 M,)
    offsets: Tensor  # (2 M, 2 M)
    offsets_bias: Tensor  # (2 M,)
    sample_fine: Tensor  # (d, D)
    sample_coarse: Tensor  # (3 d, D)
    sample_bias: Tensor  # (D,)
    join: Tensor  # (M D, D)


@dataclass(frozen=True)
class FoldedAliked:
    """The whole network."""

    blocks: tuple[FoldedBlock, ...]  # four
    levels: tuple[tuple[Tensor, Tensor], ...]  # weight (c, d) and bias (d,) of the 1x1 convolution of each block
    # The score head's first layer for each level. With two columns in one (2 d, 16), but for the last level (d, 8),
    # whose number of columns may be odd.
    score_levels: tuple[Tensor, ...]
    score_fine: tuple[Tensor, Tensor]  # weight (2 d, 16) and bias (16,)
    score_head: tuple[FoldedConv, FoldedConv, FoldedConv]  # over 2, 4 and 4 columns in one
    descriptor_head: FoldedDescriptorHead


SCORE_COLUMNS = (2, 4, 4)  # that the score head's 3x3 layers take as one


# Modules whose tensors say all that they do.
PLAIN_MODULES = (
    AlikedNetwork,
    ConvBlock,
    ResBlock,
    DeformableConv2d,
    DescriptorHead,
    nn.Conv2d,
    nn.BatchNorm2d,
    nn.SELU,
    nn.Sequential,
)


def is_foldable(network: nn.Module) -> bool:
    """Whether the folded layers do all that the network's own do: not with a hook, another module or batch statistics,
    nor in half precision, where the rounding would not be the network's."""
    if cast(Tensor, cast(nn.Module, network.conv1).weight).dtype not in (torch.float32, torch.float64):
        return False
    in_training = any(module.training for module in network.modules())
    return not in_training and is_plain(network, PLAIN_MODULES)


def fold(network: AlikedNetwork, products: torch.dtype | None = None) -> FoldedAliked:
    """The folded network, in the dtype and on the device of the parameters.

    With `products`, a reduced precision, the matrices of blocks 2 to 4 and of the descriptor head are in it. The first
    block, the sample positions and the score head are not: they say where keypoints are.
    """
    dtype = network.conv1.weight.dtype
    products = products or dtype
    first, *others = torch.chunk(_weight(network.score_head[0]), 4, dim=1)  # (8, d, 1, 1) each
    head = [_weight(network.score_head[i]) for i in (2, 4, 6)]

    def cast_to(tensor: Tensor) -> Tensor:
        return tensor.to(dtype).contiguous()

    def linear(weight: Tensor) -> Tensor:
        """(O, C, 1, 1) that reads activated features, for an activation, as (C, O)."""
        return cast_to(weight[:, :, 0, 0].T * (LOG2E / UNIT))

    def in_pairs(weight: Tensor) -> Tensor:
        return torch.block_diag(linear(weight), linear(weight))  # type: ignore[no-untyped-call,no-any-return]

    return FoldedAliked(
        blocks=(
            _fold_block(network.block1, 1.0, dtype),
            _fold_block(network.block2, UNIT, products),
            _fold_block(network.block3, UNIT, products),
            _fold_block(network.block4, UNIT, products),
        ),
        levels=tuple(
            (linear(_weight(conv)), _shift(conv.weight.shape[0], conv.weight))
            for conv in (network.conv1, network.conv2, network.conv3, network.conv4)
        ),
        score_levels=(in_pairs(others[0]), in_pairs(others[1]), linear(others[2])),
        score_fine=(in_pairs(first), _shift(16, first.to(dtype))),
        score_head=(
            _grouped(head[0] * (LOG2E / UNIT), -C, SCORE_COLUMNS[0], dtype),
            _grouped(head[1] * (LOG2E / UNIT), -C, SCORE_COLUMNS[1], dtype),
            _grouped(head[2] / UNIT, 0.0, SCORE_COLUMNS[2], dtype),
        ),
        descriptor_head=_fold_descriptor_head(network, dtype, products),
    )


def _weight(module: nn.Module) -> Tensor:
    return cast(Tensor, module.weight).detach().double()


def _shift(channels: int, like: Tensor) -> Tensor:
    """The bias of a layer without one before an activation."""
    return torch.full((channels,), -C, dtype=like.dtype, device=like.device)


def _fold_block(block: ConvBlock | ResBlock, unit: float, products: torch.dtype) -> FoldedBlock:
    """`unit` is that of the block's input."""
    conv1 = _fold_conv(block.conv1, block.bn1, unit, products)
    conv2 = _fold_conv(block.conv2, block.bn2, UNIT, products)
    if isinstance(block, ConvBlock):
        return FoldedBlock(conv1, conv2, None)
    beside = (_weight(block.downsample)[:, :, 0, 0].T * (LOG2E / unit)).to(products).contiguous()
    bias = conv2.bias.double() + LOG2E * cast(Tensor, block.downsample.bias).detach().double()
    return FoldedBlock(conv1, FoldedConv(conv2.weight, bias.to(conv2.bias.dtype), conv2.offsets), beside)


def _fold_conv(conv: nn.Module, norm: nn.BatchNorm2d, unit: float, products: torch.dtype) -> FoldedConv:
    dtype = norm.weight.dtype
    mean, variance = (cast(Tensor, t).double() for t in (norm.running_mean, norm.running_var))
    gain = norm.weight.detach().double() / (variance + norm.eps).sqrt()
    bias = ((norm.bias.detach().double() - mean * gain) * LOG2E - C).to(dtype)
    if not isinstance(conv, DeformableConv2d):
        weight = _weight(conv) * gain[:, None, None, None] * (LOG2E / unit)
        return FoldedConv(weight.to(products).contiguous(memory_format=torch.channels_last), bias)
    weight = _weight(conv.regular_conv) * gain[:, None, None, None] * (LOG2E / unit)
    positions = weight.permute(2, 3, 1, 0).flatten(0, 2)  # (3, 3, C, O) -> (9 C, O)
    offsets = (_weight(conv.offset_conv) / unit).to(dtype).contiguous(memory_format=torch.channels_last)
    offsets_bias = cast(Tensor, conv.offset_conv.bias).detach()
    return FoldedConv(positions.to(products).contiguous(), bias, (offsets, offsets_bias))


def _grouped(weight: Tensor, bias: float, columns: int, dtype: torch.dtype) -> FoldedConv:
    """The 3x3 convolution `weight` (O, C, 3, 3) over so many columns in one: (g O, g C, 3, 3)."""
    out, channels = weight.shape[:2]
    grouped = weight.new_zeros(columns, out, columns, channels, 3, 3)
    for column in range(columns):
        for dx in (-1, 0, 1):
            block, place = divmod(column + dx, columns)
            grouped[column, :, place, :, :, block + 1] = weight[..., dx + 1]
    grouped = grouped.flatten(2, 3).flatten(0, 1).to(dtype)
    biases = torch.full((columns * out,), bias, dtype=dtype, device=weight.device)
    return FoldedConv(grouped.contiguous(memory_format=torch.channels_last), biases)


def _fold_descriptor_head(network: AlikedNetwork, dtype: torch.dtype, products: torch.dtype) -> FoldedDescriptorHead:
    head = network.desc_head
    patch, last = cast(nn.Conv2d, head.offset_conv[0]), cast(nn.Conv2d, head.offset_conv[2])
    patch_bias = cast(Tensor, patch.bias).detach().double() * LOG2E - C
    d = network.conv1.weight.shape[0]
    positions = _weight(patch).permute(2, 3, 1, 0).flatten(0, 1) * LOG2E  # (9, D, 2 M)
    sample = (_weight(head.sf_conv)[:, :, 0, 0].T * LOG2E).to(products)
    return FoldedDescriptorHead(
        patch_fine=positions[:, :d].flatten(0, 1).to(products),
        patch_coarse=positions[:, d:].flatten(0, 1).to(products),
        patch_bias=patch_bias.to(dtype),
        offsets=(_weight(last)[:, :, 0, 0].T / UNIT).to(dtype).contiguous(),
        offsets_bias=cast(Tensor, last.bias).detach(),
        sample_fine=sample[:d].contiguous(),
        sample_coarse=sample[d:].contiguous(),
        sample_bias=_shift(head.sf_conv.weight.shape[0], head.sf_conv.weight),
        join=head.agg_weights.detach().flatten(0, 1).to(products),  # the descriptor is normalised: any unit will do
    )
