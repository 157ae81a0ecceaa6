"""One image looked at in several views, tiles of it or sizes of it, and their features as those of one image.

Each tile sees a strip of its neighbours, since a network needs the surroundings of a keypoint. It answers for the
keypoints in its own part, up to the middle of the strip, and a few px beyond, as near that line a keypoint of the one
tile may lie beyond it in the other; what both find is kept once.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lightglue.extractors.request import Part
from lightglue.types import Features

__all__ = [
    "Tile",
    "best_of",
    "merge_views",
    "sample_of",
    "tiles_of",
]

OVERLAP = 128  # px that neighbours share
BEYOND = 8  # px that a tile answers for beyond the middle of what it shares
GRID = 32  # px, the coarsest stride of the networks: tiles that begin on it halve their maps as the whole image does


@dataclass(frozen=True)
class Extent:
    """A tile along one axis, px: what it sees, and what it answers for."""

    start: int
    stop: int
    first: float  # positions from here,
    last: float  # to before here


@dataclass(frozen=True)
class Tile:
    """A window of an image."""

    x: Extent
    y: Extent

    def part_of(self, height: int, width: int, prepared: Any) -> Part:
        """It as a `Part` of the image of this size."""
        return Part(self.x.start, self.y.start, width, height, prepared)

    def owns(self, keypoints: Tensor) -> Tensor:
        """Which of `keypoints` (N, 2), in px of the tile, it answers for: (N,) bool."""
        x, y = keypoints[:, 0] + self.x.start, keypoints[:, 1] + self.y.start
        return (x >= self.x.first) & (x < self.x.last) & (y >= self.y.first) & (y < self.y.last)


def tiles_of(height: int, width: int, tile: int | None) -> list[Tile]:
    """The tiles of an image, in raster order; one that sees it all where it fits into `tile` px or that is None."""
    columns, rows = (_extents(length, tile) for length in (width, height))
    return [Tile(x, y) for y in rows for x in columns]


def _extents(length: int, tile: int | None) -> list[Extent]:
    if tile is None or length <= tile:
        return [Extent(0, length, -np.inf, np.inf)]
    count = -(-(length - OVERLAP) // (tile - OVERLAP))
    starts = [int((length - tile) * i / (count - 1)) // GRID * GRID for i in range(count)]
    stops = [start + tile for start in starts[:-1]] + [length]
    middles = [(start + stop) / 2 - 0.5 for start, stop in zip(starts[1:], stops[:-1], strict=True)]
    firsts = [-np.inf, *(middle - BEYOND for middle in middles)]
    lasts = [*(middle + BEYOND for middle in middles), np.inf]
    return [Extent(*values) for values in zip(starts, stops, firsts, lasts, strict=True)]


def sample_of(read: Callable[[slice, slice], Tensor], size: tuple[int, int], pixels: int, crop: int) -> Tensor:
    """An image (1, C, h, w) of about `pixels` px that is like another of `size`, height and width.

    It is the other one where that is no larger, else a mosaic of crops with sides of `crop` px from all over it.

    Args:
        read: the windows of the other image, of given rows and columns.
    """
    height, width = size
    if height * width <= pixels:
        return read(slice(0, height), slice(0, width))
    shrink = (pixels / (height * width)) ** 0.5
    rows, columns = (
        np.linspace(0, length - crop, max(round(length * shrink / crop), 1)).astype(int) for length in size
    )
    crops = [torch.cat([read(slice(y, y + crop), slice(x, x + crop)) for x in columns], dim=3) for y in rows]
    return torch.cat(crops, dim=2)


def merge_views(views: Sequence[Features], limit: int | None, radius: float) -> Features:
    """The features of one image from those of its views, best first; ties go by position, from above.

    Args:
        views: without batch dimension, keypoints in px of the image; `strength` does not stay.
        limit: the greatest number of keypoints; None for no limit.
        radius: of two keypoints of different views that are this close, px, only the better one stays.
    """
    joined = {key: torch.cat([cast(Any, view)[key] for view in views]) for key in views[0]}
    origin = np.repeat(np.arange(len(views)), [len(view["keypoints"]) for view in views])
    points = joined["keypoints"].cpu().numpy()
    strength = _strength(joined).cpu().numpy()
    joined.pop("strength", None)
    order = np.lexsort((points[:, 0], points[:, 1], -strength))
    repeated = _repeated(points[order], origin[order], radius)
    chosen = torch.from_numpy(order[~repeated][:limit]).to(joined["keypoints"].device)
    return cast(Features, {key: values[chosen] for key, values in joined.items()})


def best_of(views: Sequence[Features], count: int) -> list[Features]:
    """`views` without what is not among the `count` best of all of them; of those that tie there, all stay."""
    everyone = torch.cat([_strength(view) for view in views])
    if len(everyone) <= count:
        return list(views)
    least = everyone.topk(count).values[-1]
    kept = [_strength(view) >= least for view in views]
    return [
        cast(Features, {key: cast(Tensor, values)[chosen] for key, values in view.items()})
        for view, chosen in zip(views, kept, strict=True)
    ]


def _strength(features: Mapping[str, Any]) -> Tensor:
    """By what keypoints are better than others: `strength` or scores; from COLMAP, which gives neither, scales."""
    return cast(Tensor, next(features[key] for key in ("strength", "keypoint_scores", "scales") if key in features))


def _repeated(points: NDArray[np.float32], origin: NDArray[np.int64], radius: float) -> NDArray[np.bool_]:
    """Which of `points` (N, 2), best first, have a better one of another view that stays within `radius` px: (N,) bool.

    A better one that goes is no reason: where two views have two near points both, those of one view stay.
    """
    repeated = np.zeros(len(points), bool)
    for better, worse in _pairs(points, origin, radius) if len(points) else ():
        repeated[worse] |= not repeated[better]
    return repeated


def _pairs(points: NDArray[np.float32], origin: NDArray[np.int64], radius: float) -> NDArray[np.int64]:
    """The pairs (P, 2) of a better and a worse one of `points` (N, 2), best first, that are of different views and
    within `radius` px; in the order of the worse ones.

    Points are put into cells of the radius' size, so that partners lie in the same cell or one beside it.
    """
    cells = np.floor(points.astype(np.float64) / radius).astype(np.int64) + 2  # 1 and more, with a free rim
    row = cells[:, 0].max() + 2
    codes = cells[:, 1] * row + cells[:, 0]
    by_cell = np.argsort(codes, kind="stable")
    found = codes[by_cell]
    pairs = [np.empty((0, 2), np.int64)]
    for step in (down * row + right for down in (-1, 0, 1) for right in (-1, 0, 1)):
        first, last = (np.searchsorted(found, codes + step, side) for side in ("left", "right"))
        for offset in range(int((last - first).max())):
            mine = np.flatnonzero(first + offset < last)
            other = by_cell[first[mine] + offset]
            close = np.sum((points[mine] - points[other]) ** 2, axis=1) <= radius * radius
            better = (other < mine) & (origin[other] != origin[mine])
            pairs.append(np.stack((other, mine), axis=1)[close & better])
    joined = np.concatenate(pairs)
    return joined[np.argsort(joined[:, 1], kind="stable")]
