"""Several processes, one a device, under torchrun: who does which samples, and sums over all.

A process' environment says how many there are (RANK, WORLD_SIZE, LOCAL_RANK, as torchrun sets them). Gradients are
summed over one flat buffer after the backward pass, which needs no wrapper around the network.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta

import torch
import torch.distributed as dist
from torch import Tensor

__all__ = ["World", "joined"]

# The others wait while the first one extracts features or judges; of one that died torchrun ends all at once.
PATIENCE = timedelta(days=7)


@dataclass(frozen=True)
class World:
    """The processes of a run."""

    rank: int = 0
    size: int = 1
    local: int = 0  # number on this machine: its device

    @property
    def is_first(self) -> bool:
        """Whether this process writes files and speaks."""
        return self.rank == 0

    def share(self, numbers: Sequence[int]) -> list[int]:
        """Those of this process: a run of neighbours, so that rank after rank they are in order."""
        cuts = [len(numbers) * i // self.size for i in (self.rank, self.rank + 1)]
        return list(numbers[cuts[0] : cuts[1]])

    def sum_(self, tensors: Sequence[Tensor]) -> None:
        """Replace each tensor by its sum over all processes."""
        if self.size == 1 or not tensors:
            return
        flat = torch.cat([t.reshape(-1) for t in tensors])
        dist.all_reduce(flat)
        for tensor, part in zip(tensors, torch.split(flat, [t.numel() for t in tensors]), strict=True):
            tensor.copy_(part.view_as(tensor))

    def agreed(self, value: float, device: torch.device) -> float:
        """The first process' value, in all."""
        if self.size == 1:
            return value
        tensor = torch.tensor([value], dtype=torch.float32 if device.type == "mps" else torch.float64, device=device)
        dist.broadcast(tensor, 0)
        return float(tensor)

    def wait(self) -> None:
        """Until all processes are here."""
        if self.size > 1:
            dist.barrier()


@contextmanager
def joined(device: str) -> Iterator[World]:
    """The world of this process; of one alone where torchrun did not start it. device: as in the options."""
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if size == 1:
        yield World()
        return
    world = World(int(os.environ["RANK"]), size, int(os.environ.get("LOCAL_RANK", "0")))
    on_gpu = device != "cpu" and torch.cuda.is_available()
    mine = not dist.is_initialized()
    if mine:
        dist.init_process_group("nccl" if on_gpu else "gloo", timeout=PATIENCE)
    if on_gpu:
        torch.cuda.set_device(world.local)
    try:
        yield world
    finally:
        if mine:
            dist.destroy_process_group()
