"""Points as the estimators take them: checked arrays, and what a homography does to them."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from lightglue.errors import InputError

__all__ = ["as_matches", "as_matrix", "as_points", "extent", "homogeneous", "on_cpu", "transform"]


def on_cpu(values: Any) -> Any:
    """A tensor, on any device, as an array; all else as it is."""
    return values.detach().cpu().float().numpy() if hasattr(values, "detach") else values


def as_points(name: str, points: Any, width: int = 2) -> NDArray[np.float64]:
    """`points` (N, width), an array, a list or a tensor on any device, as float64.

    Raises InputError for another shape, NaN or infinity.
    """
    wanted = f"(N, {width}){' x y in px' if width == 2 else ''}"
    try:
        array = np.asarray(on_cpu(points), dtype=np.float64)
    except (TypeError, ValueError):
        raise InputError(f"{name} is a {type(points).__name__} that holds no numbers; give {wanted}.") from None
    if array.size == 0:
        return np.zeros((0, width))
    if array.ndim != 2 or array.shape[1] != width:
        raise InputError(f"{name} has the shape {array.shape}; give {wanted}.")
    if not np.isfinite(array).all():
        row = int(np.flatnonzero(~np.isfinite(array).all(axis=1))[0])
        raise InputError(f"{name} holds {array[row].tolist()} in row {row}; give finite numbers.")
    return array


def as_matches(points0: Any, points1: Any) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Both ends of K matches as (K, 2) float64. Raises InputError."""
    first, second = as_points("points0", points0), as_points("points1", points1)
    if len(first) != len(second):
        raise InputError(f"There are {len(first)} points0 and {len(second)} points1; row i of both is one match.")
    return first, second


def as_matrix(name: str, matrix: Any, shape: tuple[int, int] = (3, 3)) -> NDArray[np.float64]:
    """`matrix` as float64 of `shape`. Raises InputError for another shape, NaN or infinity."""
    if hasattr(matrix, "detach"):
        matrix = matrix.detach().cpu().numpy()
    array = np.asarray(matrix, dtype=np.float64)
    if array.shape != shape or not np.isfinite(array).all():
        raise InputError(f"{name} is {array.tolist()!s:.120}; give {shape} finite numbers.")
    return array


def homogeneous(points: NDArray[np.float64]) -> NDArray[np.float64]:
    """(N, 2) as (N, 3) with ones."""
    return np.concatenate([points, np.ones((len(points), 1))], axis=1)


def transform(H: NDArray[np.float64], points: NDArray[np.float64]) -> NDArray[np.float64]:
    """Where the homography H (3, 3) sends points (N, 2); NaN where it sends them to infinity or behind it."""
    mapped = homogeneous(points) @ H.T
    # The sign of H is free: the side on which most points lie is the one in front of the camera.
    side = mapped[:, 2:] * (np.sign(np.sum(np.sign(mapped[:, 2]))) or 1)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(side > 1e-12 * np.abs(H).max(), mapped[:, :2] / mapped[:, 2:], np.nan)


def extent(points: NDArray[np.float64]) -> float:
    """How far points (N, 2 or 3) spread across the line that fits them best: twice the deviation, in their unit."""
    spread = np.linalg.svd(points - points.mean(axis=0), compute_uv=False)
    return float(2 * spread[1] / np.sqrt(len(points)))
