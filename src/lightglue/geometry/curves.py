"""Recall against error, and the area under it: how a list of errors becomes one figure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lightglue.errors import InputError
from lightglue.support.checks import is_real

__all__ = ["auc", "recall_curve"]


def auc(errors: Any, thresholds: Sequence[float]) -> NDArray[np.float64]:
    """Area under the curve of `recall_curve` up to each threshold, over the area of a curve without errors.

    It is the figure that SuperGlue (Sarlin et al. 2020) reports for poses and that the field has reported since:
    trapezoids, and an error counts once it is below the threshold.

    Args:
        errors: (N,) at least 0, in any unit. Infinity and NaN are failures, which lower every recall.
        thresholds: (T,) above 0, in the same unit.

    Returns:
        (T,) float64 in [0, 1]; NaN where there are no errors, for nothing was measured.

    Raises:
        InputError: errors below 0, of another shape, or thresholds that are not finite and above 0.
    """
    checked = _checked_errors(errors)
    areas = [_area(checked, _checked_limit(threshold)) for threshold in thresholds]
    return np.array(areas, dtype=np.float64)


def recall_curve(errors: Any, limit: float) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The share of errors that are no larger, as a line from (0, 0) to the last recall below `limit`.

    Recall rises by 1 / N at each error. The line is straight from one error to the next and level after the last.

    Args:
        errors: (N,) at least 0; infinity and NaN are failures.
        limit: above 0, in the unit of the errors.

    Returns:
        error: (K + 2,) float64, K being the number of errors below `limit`: 0, the errors in order, `limit`.
        recall: (K + 2,) float64 in [0, 1], NaN after the first where there are no errors.

    Raises:
        InputError: as `auc`.
    """
    return _curve(_checked_errors(errors), _checked_limit(limit))


def _curve(errors: NDArray[np.float64], limit: float) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    below = errors[: np.searchsorted(errors, limit)]
    recall = np.arange(len(below) + 1) / len(errors) if len(errors) else np.array([np.nan])
    return np.concatenate(([0.0], below, [limit])), np.append(recall, recall[-1])


def _area(errors: NDArray[np.float64], threshold: float) -> float:
    x, y = _curve(errors, threshold)
    return float(((y[1:] + y[:-1]) / 2 * np.diff(x)).sum() / threshold)


def _checked_errors(errors: Any) -> NDArray[np.float64]:
    """The errors in order, NaN as infinity."""
    try:
        array = np.array(errors, dtype=np.float64)
    except (TypeError, ValueError):
        raise InputError(f"The errors are {errors!r:.80}; give numbers.") from None
    if array.ndim != 1:
        raise InputError(f"The errors have the shape {array.shape}; give (N,).")
    if (array < 0).any():
        raise InputError(f"An error is {array.min():g}; errors are at least 0.")
    return np.sort(np.where(np.isnan(array), np.inf, array))


def _checked_limit(threshold: float) -> float:
    if not (is_real(threshold) and threshold > 0):
        raise InputError(f"The threshold is {threshold!r}; give a finite number above 0.")
    return float(threshold)
