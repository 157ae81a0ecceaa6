"""Attention of packed images, each to itself or to its partner, through the fastest kernel of the device.

Queries, keys and values are (R, h, e): R packed rows (`packing.py`), h heads of width e. The definition is
`Attention` in `network.py`.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["Segments", "attend", "fused_rows"]


@dataclass(frozen=True)
class Segments:
    """Which packed rows are which image: image 0 and image 1 of the first pair, then of the second, and so on."""

    counts: tuple[int, ...]  # 2 P numbers of rows

    @cached_property
    def slices(self) -> list[slice]:
        """The rows of each image."""
        ends = list(accumulate(self.counts))
        return [slice(end - count, end) for count, end in zip(self.counts, ends, strict=True)]

    def bounds(self, device: torch.device) -> Tensor:
        """(2 P + 1,) int32: where each image begins, and the end of the last."""
        return torch.tensor([0, *accumulate(self.counts)], dtype=torch.int32, device=device)

    def partners(self) -> Segments:
        """The images of each pair in the other order."""
        return Segments(tuple(self.counts[i ^ 1] for i in range(len(self.counts))))

    def partner_rows(self, device: torch.device) -> Tensor:
        """(sum of counts,) int64: the rows in the order of `partners`."""
        rows = [torch.arange(own.start, own.stop) for own in self.slices]
        return torch.cat([rows[i ^ 1] for i in range(len(rows))]).to(device)


def attend(q: Tensor, k: Tensor, v: Tensor, segments: Segments, cross: bool, out: Tensor) -> None:
    """Each image's attended values into its rows of `out`, (R, d): of itself, or with `cross` of its partner."""
    half = q.dtype in (torch.float16, torch.bfloat16)
    if q.is_cuda and half and (kernel := _varlen_kernel()) is not None:
        _attend_at_once(kernel, q, k, v, segments, cross, out)
        return
    for i, own in enumerate(segments.slices):
        others = segments.slices[i ^ cross]
        out[own].view(-1, *q.shape[1:]).copy_(fused_rows(q[own], k[others], v[others]))


@functools.cache
def _varlen_kernel() -> Callable[..., Any] | None:
    """torch's attention for segments of unequal lengths (FlashAttention); None before torch 2.10."""
    try:
        # Here, as it imports sympy, which adds a filter of warnings to the whole process.
        from torch.nn.attention.varlen import varlen_attn
    except ImportError:
        return None
    return varlen_attn


def _attend_at_once(
    kernel: Callable[..., Any], q: Tensor, k: Tensor, v: Tensor, segments: Segments, cross: bool, out: Tensor
) -> None:
    """`attend` in one launch of the kernel, which takes queries, keys, values, bounds of both and greatest lengths."""
    others = segments
    if cross:  # the kernel pairs the segments by position, so keys and values go into their partners' order
        others = segments.partners()
        rows = segments.partner_rows(k.device)
        k, v = k[rows], v[rows]
    count = sum(segments.counts)
    bounds = segments.bounds(q.device), others.bounds(q.device)
    attended = kernel(q[:count], k[:count], v[:count], *bounds, max(segments.counts), max(others.counts))
    out[:count] = attended.flatten(1)


def fused_rows(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """torch's fused attention of queries (M, h, e) to keys and values (N, h, e), views of packed rows: (M, h, e)."""
    query, key, value = (t.transpose(0, 1)[None] for t in (q, k, v))  # (1, h, rows, e)
    return F.scaled_dot_product_attention(query, key, value)[0].transpose(0, 1)
