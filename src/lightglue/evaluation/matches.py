"""The matches of a pair that a run has kept."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lightglue.errors import LightGlueError

__all__ = ["Matches", "read_matches"]


@dataclass(frozen=True, eq=False)
class Matches:
    """Matches as they were written, checked."""

    points0: NDArray[np.float64]  # (K, 2), px of image 0
    points1: NDArray[np.float64]  # (K, 2), px of image 1
    scores: NDArray[np.float64]  # (K,) in [0, 1]
    inliers: NDArray[np.bool_] | None  # (K,) of the first estimator's model
    correct: NDArray[np.bool_] | None  # (K,) by the truth, where the benchmark knows it of each match


def read_matches(path: Path) -> Matches:
    """The matches in a file of `records.matches_path`.

    Raises LightGlueError where there is no such file, or it is damaged; the message names the file, not its folder.
    """
    if not path.is_file():
        raise LightGlueError(f"no matches were kept ({path.name})")
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in _NAMES if name in file}
        points0, points1 = (np.asarray(arrays[name], np.float64).reshape(-1, 2) for name in ("points0", "points1"))
        scores = np.asarray(arrays.get("scores", np.ones(len(points0))), np.float64).ravel()
        inliers, correct = (_flags(arrays.get(name)) for name in ("inliers", "correct"))
    except Exception as error:  # zipfile, zlib and NumPy have a dozen kinds
        raise LightGlueError(f"{path.name} is damaged ({type(error).__name__})") from error
    lengths = {len(each) for each in (points0, points1, scores, inliers, correct) if each is not None}
    if len(lengths) > 1 or not all(np.isfinite(each).all() for each in (points0, points1, scores)):
        raise LightGlueError(f"{path.name} is damaged (its arrays do not fit)")
    return Matches(points0, points1, scores, inliers, correct)


_NAMES = ("points0", "points1", "scores", "inliers", "correct")


def _flags(values: Any) -> NDArray[np.bool_] | None:
    return None if values is None else np.asarray(values, np.bool_).ravel()
