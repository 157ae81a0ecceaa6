"""Attention of one image's rows to another's, through the fastest kernel of the device.

All take queries (M, h, e), keys and values (N, h, e), as views of packed rows, and give (M, h, e). The definition is
`plain_attention` in `network.py`.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["RowAttention", "blocked_attention", "choose_attention", "fused_rows"]

RowAttention = Callable[[Tensor, Tensor, Tensor], Tensor]

BLOCK = 256  # query rows whose similarities are held at once: they should stay in the cache


def fused_rows(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """torch's fused attention."""
    query, key, value = (t.transpose(0, 1)[None] for t in (q, k, v))  # (1, h, rows, e)
    return F.scaled_dot_product_attention(query, key, value)[0].transpose(0, 1)


def blocked_attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Matrix products and softmax, a block of query rows at a time."""
    query = (q * q.shape[-1] ** -0.5).transpose(0, 1).contiguous()
    key, value = k.transpose(0, 1).contiguous().mT, v.transpose(0, 1).contiguous()
    blocks = [torch.bmm(torch.bmm(rows, key).softmax(-1), value) for rows in query.split(BLOCK, 1)]
    return torch.cat(blocks, 1).transpose(0, 1)


def choose_attention(device: torch.device, dtype: torch.dtype) -> RowAttention:
    """The kernel for rows of this dtype on this device.

    On a CPU with bfloat16 dot products but no AMX, torch's fused kernel is no faster in bfloat16 than in float32;
    plain products are (docs/performance.md).
    """
    if device.type == "cpu" and dtype == torch.bfloat16 and not torch.cpu._is_amx_tile_supported():
        return blocked_attention
    return fused_rows
