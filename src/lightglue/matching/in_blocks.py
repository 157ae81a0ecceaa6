"""A folded layer image by image, in blocks of rows that stay in the cache: for CPUs where plain products are fast.

There torch's fused attention is the slow part (`suits_blocks`). Here a block of query rows is multiplied with all keys,
one head at a time, turned into weights where it lies, multiplied with the values, and goes through the MLP at once.

oneDNN builds a kernel for each shape that it meets, which takes longer than a small product, and pruning makes new
numbers of keypoints at every layer of every pair. So numbers of rows are rounded up. What stands in rows without a
keypoint is never read, and keys without one have a logit of -inf.

Shapes: N keypoints of an image, R >= N rows, d width of the transformer, h heads of width e.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from lightglue.matching.folding import FoldedBlock, FoldedLayer
from lightglue.matching.packing import PackedPairs, rotate
from lightglue.support import products
from lightglue.support.products import STEP, linear, rounded

__all__ = ["run_layer_in_blocks", "suits_blocks"]

BLOCK = 1 << 20  # similarities that are held at once
FEWEST_ROWS, MOST_ROWS = 128, 1024  # of a block, for each thread
FLOOR = 100.0  # weights of less than 2^-100 of the greatest count as that: denormal numbers take several times as long


def suits_blocks(device: torch.device, dtype: torch.dtype) -> bool:
    """Whether layers whose products have this dtype are faster in blocks (docs/performance.md).

    They are where torch's fused attention is slow beside plain products: in float32 where MKL leaves AVX-512 unused, in
    bfloat16 without AMX.
    """
    if device.type != "cpu":
        return False
    if dtype == torch.bfloat16:
        return not torch.cpu._is_amx_tile_supported()
    return dtype == torch.float32 and products.onednn_is_faster()


def blocks(n: int, keys: int) -> tuple[int, list[slice]]:
    """How many rows each block takes up, and which of n queries it has."""
    most = max(FEWEST_ROWS, min(MOST_ROWS, BLOCK // keys)) * torch.get_num_threads()
    count = -(-n // most)
    size = -(-n // (count * STEP)) * STEP
    return size, [slice(start, min(start + size, n)) for start in range(0, n, size)]


class Heads(NamedTuple):
    """What attention reads of an image, head by head."""

    queries: Tensor  # (h, R, e), times log2(e) / sqrt(width of a head), so that weights are powers of 2
    keys: Tensor  # (h, R, e)
    values: Tensor  # (h, e, R)
    bias: Tensor  # (R,) of the logits: 0 for a keypoint, -inf elsewhere


def run_layer_in_blocks(layer: FoldedLayer, packed: PackedPairs) -> None:
    """One transformer layer over all pairs, in place: what `packing.run_layer` does, but for rounding."""
    slices = packed.slices()
    images = [packed.tokens[own] for own in slices]
    heads = [_project(layer.self_attn, x, packed.rotation[own]) for x, own in zip(images, slices, strict=True)]
    for x, own_heads in zip(images, heads, strict=True):
        _update(layer.self_attn, x, own_heads, own_heads)
    heads = [_project(layer.cross_attn, x, None) for x in images]
    for i, x in enumerate(images):
        _update(layer.cross_attn, x, heads[i], heads[i ^ 1])


def _project(block: FoldedBlock, x: Tensor, rotation: Tensor | None) -> Heads:
    """Of x (N, d). Without a rotation (N, e / 2) queries and keys are the same."""
    (n, d), h, dtype = x.shape, block.heads, block.last.dtype
    weight, bias = block.project.weight, block.project.bias
    token = x.new_zeros(rounded(n), d, dtype=dtype)
    token[:n] = x
    values = linear(weight[-d:], token).add_(bias[-d:, None])
    found = linear(token, weight[:-d], bias[:-d]).view(len(token), -1, h, d // h)
    by_head = found.new_empty(found.shape[1], h, len(token), d // h)
    scale = math.log2(math.e) * (d // h) ** -0.5
    if rotation is None:
        by_head.copy_(found.permute(1, 2, 0, 3))
        queries, keys = by_head[0] * scale, by_head[0]
    else:
        by_head[:, :, n:] = 0
        turned = by_head[:, :, :n].permute(2, 0, 1, 3)
        exact = rotate(found[:n], rotation, turned if dtype == rotation.real.dtype else None)
        exact[:, 0] *= scale
        if exact is not turned:
            turned.copy_(exact)
        queries, keys = by_head
    bias = x.new_zeros(len(token), dtype=dtype)
    bias[n:] = -torch.inf
    return Heads(queries, keys, values.view(h, d // h, -1), bias)


def _update(block: FoldedBlock, x: Tensor, own: Heads, others: Heads) -> None:
    """Let x (N, d) attend to `others` and go through the MLP, in place."""
    d = x.shape[1]
    size, parts = blocks(len(x), others.keys.shape[1])
    for part in parts:
        rows = x[part]
        joined = x.new_empty(size, 2 * d, dtype=block.last.dtype)
        joined[: len(rows), :d] = rows
        for i, attended in enumerate(joined[:, d:].view(size, block.heads, -1).unbind(1)):
            queries = own.queries[i, part.start : part.start + size]
            if len(queries) < size:
                queries = F.pad(queries, (0, 0, 0, size - len(queries)))
            _attend(queries, others.keys[i], others.values[i], others.bias, attended)
        hidden = linear(joined, block.first.weight, block.first.bias)
        normed = F.layer_norm(hidden, hidden.shape[1:], block.norm_weight, block.norm_bias, block.norm_eps)
        rows += linear(torch.ops.aten.gelu_(normed), block.last, block.last_bias)[: len(rows)]


def _attend(queries: Tensor, keys: Tensor, values: Tensor, bias: Tensor, out: Tensor) -> None:
    """One head: (M, e), (R, e), (e, R), (R,) -> `out`, (M, e). A softmax in float32, with the division at its end."""
    logits = linear(queries, keys, bias).float()
    weights = logits.sub_(logits.amax(1, keepdim=True).sub_(FLOOR)).relu_().exp2_()
    torch.div(linear(weights.to(values.dtype), values), weights.sum(1, keepdim=True), out=out)
