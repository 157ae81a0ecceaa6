"""Both images of a pair, seen through any warp, and matched: features of each view once, positions in original px."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import normalize

from lightglue.extractors.base import Extractor as OwnExtractor
from lightglue.pairs.hard.views import View
from lightglue.pairs.hard.warping import Floats, Pixels, covered, inverse_of, mask_of, moved, scaling, warp
from lightglue.pairs.record import matches_of
from lightglue.pairs.rotation import best_of, limited
from lightglue.timing import span
from lightglue.types import Extractor, Features, Matcher

__all__ = ["Correspondences", "Image", "Kind", "Looks", "Seen", "distinct_matches"]

ELSEWHERE = 24.0  # px of a view, from which on a keypoint shows something else

PER_KEYPOINT = ("keypoints", "keypoint_scores", "descriptors", "scales", "oris")


@dataclass(frozen=True, eq=False)
class Image:
    """An image as it is warped: the size in which it is usually matched, and where that lies in the original."""

    pixels: Pixels  # (H, W, C) float32 in [0, 1]
    scale: tuple[float, float]  # of its width and height against the original's
    mask: NDArray[np.bool_] | None  # (H, W) of the original: where keypoints may lie

    @property
    def size(self) -> tuple[int, int]:
        """Width and height, px."""
        return self.pixels.shape[1], self.pixels.shape[0]

    @property
    def from_original(self) -> Floats:
        """(3, 3), px of the original to px of this."""
        return scaling(*self.scale)

    def allows(self, points: Floats) -> NDArray[np.bool_]:
        """Where keypoints may lie, at points (N, 2) in px of the original."""
        if self.mask is None:
            return np.ones(len(points), np.bool_)
        h, w = self.mask.shape
        x, y = np.clip(np.nan_to_num(points).round(), 0, [w - 1, h - 1]).astype(int).T
        return np.asarray(self.mask[y, x])


@dataclass(frozen=True, eq=False)
class Kind:
    """A way to find and match keypoints."""

    name: str
    extractor: Extractor
    matcher: Matcher


@dataclass(frozen=True, eq=False)
class Seen:
    """The features of one view."""

    features: Features  # in px of the view, with batch dimension
    points: Floats  # (N, 2) px of the original

    def __len__(self) -> int:
        return len(self.points)

    def only(self, chosen: NDArray[np.bool_]) -> Seen:
        """Those keypoints."""
        rows = torch.from_numpy(np.flatnonzero(chosen)).to(self.features["keypoints"].device)
        kept = {
            name: value[:, rows] if name in PER_KEYPOINT else value
            for name, value in cast(Mapping[str, Tensor], self.features).items()
        }
        return Seen(cast(Features, kept), self.points[chosen])


@dataclass(frozen=True, eq=False)
class Correspondences:
    """Matches of two views, in px of the originals."""

    points0: Floats  # (K, 2)
    points1: Floats
    scores: Floats  # (K,)
    keypoint_scores0: Tensor  # (K,)
    keypoint_scores1: Tensor
    descriptors0: Tensor  # (K, D)
    descriptors1: Tensor
    counts: tuple[int, int]  # of keypoints that could have matched
    distinct: NDArray[np.bool_] | None = None  # (K,) `distinct_matches`, where it was asked for

    def __len__(self) -> int:
        return len(self.scores)

    def only(self, chosen: Any) -> Correspondences:
        """Those matches: a mask (K,), or rows."""
        rows = np.flatnonzero(chosen) if np.asarray(chosen).dtype == np.bool_ else np.asarray(chosen, int)
        own = torch.from_numpy(rows).to(self.descriptors0.device)
        arrays = {name: getattr(self, name)[rows] for name in ("points0", "points1", "scores")}
        names = ("keypoint_scores0", "keypoint_scores1", "descriptors0", "descriptors1")
        if self.distinct is not None:
            arrays["distinct"] = self.distinct[rows]
        return replace(self, **arrays, **{name: getattr(self, name)[own] for name in names})


class Looks:
    """Views of two images with the features of each kind; nothing is extracted twice."""

    def __init__(self, images: tuple[Image, Image], device: torch.device) -> None:
        self.images = images
        self._device = device
        self._small: dict[tuple[int, int], tuple[Pixels, float]] = {}
        self._seen: dict[tuple[str, int, View, int, int], Seen] = {}

    def view(self, kind: Kind, side: int, view: View, edge: int, count: int) -> Seen:
        """The best keypoints of image `side`, its longer side `edge` px at most, seen so."""
        key = kind.name, side, view, edge, count
        if key not in self._seen:
            image = self.images[side]
            small, scale = self._shrunk(side, edge)
            view_of = view.of(small.shape[1], small.shape[0])
            mask = view_of.mask()
            to_view = view_of.matrix @ scaling(scale, scale) @ image.from_original
            seen = self._extract(kind, view_of.apply(small), mask, count)
            self._seen[key] = self._located(seen, side, to_view)
        return self._seen[key]

    def warped(self, kind: Kind, side: int, H: Floats, size: tuple[int, int], at: Floats, count: int) -> Seen:
        """The best keypoints of image `side` under H, from px of the original; `at` (2,) px of the original."""
        image = self.images[side]
        pixels = self.pixels(side, H, size, at)
        mask = mask_of(H @ inverse_of(image.from_original), size, image.size)
        return self._located(self._extract(kind, pixels, None if mask.all() else mask, count), side, H)

    def pixels(self, side: int, H: Floats, size: tuple[int, int], at: Floats) -> Pixels:
        """Image `side` under H, from px of the original; `at` (2,) px of the original."""
        image = self.images[side]
        return warp(image.pixels, H @ inverse_of(image.from_original), size, moved(image.from_original, at))

    def match(self, kind: Kind, seen0: Seen, seen1: Seen, *, distinct: bool = False) -> Correspondences:
        """What the matcher of `kind` finds. distinct: and which of it are `distinct_matches`."""
        with span("matching"):
            found = matches_of(kind.matcher({"image0": seen0.features, "image1": seen1.features}))
        rows = found["matches"].reshape(-1, 2)
        columns = rows[:, 0].numpy(), rows[:, 1].numpy()
        ends = [_of(seen.features, column) for seen, column in zip((seen0, seen1), rows.T, strict=True)]
        return Correspondences(
            seen0.points[columns[0]],
            seen1.points[columns[1]],
            found["scores"].double().numpy(),
            ends[0][0],
            ends[1][0],
            ends[0][1],
            ends[1][1],
            (len(seen0), len(seen1)),
            distinct_matches((seen0.features, seen1.features), rows) if distinct else None,
        )

    def _shrunk(self, side: int, edge: int) -> tuple[Pixels, float]:
        if (side, edge) not in self._small:
            image = self.images[side]
            scale = min(1.0, edge / max(image.size))
            size = tuple(max(1, round(each * scale)) for each in image.size)
            own = scaling(scale, scale)
            pixels = image.pixels if scale == 1 else warp(image.pixels, own, cast(tuple[int, int], size))
            self._small[side, edge] = pixels, scale
        return self._small[side, edge]

    def _extract(self, kind: Kind, pixels: Pixels, mask: NDArray[np.bool_] | None, count: int) -> Features:
        tensor = torch.from_numpy(np.ascontiguousarray(np.atleast_3d(pixels).transpose(2, 0, 1))).to(self._device)
        own: dict[str, Any] = {"resize": None}
        extractor = limited(kind.extractor, count) if count else kind.extractor
        if mask is not None and isinstance(extractor, OwnExtractor):  # others may not know of masks
            own["mask"] = torch.from_numpy(mask)
        with span("extraction"):
            features = cast(Features, extractor.extract(tensor.clamp(0, 1), **own))
        return best_of(features, count) if count else features

    def _located(self, features: Features, side: int, to_view: Floats) -> Seen:
        """`features` with where they lie in the original, without those outside of it."""
        image = self.images[side]
        points = moved(inverse_of(to_view), features["keypoints"][0].detach().cpu().double().numpy())
        limits = np.array(image.size) / image.scale
        with np.errstate(invalid="ignore"):
            inside = ((points >= -0.5) & (points <= limits - 0.5)).all(axis=1)
        seen = Seen(features, points)
        inside &= covered(
            to_view, features["keypoints"][0].detach().cpu().numpy(), (round(limits[0]), round(limits[1]))
        )
        inside &= image.allows(points)
        return seen if inside.all() else seen.only(inside)


def distinct_matches(both: tuple[Features, Features], rows: Tensor) -> NDArray[np.bool_]:
    """(K,): matches (K, 2) whose ends resemble each other more than either resembles another place of its own image.

    Features of two views of about the same scale, with batch dimension. Of what repeats, each part resembles the next
    one as much as that of the other image that it was matched with (the ratio test of Lowe, "Distinctive image features
    from scale-invariant keypoints", 2004, within one image).
    """
    if not len(rows):
        return np.ones(0, np.bool_)
    descriptors = [normalize(each["descriptors"][0].detach().cpu().float(), dim=-1) for each in both]
    ends = [own[column] for own, column in zip(descriptors, rows.T, strict=True)]
    likeness = (ends[0] * ends[1]).sum(dim=-1)
    found = torch.ones(len(rows), dtype=torch.bool)
    for features, own, end, column in zip(both, descriptors, ends, rows.T, strict=True):
        points = features["keypoints"][0].detach().cpu().float()
        others = end @ own.T
        others[torch.cdist(points[column], points) < ELSEWHERE] = -torch.inf
        found &= likeness > others.max(dim=-1).values
    return found.numpy()


def _of(features: Features, rows: Tensor) -> tuple[Tensor, Tensor]:
    """Keypoint scores (K,) and descriptors (K, D), on the CPU."""
    rows = rows.to(features["descriptors"].device)
    scores = features.get("keypoint_scores")
    own = torch.ones(len(rows)) if scores is None else scores[0][rows].detach().cpu().float()
    return own, features["descriptors"][0][rows].detach().cpu().float()
