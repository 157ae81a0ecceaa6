"""Refine matched points to a fraction of a pixel, by aligning the image around them.

A learned detector places a point to about a pixel, differently in each view. Here the point of image 0 stays, and that
of image 1 moves to where the image around it agrees best:

1. The neighbouring matches give the local affine map from image 0 to image 1, robustly.
2. A window of image 0, warped by this map, is aligned with image 1 by Gauss-Newton steps on the translation, up to a
   gain and a bias of brightness (Lucas and Kanade, "An iterative image registration technique", IJCAI 1981). The step
   is taken on the side of image 0, so that its derivatives are computed once ("inverse compositional": Baker and
   Matthews, "Lucas-Kanade 20 years on", IJCV 2004); an iteration samples image 1 and multiplies by a constant matrix.
3. This is repeated once, with maps fitted to the refined points.
4. A point stays that does not converge, is uncertain (an edge, noise), goes too far, or ends apart from where
   its neighbours see it: at an outline, or on a repeated pattern, a window finds something else than the point.

Matches of several pairs go through this together (`measure_pairs`): what is done to one of them is little, and most
pairs have few. Which images a match is of is in `Images`, and no match sees those of another pair.

K stands for the matches, N for the neighbours of a match and itself, P for the pixels of a window.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from lightglue.errors import InputError
from lightglue.geometry.options import RefineOptions

__all__ = ["RefineOptions", "Refined", "refine_matches"]

_MIN_MATCHES = 4  # a match and three neighbours: an affine map with no residual
_CHUNK = 1024  # matches whose windows are in work at once: some 20 MB
_MIN_WEIGHT = 0.5  # share of the window's weight that must lie inside both images
_MAX_STEP = 2.0  # px: the derivatives say little about what is farther
_MAX_SCALE = 8.0  # a local map that stretches or shrinks by more is taken for a wrong one
_OUTLIER = 3.0  # px: a neighbour's residual that takes three quarters of its weight
_NOISE = 1 / 255  # standard deviation of brightness that is there even where the windows agree


@dataclass(frozen=True)
class Refined:
    """Matched points, row by row those that were given."""

    points0: Tensor  # (K, 2) float32, px of image 0: as given
    points1: Tensor  # (K, 2) float32, px of image 1
    moved: Tensor  # (K,) bool: False where a point stayed


@torch.no_grad()
def refine_matches(
    image0: Any,  # (C, H, W) floating point in [0, 1], or a uint8 array (H, W) or (H, W, 3)
    image1: Any,  # of any size
    points0: Any,  # (K, 2), x y, px of image 0
    points1: Any,  # (K, 2), x y, px of image 1
    options: RefineOptions | None = None,
) -> Refined:
    """Move `points1` to where image 1 looks as image 0 does at `points0`; results are on the device of the images.

    Points without enough texture, neighbours or image around them stay. A point's result depends on the
    images and on its nearest matches only.

    Raises InputError.
    """
    options = RefineOptions() if options is None else options
    gray0, gray1 = _gray("image0", image0), _gray("image1", image1)
    if gray0.device != gray1.device:
        raise InputError(f"image0 is on {gray0.device}, image1 on {gray1.device}; move one of them.")
    points0 = _points("points0", points0, gray0.device)
    points1 = _points("points1", points1, gray0.device)
    if len(points0) != len(points1):
        raise InputError(f"There are {len(points0)} points0 and {len(points1)} points1; give matched points.")
    with torch.autocast(gray0.device.type, enabled=False):
        found = measure_matches(gray0, gray1, points0, points1, options)
    return Refined(points0.clone(), torch.where(found.good[:, None], found.position, points1), found.good)


class Pair(NamedTuple):
    """Two images and points of both, row by row matches."""

    gray0: Tensor  # (H, W) float32, brightness in [0, 1]; all on one device
    gray1: Tensor
    points0: Tensor  # (K, 2) float32 px, which may lie outside the images
    points1: Tensor


class Images(NamedTuple):
    """Which image each of K rows is of."""

    grays: tuple[Tensor, ...]  # (H, W) each
    of: Tensor  # (K,) int64 into `grays`, ascending
    size: Tensor  # (K, 2) float32 px: width and height

    @classmethod
    def of_rows(cls, grays: Sequence[Tensor], counts: Sequence[int]) -> Images:
        """So many rows of each image."""
        device = grays[0].device
        of = torch.repeat_interleave(torch.arange(len(grays)), torch.tensor(counts)).to(device)
        sizes = torch.tensor([gray.shape[::-1] for gray in grays], dtype=torch.float32, device=device)
        return cls(tuple(grays), of, sizes[of])

    def rows(self, index: Tensor) -> Images:
        """Those of some rows, which ascend."""
        return Images(self.grays, self.of[index], self.size[index])

    def show(self, points: Tensor) -> Tensor:
        """(K, ...) bool: whether points (K, ..., 2) lie between the centres of the border's pixels of their image."""
        last = self.size.view(-1, *[1] * (points.ndim - 2), 2) - 1
        return ((points >= 0) & (points <= last)).all(-1)


def _refine(images: tuple[Images, Images], points0: Tensor, points1: Tensor, options: RefineOptions) -> Measured:
    """Where the points of image 1 come to, and whether they may be moved there.

    The first round fits the local maps to the points as they were given, the others to those that were refined.
    """
    best, good = points1, torch.zeros_like(points1[:, 0], dtype=torch.bool)
    neighbors, present = _nearest(points0, images[0].of, options.neighbors + 1)
    chunks = torch.split(torch.arange(len(points0), device=points0.device), _CHUNK)
    seen = [(images[0].rows(rows), images[1].rows(rows)) for rows in chunks]
    templates: list[Templates] = []
    sigma = torch.full_like(points1[:, 0], torch.inf)
    matrix = torch.eye(2, device=points1.device).expand(len(points1), 2, 2)
    for _ in range(options.rounds):
        maps = fit_local_maps(points0, best, neighbors, good if templates else ~good, present=present)
        maps = LocalMaps(maps.matrix, torch.where(good[:, None], best, maps.position))
        parts = [LocalMaps(maps.matrix[rows], maps.position[rows]) for rows in chunks]
        if not templates:
            starts = [points0[rows] for rows in chunks]
            templates = [make_templates(*each, options) for each in zip(seen, starts, parts, strict=True)]
        targets = [both[1] for both in seen]
        aligned = [align(*each, options) for each in zip(targets, templates, parts, strict=True)]
        position, deviation = (torch.cat(each) for each in zip(*aligned, strict=True))
        stays = (position - points1).norm(dim=1) <= options.max_shift
        sure = stays & images[1].show(position) & (deviation <= options.max_deviation)
        best, good = torch.where(sure[:, None], position, best), good | sure
        sigma, matrix = torch.where(sure, deviation, sigma), torch.where(sure[:, None, None], maps.matrix, matrix)
    expected = fit_local_maps(points0, best, neighbors, good, present=present).position
    return Measured(best, good & ((best - expected).norm(dim=1) <= options.max_residual), matrix, sigma)


class Measured(NamedTuple):
    """Where image 1 shows what image 0 shows at the points."""

    position: Tensor  # (K, 2) px of image 1
    good: Tensor  # (K,) bool: measured; elsewhere the rest means nothing
    matrix: Tensor  # (K, 2, 2): a point d px away in image 0 is matrix d px away in image 1
    deviation: Tensor  # (K,) px of image 1: standard deviation of the position, in the worst direction


@torch.no_grad()
def measure_matches(gray0: Tensor, gray1: Tensor, points0: Tensor, points1: Tensor, options: RefineOptions) -> Measured:
    """As `refine_matches`, and how sure it is, for those who go on computing: of the fields of `Pair`."""
    return measure_pairs([Pair(gray0, gray1, points0, points1)], options)[0]


@torch.no_grad()
def measure_pairs(pairs: Sequence[Pair], options: RefineOptions) -> list[Measured]:
    """The matches of several pairs at once, each as if alone: where they have few, in a fraction of the time."""
    inside = [_usable(pair) for pair in pairs]
    of = [k for k, rows in enumerate(inside) if len(rows)]
    measured = [_nothing(pair) for pair in pairs]
    if not of:
        return measured
    counts = [len(inside[k]) for k in of]
    images0, images1 = (Images.of_rows([pairs[k][side] for k in of], counts) for side in (0, 1))
    points0, points1 = (torch.cat([pairs[k][side][inside[k]] for k in of]) for side in (2, 3))
    found = _refine((images0, images1), points0, points1, options)
    for k, *fields in zip(of, *(torch.split(field, counts) for field in found), strict=True):
        for whole, part in zip(measured[k], fields, strict=True):
            whole[inside[k]] = part
    return measured


def _usable(pair: Pair) -> Tensor:
    """The rows of a pair that both images show: none where they are too few."""
    rows = (_inside(pair.gray0, pair.points0) & _inside(pair.gray1, pair.points1)).nonzero()[:, 0]
    return rows if len(rows) >= _MIN_MATCHES else rows[:0]


def _nothing(pair: Pair) -> Measured:
    """What is said of a pair before anything is measured."""
    points1 = pair.points1
    matrix = torch.eye(2, device=points1.device).repeat(len(points1), 1, 1)
    good, deviation = torch.zeros_like(points1[:, 0], dtype=torch.bool), torch.full_like(points1[:, 0], torch.inf)
    return Measured(points1.clone(), good, matrix, deviation)


class LocalMaps(NamedTuple):
    """The affine map x0 + d -> position + matrix d from image 0 to image 1 around each match."""

    matrix: Tensor  # (K, 2, 2)
    position: Tensor  # (K, 2) px of image 1: where the neighbours see the point


def fit_local_maps(
    points0: Tensor,
    points1: Tensor,
    neighbors: Tensor,
    trusted: Tensor,
    rounds: int = 5,
    present: Tensor | None = None,
) -> LocalMaps:
    """Fit an affine map around each match to its neighbours, (K, N) indices, those that are trusted, (K,) bool.

    Least squares, weighted again in each round (Geman and McClure's weights). NaN where fewer than three are trusted,
    or they lie on a line. present: (K, N) bool, False for what is no neighbour; None: all are.
    """
    near0, near1 = ((points[neighbors.T] - points).permute(2, 0, 1).contiguous() for points in (points0, points1))
    trust = trusted[neighbors.T].float()  # (N, K); the points are (2, N, K), quick to sum over N
    if present is not None:
        trust *= present.T
    weight = trust
    for _ in range(rounds):
        matrix, offset = _weighted_affine(near0, near1, weight)
        error = (matrix[:, :, None] * near0).sum(1) + offset[:, None] - near1
        weight = trust / (1 + error.square().sum(0) / _OUTLIER**2).square()
    return LocalMaps(matrix.permute(2, 0, 1).contiguous(), points1 + offset.T)


def _nearest(points: Tensor, pair: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """(K, N) indices of the nearest points of the same pair, each among its own, and which of them there are.

    pair: (K,) int64, ascending. In blocks of rows to bound the memory.
    """
    counts = torch.bincount(pair).tolist()
    most, start, found = min(count, max(counts)), 0, []
    for points_of, size in zip(torch.split(points, counts), counts, strict=True):
        x, y = points_of.T.contiguous()
        for left in torch.split(points_of, 1024):
            distance = (left[:, :1] - x).square_().add_((left[:, 1:] - y).square_())
            nearest = distance.topk(min(count, size), dim=1, largest=False).indices + start
            found.append(F.pad(nearest, (0, most - nearest.shape[1]), value=-1))
        start += size
    neighbors = torch.cat(found)
    present = neighbors >= 0
    return neighbors.clamp_(min=0), present


def _weighted_affine(near0: Tensor, near1: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    """Least squares near1 = matrix near0 + offset, of (2, N, K) points with (N, K) weights.

    Returns matrix (2, 2, K) and offset (2, K); NaN where they are not determined.
    """
    weight = weight / weight.sum(0)
    mean0, mean1 = (weight * near0).sum(1), (weight * near1).sum(1)
    centred = near0 - mean0[:, None]
    weighted = weight * centred
    a, b, d = ((weighted[i] * centred[j]).sum(0) for i, j in ((0, 0), (0, 1), (1, 1)))
    det = a * d - b * b
    det = torch.where(det > 1e-4 * (a + d).square(), det, torch.nan)  # all but on a line
    x, y = ((near1 * weighted[i]).sum(1) for i in (0, 1))  # (2, K): how both coordinates go with x and y of image 0
    matrix = torch.stack((x * d - y * b, y * a - x * b), 1) / det
    return matrix, mean1 - (matrix * mean0).sum(1)


class Templates(NamedTuple):
    """Windows of image 0 and the least squares that align an image with them.

    A window of image 1 is taken for bias + gain (T + step . gradient T); the unknowns, in this order, are bias, gain,
    gain times the step in x, and in y.
    """

    grid: Tensor  # (2, P) px: the pixels of a window, from its middle
    weight: Tensor  # (K, P): 0 for what is outside an image
    project: Tensor  # (K, 4, P): times a window of image 1 gives the unknowns
    normal: Tensor  # (K, 4, 4): of the least squares
    covariance: Tensor  # (K, 2, 2): of the step, for noise of variance 1
    usable: Tensor  # (K,) bool: texture, and enough of the window inside both images


def make_templates(
    images: tuple[Images, Images], points0: Tensor, maps: LocalMaps, options: RefineOptions
) -> Templates:
    """Sample windows of image 0 and solve for the linear map that each iteration of `align` repeats."""
    grid, square, index = _window(options.window, points0.device)
    patch = sample(images[0], points0, None, square)
    patch = patch - patch.mean(1, keepdim=True)  # float32 has digits to lose
    middle, left, right, above, below = (patch.index_select(1, columns) for columns in index)
    slopes = (right - left) / 2, (below - above) / 2
    jacobian = torch.stack((torch.ones_like(middle), middle, *slopes), 1)  # (K, 4, P)

    weight, visible = _weights(images, points0, maps, grid, options.sigma)
    weighted = jacobian * weight[:, None]
    normal = weighted @ jacobian.mT
    inverse, failed = torch.linalg.inv_ex(normal)
    usable = (failed == 0) & (visible >= _MIN_WEIGHT)
    return Templates(grid, weight, inverse @ weighted, normal, inverse[:, 2:, 2:], usable)


def _window(size: int, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    """The pixels of a round window, (2, P) px; those of the square around it and its neighbours, (2, S); indices (5, P)
    of each pixel, and of what is left, right, above and below it, in the square.
    """
    axis = torch.arange(-(size // 2) - 1, size // 2 + 2, device=device)
    square = torch.stack(torch.meshgrid(axis, axis, indexing="xy")).view(2, -1)
    middle = (square.square().sum(0) <= (size / 2) ** 2).nonzero()[:, 0]
    index = torch.stack((middle, middle - 1, middle + 1, middle - len(axis), middle + len(axis)))
    return square[:, middle].float(), square.float(), index


def _weights(
    images: tuple[Images, Images], points0: Tensor, maps: LocalMaps, grid: Tensor, sigma: float
) -> tuple[Tensor, Tensor]:
    """Gaussian weights (K, P), 0 for what one of the images does not show, and the share (K,) that is left."""
    falloff = torch.exp(grid.square().sum(0) / (-2 * sigma**2))
    weight = falloff.repeat(len(points0), 1)
    corners = grid.abs().max() * grid.new_tensor([[-1, 1, -1, 1], [-1, -1, 1, 1]])
    square0 = points0[:, None] + corners.T
    square1 = maps.position[:, None] + (maps.matrix @ corners).mT
    cut = (~(images[0].show(square0) & images[1].show(square1)).all(1)).nonzero()[:, 0]  # few: near a border
    seen0 = images[0].rows(cut).show(points0[cut, None] + grid.T)
    seen1 = images[1].rows(cut).show(maps.position[cut, None] + (maps.matrix[cut] @ grid).mT)
    weight[cut] *= seen0 & seen1
    return weight, weight.sum(1) / falloff.sum()


def align(images1: Images, templates: Templates, maps: LocalMaps, options: RefineOptions) -> tuple[Tensor, Tensor]:
    """Gauss-Newton on the translation.

    Returns the position (K, 2) in image 1, and its standard deviation (K,) in px: infinite where it did not converge.
    """
    position = maps.position.clone()
    settled = torch.zeros_like(templates.usable)
    active = (templates.usable & _plausible(maps.matrix)).nonzero()[:, 0]  # rows that still move
    for _ in range(options.iterations):
        if not len(active):
            break
        matrix = maps.matrix[active]
        window = sample(images1.rows(active), position[active], matrix, templates.grid)
        _, gain, *step_xy = (templates.project[active] @ window[..., None])[..., 0].unbind(1)
        step = torch.stack(step_xy, 1) / gain[:, None]
        length = step.norm(dim=1)
        alike = (gain > 0) & length.isfinite()
        step = step * (_MAX_STEP / length.clamp_min(_MAX_STEP))[:, None]
        position[active] -= torch.where(alike[:, None], (matrix @ step[..., None])[..., 0], 0)
        done = alike & (length < options.tolerance)
        settled[active[done]] = True
        active = active[alike & ~done]
    deviation = _deviation(images1, templates, maps.matrix, position)
    return position, torch.where(settled, deviation, torch.inf)


def _deviation(images1: Images, templates: Templates, matrix: Tensor, position: Tensor) -> Tensor:
    """(K,) px of image 1: standard deviation in the direction that is worst, from what is left of the windows."""
    window = sample(images1, position, matrix, templates.grid)
    window = window - window.mean(1, keepdim=True)  # float32 has digits to lose
    unknowns = templates.project @ window[..., None]  # (K, 4, 1)
    explained = (unknowns.mT @ templates.normal @ unknowns)[:, 0, 0]
    residual = (templates.weight * window.square()).sum(1) - explained
    noise = (residual.clamp_min(0) / templates.weight.sum(1) + _NOISE**2) / unknowns[:, 1, 0].square()
    spread = matrix @ templates.covariance @ matrix.mT * noise[:, None, None]
    a, b, d = spread[:, 0, 0], spread[:, 0, 1], spread[:, 1, 1]
    largest = (a + d) / 2 + ((a - d).square() / 4 + b.square()).sqrt()
    return largest.sqrt()  # NaN, and no better than infinity, where the covariance has lost its digits


def _plausible(matrix: Tensor) -> Tensor:
    """(K,) bool: the map is no reflection, and stretches or shrinks by no more than `_MAX_SCALE` in any direction."""
    det = matrix[:, 0, 0] * matrix[:, 1, 1] - matrix[:, 0, 1] * matrix[:, 1, 0]
    square = matrix.square().sum((1, 2))  # of both singular values, whose product is det
    return (det > 0) & (square < _MAX_SCALE**2) & (square < (_MAX_SCALE * det).square())


def sample(images: Images, centres: Tensor, matrix: Tensor | None, grid: Tensor) -> Tensor:
    """Bilinear samples (K, P) at `centres` (K, 2) + `matrix` (K, 2, 2) `grid` (2, P), each of its image, all in px.

    Without `matrix` the grid is as it is. Outside the image its border goes on.
    """
    scale = 2 / images.size  # to [-1, 1] from edge to edge
    middle = (centres * scale + (scale / 2 - 1))[..., None]
    if matrix is None:
        at = middle + scale[:, :, None] * grid
    else:
        at = torch.baddbmm(middle, scale[:, :, None] * matrix, grid.expand(len(matrix), -1, -1))
    counts = torch.bincount(images.of, minlength=len(images.grays)).tolist()
    taken = [
        F.grid_sample(gray[None, None], part[None], padding_mode="border", align_corners=False)[0, 0]
        for gray, part in zip(images.grays, torch.split(at.mT, counts), strict=True)
        if len(part)
    ]
    return taken[0] if len(taken) == 1 else torch.cat(taken) if taken else at[:, 0]


def _inside(gray: Tensor, points: Tensor) -> Tensor:
    """(...) bool: points (..., 2) between the centres of the border's pixels."""
    x, y = points.unbind(-1)
    return (x >= 0) & (y >= 0) & (x <= gray.shape[1] - 1) & (y <= gray.shape[0] - 1)


def _gray(name: str, image: Any) -> Tensor:
    """`image` as brightness (H, W) float32, on its device; InputError where it is no image."""
    if isinstance(image, np.ndarray) and image.dtype == np.uint8 and image.ndim in (2, 3) and image.size:
        array = torch.from_numpy(np.ascontiguousarray(image))
        return (array.float().mean(-1) if array.ndim == 3 else array.float()) / 255
    if isinstance(image, Tensor) and image.is_floating_point() and image.ndim == 3 and image.numel():
        return image.detach().float().mean(0)
    what = f"{image.dtype} {tuple(image.shape)}" if isinstance(image, (np.ndarray, Tensor)) else type(image).__name__
    raise InputError(f"{name} is {what}; give a floating-point tensor (C, H, W) or a uint8 array (H, W) or (H, W, 3).")


def _points(name: str, points: Any, device: torch.device) -> Tensor:
    """`points` as (K, 2) float32 on `device`; InputError where they are no points."""
    try:
        found = torch.as_tensor(points).detach().to(device, torch.float32)
    except (TypeError, ValueError, RuntimeError) as error:
        raise InputError(f"{name} is {type(points).__name__}; give numbers (K, 2), x and y in px.") from error
    if found.ndim != 2 or found.shape[1] != 2:
        raise InputError(f"{name} has shape {tuple(found.shape)}; give (K, 2), x and y in px.")
    if not found.isfinite().all():
        raise InputError(
            f"{name} holds NaN or infinity in {int((~found.isfinite()).any(1).sum())} rows; leave them out."
        )
    return found
