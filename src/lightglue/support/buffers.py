"""Memory for large results."""

from __future__ import annotations

import math
import mmap

import torch
from torch import Tensor

__all__ = ["keep_freed_memory", "large_empty"]

LEAST_BYTES = 2**20  # below, an allocator reuses memory


def large_empty(like: Tensor, *shape: int) -> Tensor:
    """Uninitialised (or zero) memory of this shape, of the dtype and on the device of `like`.

    The system hands large blocks out again each time, in pages of 4 KiB that it clears at the first touch of each: that
    took three times as long as filling a map of 46 MB. Where it can, it is asked for pages of 2 MiB here.
    """
    size = math.prod(shape) * like.element_size()
    if like.device.type == "cpu" and size >= LEAST_BYTES and hasattr(mmap, "MADV_HUGEPAGE"):
        try:
            memory = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
            memory.madvise(mmap.MADV_HUGEPAGE)
        except OSError:
            return like.new_empty(shape)
        return torch.frombuffer(memory, dtype=like.dtype).view(shape)
    return like.new_empty(shape)


def keep_freed_memory(like: Tensor) -> None:
    """Let the C library keep what temporary tensors of up to some megabytes free, where `like` lies on the CPU.

    glibc asks the system for each large block and gives it back, so that every strip of rows would be cleared and
    mapped again: 7,000 page faults an image of 1,024 px, a tenth of the time. A freed block tells it that blocks
    of this size come and go (M_MMAP_THRESHOLD in mallopt(3)); nothing is touched, so it costs no memory itself. Up to
    twice this size of free memory then stays with the process.
    """
    if like.device.type == "cpu":
        torch.empty(31 * 2**20, dtype=torch.uint8)  # 32 MiB is the largest that it learns from
