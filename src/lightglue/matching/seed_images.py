"""The images of `effort="fast"`: all keypoints of each, and the strongest of each part, which are matched first."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lightglue.errors import InputError
from lightglue.matching.guided import Keypoints
from lightglue.matching.inputs import read_arrays, read_sizes
from lightglue.types import Features

__all__ = ["PER_KEYPOINT", "SeedImage", "Seeds", "is_in_order", "read_image", "seed_rows"]

PER_KEYPOINT = ("keypoints", "descriptors", "keypoint_scores", "scales", "oris")
_READ = (*PER_KEYPOINT, "image_size", "image")

Ints = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Seeds:
    """Some keypoints of an image."""

    rows: Ints  # (S,)
    features: Features  # of these, with the image's size


@dataclass(frozen=True, eq=False)
class SeedImage:
    """An image as it is needed here. Several pairs share it."""

    all: Keypoints
    given: dict[str, Tensor]  # what there is for each keypoint, (1, N, ...)
    scores: Any  # of the keypoints, if there are any, in whatever shape
    size: Tensor  # (1, 2)
    arrays: tuple[Any, ...]  # what was read, held so that their ids stay theirs
    cells: int  # see `seed_rows`

    def __len__(self) -> int:
        return len(self.all.points)

    def seeds(self, count: int) -> Seeds:
        """The strongest of each part, so many; made once."""
        if count not in self._made:
            rows = seed_rows(self.given["keypoints"][0], self.scores, count, self.cells)
            chosen = {key: value[:, rows.to(value.device)] for key, value in self.given.items()}
            self._made[count] = Seeds(rows.cpu().numpy(), cast(Features, {**chosen, "image_size": self.size}))
        return self._made[count]

    @cached_property
    def _made(self) -> dict[int, Seeds]:
        return {}

    @cached_property
    def order(self) -> tuple[int, bytes, bytes]:
        """What the order of the two images of a pair is decided by."""
        return len(self), self.all.points.tobytes(), self.all.descriptors.tobytes()


def is_in_order(image0: SeedImage, image1: SeedImage) -> bool:
    """Whether image 0 comes first, whichever way round a pair was given: so that both ways have the same result."""
    return image0 is image1 or image0.order <= image1.order


def read_image(features: Any, name: str, like: Tensor | None, cells: int, known: dict[Any, SeedImage]) -> SeedImage:
    """The image of a features dictionary, kept in `known`. Raises InputError for features that are none.

    name: what the user calls it, for errors; like: of whose dtype and on whose device it must be, None: its own.
    """
    arrays = tuple(features.get(key) for key in _READ) if isinstance(features, Mapping) else (features,)
    key = tuple(id(array) for array in arrays)
    if key in known:
        return known[key]
    if like is None:
        like = features["keypoints"][..., :0].float() if isinstance(arrays[0], Tensor) else torch.zeros(0)
    keypoints, descriptors = read_arrays(features, name, like)
    if len(keypoints) != 1:
        raise InputError(f"{name} holds a batch of {len(keypoints)} images; match() takes one image at a time")
    size, count = read_sizes(features, name, keypoints), keypoints.shape[1]
    given = {k: v for k, v in features.items() if k in PER_KEYPOINT and _is_whole(v, count)}
    normalized = torch.nn.functional.normalize(descriptors[0].float(), dim=-1)
    points = Keypoints(keypoints[0].cpu().double().numpy(), normalized.cpu().numpy(), float(size.max()))
    given |= {"keypoints": keypoints, "descriptors": descriptors}
    known[key] = SeedImage(points, given, features.get("keypoint_scores"), size, arrays, cells)
    return known[key]


def _is_whole(value: Any, count: int) -> bool:
    """Whether this is something for each keypoint of one image; what is not, the matcher refuses or does not read."""
    return isinstance(value, Tensor) and value.shape[:2] == (1, count)


def seed_rows(points: Tensor, scores: Any, number: int, cells: int) -> Tensor:
    """(S,) rows of the keypoints (N, 2) that become seeds, in their order; S is `number`, or N where that is less.

    The image is cut into square cells, so many along its longer edge; the best keypoint of each comes first, then the
    second best of each, and so on. Spread over the image they determine the geometry better than as many that are
    stronger and crowd together. scores: of N numbers; without them the order in which the keypoints are given counts.
    """
    count = len(points)
    if count <= number:
        return torch.arange(count, device=points.device)
    if not isinstance(scores, Tensor) or scores.numel() != count:
        scores = torch.arange(count, 0, -1)
    low, high = points.amin(0), points.amax(0)
    edge = ((high - low).amax() / cells).clamp_min(torch.finfo(points.dtype).tiny)
    column, row = ((points - low) / edge).floor().long().T
    best = scores.to(points.device).reshape(count).argsort(descending=True, stable=True)
    cell = (row * (cells + 1) + column)[best]
    together = cell.argsort(stable=True)  # cell after cell, in each the best first
    sizes = torch.unique_consecutive(cell[together], return_counts=True)[1]
    begin = (sizes.cumsum(0) - sizes).repeat_interleave(sizes)
    rank = torch.empty_like(best)  # within its cell, of the keypoints in the order of `best`
    rank[together] = torch.arange(count, device=points.device) - begin
    chosen: Tensor = best[rank.argsort(stable=True)[:number]].sort().values
    return chosen
