"""The colours of a model's points, from the images as they are decoded here.

COLMAP's mappers look at the files themselves: they do not turn images as their EXIF says, and know no WebP, JPEG 2000
or GIF, so that points get the colours of other pixels, or none.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lightglue.errors import LightGlueError
from lightglue.geometry.intrinsics import from_colmap
from lightglue.images import read_image
from lightglue.sfm.colmap.models import registered

__all__ = ["colour_points", "uncoloured"]

_READERS = 4  # images in memory at a time


def colour_points(
    model: Any,
    images: Path,
    points: Collection[int] | None = None,
    names: Collection[str] | None = None,
    stretch: bool = False,
) -> None:
    """Give each point of a model the mean colour of the pixels that see it.

    images: the folder of the images; those that are gone, or cannot be read, are left out, and a point that no other
    sees stays as it is. points: only these, by their numbers. names: only images of these names are looked at.
    stretch: with the range of values that `read_image` spreads.
    """
    wanted = None if points is None else np.array(sorted(points), np.int64)
    if wanted is not None and not len(wanted):
        return
    jobs = [job for job in _observations(model, wanted) if names is None or job[0] in names]
    top = max((int(ids.max()) for _, ids, _ in jobs), default=-1) + 1
    sums, counts = np.zeros((top, 3)), np.zeros(top, np.int64)
    with ThreadPoolExecutor(_READERS) as pool:
        for ids, colours in pool.map(lambda job: _sampled(images, stretch, *job), jobs):
            np.add.at(sums, ids, colours)
            np.add.at(counts, ids, 1)
    seen = np.flatnonzero(counts)
    means = np.rint(sums[seen] / counts[seen, None]).astype(np.uint8)
    for number, colour in zip(seen.tolist(), means, strict=True):
        model.point3D(number).color = colour


def uncoloured(model: Any) -> set[int]:
    """The numbers of the points that are black, as new ones are."""
    return {int(number) for number, point in model.points3D.items() if not np.any(point.color)}


def _observations(
    model: Any, wanted: NDArray[np.int64] | None
) -> Iterator[tuple[str, NDArray[np.int64], NDArray[np.float64]]]:
    """Of each image its name, the points that it sees (O,), and where (O, 2), px."""
    for image in registered(model):
        seen = image.get_observation_points2D()
        ids = np.array([each.point3D_id for each in seen], np.int64)
        pixels = from_colmap(np.array([each.xy for each in seen], np.float64).reshape(-1, 2))
        if wanted is not None:
            some = np.isin(ids, wanted)
            ids, pixels = ids[some], pixels[some]
        if len(ids):
            yield str(image.name), ids, pixels


def _sampled(
    images: Path, stretch: bool, name: str, ids: NDArray[np.int64], pixels: NDArray[np.float64]
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """The points (O,) and their colours (O, 3) in an image, between pixels by bilinear interpolation."""
    try:
        image = read_image(images / name, stretch=stretch)
    except LightGlueError:  # it was read before: it is gone, or has changed
        return ids[:0], np.empty((0, 3))
    last = np.array(image.shape[1::-1]) - 1
    pixels = np.clip(pixels, 0, last)
    low = np.floor(pixels).astype(np.int64)
    high = np.minimum(low + 1, last)
    x, y = (pixels - low).T[..., None]
    (x0, y0), (x1, y1) = low.T, high.T
    above = image[y0, x0] * (1 - x) + image[y0, x1] * x
    below = image[y1, x0] * (1 - x) + image[y1, x1] * x
    colours: NDArray[np.float64] = above * (1 - y) + below * y
    return ids, colours
