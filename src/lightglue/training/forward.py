"""The network's tokens after every layer, for training: packed on a CPU, padded elsewhere.

Both run the modules of `matching.network`, and the tests hold both to its `forward`, gradients too. Packed, all rows of
a batch go through a linear layer at once and attention runs image by image, or over all at once where all have as many
keypoints: a CPU loses nothing to padding. Padded, a GPU gets few launches of kernels. Neither makes an assignment.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from lightglue.matching.network import CrossBlock, LightGlueNetwork, SelfBlock, TransformerLayer
from lightglue.training.batches import Batch, padded

__all__ = ["PackedPairs", "PaddedPairs", "Side"]

KEEP_LIMIT = 1 << 20  # elements of a matrix of attention that is kept for the backward pass

Groups = list[tuple[Tensor, Tensor]]  # of pairs with equal shapes, each (P, M, ...), (P, N, ...)


class Side(NamedTuple):
    """What is true of the pairs of a group."""

    matches0: Tensor  # (P, M)
    matches1: Tensor  # (P, N)
    mask0: Tensor | None
    mask1: Tensor | None


class PackedPairs:
    """A batch whose images all have keypoints, in rows."""

    def __init__(self, batch: Batch) -> None:
        self.batch = batch
        self.sides = [Side(m0, m1, None, None) for m0, m1 in self.groups([batch.matches])]

    def layers(self, network: LightGlueNetwork) -> Iterator[list[Tensor]]:
        """After each layer one tensor, (R, d) float32."""
        batch = self.batch
        x = network.input_proj(batch.descriptors).to(batch.descriptors)  # not what autocast makes of it
        with torch.autocast(x.device.type, enabled=False):
            encoding = network.posenc(batch.positions)[:, 0, :, None]  # (2, R, 1, e)
        turn = torch.complex(encoding[0, ..., ::2].contiguous(), encoding[1, ..., ::2].contiguous())  # (R, 1, e / 2)
        for layer in network.transformers:
            assert isinstance(layer, TransformerLayer)
            x = _self(layer.self_attn, x, turn, batch)
            x = _cross(layer.cross_attn, x, batch)
            yield [x]

    def groups(self, tensors: list[Tensor]) -> Groups:
        """Rows (R, ...) as groups: one where all images have as many keypoints, else one a pair."""
        (rows,) = tensors
        if self.batch.is_even:
            both = rows.reshape(len(self.batch), 2, -1, *rows.shape[1:])
            return [(both[:, 0], both[:, 1])]
        images = [image[None] for image in torch.split(rows, list(self.batch.counts))]
        return list(zip(images[::2], images[1::2], strict=True))


class PaddedPairs:
    """A batch as two padded tensors, of `length` rows an image or more."""

    def __init__(self, batch: Batch, length: int = 1) -> None:
        self.first, self.second = padded(batch, length)
        self.sides = [Side(self.first.matches, self.second.matches, self.first.mask, self.second.mask)]

    def layers(self, network: LightGlueNetwork) -> Iterator[list[Tensor]]:
        """After each layer two tensors, (P, M, d) and (P, N, d) float32, padding 0."""
        first, second = self.first, self.second
        x0, x1 = (network.input_proj(each.descriptors).to(each.descriptors) for each in (first, second))
        with torch.autocast(x0.device.type, enabled=False):
            encoding0, encoding1 = network.posenc(first.positions), network.posenc(second.positions)
        for layer in network.transformers:
            x0, x1 = layer(x0, x1, encoding0, encoding1, first.mask, second.mask)
            # Where padding is infinite its gradients would be NaN, however it is weighted.
            x0, x1 = (x.masked_fill(~m[..., None], 0) for x, m in ((x0, first.mask), (x1, second.mask)))
            yield [x0, x1]

    def groups(self, tensors: list[Tensor]) -> Groups:
        """Both sides as one group."""
        return [(tensors[0], tensors[1])]


def _self(block: SelfBlock, x: Tensor, turn: Tensor, batch: Batch) -> Tensor:
    # The checkpoint interleaves the three, (head, channel, q|k|v): ordering the weights costs less than ordering rows.
    weight = block.Wqkv.weight.reshape(-1, 3, x.shape[1]).transpose(0, 1).flatten(0, 1)
    bias = block.Wqkv.bias.reshape(-1, 3).T.flatten()
    q, k, v = F.linear(x, weight, bias).reshape(len(x), 3, block.num_heads, -1).unbind(1)  # (R, h, e) each
    q, k = _rotated(q, turn), _rotated(k, turn)
    if batch.is_even:
        message = _merged(_attention(*(_images(t, batch) for t in (q, k, v))))
    else:
        parts = zip(*(_each(t, batch) for t in (q, k, v)), strict=True)
        message = torch.cat([_merged(_attention(*part)) for part in parts])
    message = block.out_proj(message)
    updated: Tensor = x + block.ffn(torch.cat((x, message), -1))
    return updated


def _cross(block: CrossBlock, x: Tensor, batch: Batch) -> Tensor:
    qk, v = (p(x).reshape(len(x), block.heads, -1) for p in (block.to_qk, block.to_v))  # (R, h, e)
    if batch.is_even:
        (qk0, qk1), (v0, v1) = ((images[::2], images[1::2]) for images in (_images(qk, batch), _images(v, batch)))
        context = torch.stack(_both_ways(qk0, qk1, v0, v1), 1).flatten(0, 1)  # (2 P, h, T, e)
        message = _merged(context)
    else:
        qks, vs = _each(qk, batch), _each(v, batch)
        pairs = [_both_ways(qks[i], qks[i + 1], vs[i], vs[i + 1]) for i in range(0, len(qks), 2)]
        message = torch.cat([_merged(context) for pair in pairs for context in pair])
    updated: Tensor = x + block.ffn(torch.cat((x, block.to_out(message)), -1))
    return updated


def _rotated(x: Tensor, turn: Tensor) -> Tensor:
    """(R, h, e), each pair of neighbouring channels turned by its angle."""
    pairs = torch.view_as_complex(x.to(turn.real.dtype).reshape(*x.shape[:-1], -1, 2))
    turned: Tensor = torch.view_as_real(pairs * turn).flatten(-2).to(x.dtype)
    return turned


def _attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """(..., h, M, e), (..., h, N, e), (..., h, N, e) -> (..., h, M, e).

    Plain products, as torch's fused kernel is slow backwards on CPUs, where their matrices are not too large.
    """
    if q.shape[-2] * k.shape[-2] > KEEP_LIMIT:
        return F.scaled_dot_product_attention(q, k, v)
    attended: Tensor = ((q * q.shape[-1] ** -0.5) @ k.mT).softmax(-1).to(v.dtype) @ v
    return attended


def _both_ways(qk0: Tensor, qk1: Tensor, v0: Tensor, v1: Tensor) -> tuple[Tensor, Tensor]:
    """`_attention` of each image to the other, of which the similarities are the same."""
    if qk0.shape[-2] * qk1.shape[-2] > KEEP_LIMIT:
        attend = F.scaled_dot_product_attention
        return attend(qk0, qk1, v1), attend(qk1, qk0, v0)
    similarity = (qk0 * qk0.shape[-1] ** -0.5) @ qk1.mT
    return similarity.softmax(-1).to(v1.dtype) @ v1, similarity.softmax(-2).to(v0.dtype).mT @ v0


def _images(rows: Tensor, batch: Batch) -> Tensor:
    """(R, h, e) of images with as many keypoints -> (2 P, h, T, e)."""
    return rows.reshape(len(batch.counts), -1, *rows.shape[1:]).transpose(1, 2)


def _each(rows: Tensor, batch: Batch) -> list[Tensor]:
    """(R, h, e) -> of each image (1, h, T, e)."""
    return [image.transpose(0, 1)[None] for image in torch.split(rows, list(batch.counts))]


def _merged(heads: Tensor) -> Tensor:
    """(P, h, T, e) -> (P T, h e)."""
    return heads.transpose(1, 2).flatten(0, 1).flatten(1)
