"""Both images brought into one frame by a rough homography, and matched there: what makes rough models exact."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from lightglue.pairs.hard.looks import Correspondences, Image, Kind, Looks
from lightglue.pairs.hard.warping import Floats, linear_at, moved

__all__ = ["Frame", "common_frame", "rematch"]

GRID = 48  # points along an image's sides, by which the common part is found
LEAST = 24  # px: a common frame with a shorter side shows nothing
BALANCE = 0.5  # 0: image 1 is warped to image 0; 1: image 0 to image 1; between: each by its share
LARGEST = 2.0  # times by which no image is enlarged
STEEPEST = 25.0  # tilt between the images, of which nothing could be matched


@dataclass(frozen=True, eq=False)
class Frame:
    """Where both images meet."""

    matrices: tuple[Floats, Floats]  # (3, 3), px of each original to px of the frame
    size: tuple[int, int]  # width and height, px
    at: tuple[Floats, Floats]  # the middle of the common part in each original, px


def common_frame(H: Floats, images: tuple[Image, Image], edge: int, around: Floats | None = None) -> Frame | None:
    """The frame of what H, px of original 0 to px of original 1, shows in both; None where that is next to nothing.

    Its area is at most that of the larger image with a longer side of `edge` px. around: (K, 2) px of original 0, where
    H is sure.
    """
    sizes = [np.array(image.size) / image.scale for image in images]
    x, y = (np.linspace(0, edge_px - 1, GRID) for edge_px in sizes[0])
    grid = np.stack(np.meshgrid(x, y), axis=-1).reshape(-1, 2)
    there = moved(H, grid)
    with np.errstate(invalid="ignore"):
        common = ((there >= 0) & (there <= sizes[1] - 1)).all(axis=1)
    if common.sum() < 4:
        return None
    grid = grid[common]
    middle = grid.mean(axis=0) if around is None or not len(around) else np.median(around, axis=0)
    J = linear_at(H, middle)
    if not np.isfinite(J).all() or np.linalg.det(J) <= 0:
        return None
    _, stretch, axes = np.linalg.svd(J)
    if stretch[0] > STEEPEST * stretch[1]:
        return None
    linear = axes.T @ np.diag(stretch**BALANCE) @ axes  # of image 0, without a turn
    # No image is enlarged for nothing, nor the frame larger than images usually are.
    own = [np.linalg.svd(linear, compute_uv=False), np.linalg.svd(linear @ np.linalg.inv(J), compute_uv=False)]
    finest = max(image.scale[0] for image in images)
    zoom = LARGEST * finest / max(each.min() for each in own)
    placed = grid @ linear.T
    low, high = placed.min(axis=0), placed.max(axis=0)
    extent = high - low + 1e-9
    area = max(min(edge / max(image.size), 1.0) ** 2 * math.prod(image.size) for image in images)
    zoom = min(zoom, math.sqrt(area / extent.prod()), 2 * edge / extent.max())
    size = np.ceil(extent * zoom).astype(int) + 1
    if size.min() < LEAST:
        return None
    to0 = np.eye(3)
    to0[:2, :2], to0[:2, 2] = zoom * linear, -zoom * low
    return Frame((to0, to0 @ np.linalg.inv(H)), (int(size[0]), int(size[1])), (middle, moved(H, middle)))


def rematch(looks: Looks, kind: Kind, frame: Frame, count: int) -> Correspondences:
    """The matches of both images in the frame, of at most `count` keypoints each."""
    seen = [looks.warped(kind, i, frame.matrices[i], frame.size, frame.at[i], count) for i in (0, 1)]
    return looks.match(kind, seen[0], seen[1], distinct=True)
