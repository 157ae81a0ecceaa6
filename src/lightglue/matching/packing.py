"""Packed tokens: all keypoints of all images of all pairs as rows of one tensor.

Image 0 of the first pair comes first, then its image 1, then image 0 of the second pair, and so on. Row-wise layers
run over all rows at once; attention runs image by image, so no row ever sees another pair. There is no padding and
no mask, and a pair leaves the batch by dropping its rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import accumulate

import torch
import torch.nn.functional as F
from torch import Tensor

from lightglue.matching.attention import choose_attention
from lightglue.matching.folding import FoldedLayer, rotate_halves

__all__ = ["MIN_ROWS", "PackedPairs", "run_layer"]

# Matrix products of very few rows take other kernels, which round differently; rows of zeros that belong to no
# image keep a small batch on the same ones, so that a pair's result does not depend on its batch-mates.
MIN_ROWS = 16


@dataclass(frozen=True)
class PackedPairs:
    """Tokens of P pairs in R >= MIN_ROWS rows, of which the first sum(counts) belong to images."""

    tokens: Tensor  # (R, d) float32, the residual stream
    rotation: Tensor  # (2, R, 1, e / 2)
    slots: Tensor  # (R,) int64, each row's place among all keypoints of the call; the spare rows share one
    counts: tuple[int, ...]  # 2 P numbers of rows: image 0 and image 1 of each pair
    pairs: tuple[int, ...]  # P indices of the pairs in the call

    def slices(self) -> list[slice]:
        """The rows of each image, 2 P of them."""
        ends = list(accumulate(self.counts))
        return [slice(end - count, end) for count, end in zip(self.counts, ends, strict=True)]

    def per_image_sums(self, rows: Tensor) -> Tensor:
        """(K, R) bool -> (K, 2 P) int64: how many rows of each image are set."""
        ends = torch.tensor([0, *accumulate(self.counts)], device=rows.device)
        running = F.pad(rows.cumsum(-1), (1, 0))
        return running[..., ends[1:]] - running[..., ends[:-1]]

    def select(self, keep: Tensor, counts: Sequence[int], pairs: Sequence[int]) -> PackedPairs:
        """Only the rows of `keep` (indices, in order, int64), which leave `counts` rows of the images of `pairs`."""
        if len(keep) < MIN_ROWS:
            spare = torch.full((MIN_ROWS - len(keep),), len(self.tokens) - 1, device=keep.device)
            keep = torch.cat((keep, spare))
        return replace(
            self,
            tokens=self.tokens.index_select(0, keep),
            rotation=self.rotation.index_select(1, keep),
            slots=self.slots.index_select(0, keep),
            counts=tuple(counts),
            pairs=tuple(pairs),
        )


def attend(q: Tensor, k: Tensor, v: Tensor, queries: Sequence[slice], keys: Sequence[slice]) -> Tensor:
    """Attention from each slice of query rows to its slice of key rows. (R, h, e) three times -> (R, d)."""
    attention = choose_attention(v.device, v.dtype)
    out = torch.zeros_like(v, memory_format=torch.contiguous_format)
    for rows, others in zip(queries, keys, strict=True):
        out[rows] = attention(q[rows], k[others], v[others])
    return out.flatten(1)


def run_layer(layer: FoldedLayer, packed: PackedPairs, attention_dtype: torch.dtype) -> PackedPairs:
    """One transformer layer over all pairs: the packed, folded twin of `TransformerLayer.forward`.

    The residual stream keeps its precision; products run in that of the layer's matrices, attention in
    `attention_dtype`.
    """
    dtype = layer.self_attn.project.dtype
    own = packed.slices()
    other = [own[i ^ 1] for i in range(len(own))]
    x = packed.tokens
    x_in = x.to(dtype)
    q, k, v = layer.self_attn.projections(x_in)
    q, k = (rotate_halves(t, packed.rotation).to(attention_dtype) for t in (q, k))
    context = attend(q, k, v.to(attention_dtype), own, own)
    x = layer.self_attn.update(x, x_in, context.to(dtype))
    x_in = x.to(dtype)
    qk, v = (t.to(attention_dtype) for t in layer.cross_attn.projections(x_in))
    context = attend(qk, qk, v, own, other)
    x = layer.cross_attn.update(x, x_in, context.to(dtype))
    return replace(packed, tokens=x)
