"""Points of a query to a fraction of a pixel, by the images of the map that show the same points.

The pose that was found says which points of the map the query shows; the model says where each image of the map shows
them. The query's window around a point is aligned with that of every image of the map that is asked, whose keypoints
stay (`lightglue.geometry.refine`), and what the images say of a point becomes one position
(`lightglue.geometry.references`). No matching is needed for that, so that more images may be asked than were matched.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lightglue.errors import ImageError, InputError
from lightglue.geometry.intrinsics import from_colmap, to_colmap
from lightglue.geometry.references import combine
from lightglue.geometry.refine import measure_matches
from lightglue.images import read_image, resize_image
from lightglue.sfm.colmap.models import point_ids
from lightglue.sfm.options import QueryRefineOptions
from lightglue.support.caches import BoundedCache

__all__ = ["QueryPoints", "References"]

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]

_LUMA = (0.299, 0.587, 0.114)  # of red, green and blue, as files are read in gray
_PIXELS_HELD = 200_000_000  # bytes of gray images that are kept


@dataclass(frozen=True, eq=False)
class QueryPoints:
    """Those of a query, row by row as they were given."""

    points: Floats  # (K, 2) px of the query
    moved: NDArray[np.bool_]  # (K,): False where a point stayed, as nothing certain was measured
    images: tuple[str, ...]  # of the map, that were asked


@dataclass(frozen=True, eq=False)
class _Reference:
    """An image of the map to align with."""

    ids: Integers  # (N,) points of the model, sorted
    positions: Floats  # (N, 2) px of `gray`
    gray: NDArray[np.uint8]  # (H, W)

    @property
    def bytes(self) -> int:
        return self.ids.nbytes + self.positions.nbytes + self.gray.nbytes


class References:
    """The images of a map as references; those that were used last stay in memory."""

    def __init__(self, model: Any, folder: Path, stretch: bool, options: QueryRefineOptions, device: Any) -> None:
        self.model, self.folder, self.stretch, self.options, self.device = model, folder, stretch, options, device
        self.faults: dict[str, str] = {}  # images that cannot be used, and why
        self._held: BoundedCache[int, _Reference | None] = BoundedCache(
            _PIXELS_HELD, lambda each: 0 if each is None else each.bytes
        )

    @classmethod
    def open(cls, model: Any, folder: Path, stretch: bool, options: QueryRefineOptions, device: Any) -> References:
        """Those of a map, whose images lie in a folder. Raises InputError where it is gone."""
        if not folder.is_dir():
            raise InputError(
                f"Points of a query are refined by the map's images, and their folder {folder} is gone; put it back, "
                "or localize without refining."
            )
        return cls(model, folder, stretch, options, device)

    def refine(self, pixels: Tensor, points: Floats, ids: Integers) -> QueryPoints:
        """Points (K, 2) px of a query (C, H, W) that show the points `ids` (K,) of the model, each once."""
        gray, scale = _query(pixels, self.options.max_edge, self.device)
        reduced = _scaled(points, scale)
        start = torch.from_numpy(reduced.astype(np.float32)).to(self.device)
        found = [(np.empty(0, np.int64), np.empty((0, 2)), np.empty(0))]
        asked: list[str] = []
        for number in self._showing(ids):
            if len(asked) == self.options.images:
                break
            reference = self._held.get(number, partial(self._load, number))
            if reference is None:
                continue
            asked.append(str(self.model.images[number].name))
            found.append(self._measured(reference, gray, start, ids))
        rows, positions, sigma = (np.concatenate(each) for each in zip(*found, strict=True))
        options, offsets = self.options, positions - reduced[rows]
        shift, support = combine(rows, offsets, sigma, len(points), options.prior, options.floor, options.outlier)
        moved = (support >= options.min_support) & (np.linalg.norm(shift, axis=1) <= options.max_shift)
        return QueryPoints(np.where(moved[:, None], points + shift / scale, points), moved, tuple(asked))

    def _showing(self, ids: Integers) -> list[int]:
        """Images of the model that show these points, those first that show most."""
        counts: Counter[int] = Counter()
        for number in ids.tolist():
            counts.update({each.image_id for each in self.model.points3D[number].track.elements})
        return sorted(counts, key=lambda number: (-counts[number], number))

    def _measured(
        self, reference: _Reference, gray: Tensor, points: Tensor, ids: Integers
    ) -> tuple[Integers, Floats, Floats]:
        """Of the points (K, 2) that a reference shows: rows (M,), positions (M, 2) and deviations (M,)."""
        at = np.searchsorted(reference.ids, ids).clip(0, len(reference.ids) - 1)
        rows = (reference.ids[at] == ids).nonzero()[0]
        first = torch.from_numpy(reference.positions[at[rows]].astype(np.float32)).to(self.device)
        shown = torch.from_numpy(reference.gray).to(self.device).float() / 255
        measured = measure_matches(shown, gray, first, points[torch.from_numpy(rows)], self.options.align)
        good = measured.good & measured.deviation.isfinite()
        position, sigma = (each[good].double().cpu().numpy() for each in (measured.position, measured.deviation))
        return rows[good.cpu().numpy()], position, sigma

    def _load(self, number: int) -> _Reference | None:
        """An image of the model; None where its file cannot be used."""
        image = self.model.images[number]
        name, camera = str(image.name), self.model.cameras[image.camera_id]
        try:
            gray = read_image(self.folder / name, grayscale=True, stretch=self.stretch)
        except (ImageError, MemoryError) as error:
            self.faults[name] = str(error) or "there is not enough memory to read it"
            return None
        if gray.shape != (camera.height, camera.width):
            was = f"{camera.width} x {camera.height} px"
            self.faults[name] = f"It is {gray.shape[1]} x {gray.shape[0]} px, and was {was} when the map was made."
            return None
        gray, scale = _reduced(gray, self.options.max_edge)
        ids = point_ids(image)
        rows = (ids >= 0).nonzero()[0]
        rows = rows[np.argsort(ids[rows])]
        positions = np.array([image.points2D[row].xy for row in rows.tolist()], np.float64).reshape(-1, 2)
        return _Reference(ids[rows], from_colmap(positions * scale), np.ascontiguousarray(gray))


def _reduced(image: NDArray[Any], max_edge: int) -> tuple[NDArray[Any], Floats]:
    """An image of at most so many px, and its scale (2,) along x and y."""
    height, width = image.shape[:2]
    if max(width, height) > max_edge:
        image, _ = resize_image(image, max_edge, "max", "area")
    return image, np.array([image.shape[1] / width, image.shape[0] / height])


def _scaled(points: Floats, scale: Floats) -> Floats:
    return np.asarray(from_colmap(to_colmap(points) * scale))


def _query(pixels: Tensor, max_edge: int, device: Any) -> tuple[Tensor, Floats]:
    """Brightness (H, W) of a query (C, H, W) in [0, 1], of at most so many px, and its scale (2,)."""
    image = pixels.detach().cpu().float().clamp(0, 1)
    brightness = torch.einsum("c,chw->hw", image.new_tensor(_LUMA), image) if len(image) == 3 else image[0]
    gray: NDArray[Any] = (brightness * 255).round().to(torch.uint8).numpy()
    gray, scale = _reduced(gray, max_edge)
    return torch.from_numpy(np.ascontiguousarray(gray)).to(device).float() / 255, scale
