"""Packed tokens: all keypoints of all images of all pairs as rows of one tensor.

Image 0 of the first pair comes first, then its image 1, then image 0 of the second pair, and so on. Row-wise layers
run over all rows at once; attention runs image by image, so no row ever sees another pair. There is no padding and
no mask, and a pair leaves the batch by dropping its rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, partial

import torch
import torch.nn.functional as F
from torch import Tensor

from lightglue.matching.attention import Segments, attend
from lightglue.matching.folding import FoldedLayer

__all__ = ["MIN_ROWS", "PackedPairs", "Workspace", "kept_rows", "run_layer", "sorted_rows"]

# Matrix products of very few rows take other kernels, which round differently; rows of zeros that belong to no
# image keep a small batch on the same ones, so that a pair's result does not depend on its batch-mates.
MIN_ROWS = 16

_BEFORE = 16  # columns before the token, of which the last is 1: the others keep the token aligned


@dataclass(frozen=True)
class PackedPairs:
    """Tokens of P pairs in R >= MIN_ROWS rows, of which the first sum(counts) belong to images."""

    tokens: Tensor  # (R, d) float32, the residual stream, which `run_layer` updates in place
    rotation: Tensor  # (R, e / 2) complex64 of absolute value 1
    slots: Tensor  # (R,) int64, each row's index among all keypoints of the call; the spare rows share one
    counts: tuple[int, ...]  # 2 P numbers of rows: image 0 and image 1 of each pair
    pairs: tuple[int, ...]  # P indices of the pairs in the call

    @cached_property
    def segments(self) -> Segments:
        """Which rows are which image."""
        return Segments(self.counts)

    def slices(self) -> list[slice]:
        """The rows of each image, 2 P of them."""
        return self.segments.slices

    def per_image_sums(self, rows: Tensor) -> Tensor:
        """(K, R) bool -> (K, 2 P) int64: how many rows of each image are set."""
        ends = self.segments.bounds(rows.device)
        running = F.pad(rows.cumsum(-1), (1, 0))
        return running[..., ends[1:]] - running[..., ends[:-1]]

    def per_row(self, flags: Sequence[bool]) -> Tensor:
        """(R,) bool: each image's flag at its rows; False at the spare rows."""
        values = torch.tensor([*flags, False], device=self.slots.device)
        spare = len(self.slots) - sum(self.counts)
        repeats = torch.tensor([*self.counts, spare], device=self.slots.device)
        return values.repeat_interleave(repeats, output_size=len(self.slots))

    def select(self, keep: Tensor, counts: Sequence[int], pairs: Sequence[int]) -> PackedPairs:
        """Only the rows of `keep` (indices, in order, int64), which leave `counts` rows of the images of `pairs`."""
        if len(keep) < MIN_ROWS:
            spare = torch.full((MIN_ROWS - len(keep),), len(self.tokens) - 1, device=keep.device)
            keep = torch.cat((keep, spare))
        return PackedPairs(
            tokens=self.tokens.index_select(0, keep),
            rotation=self.rotation.index_select(0, keep),
            slots=self.slots.index_select(0, keep),
            counts=tuple(counts),
            pairs=tuple(pairs),
        )


def kept_rows(keep: Tensor, count: int) -> Tensor:
    """(count,) int64: the rows of `keep` (R,) bool that are set, of which there are `count`."""
    return sorted_rows(keep, count) if keep.is_cuda else keep.nonzero().squeeze(1)


def sorted_rows(keep: Tensor, count: int) -> Tensor:
    """`kept_rows` where `nonzero` would wait for the device to report the count."""
    return (~keep).byte().sort(stable=True).indices[:count]


class Workspace:
    """Memory that the layers write their intermediate results into, one after another.

    Allocating it in each layer costs a tenth of the time at 1,024 keypoints: what is freed goes back to the operating
    system, which clears it again page by page.
    """

    def __init__(self, packed: PackedPairs, dtype: torch.dtype) -> None:
        rows, d = packed.tokens.shape
        self._d = d
        new = partial(torch.empty, dtype=dtype, device=packed.tokens.device)
        self._joined = new(rows, _BEFORE + 2 * d)
        self._joined[:, _BEFORE - 1] = 1
        self._projected = new(rows * 3 * d)
        by_head = packed.tokens.is_cpu and packed.tokens.dtype == dtype
        self._by_head = new(rows * 3 * d) if by_head else None

    def joined(self, packed: PackedPairs) -> Tensor:
        """(R, 1 + 2 d) what an MLP reads: a 1, the token, and beside it what was attended to."""
        rows = len(packed.tokens)
        joined = self._joined[:rows, _BEFORE - 1 :]
        if sum(packed.counts) < rows:
            joined[:, 1 + self._d :] = 0  # nothing attends for the spare rows
        return joined

    def projected(self, rows: int, parts: int) -> Tensor:
        """(R, k d) queries, keys and values."""
        return self._projected[: rows * parts * self._d].view(rows, -1)

    def by_head(self, like: Tensor) -> Tensor | None:
        """Memory for queries, keys and values of this shape, (R, k, h, e), in which each head's are contiguous.

        On a CPU attention reads them an eighth faster so, which is more than the copy takes. None elsewhere, and where
        the kernel copies them anyway: for reduced precision.
        """
        if self._by_head is None:
            return None
        rows, parts, heads, width = like.shape
        return self._by_head[: like.numel()].view(parts, heads, rows, width).permute(2, 0, 1, 3)

    def hidden(self, rows: int) -> Tensor:
        """(R, 2 d) the MLP's hidden layer, where the projections were."""
        return self.projected(rows, 2)


def run_layer(layer: FoldedLayer, packed: PackedPairs, workspace: Workspace, attention_dtype: torch.dtype) -> None:
    """One transformer layer over all pairs, in place: the packed, folded twin of `TransformerLayer.forward`.

    The residual stream keeps its precision; products run in that of the layer's matrices, attention in
    `attention_dtype`.
    """
    x = packed.tokens
    rows, d = x.shape
    joined, hidden = workspace.joined(packed), workspace.hidden(rows)
    token, context = joined[:, : 1 + d], joined[:, 1 + d :]

    token[:, 1:].copy_(x)
    qkv = layer.self_attn.projections(token, workspace.projected(rows, 3))
    by_head = workspace.by_head(qkv)
    q, k = (
        rotate(qkv[:, :2], packed.rotation, None if by_head is None else by_head[:, :2]).to(attention_dtype).unbind(1)
    )
    v = qkv[:, 2] if by_head is None else by_head[:, 2].copy_(qkv[:, 2])
    attend(q, k, v.to(attention_dtype), packed.segments, cross=False, out=context)
    layer.self_attn.update(x, joined, hidden)

    token[:, 1:].copy_(x)
    qkv = layer.cross_attn.projections(token, workspace.projected(rows, 2))
    by_head = workspace.by_head(qkv)
    qk, v = (qkv if by_head is None else by_head.copy_(qkv)).to(attention_dtype).unbind(1)
    attend(qk, qk, v, packed.segments, cross=True, out=context)
    layer.cross_attn.update(x, joined, hidden)


def rotate(x: Tensor, rotation: Tensor, out: Tensor | None) -> Tensor:
    """Rotate each pair of neighbouring channels by its angle, in the precision of the rotation.

    x: (R, k, h, e), overwritten where it has that precision already and there is no `out`, which has the same shape;
    rotation: (R, e / 2) complex. One complex multiplication instead of six real ones and a concatenation.
    """
    x = x.to(rotation.real.dtype)
    out = x if out is None else out
    turned, to = (torch.view_as_complex(t.unflatten(-1, (-1, 2))) for t in (x, out))  # type: ignore[no-untyped-call]
    torch.mul(turned, rotation[:, None, None], out=to)
    return out
