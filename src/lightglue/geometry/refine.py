"""Refine matched points to a fraction of a pixel, by aligning the image around them.

A learned detector places a point to about a pixel, differently in each view. Here the point of image 0 stays, and that
of image 1 moves to where the image around it agrees best:

1. The neighbouring matches give the local affine map from image 0 to image 1, robustly.
2. A window of image 0, warped by this map, is aligned with image 1 by Gauss-Newton steps on the translation, up to a
   gain and a bias of brightness (Lucas and Kanade, "An iterative image registration technique", IJCAI 1981). The step
   is taken on the side of image 0, so that its derivatives are computed once ("inverse compositional": Baker and
   Matthews, "Lucas-Kanade 20 years on", IJCV 2004); an iteration samples image 1 and multiplies by a constant matrix.
3. A point that does not converge, or goes too far, keeps its place.

K stands for the matches, N for the neighbours of a match and itself, P for the pixels of a window.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from lightglue.errors import InputError

__all__ = ["RefineOptions", "Refined", "refine_matches"]

_MIN_MATCHES = 4  # a match and three neighbours: an affine map with no residual
_CHUNK = 256  # matches whose windows are in work at once: they fit a core's cache
_MIN_WEIGHT = 0.5  # share of the window's weight that must lie inside both images
_MAX_STEP = 2.0  # px: the derivatives say little about what is farther
_MAX_SCALE = 8.0  # a local map that stretches or shrinks by more is taken for a wrong one
_FLAT = 1e-3  # standard deviation of brightness, of 1, below which there is nothing to align


@dataclass(frozen=True)
class RefineOptions:
    """How matched points are refined."""

    window: int = 21  # px of image 0, odd: edge of the window that is aligned
    sigma: float = 5.0  # px: standard deviation of the weights of the window's pixels
    neighbors: int = 12  # matches that the local affine map is fitted to, besides the match itself
    max_shift: float = 6.0  # px of image 1: a point that moves farther keeps its place
    iterations: int = 15  # at most
    tolerance: float = 0.01  # px of image 0: a point whose step is shorter has converged

    def __post_init__(self) -> None:
        """Raises InputError."""
        for name, least in (("window", 3), ("neighbors", 3), ("iterations", 1)):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < least:
                raise InputError(f"{name} is {value!r}; give an integer of at least {least}.")
        if self.window % 2 == 0:
            raise InputError(f"window is {self.window}; give an odd number of px, so that a pixel is in its middle.")
        for name in ("sigma", "max_shift", "tolerance"):
            value = getattr(self, name)
            is_number = isinstance(value, (int, float, np.number)) and not isinstance(value, bool)
            if not is_number or not 0 < value < math.inf:
                raise InputError(f"{name} is {value!r}; give a positive number of px.")


@dataclass(frozen=True)
class Refined:
    """Matched points, row by row those that were given."""

    points0: Tensor  # (K, 2) float32, px of image 0: as given
    points1: Tensor  # (K, 2) float32, px of image 1
    moved: Tensor  # (K,) bool: False where a point kept its place


@torch.no_grad()
def refine_matches(
    image0: Any,  # (C, H, W) floating point in [0, 1], or a uint8 array (H, W) or (H, W, 3)
    image1: Any,  # of any size
    points0: Any,  # (K, 2), x y, px of image 0
    points1: Any,  # (K, 2), x y, px of image 1
    options: RefineOptions | None = None,
) -> Refined:
    """Move `points1` to where image 1 looks as image 0 does at `points0`; results are on the device of the images.

    Points without enough texture, neighbours or image around them keep their place. A point's result depends on the
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
    refined, moved = points1.clone(), torch.zeros(len(points1), dtype=torch.bool, device=gray0.device)
    rows = (_inside(gray0, points0) & _inside(gray1, points1)).nonzero()[:, 0]
    if len(rows) >= _MIN_MATCHES:
        with torch.autocast(gray0.device.type, enabled=False):
            place, good = _refine((gray0, gray1), points0[rows], points1[rows], options)
        refined[rows[good]], moved[rows] = place[good], good
    return Refined(points0.clone(), refined, moved)


def _refine(
    grays: tuple[Tensor, Tensor], points0: Tensor, points1: Tensor, options: RefineOptions
) -> tuple[Tensor, Tensor]:
    """The place (K, 2) that each point of image 1 comes to, and whether (K,) it may be taken."""
    maps = fit_local_maps(points0, points1, options.neighbors)
    places, converged = [], []
    for i in range(0, len(points0), _CHUNK):
        at, local = points0[i : i + _CHUNK], LocalMaps(*(field[i : i + _CHUNK] for field in maps))
        template = make_templates(grays, at, local, options)
        place, done = align(grays[1], template, local, options)
        places.append(place)
        converged.append(done)
    place, good = torch.cat(places), torch.cat(converged)
    good &= (place - points1).norm(dim=1) <= options.max_shift
    good &= _inside(grays[1], place)
    return place, good


class LocalMaps(NamedTuple):
    """The affine map x0 + d -> place + matrix d from image 0 to image 1 around each match."""

    matrix: Tensor  # (K, 2, 2)
    place: Tensor  # (K, 2) px of image 1: where the neighbours see the point


def fit_local_maps(points0: Tensor, points1: Tensor, neighbors: int, rounds: int = 5) -> LocalMaps:
    """Fit an affine map to each match and its nearest ones in image 0.

    Least squares, weighted again in each round (Huber's weights, of the residuals' median but at least one pixel).
    """
    index = _nearest(points0, neighbors + 1)  # (K, N)
    near0, near1 = points0[index] - points0[:, None], points1[index] - points1[:, None]  # (K, N, 2)
    weight = torch.ones_like(near0[..., 0])
    for _ in range(rounds):
        matrix, offset = _weighted_affine(near0, near1, weight)
        residual = (near0 @ matrix.mT + offset[:, None] - near1).norm(dim=-1)  # (K, N)
        limit = 1.345 * (1.4826 * residual.median(1, keepdim=True).values).clamp_min(1.0)
        weight = limit / torch.maximum(residual, limit)
    return LocalMaps(matrix, points1 + offset)


def _nearest(points: Tensor, count: int) -> Tensor:
    """(K, N) indices of the nearest points, itself among them, in blocks of rows so that distances stay small."""
    count = min(count, len(points))
    exact = "donot_use_mm_for_euclid_dist"  # the fast way loses digits, and with them the order of near points
    blocks = [torch.cdist(block, points, compute_mode=exact) for block in torch.split(points, 1024)]
    return torch.cat([block.topk(count, dim=1, largest=False).indices for block in blocks])


def _weighted_affine(near0: Tensor, near1: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    """Least squares near1 = near0 matrix^T + offset: matrix (K, 2, 2) and offset (K, 2); not finite if degenerate."""
    weight = (weight / weight.sum(1, keepdim=True))[..., None]
    mean0, mean1 = (weight * near0).sum(1, keepdim=True), (weight * near1).sum(1, keepdim=True)
    centred = weight * (near0 - mean0)
    spread = centred.mT @ (near0 - mean0)  # (K, 2, 2)
    cross = (near1 - mean1).mT @ centred
    matrix = cross @ _inverse(spread)
    return matrix, (mean1 - mean0 @ matrix.mT)[:, 0]


def _inverse(matrix: Tensor) -> Tensor:
    """Inverse of symmetric matrices (K, 2, 2); NaN where they are singular to float32's precision."""
    a, b, d = matrix[:, 0, 0], matrix[:, 0, 1], matrix[:, 1, 1]
    det = a * d - b * b
    det = torch.where(det > 1e-5 * (a * d), det, torch.nan)
    return torch.stack((d, -b, -b, a), 1).view(-1, 2, 2) / det[:, None, None]


class Templates(NamedTuple):
    """Windows of image 0, ready to be aligned."""

    grid: Tensor  # (2, P) px: the pixels of a window, from its middle
    project: Tensor  # (K, 3, P): times a window of image 1 gives its gain, and gain times the step in x and y
    usable: Tensor  # (K,) bool: enough texture, enough of the window inside both images


def make_templates(grays: tuple[Tensor, Tensor], points0: Tensor, maps: LocalMaps, options: RefineOptions) -> Templates:
    """Sample windows of image 0, and derive the linear map that the alignment repeats.

    A window of image 1 is to be gain (T + step . gradient T) + bias. Least squares weighted by w: with T freed of its
    mean and the gradient freed of its mean and of T, gain and steps are independent.
    """
    gray0, gray1 = grays
    grid, left, right, above, below = _window(options.window, points0.device)
    ring = options.window + 2
    outer = torch.arange(ring, device=points0.device, dtype=torch.float32) - ring // 2
    patch = sample(gray0, points0, torch.stack(torch.meshgrid(outer, outer, indexing="xy")).reshape(2, -1))
    value = patch[:, left + 1]
    gradient = torch.stack((patch[:, right] - patch[:, left], patch[:, below] - patch[:, above]), 1) / 2  # (K, 2, P)

    falloff = torch.exp(grid.square().sum(0) / (-2 * options.sigma**2))
    seen = _inside(gray0, points0[:, None] + grid.T) & _inside(gray1, maps.place[:, None] + (maps.matrix @ grid).mT)
    weight = falloff * seen
    visible = weight.sum(1) / falloff.sum()
    weight = (weight / weight.sum(1, keepdim=True).clamp_min(1e-9))[:, None]  # (K, 1, P)

    value = value[:, None] - (weight * value[:, None]).sum(-1, keepdim=True)
    variance = (weight * value.square()).sum(-1, keepdim=True)  # (K, 1, 1)
    gradient = gradient - (weight * gradient).sum(-1, keepdim=True)
    gradient = gradient - (weight * gradient * value).sum(-1, keepdim=True) / variance * value
    weighted = weight * gradient
    step = _inverse(weighted @ gradient.mT) @ weighted
    project = torch.cat((weight * value / variance, step), 1)
    usable = (visible >= _MIN_WEIGHT) & (variance[:, 0, 0] > _FLAT**2) & project.isfinite().all(2).all(1)
    return Templates(grid, project, usable & _plausible(maps.matrix))


def _window(size: int, device: torch.device) -> tuple[Tensor, ...]:
    """Pixels (2, P) of a round window, and where they and their four neighbours are in a square that is 1 px wider."""
    axis = torch.arange(size, device=device) - size // 2
    x, y = torch.meshgrid(axis, axis, indexing="xy")
    is_in = x.square() + y.square() <= (size / 2) ** 2
    x, y = x[is_in], y[is_in]
    middle = (y + size // 2 + 1) * (size + 2) + x + size // 2 + 1
    grid = torch.stack((x, y)).float()
    return grid, middle - 1, middle + 1, middle - size - 2, middle + size + 2


def _plausible(matrix: Tensor) -> Tensor:
    """(K,) bool: the map is no reflection, and stretches by no more than `_MAX_SCALE` in any direction."""
    det = matrix[:, 0, 0] * matrix[:, 1, 1] - matrix[:, 0, 1] * matrix[:, 1, 0]
    square = matrix.square().sum((1, 2))  # of both singular values, whose product is det
    return (det > 0) & (square < _MAX_SCALE**2) & (square < (_MAX_SCALE * det) ** 2)


def align(gray1: Tensor, templates: Templates, maps: LocalMaps, options: RefineOptions) -> tuple[Tensor, Tensor]:
    """Gauss-Newton on the translation: the place (K, 2) in image 1, and whether (K,) it converged."""
    place = maps.place.clone()
    converged = torch.zeros_like(templates.usable)
    active = templates.usable.nonzero()[:, 0]  # rows that still move
    for _ in range(options.iterations):
        if not len(active):
            break
        matrix = maps.matrix[active]
        window = sample(gray1, place[active], matrix @ templates.grid)
        gain, *move = (templates.project[active] @ window[..., None])[..., 0].unbind(1)
        step = torch.stack(move, 1) / gain[:, None]
        length = step.norm(dim=1)
        alike = gain > 0  # the correlation is positive; false for NaN too
        step = torch.where(alike[:, None], step * (_MAX_STEP / length.clamp_min(_MAX_STEP))[:, None], 0)
        place[active] -= (matrix @ step[..., None])[..., 0]
        done = alike & (length < options.tolerance)
        converged[active[done]] = True
        active = active[alike & ~done]
    return place, converged


def sample(gray: Tensor, centres: Tensor, offsets: Tensor) -> Tensor:
    """Bilinear samples (K, P) of `gray` (H, W) at centres (K, 2) + offsets (2, P) or (K, 2, P); the border goes on."""
    size = torch.tensor([[gray.shape[1]], [gray.shape[0]]], device=gray.device)
    at = (centres[..., None] + offsets) * (2 / size) + (1 / size - 1)
    grid = at.mT[None]  # (1, K, P, 2) in [-1, 1] from edge to edge
    return F.grid_sample(gray[None, None], grid, padding_mode="border", align_corners=False)[0, 0]


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
