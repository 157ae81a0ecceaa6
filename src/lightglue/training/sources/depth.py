"""Posed images with depth maps, as MegaDepth is laid out (scene_info/*.npz beside images and HDF5 depths)."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from lightglue.errors import LightGlueError, StoreError

__all__ = ["depths_at", "sample_depth"]


def depths_at(path: str, keypoints: NDArray[Any], size: tuple[int, int]) -> NDArray[np.float32]:
    """(N,) depths at keypoints (N, 2), px of an image of that width and height, from a file; NaN where there is none.

    The depth map may be of another size than the image. Raises ImageError's kin for a file that cannot be read.
    """
    depth = read_depth(path)
    scale = np.array([depth.shape[1] / size[0], depth.shape[0] / size[1]])
    return sample_depth(depth, (np.asarray(keypoints, np.float64) + 0.5) * scale - 0.5)


def read_depth(path: str) -> NDArray[np.float32]:
    """(H, W) depths of a file, HDF5 with a data set called depth, or .npy. Raises StoreError, LightGlueError."""
    if path.endswith(".npy"):
        try:
            depth: NDArray[Any] = np.load(path, allow_pickle=False)
        except (OSError, ValueError) as error:
            raise StoreError(f"{path} holds no depths ({error}); fetch it again.") from error
    else:
        try:
            import h5py
        except ImportError as error:
            raise LightGlueError("Depth maps in HDF5 need h5py: pip install 'lightglue[hloc]'.") from error
        try:
            with h5py.File(path, "r") as file:
                depth = np.asarray(file["depth"])
        except (OSError, KeyError, ValueError) as error:
            raise StoreError(f"{path} holds no depths ({error}); fetch it again.") from error
    if depth.ndim != 2 or not depth.size:
        raise StoreError(f"{path} holds an array {depth.shape}; depths are (H, W).")
    return depth.astype(np.float32)


def sample_depth(depth: NDArray[np.float32], points: NDArray[np.float64]) -> NDArray[np.float32]:
    """(N,) bilinear depths at points (N, 2), px of the map; NaN beyond it, and where one of four pixels has none."""
    height, width = depth.shape
    inside = ((points >= -0.5) & (points <= np.array([width, height]) - 0.5)).all(1)
    x, y = np.clip(points[:, 0], 0, width - 1), np.clip(points[:, 1], 0, height - 1)
    x = np.where(np.isfinite(x), x, 0)
    y = np.where(np.isfinite(y), y, 0)
    left, top = np.minimum(x.astype(np.int64), max(0, width - 2)), np.minimum(y.astype(np.int64), max(0, height - 2))
    right, bottom = np.minimum(left + 1, width - 1), np.minimum(top + 1, height - 1)
    u, v = x - left, y - top
    known = inside.copy()
    total = np.zeros(len(points))
    for rows, columns, share in (
        (top, left, (1 - u) * (1 - v)),
        (top, right, u * (1 - v)),
        (bottom, left, (1 - u) * v),
        (bottom, right, u * v),
    ):
        found = depth[rows, columns].astype(np.float64)
        valid = np.isfinite(found) & (found > 0)
        known &= valid | (share == 0)
        total += np.where(valid, found, 0) * share
    return np.where(known, total, np.nan).astype(np.float32)
