"""How much of what was verified a model explains: the geometry of each pair against the poses of its images."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lightglue.geometry.cameras import Camera
from lightglue.sfm.colmap.judged import Judgement
from lightglue.sfm.look_alikes.view_graph import triangulated

__all__ = ["CONSISTENT", "Consistency", "PlacedImage", "VerifiedPair", "check_model"]

Array = NDArray[np.float64]

_WITHIN = 6.0  # px in an image of 1,024 px: a match agrees with two poses that let its rays pass so near
_EXPLAINS = 0.5  # share of a pair's inliers that must
_STRONG_INLIERS = 30  # a pair of fewer is not worth a doubt
_STRONG = 0.75  # nor one less probable than this
CONSISTENT = 0.98  # explained share, below which a model is doubted without a pair to name
_NOTEWORTHY = 0.002  # share of the weight of all pairs, which a few of thousands do not reach
_EDGE = 1024


@dataclass(frozen=True, eq=False)
class PlacedImage:
    """An image of a model."""

    pose: Array  # (4, 4), world to camera
    camera: Camera
    longer_edge: int  # px
    keypoints: Array  # (N, 2) px, (0, 0) the centre of the top-left pixel


@dataclass(frozen=True, eq=False)
class VerifiedPair:
    """A pair with its inliers, whether it was dropped or not."""

    name0: str
    name1: str
    matches: NDArray[np.int64]  # (K, 2) rows of keypoints
    judgement: Judgement | None  # None: it was not judged


@dataclass(frozen=True)
class Consistency:
    """Of one model."""

    explained: float  # share of the weight of all pairs between its images, 0 to 1; 1 where there is none
    weight: float  # of the pairs that it explains: inliers times probability
    contradicted: float  # of the others
    contradicting: tuple[tuple[str, str, int], ...]  # strong pairs that it does not explain, with their inliers
    doubtful: tuple[tuple[str, str], ...]  # pairs that alone join parts of it, though they are not likely


def check_model(images: Mapping[str, PlacedImage], pairs: Iterable[VerifiedPair]) -> Consistency:
    """What a model explains of these pairs; those with an image that it does not have are passed over."""
    explained = contradicted = 0.0
    contradicting: list[tuple[str, str, int]] = []
    doubtful: list[tuple[str, str]] = []
    for pair in pairs:
        if pair.name0 not in images or pair.name1 not in images or not len(pair.matches):
            continue
        judged = pair.judgement
        probability = 1.0 if judged is None else judged.probability
        alone = probability if judged is None or judged.alone is None else judged.alone
        agree = agreement(images[pair.name0], images[pair.name1], pair.matches)
        weight = len(pair.matches) * alone
        if agree >= _EXPLAINS:
            explained += weight
            if pair.judgement is not None and pair.judgement.doubtful:
                doubtful.append((pair.name0, pair.name1))
        else:
            contradicted += weight
            if probability >= _STRONG and len(pair.matches) >= _STRONG_INLIERS:
                contradicting.append((pair.name0, pair.name1, len(pair.matches)))
    total = explained + contradicted
    share = explained / total if total else 1.0
    if sum(each[2] for each in contradicting) < _NOTEWORTHY * total:
        contradicting = []
    contradicting.sort(key=lambda each: (-each[2], each[:2]))
    return Consistency(share, explained, contradicted, tuple(contradicting), tuple(doubtful))


def agreement(first: PlacedImage, second: PlacedImage, matches: NDArray[np.int64]) -> float:
    """The share of matches whose rays pass one another nearly, ahead of both cameras.

    Of those that have rays: a lens may see none at a keypoint, or one from the side. 1 where none has.
    """
    relative = second.pose @ np.linalg.inv(first.pose)
    R, t = relative[:3, :3], relative[:3, 3]
    (rays0, allowed0), (rays1, allowed1) = _rays(first, matches[:, 0]), _rays(second, matches[:, 1])
    has_rays = np.isfinite(np.hstack((rays0, rays1))).all(axis=1)
    if not has_rays.any():
        return 1.0
    rays0, rays1, allowed0, allowed1 = (each[has_rays] for each in (rays0, rays1, allowed0, allowed1))
    depths, parallax = triangulated(R, t, rays0, rays1)
    ones = np.ones((len(rays0), 1))
    x0, x1 = np.hstack((rays0, ones)), np.hstack((rays1, ones))
    # Rays that are parallel within what is allowed meet far away, whatever the direction of a short baseline.
    parallel = np.radians(parallax) <= max(_allowed(each) / each.camera.focal for each in (first, second))
    ahead = np.isfinite(depths).all(axis=1)
    return float((parallel | (ahead & (_distance(R, t, x0, x1, allowed0, allowed1) <= 1))).mean())


def _allowed(image: PlacedImage) -> float:
    """px of an image."""
    return _WITHIN * image.longer_edge / _EDGE


def _rays(image: PlacedImage, rows: NDArray[np.int64]) -> tuple[Array, Array]:
    """(K, 2) x/z, y/z of keypoints, NaN where there is no ray; and (K,) what is allowed there, in the same unit."""
    points, normalize = image.keypoints[rows], image.camera.normalize
    rays = normalize(points)
    beside = [normalize(points + step) - rays for step in ((1.0, 0.0), (0.0, 1.0))]  # fisheyes squeeze their margin
    px = np.fmax(*(np.linalg.norm(each, axis=1) for each in beside))
    return rays, _allowed(image) * np.where(np.isfinite(px), px, 1 / image.camera.focal)


def _distance(R: Array, t: Array, x0: Array, x1: Array, allowed0: Array, allowed1: Array) -> Array:
    """(K,) first-order distance from the epipolar geometry (Sampson), in units of what is allowed (K,)."""
    E = np.cross(np.eye(3), t / max(float(np.linalg.norm(t)), 1e-12)) @ R
    line1, line0 = x0 @ E.T, x1 @ E
    gradient = (line1[:, :2] ** 2).sum(1) * allowed1**2 + (line0[:, :2] ** 2).sum(1) * allowed0**2
    distance: Array = np.abs((x1 * line1).sum(1)) / np.sqrt(np.maximum(gradient, 1e-30))
    return distance
