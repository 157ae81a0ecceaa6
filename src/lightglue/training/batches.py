"""Samples as tensors: all keypoints of all pairs, one below the other, without padding."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from lightglue.errors import InputError, StoreError
from lightglue.matching.inputs import normalize_keypoints
from lightglue.support.files import whole
from lightglue.training.contract import IGNORED, Sample, Samples

__all__ = ["Batch", "Padded", "collate", "padded", "read_batch", "write_batch"]


@dataclass(frozen=True, eq=False)
class Batch:
    """P pairs; image 0 of the first pair, image 1 of the first, image 0 of the second, ..."""

    numbers: tuple[int, ...]  # P: the samples'
    views: tuple[tuple[str, str], ...]  # P
    counts: tuple[int, ...]  # 2 P numbers of keypoints, R in all
    positions: Tensor  # (R, 2 or 4) float32, normalised; scale and orientation where they are used
    descriptors: Tensor  # (R, D) float32
    matches: Tensor  # (R,) int64: row in the other image, UNMATCHABLE or IGNORED

    def __len__(self) -> int:
        return len(self.numbers)

    def to(self, device: torch.device) -> Batch:
        """The same on another device."""
        moved = {name: getattr(self, name).to(device, non_blocking=True) for name in _TENSORS}
        return replace(self, **moved)

    def pin_memory(self) -> Batch:
        """In memory from which a GPU copies fast; torch's loader calls this."""
        return replace(self, **{name: getattr(self, name).pin_memory() for name in _TENSORS})

    @property
    def is_even(self) -> bool:
        """Whether all images have the same number of keypoints."""
        return len(set(self.counts)) == 1


_TENSORS = ("positions", "descriptors", "matches")


class Padded(NamedTuple):
    """One side of a batch, (P, T, ...), and which rows are keypoints."""

    positions: Tensor
    descriptors: Tensor
    matches: Tensor  # IGNORED in padding
    mask: Tensor  # (P, T) bool


def collate(samples: Sequence[tuple[int, Sample]], samples_of: Samples, with_scale_ori: bool) -> Batch:
    """The batch of these samples. Raises InputError where one is not what `samples_of` says of all."""
    positions, descriptors, matches, counts = [], [], [], []
    for number, sample in samples:
        for side, features in enumerate((sample.features0, sample.features1)):
            name = f"sample {number}, view {sample.views[side]!r}"
            found = features.descriptors.shape[1]
            if features.feature_type != samples_of.feature_type or found != samples_of.descriptor_dim:
                raise InputError(
                    f"{name} has {features.feature_type} features of length {found}, the others "
                    f"{samples_of.feature_type} of {samples_of.descriptor_dim}; make the pool again."
                )
            size = torch.tensor(features.image_size, dtype=torch.float32)
            columns = [normalize_keypoints(torch.from_numpy(np.ascontiguousarray(features.keypoints)), size)]
            if with_scale_ori:
                if features.scales is None or features.oris is None:
                    raise InputError(f"{name} has no scales and orientations; set network.add_scale_ori = false.")
                columns += [torch.from_numpy(np.array(x))[:, None] for x in (features.scales, features.oris)]
            positions.append(torch.cat(columns, 1))
            descriptors.append(torch.from_numpy(np.ascontiguousarray(features.descriptors, np.float32)))
            matches.append(torch.from_numpy((sample.truth.matches0, sample.truth.matches1)[side]))
            counts.append(len(features))
    return Batch(
        tuple(number for number, _ in samples),
        tuple(sample.views for _, sample in samples),
        tuple(counts),
        torch.cat(positions),
        torch.cat(descriptors),
        torch.cat(matches),
    )


def padded(batch: Batch, length: int = 1) -> tuple[Padded, Padded]:
    """Both sides of a batch, each padded to its longest image, and at least to `length`."""
    return _side(batch, 0, length), _side(batch, 1, length)


def _side(batch: Batch, side: int, least: int) -> Padded:
    starts = np.concatenate([[0], np.cumsum(batch.counts)])[side:-1:2]
    counts = np.array(batch.counts[side::2])
    length = max(int(counts.max()), least)
    column = np.arange(length)
    mask = torch.from_numpy(column < counts[:, None]).to(batch.matches.device)
    last = max(len(batch.matches) - 1, 0)
    rows = torch.from_numpy(np.minimum(starts[:, None] + column, last)).to(batch.matches.device)
    if not len(batch.matches):  # no keypoint anywhere
        shape = rows.shape
        positions, descriptors = (t.new_zeros((*shape, t.shape[1])) for t in (batch.positions, batch.descriptors))
        return Padded(positions, descriptors, batch.matches.new_full(shape, IGNORED), mask)
    matches = batch.matches[rows].masked_fill(~mask, IGNORED)
    gone = ~mask[..., None]
    return Padded(
        batch.positions[rows].masked_fill(gone, 0), batch.descriptors[rows].masked_fill(gone, 0), matches, mask
    )


def write_batch(path: Path, batch: Batch, **more: Any) -> None:
    """The whole batch as one npz, for a look at what went wrong. Raises StoreError."""
    arrays = {name: getattr(batch, name).detach().cpu().numpy() for name in _TENSORS}
    arrays |= {name: np.array(getattr(batch, name)) for name in ("numbers", "views", "counts")}
    arrays |= {name: np.array(value) for name, value in more.items()}
    with whole(path) as part, part.open("wb") as file:
        np.savez_compressed(file, **arrays)


def read_batch(path: Path) -> Batch:
    """What `write_batch` wrote. Raises StoreError."""
    try:
        with np.load(path, allow_pickle=False) as file:
            values = {field.name: file[field.name] for field in fields(Batch)}
    except (OSError, ValueError, KeyError) as error:
        raise StoreError(f"{path} is no batch that training wrote ({error}).") from error
    return Batch(
        tuple(int(k) for k in values["numbers"]),
        tuple((str(a), str(b)) for a, b in values["views"]),
        tuple(int(n) for n in values["counts"]),
        *(torch.from_numpy(values[name]) for name in _TENSORS),
    )
